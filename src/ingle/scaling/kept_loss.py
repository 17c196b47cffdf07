"""The loss of a kept model on a sweep's held-out text: so that models of other vocabularies can be compared, in bits per byte."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ingle.core.errors import Interrupted
from ingle.engine.language_model import LanguageModel
from ingle.engine.scoring import score
from ingle.measure.gather import Progress, silent
from ingle.measure.subject import begin_id
from ingle.model.tokenizer_hf import open_tokenizer
from ingle.scaling.prepared import Prepared, held_out_of


def held_out_texts(prepared: Prepared) -> list[str]:
    """Return the held-out texts of a sweep, as far as its models read them; a character that is cut in two is left out."""
    tokenizer, corpus = open_tokenizer(Path(prepared.folder)), held_out_of(prepared).corpus
    documents = [corpus.document(number).ids.tolist() for number in range(len(corpus))]
    return [b"".join(map(tokenizer.token_bytes, ids[1:])).decode("utf-8", "ignore") for ids in documents]  # the first token begins a text


def bits_of_kept(
    model: LanguageModel, prepared: Prepared, stopped: Callable[[], bool] = lambda: False, progress: Progress = silent
) -> npt.NDArray[np.float64]:  # fmt: skip
    """Return a kept model's bits of each held-out text, as it is served: [texts]. Raises Interrupted."""
    tokenizer, texts = model.tokenizer, held_out_texts(prepared)
    first = begin_id(tokenizer)
    tasks = [([first], [tokenizer.encode(text)]) for text in texts]
    bits = np.zeros(len(tasks))
    done = 0
    for number, [nats] in score(model.backend, tasks, stopped):
        bits[number] = -float(nats.sum()) / math.log(2)
        done += 1
        progress("reading held-out text", done, len(tasks))
    if done < len(tasks):
        raise Interrupted("reading", "was interrupted", f"{done} of {len(tasks)} texts", "Run the same command to try again.")
    return bits
