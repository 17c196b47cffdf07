"""What the benchmarks of learning share: homes of their own that last, a user that is a script, answers as they are served, and a log.

Everything lies in one folder (`--home`): a home for each run, the data, and what is known already, one JSON object a line. So whatever is
killed goes on where it was. A home that other code made is refused.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import ingle
from adapt_data import Correction, hit
from ingle.adapt.admit import teach
from ingle.adapt.choosing import Chooser
from ingle.app.house import open_rooms
from ingle.core.digest import digest_file, digest_json
from ingle.core.errors import IngleError
from ingle.core.example import Example
from ingle.core.message import Message, Request
from ingle.engine.answer import write
from ingle.engine.language_model import LanguageModel
from ingle.engine.loading import open_model
from ingle.engine.packs import kept_source
from ingle.home.examples import list_examples
from ingle.home.kept import Kept, get_kept
from ingle.home.place import Home, find_home
from ingle.learn.learner import Learned, Learner, Trainer, learn_once
from ingle.learn.learning_settings import LessonSettings, StyleSettings
from ingle.learn.teacher import trainer_of
from ingle.ledger.chain import Ledger
from ingle.measure.intervals import bootstrap
from servers import CACHE

if TYPE_CHECKING:
    from sqlalchemy import Engine

FOLDER = CACHE.parent / "adapt"
MODEL = "smollm2"
MAX_TOKENS = 40
OWNER = ""
"""The user on this machine."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, and what acted."""

    text: str
    memories: tuple[str, ...] = ()
    lessons: tuple[str, ...] = ()


@dataclass
class Log:
    """What is known already, by what it is and which correction it is about."""

    path: Path
    rows: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.path.exists():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(ValueError):  # the last one, if it was cut by a kill
                    row = json.loads(line)
                    self.rows[row["what"], row["id"]] = row
            # A cut line must not swallow the next one.
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in self.rows.values())
            self.path.write_text(text, encoding="utf-8")

    def get(self, what: str, id_: str) -> dict[str, Any] | None:
        """None = not known yet."""
        return self.rows.get((what, id_))

    def put(self, what: str, id_: str, **values: Any) -> dict[str, Any]:
        """Writes it down, through to the disk."""
        row = self.rows[what, id_] = {"what": what, "id": id_, **values}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        return row


@dataclass
class Pupil:
    """A kept model as its one user has it: with what that user taught."""

    home: Home
    seed: int = 0
    """Of lessons: where each begins, and its wordings."""

    @cached_property
    def kept(self) -> Kept:
        """The model."""
        return get_kept(self.home, MODEL)

    @cached_property
    def model(self) -> LanguageModel:
        """Without anything taught."""
        return open_model(kept_source(self.home, self.kept))

    @cached_property
    def engine(self) -> "Engine":
        """The home's database."""
        return open_rooms(self.home)

    @cached_property
    def chooser(self) -> Chooser:
        """What the server asks."""
        return Chooser(self.home, self.engine)

    @cached_property
    def ledger(self) -> Ledger:
        """Takes the facts."""
        return Ledger(self.engine, self.home.keys)

    @cached_property
    def trainer(self) -> Trainer:
        """Who teaches and judges; holds the module that learns."""
        return trainer_of(self.home, self.engine, LessonSettings(seed=self.seed), StyleSettings(seed=self.seed))

    def teach(self, question: str, answer: str) -> Example:
        """Takes a correction as every door does; the same one again is the one that is there."""
        known = [one for one in list_examples(self.engine, OWNER) if (one.question, one.answer) == (question, answer)]
        return known[-1] if known else teach(self.engine, OWNER, self.kept.name, question, answer, sink=self.ledger.append)

    def learner(self) -> Learner:
        """As the worker has it."""
        return Learner(self.home, self.engine, self.trainer, self.ledger.append)

    def learn(self) -> Learned:
        """Learns all that is pending."""
        with self.home.lock("learner", timeout_s=0):
            learner = self.learner()
            learner.start()
            return learn_once(learner)

    def answers(self, questions: Sequence[str], memory: bool) -> list[Answer]:
        """Greedy, each as it would be answered now. Those on which the same lesson acts are written side by side."""
        choices = [self.chooser.choose(OWNER, self.model, self.kept, request_of(one), memory) for one in questions]
        found: list[Answer | None] = [None] * len(questions)
        by_model: dict[str, list[int]] = {}
        for number, choice in enumerate(choices):
            if choice.faults:
                raise SystemExit(f"a lesson does not act: {choice.faults[0]}")
            by_model.setdefault(choice.model.adapter_digest, []).append(number)
        for numbers in by_model.values():
            model = choices[numbers[0]].model
            for place, text in write(model, [choices[number].request for number in numbers]):
                choice = choices[numbers[place]]
                found[numbers[place]] = Answer(text, choice.memories, choice.lessons)
        return [one for one in found if one is not None]

    def close(self) -> None:
        """Lets go the database."""
        self.engine.dispose()


