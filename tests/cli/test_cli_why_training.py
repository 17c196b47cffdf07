"""`ingle why --what training`: what is shown of the examples that taught an answer, and what it claims."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from ingle.app.settings import Settings
from ingle.cli.why_training import _event, training_table
from ingle.core.errors import ConfigError
from ingle.core.message import Request
from ingle.engine.loading import open_model
from ingle.engine.packs import kept_source
from ingle.explain.cause import Said
from ingle.home.place import Home
from ingle.tuning.influence import traced
from tests.tuning.conftest import tiny_files, tiny_home
from tests.tuning.place import kept, small, tuned, write_examples

__all__ = ["tiny_files", "tiny_home"]


def test_alike_claims_nothing_and_a_proof_gives_its_figures(
    tiny_home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    done = tuned(tiny_home, write_examples(tmp_path / "data.jsonl"), small(train={"epochs": 3}))
    examples = traced(tiny_home, done.kept).examples
    document = examples.corpus.document(examples.train[3])
    prompt, answer = document.ids[: int(document.answer.argmax())].tolist(), document.ids[document.answer].tolist()
    model = open_model(kept_source(tiny_home, done.kept))
    said = Said(model, Request(prompt=tuple(prompt)), tuple(answer), ("it",))
    asked = SimpleNamespace(row=SimpleNamespace(values={}), turn=SimpleNamespace(owner=""), kept=done.kept)
    lines = list[str]()
    table, found = training_table(tiny_home, None, Settings(), asked, said, 3, False, lines.append)  # type: ignore[arg-type]
    assert found and table["proved"] is False
    assert not any("rise" in cause for cause in table["examples"]["causes"]), "likeness claims no effect"
    assert len(lines) == 3 and all(line.startswith("looks alike (") for line in lines)
    assert f"example {examples.train[3]} ({tmp_path / 'data.jsonl'}, line " in lines[0]
    assert "not shown to be the cause" in capsys.readouterr().err
    lines.clear()
    table, found = training_table(tiny_home, None, Settings(), asked, said, 3, True, lines.append)  # type: ignore[arg-type]
    assert table["proved"] is True
    figures = table["examples"]
    rise, chance = (figures[name] for name in ("without_top", "without_random"))
    assert found == (rise - figures["whole"] >= 0.5 and rise > max(chance))
    assert any("Nothing here stands out" in line for line in lines) != found
    assert f"{figures['without_top']:.2f} without these" in capsys.readouterr().err
    answered = SimpleNamespace(row=SimpleNamespace(seq=17, subject="tiny+x"), turn=SimpleNamespace(owner="key-1"))
    event = _event(answered, table, 3.21)  # type: ignore[arg-type]
    assert event is not None and (event.kind, event.facts["seq_of"], event.facts["examples"]) == ("explain", 17, 3)
    named = " ".join(str(cause["example"]) for cause in figures["causes"])
    assert str(event.facts["causes"]).startswith(f"examples {named} {rise - figures['whole']:.3f} (by chance ")
    assert _event(answered, {**table, "proved": False}, 3.21) is None, "what only looks alike is no fact"  # type: ignore[arg-type]
    bare = SimpleNamespace(row=SimpleNamespace(values={}), turn=SimpleNamespace(owner=""), kept=kept(tiny_home))
    with pytest.raises(ConfigError, match="was not tuned here"):
        training_table(tiny_home, None, Settings(), bare, said, 3, False, lines.append)  # type: ignore[arg-type]
