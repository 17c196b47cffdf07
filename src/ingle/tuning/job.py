"""One tuning run as its parts see it, and what they share: reading the data, measuring the model, stopping."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ingle.core.candidate import Admit
from ingle.core.errors import Interrupted
from ingle.engine.source import Source
from ingle.home.kept import Kept
from ingle.home.place import Home
from ingle.model.checkpoint import Checkpoint
from ingle.model.tokenizer import Tokenizer
from ingle.train.trouble import Stop
from ingle.train.watch import RunWatch
from ingle.tuning.data import Learnt, learn_from
from ingle.tuning.judge import Standing, sample, stand
from ingle.tuning.method import Method
from ingle.tuning.settings import TuneSettings


@dataclass(frozen=True, slots=True)
class Job:
    """What a run was asked for, and where it works."""

    home: Home
    kept: Kept
    sources: Sequence[str]
    """Absolute paths, and `suite:NAME`."""
    name: str
    settings: TuneSettings
    method: Method
    watch: RunWatch
    command: str
    key: str
    """Digest of all that was asked for, but for what the data hold."""
    folder: Path
    """Of the unfinished run."""
    stop: Stop
    admit: Admit
    """Decides on what comes of it."""

    def check(self) -> None:
        """Raises Interrupted if somebody asked to stop."""
        if self.stop.asked:
            raise interrupted("before the first step")

    def learnt(self, checkpoint: Checkpoint, tokenizer: Tokenizer, files: Sequence[Path], virtual: int) -> Learnt:
        """The data, with room for so many virtual tokens in context and batch. Raises ConfigError."""
        limit = min(checkpoint.config.context_length, self.settings.train.batch_tokens) - virtual
        self.watch.bytes("reading examples", 0, None)
        return learn_from(files, tokenizer, limit, self.settings)

    def work_folder(self, learnt: Learnt) -> Path:
        """Where `train` works: one folder for each state of the data, so that data that changed begin anew."""
        return self.folder / learnt.data.corpus.digest[:16]

    def stopped(self) -> bool:
        """Whether somebody asked to stop."""
        return self.stop.asked

    def standing(self, source: Source, learnt: Learnt) -> Standing | None:
        """How a model does on the held-out examples and on general text, as it is served."""
        settings, watch = self.settings.judge, self.watch
        documents = sample(learnt.data, settings.held_out)
        return stand(self.home, source, documents, settings, self.stopped, watch.pieces, watch.bytes)


def interrupted(where: str) -> Interrupted:
    """The error after Ctrl-C."""
    return Interrupted("tuning", "was interrupted", where, "What was done is kept: the same command goes on from there.")
