"""Curves of success over the budget as an SVG file: a few lines of text that every browser shows."""

from collections.abc import Mapping, Sequence

WIDTH, HEIGHT = 720, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 150, 32, 40
_COLOURS = ("#c2410c", "#1d4ed8", "#15803d", "#7e22ce", "#475569", "#b45309")
Curve = Sequence[tuple[float, float]]
"""(tries, share of goals reached by then)."""


def curves_svg(title: str, curves: Mapping[str, Curve]) -> str:
    """Draw steps: tries along, the share of goals that were reached up."""
    most = max((x for curve in curves.values() for x, _ in curve), default=1) or 1
    across, up = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM

    def x(tries: float) -> float:
        return _LEFT + across * tries / most

    def y(share: float) -> float:
        return _TOP + up * (1 - share)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"',
        ' font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/><text x="{_LEFT}" y="18">{_escaped(title)}</text>',
    ]
    for i in range(5):
        share, tries = i / 4, most * i / 4
        parts.append(f'<path d="M{_LEFT} {y(share):.1f}H{WIDTH - _RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="8" y="{y(share) + 4:.1f}">{share:.0%}</text>')
        parts.append(f'<text x="{x(tries):.1f}" y="{HEIGHT - 20}" text-anchor="middle">{tries:.0f}</text>')
    parts.append(f'<text x="{_LEFT + across / 2:.0f}" y="{HEIGHT - 4}" text-anchor="middle">tries at a goal</text>')
    for number, (name, curve) in enumerate(curves.items()):
        colour, before, way = _COLOURS[number % len(_COLOURS)], 0.0, ""
        for tries, share in curve:
            way += f"H{x(tries):.1f} V{y(share):.1f} " if way else f"M{x(tries):.1f} {y(share):.1f} "
            before = share
        parts.append(f'<path d="{way}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{WIDTH - _RIGHT + 8}" y="{_TOP + 16 * number + 8}" fill="{colour}">{_escaped(name)} {before:.0%}</text>')
    return "\n".join([*parts, "</svg>"])


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
