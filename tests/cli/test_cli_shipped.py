"""`ingle pull smollm2-hybrid`: the model of the catalogue, and beside it the hybrid that comes with Ingle."""

from pathlib import Path

import pytest

from ingle.app.bringing import bring
from ingle.app.house import open_ledger
from ingle.cli.progress import Lines
from ingle.core.errors import ConfigError
from ingle.core.message import Request, Sampling
from ingle.core.spec import LayerSpec
from ingle.core.state import StateLayout
from ingle.engine.answer import answer
from ingle.engine.delta_kinds import LAYERS_KIND, spec_tensors
from ingle.engine.loading import open_model
from ingle.engine.packs import kept_source, open_weights
from ingle.home.deltas import put_delta
from ingle.home.kept import get_kept, keep
from ingle.home.place import Home
from ingle.home.pull import pull
from tests.cli.place import ingle


def said(home: Home, name: str) -> str:
    model = open_model(kept_source(home, get_kept(home, name)))
    request = Request(prompt="The capital of France is", max_tokens=8, sampling=Sampling(temperature=0))
    return "".join(chunk.text for chunk in answer(model, request))


def test_it_comes_with_its_model(tmp_path: Path, smollm2_gguf: Path) -> None:
    home = Home(tmp_path / "home")
    pull(home, str(smollm2_gguf), lambda _folder: None, "smollm2")  # the wheel itself is not fetched again
    brought = bring(home, "smollm2-hybrid", Lines())
    assert not brought.already  # though its base was here
    assert brought.kept == get_kept(home, "smollm2-hybrid")
    assert brought.kept.deltas == get_kept(home, "smollm2+hybrid-11").deltas
    config = open_weights(home, brought.kept).config
    sizes = [StateLayout.of(one).nbytes(8192) for one in (config, open_weights(home, get_kept(home, "smollm2")).config)]
    assert sizes[0] <= sizes[1] / 6
    assert said(home, "smollm2-hybrid") == said(home, "smollm2")  # as long as nothing has left a window
    shown = ingle(home.root, "show", "smollm2-hybrid").stdout
    assert (
        "hybrid: some heads see less" in shown and "7 of 90 see everything" in shown and "see the first 96 and the last 480 tokens" in shown
    )
    again = bring(home, "smollm2-hybrid", Lines())
    assert again.already
    assert again.kept == brought.kept
    with open_ledger(home) as ledger:
        facts = [(row.subject, row.values.get("delta")) for row in ledger.read(kind="pull")]
    assert sorted(facts, key=str) == [("smollm2", None), ("smollm2-hybrid", brought.kept.deltas[0])]
    (home.delta_folder(brought.kept.deltas[0]) / "report.json").write_text("{}")
    assert "its report.json is not the one of fact" in ingle(home.root, "verify", code=7).stdout


def test_a_name_that_means_something_else_is_left_alone(tmp_path: Path, smollm2_gguf: Path) -> None:
    home = Home(tmp_path / "home")
    pull(home, str(smollm2_gguf), lambda _folder: None, "smollm2-hybrid")
    with pytest.raises(ConfigError, match="The name smollm2-hybrid is taken"):
        bring(home, "smollm2-hybrid", Lines())
    assert get_kept(home, "smollm2-hybrid").deltas == ()


def test_an_earlier_change_gives_way_when_asked(tmp_path: Path, smollm2_gguf: Path) -> None:
    home = Home(tmp_path / "home")
    base = pull(home, str(smollm2_gguf), lambda _folder: None, "smollm2").base
    config = open_weights(home, get_kept(home, "smollm2")).config
    layers = (LayerSpec((0,), 128, 4), *config.layers[1:])
    earlier = put_delta(home, "hybrid-0", LAYERS_KIND, base.digest, spec_tensors(layers, config.num_kv_heads), {})
    keep(home, "smollm2-hybrid", base.digest, (earlier.digest,))
    with pytest.raises(ConfigError, match="--update"):
        bring(home, "smollm2-hybrid", Lines())
    assert get_kept(home, "smollm2-hybrid").deltas == (earlier.digest,)
    brought = bring(home, "smollm2-hybrid", Lines(), update=True)
    assert get_kept(home, "smollm2-hybrid").deltas == brought.kept.deltas != (earlier.digest,)
    assert get_kept(home, "smollm2+hybrid-0").deltas == (earlier.digest,)  # the earlier one itself stays
    with open_ledger(home) as ledger:
        assert [row.values["delta"] for row in ledger.read(subject="smollm2-hybrid", kind="pull")] == list(brought.kept.deltas)


def test_what_something_was_made_for_is_not_moved(tmp_path: Path, smollm2_gguf: Path) -> None:
    home = Home(tmp_path / "home")
    base = pull(home, str(smollm2_gguf), lambda _folder: None, "smollm2").base
    config = open_weights(home, get_kept(home, "smollm2")).config
    plain = spec_tensors(config.layers, config.num_kv_heads)
    earlier = put_delta(home, "hybrid-0", LAYERS_KIND, base.digest, plain, {})
    kept = keep(home, "smollm2-hybrid", base.digest, (earlier.digest,))
    put_delta(home, "letters", LAYERS_KIND, kept.digest, plain, {})
    with pytest.raises(ConfigError, match="has deltas that were made for what it is now"):
        bring(home, "smollm2-hybrid", Lines(), update=True)
    assert get_kept(home, "smollm2-hybrid") == kept
