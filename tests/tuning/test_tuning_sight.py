"""Learning to see: pictures with captions, heads in closed form, the projector, and the whole run on a tiny model with a random eye."""

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from ingle.core.config import from_table
from ingle.core.errors import ConfigError, NotKept
from ingle.core.media import Picture
from ingle.engine.loading import Opener
from ingle.engine.packs import checkpoint_tokenizer, kept_source, open_weights
from ingle.gate.check import load_policy
from ingle.gate.checks.looks import COLOURS, FORMS, drawn
from ingle.gate.decide import admit
from ingle.home.deltas import delta_tensors
from ingle.home.kept import get_kept
from ingle.home.place import Home
from ingle.media.picture import png_of, read_picture
from ingle.media.sight import Heads, ProjectedSight
from ingle.model.module import load_module
from ingle.train.corpus import corpus_of
from ingle.train.packing import make_batch
from ingle.tuning.sight_learning import PictureAnswers, Projector, SightSettings, ask, attach, f1, plain, tune_sight
from ingle.tuning.sight_pictures import (
    NAME,
    ShownPicture,
    asked,
    document_of,
    fit,
    from_folder,
    kind_of,
    names_of,
    parting,
    questions_of,
    words_of,
)
from tests.media.eye import give_eye
from tests.tuning.place import admitting

SMALL: dict[str, Any] = {
    "width": 8, "inner": 6, "places": 2, "measured": 0, "held_out": 0.0, "train": {"epochs": 2, "batch_tokens": 512},
}  # fmt: skip


def photographs(folder: Path) -> Path:
    """Twelve drawn pictures with captions beside them."""
    folder.mkdir()
    for form, colour in product(FORMS, COLOURS):
        (folder / f"{form} {colour}.png").write_bytes(png_of(Picture(drawn(form, COLOURS[colour]))))
        (folder / f"{form} {colour}.txt").write_text(f"a {colour} {form}\n")
    return folder


@pytest.fixture
def eyed_home(tiny_home: Home, tmp_path: Path) -> Home:
    give_eye(tiny_home, tmp_path / "eye")
    return tiny_home


def test_it_learns_to_see_and_leaves_words_alone(eyed_home: Home, tmp_path: Path) -> None:
    home, folder = eyed_home, photographs(tmp_path / "photographs")
    tiny, settings = get_kept(home, "tiny"), from_table(SightSettings, SMALL)
    events: list[Any] = []
    made = tune_sight(folder, home, tiny, "sight", settings, admitting(home), sink=events.append)
    assert made.delta.kind == "sight"
    assert made.delta.origin["eye"] == "efficientnet-lite0"
    assert [event.kind for event in events] == ["sight"]
    assert made.report["pictures"] == 12
    assert kept_source(home, made.kept).digest == kept_source(home, tiny).digest, "its weights are the model's own"
    model = Opener()(home, made.kept)
    first, second = (ask(png_of(Picture(drawn("disc", COLOURS[colour]))), NAME) for colour in ("red", "blue"))
    vocabulary = model.backend.config.vocab_size
    beyond = [[id_ for id_ in model.encode(request) if id_ >= vocabulary] for request in (first, second)]
    assert [len(ids) for ids in beyond] == [2, 2]
    assert not set(beyond[0]) & set(beyond[1])
    again = tune_sight(folder, home, tiny, "sight", settings, admitting(home))
    assert again.delta.digest == made.delta.digest
    (folder / "disc red.txt").write_text("something else")
    with pytest.raises(ConfigError, match="Another delta of this model is called sight"):
        tune_sight(folder, home, tiny, "sight", settings, admitting(home))


def test_what_is_served_is_what_was_trained(eyed_home: Home, tmp_path: Path) -> None:
    """The vectors of the served sight are the projector's, but for eight bits a weight."""
    home, tiny = eyed_home, get_kept(eyed_home, "tiny")
    made = tune_sight(photographs(tmp_path / "p"), home, tiny, "x", from_table(SightSettings, SMALL), admitting(home))
    tensors = delta_tensors(home, made.delta)
    heads = Heads(tensors)
    projector = Projector(heads.reduce.shape[0], len(heads.inner), heads.places, heads.hidden, 0)
    with torch.no_grad():
        projector.inner.copy_(torch.from_numpy(heads.inner))
        projector.inner_bias.copy_(torch.from_numpy(heads.inner_bias))
        projector.outer.copy_(torch.from_numpy(heads.outer))
        z = np.random.default_rng(0).standard_normal(heads.reduce.shape[0]).astype(np.float32)
        expected = projector(torch.from_numpy(z)).numpy()
    np.testing.assert_allclose(heads.vectors(z), expected, atol=1e-5 * np.abs(expected).max())
    vectors, line = ProjectedSight(home, made.delta, tensors).see(Picture(drawn("disc", COLOURS["red"])))
    assert isinstance(line, str)
    assert "red disc" in line.partition(";")[0], "a picture that was learnt looks like itself, even to a random eye"
    assert "colours: red" in line
    assert isinstance(vectors, np.ndarray)
    assert vectors.shape == (2, heads.hidden)


