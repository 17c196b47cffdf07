"""An open model as the subject of a measurement. Imports no PyTorch."""

from collections.abc import Callable
from functools import partial

from ingle.engine.answer import write
from ingle.engine.language_model import LanguageModel
from ingle.engine.scoring import score
from ingle.measure.subjects import Subject


def subject_of(model: LanguageModel, stopped: Callable[[], bool]) -> Subject:
    """Bind an open model to the functions that measures ask for."""
    backend = model.backend
    scorer, writer = partial(score, backend, stopped=stopped, adapter=model.adapter), partial(write, model, stopped=stopped)
    return Subject(model.name, model.digest, backend.config.context_length, model.tokenizer, scorer, writer)
