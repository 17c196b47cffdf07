"""Makes a request ready for the engine, off the event loop: templates come with models and may be slow, and pictures take time.

A picture is decoded in another process, and seen, when it is the asker's turn; what was seen lately is known.
"""

from collections.abc import Callable
from dataclasses import dataclass

from ingle.core.apart import StopFlag
from ingle.core.energy import NOTHING, Energy
from ingle.core.errors import RequestError
from ingle.core.message import ImagePart, Request
from ingle.energy.meter import Meter, Span, open_meter
from ingle.engine.grammar import Grammar
from ingle.engine.language_model import LanguageModel, ReadyPrompt, Seer
from ingle.media.decoder import MediaDecoder
from ingle.serve.slow import Slow


@dataclass(frozen=True, slots=True)
class Preparer:
    """Makes requests ready for one server."""

    slow: Slow
    decoder: MediaDecoder
    meter: Meter  # of the decoder's processes
    # How many answers are being written. Beside them, seeing is in their share already: a step's energy is the process's.
    others: Callable[[], int] = lambda: 0

    async def see(self, model: LanguageModel, request: Request, asker: str) -> Energy:
        """Let the model see a request's pictures that it has not seen lately; returns the energy.

        Raises RequestError for a picture that can't be read, Busy if the asker has too many in work.
        """
        seer = model.seer
        shown = [
            (part, f"messages[{i}].content[{j}]")
            for i, message in enumerate(request.messages)
            for j, part in enumerate(message.parts)
            if isinstance(part, ImagePart)
        ]
        if seer is None or all(seer.knows(part) for part, _ in shown):
            return NOTHING
        energy = NOTHING
        with self.slow.seats.taken(asker):
            for part, at in shown:
                if not seer.knows(part):
                    energy = energy + await self._see(seer, part, at, asker)
        return energy

    async def _see(self, seer: Seer, part: ImagePart, at: str, asker: str) -> Energy:
        def look(stop: StopFlag) -> Energy:  # in one piece: what is decoded waits for nothing, so little of it is in memory
            first = self.meter.begin()
            picture = self.decoder.picture(part.data, at, stop)
            decoded = self.meter.between(first, self.meter.read())
            span = Span(open_meter()) if not self.others() else None
            seer.see(part, at, picture)
            seen = span.end() if span is not None else NOTHING
            return decoded + (seen if not self.others() else NOTHING)

        return await self.slow.decoding.do(asker, look)

    async def prepare(self, model: LanguageModel, request: Request, asker: str) -> tuple[ReadyPrompt, Grammar | None]:
        """Return the prompt and the answer's grammar. Raises RequestError and its subclasses for a request that can't be answered."""
        size = model.backend.config.vocab_size
        if any(token >= size for token, _ in request.sampling.logit_bias):
            raise RequestError("logit_bias", f"must map token ids below {size}", max(token for token, _ in request.sampling.logit_bias))
        await self.see(model, request, asker)
        return await self.slow.prompts.do(asker, lambda _stop: (model.prompt(request), model.grammar(request)))
