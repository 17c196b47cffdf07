"""The parts of a hybrid that can be switched off, and what an answer loses without them."""

import random
from dataclasses import replace
from pathlib import Path

import pytest

from ingle.app.bringing import bring
from ingle.cli.progress import Lines
from ingle.core.errors import ConfigError
from ingle.core.spec import LayerSpec
from ingle.engine.language_model import LanguageModel
from ingle.engine.loading import open_model
from ingle.engine.packs import kept_source
from ingle.engine.scoring import score
from ingle.engine.windowed import remembering_groups, retrieval_groups
from ingle.explain.groups import parts_of
from ingle.home.place import Home
from ingle.home.pull import pull
from ingle.measure.suites import make_fact
from tests.engine.test_answer import byte_tokenizer
from tests.engine.tiny import backend_of, random_checkpoint, tiny_config

LAYERS = (LayerSpec((1,), 9, 3, "gated_delta"), LayerSpec((0, 1)), LayerSpec((), 5, 0, "gated_delta"), LayerSpec((), 7, 1, "gated_delta"))


def model_of(folder: Path, layers: tuple[LayerSpec, ...]) -> LanguageModel:
    return LanguageModel("tiny", backend_of(folder, random_checkpoint(tiny_config(layers=layers))), byte_tokenizer())


def test_each_part_is_a_model_without_it(tmp_path: Path) -> None:
    model = model_of(tmp_path, LAYERS)
    whole = model.backend.config
    retrieval, recurrent, first, second = parts_of(model, draws=2)
    assert [part.kind for part in (retrieval, recurrent, first, second)] == ["retrieval", "recurrent", "groups", "groups"]
    assert (retrieval.id, recurrent.id) == ("0.1, 1.0, 1.1", "all")
    assert not retrieval_groups(retrieval.model.backend.config)
    assert remembering_groups(retrieval.model.backend.config) == remembering_groups(whole)
    assert not remembering_groups(recurrent.model.backend.config)
    assert retrieval_groups(recurrent.model.backend.config) == retrieval_groups(whole)
    assert first.groups != second.groups
    for part in (first, second):
        config = part.model.backend.config
        assert len(part.groups) == 3
        assert retrieval_groups(config) == retrieval_groups(whole)
        assert {*remembering_groups(config), *part.groups} == {*remembering_groups(whole)}
        assert not {*remembering_groups(config)} & {*part.groups}
    assert len({part.model.digest for part in (retrieval, recurrent, first, second)} | {model.digest}) == 5


def test_the_same_seed_draws_the_same_groups(tmp_path: Path) -> None:
    model = model_of(tmp_path, LAYERS)
    drawn = [[part.groups for part in parts_of(model, 5, seed)] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]


def test_a_part_that_a_model_lacks_is_not_offered(tmp_path: Path) -> None:
    windows = model_of(tmp_path / "w", tuple(replace(spec, memory="none") for spec in LAYERS))
    assert [part.kind for part in parts_of(windows)] == ["retrieval"]
    recurrent = model_of(tmp_path / "r", LAYERS[2:])
    assert [part.kind for part in parts_of(recurrent)] == ["recurrent"]


def test_a_transformer_has_no_part_to_switch_off(tmp_path: Path) -> None:
    model = model_of(tmp_path, (LayerSpec((0, 1)),) * 2)
    with pytest.raises(ConfigError, match="tiny is no hybrid: all its groups see the whole text") as error:
        parts_of(model)
    assert "ingle make hybridize" in str(error.value)


@pytest.fixture(scope="module")
def hybrid(tmp_path_factory: pytest.TempPathFactory, smollm2_gguf: Path) -> LanguageModel:
    home = Home(tmp_path_factory.mktemp("hybrid") / "home")
    pull(home, str(smollm2_gguf), lambda _folder: None, "smollm2")
    return open_model(kept_source(home, bring(home, "smollm2-hybrid", Lines()).kept))


def far_fact(model: LanguageModel, kind: str, words: int) -> tuple[list[int], list[int]]:
    """A fact, so many made-up words of report behind it, and its answer; 120 words before, which all groups always see."""
    draw, fact = random.Random(7), make_fact(kind, random.Random(3))
    names = ("council", "river", "farmers", "school", "harbour", "museum", "weather", "market", "station", "library")
    acts = ("reported", "opened", "closed", "repaired", "visited", "measured", "painted", "discussed", "counted", "moved")

    def report(count: int) -> str:
        lines = (
            f"The {draw.choice(names)} {draw.choice(acts)} the {draw.choice(names)} near the {draw.choice(names)}."
            for _ in range(count // 8)
        )
        return " ".join(lines)

    encode = model.tokenizer.encode
    question = encode(f"\n\n{fact.asked}")
    answer = encode(f"\n\n{fact.asked} {fact.answer}")[len(question) :]
    return encode(f"{report(120)} {fact.said} {report(words)}") + question, answer


@pytest.mark.parametrize("kind", ["number", "name"])
def test_a_fact_far_back_comes_by_the_retrieval_groups(hybrid: LanguageModel, kind: str) -> None:
    given, answer = far_fact(hybrid, kind, 640)
    assert len(given) > 120 + 480 + 60
    models = {"whole": hybrid} | {part.kind: part.model for part in parts_of(hybrid)}
    nats = {name: sum(next(iter(score(model.backend, [(given, (answer,))])))[1][0]) for name, model in models.items()}
    fall = {name: nats["whole"] - value for name, value in nats.items()}
    assert nats["whole"] > -3
    assert fall["retrieval"] > 8
    assert abs(fall["groups"]) < 1 < fall["retrieval"] / 3
    assert fall["recurrent"] < fall["retrieval"] / 3


def test_a_fact_within_a_window_comes_by_none_of_them(hybrid: LanguageModel) -> None:
    given, answer = far_fact(hybrid, "number", 160)
    assert len(given) + len(answer) < 480
    models = [hybrid, *(part.model for part in parts_of(hybrid))]
    whole, *others = [next(iter(score(model.backend, [(given, (answer,))])))[1][0].tolist() for model in models]
    assert others == [whole] * 3