def request_of(question: str, max_tokens: int = MAX_TOKENS) -> Request:
    """A new conversation."""
    return Request((Message.of("user", question),), max_tokens=max_tokens)


def plain_answers(model: LanguageModel, questions: Sequence[str]) -> list[str]:
    """Greedy, whatever anybody taught."""
    texts = dict(write(model, [request_of(one) for one in questions]))
    return [texts[number] for number in range(len(questions))]


def bench_home(folder: Path, name: str, fresh: bool = False, learns: bool = True) -> Home:
    """A home called `name` in that folder, with the real one's model: there from before, or made now. `learns`: what is done in it depends
    on the code that learns."""
    real, home = find_home(), Home(folder.resolve() / name)
    try:
        get_kept(real, MODEL)
    except IngleError as error:
        raise SystemExit(f"{error} `ingle pull {MODEL}` brings it.") from error
    if real.root in (home.root, *home.root.parents):
        raise SystemExit(f"{folder} lies in the real home; give a folder for benchmarks")
    kernels = folder.resolve() / "jit"
    if real.jit.exists() and not kernels.exists():
        shutil.copytree(real.jit, kernels)
    os.environ["INGLE_KERNEL_CACHE"] = str(kernels)
    if fresh:
        shutil.rmtree(home.root, ignore_errors=True)
    if learns:
        _check_code(home)
    for part in (real.bases, real.models, real.packs):
        if part.exists() and not (home.root / part.name).exists():
            shutil.copytree(part, home.root / part.name, copy_function=_linked)
    data = folder.resolve() / "data"
    data.mkdir(parents=True, exist_ok=True)
    link = home.root / "cache" / "data"
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.exists():
        link.symlink_to(data)
    return home.create()


def copy_home(home: Home, folder: Path) -> Home:
    """The same once more, as it stands on the disk; nobody may be writing to it."""
    shutil.rmtree(folder, ignore_errors=True)
    linked = {home.bases.name, home.packs.name}
    for part in home.root.iterdir():
        if part.is_symlink() or part.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy2(part, folder / part.name, follow_symlinks=False)
        else:
            how = _linked if part.name in linked else shutil.copy2
            shutil.copytree(part, folder / part.name, symlinks=True, copy_function=how)
    return Home(folder)


def _linked(source: str, target: str) -> None:
    try:
        os.link(source, target)  # bases and packs are replaced, never written into
    except OSError:
        shutil.copy2(source, target)


def code_digest() -> str:
    """Of the code that learns: what it did before says nothing of other code."""
    root = Path(ingle.__file__).parent
    return digest_json([[path.name, digest_file(path)] for room in ("adapt", "gate") for path in sorted((root / room).rglob("*.py"))])


def _check_code(home: Home) -> None:
    path = home.root / "bench-code"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code_digest())
    elif path.read_text() != code_digest():
        raise SystemExit(f"{home.root} was made by other code of adapt/ and gate/: --fresh begins anew, --any-code goes on")


def allow_other_code(folder: Path) -> None:
    """Takes what is there for made by this code (`--any-code`)."""
    for path in folder.resolve().glob("*/bench-code"):
        path.write_text(code_digest())


def marks(one: Correction, texts: Sequence[str], before: Sequence[str]) -> list[bool]:
    """Which answers count: those that say what was taught. One that was right before nothing was taught is a tie, and counts as wrong."""
    return [hit(text, one.accept) and not hit(old, one.accept) for text, old in zip(texts, before, strict=True)]


def share(rows: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """Σ first / Σ second in percent, with its interval by bootstrap over rows (one row a correction)."""
    columns = np.array(rows, np.float64).reshape(len(rows), 2)
    between, whole = bootstrap(columns), columns.sum(axis=0)
    return {
        "percent": 100 * whole[0] / whole[1],
        "low": 100 * between.low,
        "high": 100 * between.high,
        "n": len(rows),
        "interval": between.method,
    }


def shown(figure: dict[str, Any] | None) -> str:
    """A share in a table."""
    return "" if figure is None else f"{figure['percent']:.1f} ({figure['low']:.1f} – {figure['high']:.1f})"
