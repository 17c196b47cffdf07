"""The parts of a training from scratch: settings, shapes, texts, vocabulary, rows, planted pairs, first values."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from ingle.core.config import from_table, load_config
from ingle.core.errors import ConfigError, NotKept
from ingle.core.spec import LayerSpec
from ingle.home.place import Home
from ingle.measure.data_sets import part_of
from ingle.model.module_parts import READ
from ingle.scratch.first_model import new_module
from ingle.scratch.scratch import EDGES, columns, groups
from ingle.scratch.scratch_settings import (
    ScratchSettings,
    ShapeSettings,
    TextSettings,
    config_of,
    course,
    layers_of,
    memory_parameters_of,
    parameters_of,
)
from ingle.scratch.text_sources import CHOICES, END, Planter, Texts, find_suites, find_vocabulary, kept_vocabulary, make_data, read_texts
from tests.scaling.place import NAMES, THINGS, table, tiny, write_texts


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"layer": 3}}, r"model.layer is not a known key.*Did you mean layers"),
        ({"model": {"heads": 5}}, "model.heads must divide width = 32"),
        ({"model": {"kv_heads": 3}}, "model.kv_heads must divide heads = 4"),
        ({"model": {"retrieval": "some"}}, "must be all, none, a number"),
        ({"model": {"retrieval": 3}}, "must be 1 to 2"),
        ({"model": {"retrieval": 0}}, "must be 1 to 2"),
        ({"model": {"mlp": 8, "parameters": 9}}, "must not both be given"),
        ({"model": {"window": -1}}, "must not be negative"),
        ({"model": {"window": 8}}, "here all do .retrieval all"),
        ({"model": {"retrieval": 1, "memory": "gated_delta"}}, "here all do"),
        ({"model": {"retrieval": 2, "window": 47, "sinks": 1, "memory": "gated_delta"}}, "data.row_tokens must be above .* = 48"),
        ({"model": {"rope_theta": 0.5}}, "model.rope_theta must be above 1"),
        ({"model": {"memory": "lstm"}}, "model.memory must be 'none' or 'gated_delta'"),
        ({"tokenizer": {"size": 100}}, "at least 258"),
        ({"data": {"sources": []}}, "data.sources must be named"),
        ({"data": {"pairs": 1.0}}, "below 1"),
        ({"data": {"held_out": 0.0}}, "above 0"),
        ({"data": {"row_tokens": 129}}, "at most model.context = 128"),
        ({"train": {"batch_tokens": 32}}, "at most train.batch_tokens = 32"),
        ({"train": {"optimiser": {"learning_rate": -1.0}}}, "must be above 0"),
        ({"train": {"optimiser": {"eps": 0.0}}}, "eps must be above 0"),
        ({"train": {"optimiser": {"clip_norm": math.nan}}}, "clip_norm must be float, not nan"),
        ({"train": {"seed": 2**63}}, "seed must be at least 0 and below"),
        ({"train": {"seed": -1}}, "seed must be at least 0 and below"),
        ({"train": {"optimizer": {}}}, "Did you mean optimiser"),
        ({"judge": {"pair_rows": 0}}, "at least 1"),
    ],
)
def test_settings_that_can_not_be_used(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny("x", **changes)


def test_settings_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text('[data]\nsources = ["suite:xsum-bits"]\n[train]\nepochs = 2\noptimiser = { method = "adamw" }\n')
    settings = load_config(ScratchSettings, path, ("model.retrieval=2", "model.window=4", "title=x"))
    assert settings.train.epochs == 2
    assert settings.train.optimiser.method == "adamw"
    assert settings.train.optimiser.learning_rate == 9e-3
    assert (settings.model.retrieval, settings.title) == (2, "x")
    with pytest.raises(ConfigError, match="data is required"):
        from_table(ScratchSettings, {})
    with pytest.raises(ConfigError, match="must be TrainSettings"):
        from_table(ScratchSettings, {"data": {"sources": ["x"]}, "train": 3})


def test_recipes_can_be_read_and_are_matched() -> None:
    folder = Path(__file__).parents[2] / "recipes" / "scratch"
    read = {path.stem: load_config(ScratchSettings, path) for path in sorted(folder.glob("*.toml"))}
    configs = {name: config_of(settings.model, settings.tokenizer.size) for name, settings in read.items()}
    assert configs["transformer"].is_transformer
    assert memory_parameters_of(configs["hybrid"]) > 0
    assert parameters_of(configs["hybrid"]) == pytest.approx(parameters_of(configs["transformer"]), rel=2e-3)
    assert read["hybrid"].data == read["transformer"].data
    assert read["hybrid"].train == read["transformer"].train


def test_what_the_course_depends_on() -> None:
    base = course(tiny("x"))
    assert course(tiny("y")) == base, "where a text lies is nothing to it"
    assert course(tiny("x", judge={"items": 3}, train={"checkpoint_every": 3})) == base
    assert course(tiny("x", train={"seed": 1})) != base
    assert course(tiny("x", model={"mlp": 64})) != base


def test_how_layers_look_back() -> None:
    def made(retrieval: Any, layers: int = 4, **others: Any) -> tuple[LayerSpec, ...]:
        return layers_of(ShapeSettings(layers=layers, width=32, retrieval=retrieval, **others))

    whole = LayerSpec((0, 1))
    rest = LayerSpec((), 8, 2, "gated_delta")
    told = {"window": 8, "sinks": 2, "memory": "gated_delta"}
    assert made("all") == (whole,) * 4
    assert made("none", **told) == (rest,) * 4
    assert made(2, **told) == (rest, whole, rest, whole)
    assert made(4, **told) == (rest, rest, rest, whole)
    assert made(((0, 1), (3, 0), (3, 1)), **told) == (LayerSpec((1,), 8, 2, "gated_delta"), rest, rest, whole)
    with pytest.raises(ConfigError, match="layers below 4 and groups below 2"):
        made(((4, 0),))
    with pytest.raises(ConfigError, match="sinks must be 0 without a window"):
        config_of(ShapeSettings(width=32, retrieval="none", sinks=4, memory="gated_delta"), 300)
    with pytest.raises(ConfigError, match="see nothing"):
        config_of(ShapeSettings(width=32, retrieval="none"), 300)


def test_equal_parameters() -> None:
    shape = ShapeSettings(layers=3, width=64, parameters=200_000)
    for retrieval, memory in (("all", "none"), (3, "gated_delta"), ("none", "gated_delta")):
        near: dict[str, int] = {} if retrieval == "all" else {"window": 8}
        config = config_of(ShapeSettings(layers=3, width=64, parameters=200_000, retrieval=retrieval, memory=memory, **near), 300)
        assert abs(parameters_of(config) - 200_000) <= 3 * 64 * 3 / 2
        counted = sum(parameter.numel() for parameter in new_module(config, 0).parameters())
        assert counted == parameters_of(config)
    with pytest.raises(ConfigError, match="must be at least"):
        config_of(ShapeSettings(layers=3, width=64, parameters=10_000), 300)
    assert config_of(shape, 300) == config_of(shape, 300)


def test_first_values() -> None:
    settings = tiny("x", "hybrid")
    config = config_of(settings.model, 300)
    module, again, other = new_module(config, 1), new_module(config, 1), new_module(config, 2)
    for (name, a), b, c in zip(module.named_parameters(), again.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        if ".memory." in name or a.ndim == 1:
            continue
        assert not torch.equal(a, c)
        spread = 0.02 / math.sqrt(4) if "o_proj" in name or "down_proj" in name else 0.02
        assert float(a.detach().std()) == pytest.approx(spread, rel=0.1), name
    assert torch.all(module.model.norm.weight == 1)
    memory = module.get_submodule("model.layers.0.self_attn.memory")
    assert torch.all(memory.gate.bias == READ)
    assert torch.equal(memory.q_map.weight, torch.eye(8).repeat(2, 1))
    alone = new_module(config_of(tiny("x", "rnn").model, 300), 1)
    assert torch.all(alone.get_submodule("model.layers.0.self_attn.memory").gate.bias == -READ), "there is nothing else to read"
    state = torch.get_rng_state()
    new_module(config, 1)
    assert torch.equal(state, torch.get_rng_state())


def test_texts_are_split_by_document(home: Home, tmp_path: Path, texts: str) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "a.txt").write_text("A text by itself.", "utf-8")
    found = read_texts(home, find_suites([texts, str(tmp_path / "more"), texts], 0.2))
    [suite] = found.suites
    items = suite.read(home, lambda *_: None)
    assert len(found.train) + len(found.held_out) == 81
    assert not set(found.train) & set(found.held_out)
    assert set(found.held_out) == {item.text for item in items if part_of(item.group, 0.2) == "held_out"}
    again = read_texts(home, find_suites([str(tmp_path / "more"), texts], 0.2))
    assert again.digest == found.digest, "in whatever order they are named"
    assert again.train == found.train
    fewer = read_texts(home, find_suites([texts], 0.2))
    assert fewer.digest != found.digest


def test_what_is_held_out_somewhere_is_learnt_nowhere(home: Home, texts: str) -> None:
    from dataclasses import replace

    [suite] = find_suites([texts], 0.2)
    other = replace(suite, name="other", held_out=0.6)
    found = read_texts(home, [suite, other])
    alone = read_texts(home, [other])
    assert set(found.held_out) == set(alone.held_out)
    assert set(found.train) == set(alone.train)


def test_sources_that_can_not_be_used(home: Home, tmp_path: Path, texts: str) -> None:
    with pytest.raises(ConfigError, match="is not there"):
        find_suites([str(tmp_path / "nothing.txt")], 0.1)
    with pytest.raises(NotKept, match="Did you mean xsum"):
        find_suites(["suite:xsun"], 0.1)
    with pytest.raises(ConfigError, match=r"must be a suite of texts.*There are: .*debian-bits"):
        find_suites(["suite:sst2"], 0.1)
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"prompt": "a", "completion": "b"}\n', "utf-8")
    with pytest.raises(ConfigError, match="must be a text to learn a language from"):
        read_texts(home, find_suites([str(pairs)], 0.1))
    one = tmp_path / "one.txt"
    one.write_text("Only one.", "utf-8")
    with pytest.raises(ConfigError, match="must hold texts to"):
        read_texts(home, find_suites([str(one)], 0.1))


def test_a_vocabulary_spells_everything_and_is_found_again(home: Home, texts: str, tmp_path: Path) -> None:
    found = read_texts(home, find_suites([texts], 0.2))
    first, second = (find_vocabulary(found.train, 320) for _ in range(2))
    assert first.fast.to_str() == second.fast.to_str()
    assert first.vocab_size == 320
    for text in ("anna buys the apple.", "Ärger\n\t☃ <|endoftext|>", "\0"):
        ids = first.encode(text)
        assert b"".join(map(first.token_bytes, ids)) == text.encode()
        assert first.control[END] not in ids
    assert first.encode_prompt("a")[0] == first.bos_id == first.control[END]
    kept = kept_vocabulary(tmp_path / "v", found.train, 320)
    assert kept.fast.to_str() == kept_vocabulary(tmp_path / "v", ["something else"], 320).fast.to_str() == first.fast.to_str()
    with pytest.raises(ConfigError, match="that the text has use for"):
        find_vocabulary(["a b a b"], 400)


def test_held_out_words_are_not_in_the_vocabulary() -> None:
    texts = Texts(("the cat sat. " * 40,), ("zyxwvut zyxwvut zyxwvut. " * 40,), (), "")
    tokenizer = find_vocabulary(texts.train, 262)
    assert len(tokenizer.encode("zyxwvut")) == 7


def test_rows(home: Home, texts: str) -> None:
    found = read_texts(home, find_suites([texts], 0.2))
    tokenizer = find_vocabulary(found.train, 300)
    told = TextSettings((texts,), row_tokens=48)
    data = make_data(found, tokenizer, told)
    sizes = data.corpus.sizes
    assert all(size == 48 for size in sizes[list(data.train)])
    rows = [data.corpus.document(i) for i in data.train]
    begin = tokenizer.bos_id
    assert all(row.ids[0] == begin for row in rows), "as a model that is served reads"
    begins = [bool(row.answer[1]) for row in rows]
    assert True in begins
    assert False in begins
    stream = [token for row, whole in zip(rows, begins, strict=True) for token in row.ids[0 if whole else 1 :].tolist()]
    everything = [token for text in found.train for token in tokenizer.encode_prompt(text)]
    assert stream == everything[: len(stream)]
    assert len(everything) - len(stream) < 48
    assert int(data.corpus.answer.sum()) == len(data.corpus.ids) - len(data.corpus) - begins.count(False)
    spoken = tokenizer.decode(stream)
    assert not any(text in spoken for text in found.held_out)
    watched = [tokenizer.decode(data.corpus.document(i).ids) for i in data.held_out]
    assert all(text.startswith(seen) for seen, text in zip(watched, found.held_out, strict=False))
    few = make_data(found, tokenizer, TextSettings((texts,), row_tokens=48, max_tokens=100))
    assert len(few.train) == 2
    with pytest.raises(ConfigError, match="at least a row"):
        make_data(found, tokenizer, TextSettings((texts,), row_tokens=48, max_tokens=20))
    assert make_data(found, tokenizer, told).corpus.digest == data.corpus.digest != few.corpus.digest


def test_the_recipes_are_twins() -> None:
    folder = Path(__file__).parents[2] / "recipes" / "scratch"
    transformer, hybrid = (load_config(ScratchSettings, folder / f"{side}.toml") for side in ("transformer", "hybrid"))
    assert (transformer.data, transformer.tokenizer, transformer.train) == (hybrid.data, hybrid.tokenizer, hybrid.train)
    first, second = (config_of(one.model, one.tokenizer.size) for one in (transformer, hybrid))
    assert parameters_of(first) == pytest.approx(parameters_of(second), rel=1e-3)
    assert not memory_parameters_of(first)
    assert memory_parameters_of(second)


@pytest.fixture(scope="module")
def planter() -> Planter:
    words = [f"{a}{b}" for a in NAMES for b in THINGS]
    texts = [" ".join(words[i:] + words[:i]) for i in range(0, 120, 3)]
    return Planter(find_vocabulary(texts, 500), ["1 2 3 4 5 6 7 8 9 " * 9], 128)


def test_rows_of_pairs_begin_as_others_do_and_say_nothing_of_how_texts_begin() -> None:
    words = [f"{a}{b}" for a in NAMES for b in THINGS]
    texts = tuple(" ".join(words[i:] + words[:i]) for i in range(0, 120, 3))
    tokenizer = find_vocabulary(texts, 500)
    data = make_data(Texts(texts, texts[:2], (), "these"), tokenizer, TextSettings(("these",), row_tokens=128, pairs=0.5))
    rows = [data.corpus.document(i) for i in data.train]
    planted = rows[len(rows) // 2 :]
    assert len(planted) > 5
    assert all(row.ids[0] == tokenizer.bos_id for row in rows)
    assert all(row.answer[:2].tolist() == [False, False] and row.answer[2:].all() for row in planted)
    assert all(row.ids[1:2].tolist() == tokenizer.encode("\n") for row in planted)


def test_planted_pairs(planter: Planter) -> None:
    values = {value for choices in planter.values.values() for value in choices}
    assert len(values) == CHOICES * len(planter.values), "no value is of two keys"
    assert not set(planter.values) & values
    drawn: set[tuple[int, int]] = set()
    for number in range(60):
        row = planter.row(str(number))
        assert row == planter.row(str(number))
        assert 100 < len(row.ids) <= 128
        before: dict[int, int] = {}
        asked = {one.at: one.distance for one in row.asked}
        for at in range(3, len(row.ids)):
            if row.ids[at] not in values or row.ids[at - 1] not in planter.values or row.ids[at - 2] != planter._line:
                continue
            key, value = row.ids[at - 1], row.ids[at]
            assert value in planter.values[key]
            assert ((at - before[key]) if key in before else None) == asked.pop(at, None)
            if key in before:
                assert row.ids[before[key]] == value, "a key has one value in a row"
            before[key] = at
            drawn.add((key, value))
        assert not asked
    assert len(drawn) > 0.8 * len(values), "each row draws its own"
    rows = [planter.row(str(number)) for number in range(60)]
    distances = [one.distance for row in rows for one in row.asked]
    assert len(distances) > 60 * 8
    assert sum(distance > 32 for distance in distances) > len(distances) / 8


def test_pairs_are_counted_by_distance(planter: Planter) -> None:
    rows = [planter.row(str(number)) for number in range(20)]
    hits = [[one.distance <= 64 for one in row.asked] for row in rows]
    counted = {name: columns(rows, hits, low, high).sum(axis=0).tolist() for name, low, high in groups()}
    right, all_ = counted["recalled"]
    assert all_ == sum(len(row.asked) for row in rows)
    assert sum(count for name, (_, count) in counted.items() if name != "recalled") == all_
    assert counted["recalled_to_64"] == [right, right]
    assert counted["recalled_to_128"][0] == 0
    assert len(counted) == len(EDGES) + 2


def test_a_vocabulary_without_words_has_no_pairs() -> None:
    with pytest.raises(ConfigError, match="needs a vocabulary with 36 words"):
        Planter(find_vocabulary(["the cat sat. " * 40], 260), ["x"], 64)


def test_tables_of_tests_are_settings(tmp_path: Path) -> None:
    assert isinstance(from_table(ScratchSettings, table(write_texts(tmp_path / "t.jsonl"), "rnn")), ScratchSettings)
