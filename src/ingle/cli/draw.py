"""`ingle draw`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ingle.core.media import Picture
    from ingle.core.message import Chunk, Request
    from ingle.engine.language_model import LanguageModel
    from ingle.home.kept import Kept
    from ingle.home.place import Home
    from ingle.robustness.guard_model import OpenGuard
    from ingle.safety.policy import GuardPolicy

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

    from ingle.cli.house import enter
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
    from ingle.cli.choose import open_kept
    from ingle.cli.house import record
    from ingle.cli.settings import read_settings
    from ingle.engine.answer import write_whole
    from ingle.engine.language_model import USUAL, likeness, painted, painting_request
    from ingle.robustness.guard_model import guard_opener
    from ingle.safety.guard import guard_policy
    from ingle.serve.answers_key import answer_key
    from ingle.serve.record import answer_event, new_seed

    chat, policy = read_settings(home).chat, guard_policy(home.policy)
    guards = guard_opener(home, policy, lambda one: open_kept(home, one, chat))
    opened, first = open_kept(home, kept, chat), new_seed() if seed is None else seed
    sampling = replace(USUAL, temperature=USUAL.temperature if temperature is None else temperature)
    requests = [painting_request(opened, what, style, replace(sampling, seed=first + i)) for i in range(count)]
    model = opened.answering(requests[0])
    _guard(model, requests[0], policy, guards)
    answers = {number: (text, last) for number, text, last in write_whole(model, requests)}
    texts = [answers[i][0] for i in range(count)]
    likely = likeness(model, what, style, [model.tokenizer.encode(text) for text in texts])
    key = answer_key(home)
    events = []
    for number, (text, last) in sorted(answers.items()):
        assert last.finish is not None and last.usage is not None, "the last chunk has both"
        events.append(answer_event(key, model.name, requests[number], text, last.finish, last.usage))
    record(home, *events)
    drawn = [_Drawn(painted(model, text), requests[i], text, answers[i][1], likely[i]) for i, text in enumerate(texts)]
    return sorted(drawn, key=lambda one: -one.likeness)


def _guard(model: "LanguageModel", request: "Request", policy: "GuardPolicy", guards: "OpenGuard") -> None:
    """Let the guards judge the wish. Raises RequestError if one refuses it."""
    from ingle.core.message import Chunk
    from ingle.robustness.guard_model import asks_here
    from ingle.safety.guard import make_guards
    from ingle.safety.middleware import drive, from_iterator, wrap
    from ingle.serve.limits import limits_of

    layers = make_guards(limits_of(model), policy, model.name, ask=asks_here(guards))
    nothing = wrap(layers, lambda _asked: from_iterator(iter((Chunk("", finish="stop"),))))
    for _ in drive(nothing(request)):
        pass


def _show(path: Path, drawn: Sequence[_Drawn], as_json: bool) -> None:
    from ingle.cli.output import print_json

    rows = [{"seed": one.request.sampling.seed, "likeness": round(one.likeness, 2), "words": one.text.strip()} for one in drawn]
    if as_json:
        print_json({"file": str(path), "pictures": rows})
    else:
        print(f"{path}: the likeliest of {len(drawn)} (seed {rows[0]['seed']})")
