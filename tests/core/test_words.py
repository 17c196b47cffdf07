"""The words refuse what makes no sense, and settings refuse what they don't know."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from ingle.core.config import assignments, from_table, load_config, overrides_of, read_table, to_table
from ingle.core.delta import Delta, TensorEntry
from ingle.core.errors import ConfigError, DeltaError, HomeError, IngleError, RequestError
from ingle.core.files import atomic_file, write_atomic
from ingle.core.message import Message, Request, Sampling
from ingle.core.spec import LayerSpec, ModelConfig, Rope, transformer_layers


def config(**changes: object) -> ModelConfig:
    base: dict[str, object] = {
        "family": "llama", "vocab_size": 10, "hidden_size": 8, "intermediate_size": 16, "num_heads": 4, "num_kv_heads": 2,
        "head_dim": 4, "layers": transformer_layers(2, 2), "context_length": 64,
    }  # fmt: skip
    return ModelConfig(**{**base, **changes})  # type: ignore[arg-type]


def test_a_config_survives_its_table() -> None:
    layers = (LayerSpec((0,), window=64, sinks=4), LayerSpec((), window=0, memory="gated_delta"))
    made = config(layers=layers, rope=Rope(kind="llama3", factor=8.0))
    assert from_table(ModelConfig, to_table(made)) == made
    assert not made.is_transformer
    assert config().is_transformer


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"num_kv_heads": 3}, "num_kv_heads"),
        ({"head_dim": 3}, "head_dim"),
        ({"layers": ()}, "layers"),
        ({"vocab_size": 0}, "vocab_size"),
        ({"layers": (LayerSpec((1, 0)),)}, "retrieval"),
        ({"layers": (LayerSpec((2,), window=4),)}, "retrieval"),
        ({"layers": (LayerSpec((0,), window=0),)}, "window"),
        ({"layers": (LayerSpec((0,), window=-1),)}, "window"),
    ],
)
def test_impossible_configs_are_refused(changes: dict[str, object], field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        config(**changes)


@dataclass(frozen=True)
class Inner:
    rate: float = 0.5
    count: int = 3


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner = Inner()
    where: Path | None = None
    pair: tuple[int, ...] = ()
    other: Inner | None = Inner(0.1, 7)


def test_settings_from_toml_and_overrides(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text('name = "a"\npair = [1, 2]\n[inner]\nrate = 1\n')
    assert load_config(Outer, path) == Outer("a", Inner(1.0), None, (1, 2))
    assert load_config(Outer, path, ["inner.rate=2.5", "name=b", "where=x/y"]) == Outer("b", Inner(2.5), Path("x/y"), (1, 2))
    options = assignments({"name": 'a "b"', "inner.rate": 0.5, "where": None}, ["inner.rate=2.5"])
    assert load_config(Outer, path, options) == Outer('a "b"', Inner(2.5), None, (1, 2)), "the later one holds"
    said = overrides_of(read_table(path, options))
    assert said == ['name="a \\"b\\""', "pair=[1, 2]", "inner.rate=2.5"], "what a command says of itself needs no file"
    assert load_config(Outer, None, said) == load_config(Outer, path, options)


def test_where_a_table_says_nothing_the_default_of_its_field_holds() -> None:
    assert load_config(Outer, None, ["name=a", "other.rate=2.5"]).other == Inner(2.5, 7)
    assert load_config(Outer, None, ["name=a", "inner.rate=2.5"]).inner == Inner(2.5, 3)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("inner.rte=1", "Did you mean rate"),
        ("nothing=1", "not a known key"),
        ("inner.rate=fast", "must be float"),
        ("name=3", "must be str"),
        ("pair=[1.5]", "pair"),
        ("name.x=1", "is a value"),
        ("=1", "--set"),
    ],
)
def test_wrong_settings_say_what_was_expected(tmp_path: Path, override: str, message: str) -> None:
    path = tmp_path / "c.toml"
    path.write_text('name = "a"\n')
    with pytest.raises(ConfigError, match=message):
        load_config(Outer, path, [override])


def test_missing_key_and_broken_toml(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="required"):
        load_config(Outer, None)
    (tmp_path / "c.toml").write_text("name = ")
    with pytest.raises(ConfigError, match="valid TOML"):
        load_config(Outer, tmp_path / "c.toml")


@pytest.mark.parametrize("bad", [{"temperature": float("nan")}, {"top_p": 1.5}, {"seed": -1}, {"logit_bias": ((3, 101.0),)}])
def test_impossible_sampling_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(RequestError, match=next(iter(bad))):
        Sampling(**bad)  # type: ignore[arg-type]


def test_requests() -> None:
    message = Message.of("user", "hello")
    assert message.text == "hello"
    with pytest.raises(RequestError, match="either messages or a prompt"):
        Request()
    with pytest.raises(RequestError, match="either messages or a prompt"):
        Request(messages=(message,), prompt="x")
    with pytest.raises(RequestError, match="stop"):
        Request(prompt="x", stop=("",))
    with pytest.raises(RequestError, match="role"):
        Message.of("robot", "x")  # type: ignore[arg-type]


def test_a_delta_knows_its_base() -> None:
    delta = Delta("d", "lora", "a" * 64, {"w": TensorEntry((2, 3), "F32", "0" * 64)})
    assert delta.digest != Delta("d", "lora", "b" * 64, delta.tensors).digest
    delta.check_base("a" * 64)
    with pytest.raises(DeltaError, match="made for base"):
        delta.check_base("c" * 64)


def test_errors_read_as_sentences() -> None:
    said = [
        (IngleError("temperature", "must be between 0 and 2", 900), "temperature must be between 0 and 2, not 900"),
        (IngleError("--name", "must be given", "nothing", "For example --name mine."), "--name must be given. For example --name mine."),
        (IngleError("config.toml", "must be valid TOML", "Expected '='"), "config.toml must be valid TOML: Expected '='"),
        (IngleError("key", "must hold 64 hex digits", "63 characters"), "key must hold 64 hex digits, not 63 characters"),
        (IngleError("model x", "is not kept", "", "Kept here: y."), "model x is not kept. Kept here: y."),
        (IngleError("delta x", "is part of other models", "a, b"), "delta x is part of other models (a, b)"),
        (IngleError("serve.port", "Port 80 is in use", "", "Choose another."), "Port 80 is in use. Choose another."),
    ]
    for error, words in said:
        assert str(error) == words
    assert said[-1][0].field == "serve.port", "programs are told of the field all the same"


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "f"
    write_atomic(path, b"old")
    with pytest.raises(ValueError, match="halfway"), atomic_file(path) as file:
        file.write(b"new")
        raise ValueError("halfway")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]
    with pytest.raises(HomeError, match="must be readable and writable"):
        write_atomic(path / "below-a-file", b"")
