"""A loss curve as an SVG file: a few lines of text that every browser shows."""

import math
from collections.abc import Sequence

WIDTH, HEIGHT = 720, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 16, 28, 40
_LINES = (("loss", "#c2410c", 1.2), ("held out", "#1d4ed8", 2.4))
Points = Sequence[tuple[float, float]]


def loss_svg(title: str, loss: Points, held_out: Points) -> str:
    """Draw the training loss, a running mean over it, and the held-out loss: steps along, nats up."""
    everything = [*loss, *held_out]
    if not everything:
        return f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}"/>'
    steps, values = [x for x, _ in everything], sorted(y for _, y in everything)
    low, high = values[0], values[min(len(values) - 1, math.ceil(0.995 * len(values)))]  # one spike must not flatten the rest
    span = (high - low) or 1.0
    low, high = low - 0.05 * span, high + 0.05 * span

    def place(x: float, y: float) -> str:
        across = _LEFT + (WIDTH - _LEFT - _RIGHT) * (x - min(steps)) / max(1, max(steps) - min(steps))
        down = _TOP + (HEIGHT - _TOP - _BOTTOM) * (high - min(max(y, low), high)) / (high - low)
        return f"{across:.1f},{down:.1f}"

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"',
        ' font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/><text x="{_LEFT}" y="18">{_escaped(title)}</text>',
    ]
    for i in range(5):
        value = low + (high - low) * i / 4
        _, down = place(min(steps), value).split(",")
        parts.append(f'<path d="M{_LEFT} {down}H{WIDTH - _RIGHT}" stroke="#ddd"/><text x="6" y="{float(down) + 4:.1f}">{value:.3f}</text>')
        step = min(steps) + (max(steps) - min(steps)) * i / 4
        across, _ = place(step, low).split(",")
        parts.append(f'<text x="{across}" y="{HEIGHT - 20}" text-anchor="middle">{step:.0f}</text>')
    parts.append(f'<path d="M{" L".join(place(*p) for p in loss)}" fill="none" stroke="#fdba74" stroke-width="0.8"/>' if loss else "")
    for (name, colour, width), points, left in zip(_LINES, (_smooth(loss), held_out), (_LEFT, _LEFT + 120), strict=True):
        if points:
            parts.append(f'<path d="M{" L".join(place(*p) for p in points)}" fill="none" stroke="{colour}" stroke-width="{width}"/>')
            parts.append(f'<text x="{left}" y="{HEIGHT - 4}" fill="{colour}">{name} {points[-1][1]:.4f}</text>')
    return "\n".join([*parts, "</svg>"])


def _smooth(points: Points) -> list[tuple[float, float]]:
    """Running means over about a twentieth of all points."""
    share, mean, done = 2 / (len(points) / 20 + 2), 0.0, []
    for i, (x, y) in enumerate(points):
        mean += (y - mean) * max(share, 1 / (i + 1))
        done.append((x, mean))
    return done


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
