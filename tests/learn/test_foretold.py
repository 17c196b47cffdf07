"""What a tune, a hardening and a debiasing are said to take, beside what they really take, in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.journey

linux = pytest.mark.skipif(sys.platform != "linux", reason="other systems don't tell")
ROOT = Path(__file__).parent.parent.parent
PROGRAM = """
import json, sys, threading
from dataclasses import replace
from pathlib import Path

import torch

from ingle.core.process import own_bytes, release_memory
from ingle.home.kept import get_kept
from ingle.home.place import Home
from ingle.home.pull import pull
from ingle.learn import harden as hardening
from ingle.learn.debias import debias
from ingle.learn.addition_settings import DebiasSettings
from ingle.learn.addition_settings import HardenSettings
from ingle.train.making import RunWatch
from ingle.tuning.tune import tune
from tests.cli.place import write_model
from tests.learn import test_debias, test_harden
from tests.tuning.place import admitting, small, write_examples

verb, folder = sys.argv[1], Path(sys.argv[2])
torch.set_num_threads(1)
home = Home(folder / "home")
pull(home, str(write_model(folder / "tiny")), lambda _: None, "tiny")
sizes = {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 6, "num_attention_heads": 8, "head_dim": 64}
pull(home, str(write_model(folder / "wide", 1024, sizes)), lambda _: None, "wide")
patch = __import__("pytest").MonkeyPatch()
test_debias.offline_suites(patch)
patch.setattr(hardening, "read_curriculum", lambda *_: test_harden.CURRICULUM)
course = {"epochs": 1, "batch_tokens": 768, "precision": "fp32"}
examples = write_examples(folder / "rows.jsonl", [{"text": f"It is said {i} times. " * 30} for i in range(12)])
told = []


def make(model, name):
    watch, kept = RunWatch(room=lambda room: told.append(room.need)), get_kept(home, model)
    if verb == "tune":
        settings = small(train=course, judge={"held_out": 4})
        return tune(home, kept, [examples], name, settings, admitting(home), watch)
    if verb == "harden":
        settings = HardenSettings(taught=test_harden.SETTINGS.taught, measured=test_harden.SETTINGS.measured, answer_tokens=40)
        make = hardening.harden
    else:
        settings, make = replace(test_debias.SETTINGS, beginnings=20), debias
    return make(home, kept, name, replace(settings, train=replace(settings.train, **course)), admitting(home), watch)


make("tiny", "first")  # libraries and kernels are loaded, and not measured
release_memory()
before, most, over = own_bytes(), [0], threading.Event()


def look():
    while not over.wait(0.002):
        most[0] = max(most[0], own_bytes() - before)


thread = threading.Thread(target=look)
thread.start()
make("wide", "second")
over.set()
thread.join()
print(json.dumps({"taken": most[0], "parts": dict(told[-1].parts), "less": dict(told[0].parts)}))
"""


@linux
@pytest.mark.parametrize("verb", ["tune", "harden", "debias"])
def test_what_was_foretold_is_taken(verb: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, verb, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    foretold = sum(found["parts"].values()) - sum(found["less"].values())
    assert 0.75 < foretold / found["taken"] < 1.25, found
