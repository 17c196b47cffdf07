"""The loss of a kept model on a sweep's held-out text: so that models of other vocabularies can be compared, in bits per byte."""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ingle.core.errors import Interrupted
from ingle.engine.language_model import LanguageModel
from ingle.engine.scoring import score
from ingle.measure.subjects import Progress, begin_id, silent
from ingle.scaling.prepared import Prepared, held_out_texts, rows_read


def bits_of_kept(
    model: LanguageModel, prepared: Prepared, stopped: Callable[[], bool] = lambda: False, progress: Progress = silent
) -> npt.NDArray[np.float64]:  # fmt: skip
    """Return a kept model's bits of each held-out text, as it is served: [texts]. Raises Interrupted."""
    tokenizer, texts = model.tokenizer, held_out_texts(prepared)
    first = begin_id(tokenizer)
    tasks = []
    for number, text in enumerate(texts):
        for row, counts in rows_read([first, *tokenizer.encode(text)], prepared.row_tokens):
            start = int(counts.argmax())
            tasks.append((number, (row[:start].tolist(), [row[start:].tolist()])))
    bits = np.zeros(len(texts))
    done = 0
    for place, [nats] in score(model.backend, [task for _, task in tasks], stopped):
        bits[tasks[place][0]] -= float(nats.sum()) / math.log(2)
        done += 1
        progress("reading held-out text", done, len(tasks))
    if done < len(tasks):
        raise Interrupted("reading", "was interrupted", f"{done} of {len(tasks)} pieces", "Run the same command to try again.")
    return bits
