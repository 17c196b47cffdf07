"""Time and memory of an explanation, before the model is opened."""

from ingle.core.headroom import Need, speed
from ingle.core.message import Request
from ingle.engine.packs import LIBRARIES, ServedSize
from ingle.explain.sentences import sentences_of
from ingle.model.tensor import size_of

_BYTES_A_TOKEN, _TEMPLATE = 3.8, 40
_SETS = 20  # sets of sentences that are left out together or by chance, beside each by itself
_START_S = 2.0
_WRITTEN = 6  # a token that is written takes as long as so many that are read together


def why_need(served: ServedSize, request: Request, answer: str, variations: int = 0) -> Need:
    """Predict the memory and the time of explaining an answer to this request."""
    prompt, said = (round(len(text.encode()) / _BYTES_A_TOKEN) for text in (_text(request), answer))
    prompt, size = prompt + _TEMPLATE, size_of(served.config)
    sentences = len(sentences_of(request))
    sets = 1 + sentences + (_SETS if sentences > 1 else 0) + variations
    read = sets * (prompt / 2 + said) + 2 * prompt
    written = (2 + min(3, sentences) + variations) * said
    parts = {
        "the model": served.weights, "what it reads": served.state_bytes(round(prompt + said * min(sets, 16))), "Ingle itself": LIBRARIES,
    } | ({"packing its weights": served.packing} if served.packing else {})  # fmt: skip
    operations = 2 * size.read * (read + _WRITTEN * written)
    return Need("Explaining this", parts, _START_S + operations / speed(None, 1))


def _text(request: Request) -> str:
    whole = "".join(message.text for message in request.messages)
    return whole + (request.prompt if isinstance(request.prompt, str) else "    " * len(request.prompt or ()))
