"""A home with a tiny model, and candidates for it."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from ingle.core.candidate import Candidate
from ingle.core.message import Request
from ingle.engine.adapter import linear_shapes
from ingle.engine.packs import open_weights
from ingle.gate.trial import Trial
from ingle.home.kept import get_kept
from ingle.home.place import Home
from ingle.home.pull import pull
from ingle.measure.subjects import Subject
from tests.cli.place import write_model

Make = Callable[..., Candidate]
Says = Callable[[str], str]
"""Returns an answer to the last message."""


@pytest.fixture(scope="module")
def gate_home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home that keeps "tiny"; one for all tests of a file."""
    folder = tmp_path_factory.mktemp("gate")
    home = Home(folder / "home")
    pull(home, str(write_model(folder / "tiny", context=1024)), lambda _: None, "tiny")
    return home


@pytest.fixture
def make(gate_home: Home) -> Make:
    """Makes random candidates: the larger `size`, the more they change; `full` ones break the model."""
    kept = get_kept(gate_home, "tiny")
    shapes = linear_shapes(open_weights(gate_home, kept).config)

    def made(name: str, size: float = 0.0, kind: str = "lora", origin: dict[str, str] | None = None) -> Candidate:
        draw, tensors = np.random.default_rng(7), {}
        if kind == "full":  # louder logits: the model is sure of the same nonsense
            return Candidate(name, kind, kept.digest, {"model.norm.weight": np.full(64, 20 * size, np.float32)}, {"seed": "7"})
        for linear, (rows, columns) in shapes.items():
            tensors[f"{linear}.lora_A.weight"] = draw.standard_normal((4, columns)).astype(np.float32)
            tensors[f"{linear}.lora_B.weight"] = (size * draw.standard_normal((rows, 4))).astype(np.float32)
        return Candidate(name, kind, kept.digest, tensors, origin or {"seed": "7"}, {"loss": 1.0})

    return made


@pytest.fixture
def empty_home(tmp_path: Path) -> Home:
    """A home of one's own that keeps nothing."""
    return Home(tmp_path / "home").create()


def saying_trial(home: Home, candidate: Candidate, name: str, before: Says, after: Says) -> Trial:
    """A trial of two models that say this, and are the tiny model in all else. Of another name, they are others."""
    trial = Trial(home, get_kept(home, "tiny"), candidate)
    real = trial.incumbent

    def subject(when: str, says: Says) -> Subject:
        def write(requests: Sequence[Request]) -> Iterator[tuple[int, str]]:
            return ((number, says(request.messages[-1].text)) for number, request in enumerate(requests))

        digest = f"{name} {when}"
        return Subject(digest, digest, real.context_length, real.tokenizer, real.score, write)

    trial.__dict__.update(incumbent=subject("before", before), challenger=subject("after", after))
    return trial


def kept_rows(home: Home, label: str) -> str:
    """Rows of a check in the home's cache."""
    return "".join(path.read_text("utf-8") for path in (home.root / "cache" / "measure").glob(f"gate-{label}-*"))
