"""Curves of success over the budget as an SVG file."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from ingle.train.loss_curve import Key, Scale, colour_class, document, frame_below, legend

Curve = Sequence[tuple[float, float]]  # (tries, share of goals reached by then)


def curves_svg(title: str, curves: Mapping[str, Curve]) -> str:
    """Draw steps: tries along, percent of the goals that were reached up."""
    drawn = [(name, colour_class(number, len(curves)), curve) for number, (name, curve) in enumerate(curves.items()) if curve]
    ends = [f"{name} {curve[-1][1]:.0%}" for name, _, curve in drawn]
    keys, end = legend([Key(words, look) for words, (_, look, _) in zip(ends, drawn, strict=True)], 48)
    frame = frame_below(end, Scale(0, max((x for _, _, curve in drawn for x, _ in curve), default=0) or 1), Scale(0, 100))
    lines = [frame.line(_steps(curve), look) for _, look, curve in drawn]
    said = f"Goals reached at last: {', '.join(ends)}."
    return document(title, said, frame, [keys, frame.grid("tries at a goal", "goals reached, %"), *lines])


def _steps(curve: Curve) -> list[tuple[float, float]]:
    """Return the corners of a curve that stays level until its next point, in percent."""
    corners = [curve[0], *(corner for (_, before), (x, y) in pairwise(curve) for corner in ((x, before), (x, y)))]
    return [(x, 100 * y) for x, y in corners]