def test_the_gate_asks_whether_it_looks(eyed_home: Home, tmp_path: Path) -> None:
    home, tiny = eyed_home, get_kept(eyed_home, "tiny")
    seen: list[Any] = []

    def judged(candidate: Any, _stopped: Any) -> Any:
        for least in (0.0, 1.0):
            policy = load_policy(home, ["bits.on=false", "safety.on=false", f"looks.least_changed={least}"])
            seen.append(admit(home, tiny, candidate, "sight", policy, force=True))
        return seen[-1].delta

    tune_sight(photographs(tmp_path / "p"), home, tiny, "x", from_table(SightSettings, SMALL), judged)
    for decision in seen:
        [finding] = [one for one in decision.findings if one.check == "looks"]
        assert "of 36 answers change with the picture" in finding.reason
        assert finding.passed == (finding.reports[0].value >= finding.limits["least_changed"])


def test_without_an_eye_the_command_is_named(tiny_home: Home, tmp_path: Path) -> None:
    with pytest.raises(NotKept, match="ingle pull sight"):
        tune_sight(photographs(tmp_path / "p"), tiny_home, get_kept(tiny_home, "tiny"), "x", SightSettings(), admitting(tiny_home))


def test_a_folder_tells_its_captions_in_three_ways(tmp_path: Path) -> None:
    folder = photographs(tmp_path / "p")
    shown = from_folder(folder)
    assert len(shown) == 12
    assert {one.name for one in shown if "disc" in one.name} == {f"a {colour} disc" for colour in COLOURS}
    assert shown[0].tags == words_of(shown[0].name)
    files = sorted(path.name for path in folder.glob("*.png"))
    (folder / "captions.csv").write_text("file,caption\n" + "".join(f"{name},by table\n" for name in files[:2]))
    (folder / "more.jsonl").write_text(json.dumps({"file": files[2], "caption": "by line"}) + "\n")
    names = [one.name for one in from_folder(folder)]
    assert names.count("by table") == 2
    assert names.count("by line") == 1
    for name, text, problem in (
        ("a.csv", "file,text\nx,y\n", "must have file and caption"), ("a.jsonl", "{no\n", "must hold a JSON object a line"),
        ("a.csv", "file,caption\nnone.png,y\n", "must name a picture of this folder"),
    ):  # fmt: skip
        (folder / name).write_text(text)
        with pytest.raises(ConfigError, match=problem):
            from_folder(folder)
        (folder / name).unlink()
    for name in files[:6]:
        (folder / name).unlink()
    for table in ("captions.csv", "more.jsonl"):
        (folder / table).unlink()
    with pytest.raises(ConfigError, match="at least eight pictures with captions, not 6"):
        from_folder(folder)
    with pytest.raises(ConfigError, match="must be a folder"):
        from_folder(folder / "none")


