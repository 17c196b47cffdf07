"""One tuning run, and the steps that its parts share: reading the data, measuring the model."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ingle.engine.packs import Source, checkpoint_tokenizer, open_weights
from ingle.model.checkpoint import Checkpoint
from ingle.model.tokenizer import Tokenizer
from ingle.train.making import DeltaJob
from ingle.tuning.data import Learnt, bring, learn_from
from ingle.tuning.judge import Standing, sample, stand
from ingle.tuning.linears import chosen_layers
from ingle.tuning.method import Method
from ingle.tuning.settings import TuneSettings


@dataclass(frozen=True, slots=True)
class Begun:
    """The opened model, with the files of the data."""

    checkpoint: Checkpoint
    tokenizer: Tokenizer
    files: Sequence[Path]


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneJob(DeltaJob[TuneSettings]):
    """One tuning run. Its key doesn't cover the data's content; work on other data lies in another folder."""

    sources: Sequence[str]
    """Absolute paths, and `suite:NAME`."""
    method: Method

    def begin(self) -> Begun:
        """Open model and data. Raises ConfigError for layers that aren't there, and the errors of opening and fetching."""
        checkpoint = open_weights(self.home, self.kept)
        tokenizer = checkpoint_tokenizer(checkpoint, self.home.base_folder(self.kept.base))
        chosen_layers(checkpoint.config, self.settings.layers)
        files = bring(self.home, self.sources, self.settings.max_examples, self.folder / "data", self.watch.bytes)
        self.check()
        return Begun(checkpoint, tokenizer, files)

    def learnt(self, begun: Begun, virtual: int) -> Learnt:
        """Read the data, with room for so many virtual tokens in context and batch. Raises ConfigError."""
        limit = min(begun.checkpoint.config.context_length, self.settings.train.batch_tokens) - virtual
        self.watch.bytes("reading examples", 0, None)
        return learn_from(begun.files, begun.tokenizer, limit, self.settings)

    def work_folder(self, data_digest: str) -> Path:
        """Folder where `train` works: one for each state of the data, so changed data begin anew."""
        return self.folder / data_digest[:16]

    def standing(self, source: Source, learnt: Learnt) -> Standing | None:
        """Measure a model on the held-out examples and on general text, as it is served."""
        settings, watch = self.settings.judge, self.watch
        documents = sample(learnt.data, settings.held_out)
        return stand(self.home, source, documents, settings, self.stopped, watch.pieces, watch.bytes)
