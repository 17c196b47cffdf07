"""`ingle draw`."""

import re
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ingle.core.media import Picture
    from ingle.core.message import Chunk, Request
    from ingle.home.kept import Kept
    from ingle.home.place import Home

EXAMPLES = """
ingle draw "a red apple"
ingle draw "a blue fish" -n 8 -o fish.png --sheet
ingle draw "a rose in the style of noto" --size 256 --seed 1
"""


@dataclass(frozen=True, slots=True)
class _Drawn:
    """One picture with the words that it is, and how likely the model finds that it shows the thing."""

    picture: "Picture"
    request: "Request"
    text: str
    last: "Chunk"
    likeness: float


def command(
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What to draw: one thing, in a few words.")],
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help="A model that paints; by default smollm2+painter.")] = None,
    count: Annotated[int, typer.Option("-n", "--count", help="Draw so many, and keep the likeliest.")] = 4,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="The PNG file; by default named after the prompt.")] = None,
    style: Annotated[str | None, typer.Option(help="Whose manner: twemoji, noto or fluent.")] = None,
    size: Annotated[int, typer.Option(help="Pixels of a side: 64 is what is painted, more is only smoother.")] = 256,
    all_: Annotated[bool, typer.Option("--sheet", help="Show all that were drawn in one picture, the likeliest first.")] = False,
    seed: Annotated[int | None, typer.Option(help="Same seed, same pictures; by default a new one.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Randomness of the pictures.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Draw a small picture from words.

    A picture has 64×64 pixels, in the manner of emoji. The model writes it as 64 words of a palette, and knows the things that its
    painter learnt: animals, food, plants, vehicles, tools.
    """
    import numpy as np

    from ingle.app.house import enter
    from ingle.core.errors import ConfigError
    from ingle.core.files import write_atomic
    from ingle.media.painter import STYLES, wish_of
    from ingle.media.picture import SIDE, enlarged, png_of, sheet

    if not 1 <= count <= 64:
        raise ConfigError("-n", "must be between 1 and 64", count)
    if not SIDE <= size <= 4096:
        raise ConfigError("--size", f"must be between {SIDE} and 4096 pixels", size)
    what, asked = wish_of(prompt)
    if (manner := style or asked) and manner not in STYLES:
        raise ConfigError("--style", f"must be one of {', '.join(STYLES)}", manner)
    home = enter()
    drawn = _draw(home, _choose(home, model or ""), what, manner, count, seed, temperature)
    picture = sheet(np.stack([one.picture.pixels for one in drawn]), 4) if all_ else drawn[0].picture
    path = out or Path(f"{'-'.join(re.findall(r'[a-z0-9]+', what.lower()))[:60] or 'picture'}.png")
    write_atomic(path, png_of(enlarged(picture, size / SIDE)))
    _show(path, drawn, as_json)


def _choose(home: "Home", asked: str) -> "Kept":
    """Return the model. Without a name: the one model with a painter, smollm2's first. Raises NotKept with the cure."""
    from ingle.core.errors import NotKept
    from ingle.home.deltas import get_delta
    from ingle.home.kept import get_kept, list_models

    if asked:
        return get_kept(home, asked)
    painting = [kept for kept in list_models(home) if any(get_delta(home, digest).kind == "painter" for digest in kept.deltas)]
    if not painting:
        raise NotKept("model", "No model here can paint", "", "Run: ingle pull painter")
    return min(painting, key=lambda kept: (not kept.name.startswith("smollm2"), len(kept.deltas), kept.name))


def _draw(
    home: "Home", kept: "Kept", what: str, style: str, count: int, seed: int | None, temperature: float | None
) -> list[_Drawn]:  # fmt: skip
    """Return pictures, the likeliest first; each leaves its fact in the ledger."""
    from ingle.app.answering import Ask
    from ingle.app.facts import new_seed
    from ingle.app.settings import read_settings
    from ingle.cli.choose import answer_here, open_watched
    from ingle.core.message import Chunk
    from ingle.engine.answer import write_whole
    from ingle.engine.language_model import USUAL, likeness, painted, painting_request
    from ingle.safety.middleware import from_iterator

    settings = read_settings(home)
    here = answer_here(home, settings)
    opened, first = open_watched(home, kept, settings.chat), new_seed() if seed is None else seed
    sampling = replace(USUAL, temperature=USUAL.temperature if temperature is None else temperature)
    requests = [painting_request(opened, what, style, replace(sampling, seed=first + i)) for i in range(count)]
    model = opened.answering(requests[0])
    written: dict[int, tuple[str, Chunk]] = {}

    def paint(number: int, _request: "Request") -> AsyncIterator[Chunk]:
        return from_iterator(painting(number))

    def painting(number: int) -> Iterator[Chunk]:
        if not written:  # all at once, when the guards have let the wish pass
            written.update({at: (text, last) for at, text, last in write_whole(model, requests)})
        text, last = written[number]
        yield Chunk(text)
        yield replace(last, text="")

    drawn = []
    try:
        for number, request in enumerate(requests):
            run = here.run(Ask(request, id=""), kept, opened)
            *_, last = here.answer(run, inner=partial(paint, number))
            drawn.append((request, "".join(run.words), last))
    finally:
        here.close()
    likely = likeness(model, what, style, [model.tokenizer.encode(text) for _, text, _ in drawn])
    pictures = [_Drawn(painted(model, text), request, text, last, one) for (request, text, last), one in zip(drawn, likely, strict=True)]
    return sorted(pictures, key=lambda one: -one.likeness)


def _show(path: Path, drawn: Sequence[_Drawn], as_json: bool) -> None:
    from ingle.cli.output import print_json

    rows = [{"seed": one.request.sampling.seed, "likeness": round(one.likeness, 2), "words": one.text.strip()} for one in drawn]
    if as_json:
        print_json({"file": str(path), "pictures": rows})
    else:
        print(f"{path}: the likeliest of {len(drawn)} (seed {rows[0]['seed']})")
