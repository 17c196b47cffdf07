"""Pictures in a prompt: each becomes what the model's sight makes of it, and the vectors of that become ids beyond the vocabulary."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from threading import Lock

import numpy as np

from ingle.core.digest import digest_bytes
from ingle.core.errors import CheckpointError, TemplateError
from ingle.core.media import NO_VECTORS, ControlName, Picture, PictureLook, Sight, SightPiece, Vectors, vector_id
from ingle.core.message import ImagePart
from ingle.media.picture import read_picture
from ingle.model.tokenizer import HOLE, PICTURE, ControlToken, Tokenizer

_KEPT_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class ReadyPrompt:
    """A request, ready to be read."""

    ids: list[int]
    vectors: Vectors = field(default_factory=lambda: NO_VECTORS)
    """Vectors that ids beyond the vocabulary stand for."""


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """A picture, and what stands for it."""

    look: PictureLook
    pieces: tuple[SightPiece, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of its vectors."""
        return sum(piece.nbytes for piece in self.pieces if isinstance(piece, np.ndarray))


class Seer:
    """A sight that remembers what it saw lately, so that a picture's next turn neither decodes nor encodes it. Thread-safe."""

    def __init__(self, sight: Sight, budget_bytes: int = _KEPT_BYTES) -> None:
        self.sight, self._budget = sight, budget_bytes
        self._seen: OrderedDict[str, Seen] = OrderedDict()
        self._lock = Lock()

    def knows(self, part: ImagePart) -> bool:
        """Return whether a picture was seen lately."""
        return digest_bytes(part.data) in self._seen

    def see(self, part: ImagePart, at: str, picture: Picture | None = None) -> Seen:
        """Return what stands for a picture; `at` names it in errors. `picture`: it, decoded already. Raises as `read_picture` and
        `Sight.see` do."""
        key = digest_bytes(part.data)
        with self._lock:  # one picture at a time: an encoder uses all cores as it is
            if key in self._seen:
                self._seen.move_to_end(key)
                return self._seen[key]
            picture = picture or read_picture(part.data, at)
            pieces = self.sight.see(picture)
            look = PictureLook(picture.digest, self.sight.digest, self.sight.fingerprint(picture, pieces))
            seen = self._seen[key] = Seen(look, pieces)
            while len(self._seen) > 1 and sum(one.nbytes for one in self._seen.values()) > self._budget:
                self._seen.popitem(last=False)
            return seen


def prompt_of(
    tokenizer: Tokenizer, pieces: Sequence[str | ControlToken], seen: Sequence[Seen], sight: Sight, vocab_size: int
) -> ReadyPrompt:
    """Return the ids of a rendered conversation, with the pictures in their places, and the vectors behind these ids.

    Raises TemplateError for a template that doesn't write every picture once, CheckpointError for a sight that writes a control token which
    the model lacks.
    """
    places = [piece == PICTURE or (isinstance(piece, ControlToken) and piece.name == sight.marker) for piece in pieces]
    if sum(places) != len(seen):
        rule = f"writes {sum(places)} of {len(seen)} pictures"
        raise TemplateError("chat template", rule, "", "Send the picture with the last message, or choose another model.")
    shown, ids, vectors = iter(seen), list[int](), {}
    rows = list[int]()
    flat: list[str | ControlToken] = []
    for piece, is_place in zip(pieces, places, strict=True):
        if not is_place:
            flat.append(piece)
            continue
        picture, place = next(shown), 0
        for part in picture.pieces:
            if isinstance(part, str):
                flat.append(part)
            elif isinstance(part, ControlName):
                flat.append(_control(tokenizer, part.name))
            else:
                for vector in part:
                    id_ = vector_id(vocab_size, "image", sight.digest, picture.look.content, place)
                    vectors[id_], place = vector, place + 1
                    rows.append(id_)
                flat += [PICTURE] * len(part)
    after = iter(rows)
    ids = [next(after) if id_ == HOLE else id_ for id_ in tokenizer.encode_pieces(_joined(flat))]
    return ReadyPrompt(ids, vectors)


def _control(tokenizer: Tokenizer, name: str) -> ControlToken:
    if name not in tokenizer.control:
        raise CheckpointError(
            "tokenizer", f"The sight writes {name!r}, which is no control token of this model", "", "Pull the model again."
        )
    return ControlToken(name)


def _joined(pieces: Sequence[str | ControlToken]) -> Iterator[str | ControlToken]:
    """Yield the pieces with neighbouring words joined: a tokenizer reads them as one text."""
    for words, run in groupby(pieces, lambda piece: isinstance(piece, str)):
        if words:
            yield "".join(piece for piece in run if isinstance(piece, str))
        else:
            yield from run