def test_heads_find_names_whose_pictures_have_a_direction_of_their_own() -> None:
    draw = np.random.default_rng(0)
    where = draw.standard_normal((5, 60))
    pictures = [ShownPicture(b"", f"name {i % 5}", (f"tag{i % 5}",), group=str(i // 20)) for i in range(60)]
    numbers = np.stack([where[i % 5] + 0.7 * draw.standard_normal((2, 60)) for i in range(60)]).astype(np.float16)
    heads, words = fit(numbers, pictures, 4, 1.0, lambda: None, lambda _a, _b: None)
    fresh = np.stack([where[i % 5] + 0.7 * draw.standard_normal(60) for i in range(50)])
    assert [heads.said(z)[0][0] for z in heads.reduced(fresh)] == [f"name {i % 5}" for i in range(50)]
    right = sum(said[0][0][0] == one.name for said, one in zip(words, pictures, strict=True))
    assert right >= 57, "also where the picture's own group was left out"
    assert 0 < heads.likeness < 1
    names, tags, labels = names_of(pictures)
    assert (names[2], tags[2], labels[7]) == ("name 2", ("tag2",), 2)


def test_the_threshold_of_likeness_makes_the_fewest_errors() -> None:
    assert parting(np.array([0.6, 0.8, 0.9]), np.array([0.1, 0.5])) == 0.6
    assert parting(np.array([0.2, 0.8, 0.9]), np.array([0.1, 0.5, 0.6])) == 0.8
    assert parting(np.zeros(0), np.zeros(0)) == 0.9


def test_a_shared_beginning_changes_no_loss(tiny_home: Home) -> None:
    checkpoint = open_weights(tiny_home, get_kept(tiny_home, "tiny"))
    tokenizer = checkpoint_tokenizer(checkpoint, tiny_home.base_folder(get_kept(tiny_home, "tiny").base))
    module, vocabulary = load_module(checkpoint), checkpoint.config.vocab_size
    projector = Projector(8, 4, 3, checkpoint.config.hidden_size, 0)
    z = torch.randn(4, 8, generator=torch.Generator().manual_seed(1))
    projector.begin(z.numpy(), np.random.default_rng(0).standard_normal((4, 3 * checkpoint.config.hidden_size)).astype(np.float32))
    parameters = attach(module, projector, z, 0.0)
    documents = [document_of(tokenizer, vocabulary, i, 3, f" (line {i})\n", asked(tokenizer, NAME), f"answer {i}") for i in range(4)]
    corpus = corpus_of("answers", [(str(i), -1, (document,)) for i, document in enumerate(documents)])
    loss = PictureAnswers(corpus)(module, lambda: torch.zeros(0), make_batch(corpus, [0, 1, 2, 3]))
    loss.total.backward()  # type: ignore[no-untyped-call]
    got = {name: parameter.grad.clone() for name, parameter in parameters.items() if parameter.grad is not None}
    total = torch.zeros(())
    for parameter in parameters.values():
        parameter.grad = None
    for document in documents:
        ids = torch.from_numpy(document.ids.astype(np.int64))
        logits = module.logits(module.hidden(ids[None]))[0]
        learnt = torch.from_numpy(np.flatnonzero(document.answer))
        total = total + functional.cross_entropy(logits[learnt - 1], ids[learnt], reduction="sum")
    total.backward()  # type: ignore[no-untyped-call]
    assert loss.terms == sum(int(document.answer.sum()) for document in documents)
    torch.testing.assert_close(loss.total, total, rtol=1e-4, atol=1e-4)
    assert set(got) == set(parameters)
    for name, parameter in parameters.items():
        assert parameter.grad is not None
        torch.testing.assert_close(got[name], parameter.grad, rtol=1e-3, atol=1e-4)


def test_questions_and_their_answers() -> None:
    one = ShownPicture(b"", "red apple", ("fruit", "food"), "food or drink")
    found = questions_of(one, ("red", "green"), 5, np.random.default_rng(0))
    said = dict(found)
    assert len(found) == 5
    assert found[0][1] in ("red apple", "The picture shows: red apple.")
    assert {"It is food or drink.", "It is red and green.", "red, apple, fruit, food"} <= set(said.values())
    assert questions_of(ShownPicture(b"", "x"), (), 1, np.random.default_rng(1))[0][1] in ("x", "The picture shows: x.")


def test_words_names_and_sorts() -> None:
    assert words_of("A man, and the Big-dog 2!") == ("man", "big", "dog")
    assert plain("  The Red apple. ") == "red apple" == plain("The picture shows: a red apple.")
    assert plain("The picture shows: sake, hourglass.") == "sake, hourglass"
    assert f1(["a", "b"], ["b", "c"]) == 0.5
    assert f1([], ["b"]) == 0
    assert [kind_of("animal-bird"), kind_of("tools"), kind_of("people", "clothing"), kind_of("geometric")] == [
        "an animal", "a tool", "something to wear", "a symbol",
    ]  # fmt: skip


def test_settings_that_can_not_be_used_are_refused() -> None:
    for name, value in (("places", 0), ("width", 2), ("held_out", 0.9), ("ridge", 0.0), ("noise", -1.0), ("seed", -1)):
        with pytest.raises(ConfigError):
            from_table(SightSettings, {name: value})


def test_a_damaged_picture_is_left_out(eyed_home: Home, tmp_path: Path) -> None:
    folder = photographs(tmp_path / "p")
    (folder / "disc red.png").write_bytes(b"no picture")
    with pytest.raises(Exception, match="no picture that can be read"):
        read_picture(b"no picture")
    said: list[str] = []
    from ingle.train.making import RunWatch

    tiny = get_kept(eyed_home, "tiny")
    made = tune_sight(folder, eyed_home, tiny, "x", from_table(SightSettings, SMALL), admitting(eyed_home), RunWatch(say=said.append))
    assert made.report["pictures"] == 11
    assert any("1 of 12 pictures can't be read" in text for text in said)
