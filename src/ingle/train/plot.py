"""A loss curve as an SVG file."""

import math
from collections.abc import Sequence

from ingle.train.axes import Key, Scale, document, frame_below, legend, scale_over

Points = Sequence[tuple[float, float]]


def loss_svg(title: str, loss: Points, held_out: Points) -> str:
    """Draw the training loss, a running mean over it, and the held-out loss: steps along, nats up."""
    everything = [*loss, *held_out]
    values = sorted(y for _, y in everything if math.isfinite(y)) or [0.0, 1.0]
    high = values[min(len(values) - 1, math.ceil(0.995 * len(values)))]  # one spike must not flatten the rest
    steps = [x for x, _ in everything] or [0.0, 1.0]
    drawn = [(name, look, points) for name, look, points in (("loss", "told", _smooth(loss)), ("held out", "c0", held_out)) if points]
    keys, end = legend([Key(f"{name} {points[-1][1]:.4f}", look) for name, look, points in drawn], 48)
    frame = frame_below(end, Scale(min(steps), max(*steps, min(steps) + 1)), scale_over((values[0], high)))
    lines = [frame.line(points, look, 1.4 if look == "told" else 2.4) for _, look, points in drawn]
    said = "; ".join(f"{name}: {points[0][1]:.4f} at first, {points[-1][1]:.4f} at last" for name, _, points in drawn)
    return document(title, said, frame, [keys, frame.grid("step", "nats"), frame.line(loss, "pale", 0.8), *lines])


def _smooth(points: Points) -> list[tuple[float, float]]:
    """Running means over about a twentieth of all points."""
    share, mean, done = 2 / (len(points) / 20 + 2), 0.0, []
    for i, (x, y) in enumerate(points):
        mean += (y - mean) * max(share, 1 / (i + 1))
        done.append((x, mean))
    return done
