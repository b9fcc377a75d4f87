"""One line over points as SVG text: all that a report draws."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

WIDTH, HEIGHT = 640, 300
_LEFT, _BOTTOM, _RIGHT, _TOP = 64, 46, 16, 14


def line_chart(
    points: Sequence[tuple[float, float]],
    *,
    x_label: str,
    y_label: str,
    tick_labels: Sequence[str] | None = None,
    error_bars: Sequence[float] | None = None,
) -> str:
    """Points joined in order, with axes.

    Args:
        points: ``(x, y)``, at least one. x, y: names of the axes.
        ticks: a word below each point; by default its x. spread: half the length of a bar at each point.
    """
    bars = list(error_bars or [0.0] * len(points))
    xs = [p[0] for p in points]
    lows = [p[1] - b for p, b in zip(points, bars, strict=True)]
    highs = [p[1] + b for p, b in zip(points, bars, strict=True)]
    left, right = min(xs), max(xs)
    low, high = _padded(min(lows), max(highs))

    def at(px: float, py: float) -> tuple[float, float]:
        across = (px - left) / ((right - left) or 1) if right > left else 0.5
        return (
            _LEFT + across * (WIDTH - _LEFT - _RIGHT),
            HEIGHT - _BOTTOM - (py - low) / (high - low) * (HEIGHT - _BOTTOM - _TOP),
        )

    words = list(tick_labels) if tick_labels is not None else [f"{v:.3g}" for v in xs]
    every = max(1, len(words) // 14)
    parts = [_grid(low, high)]
    for i, ((px, py), bar) in enumerate(zip(points, bars, strict=True)):
        cx, cy = at(px, py)
        if bar:
            top, bottom = at(px, py + bar)[1], at(px, py - bar)[1]
            parts.append(f'<path d="M{cx:.1f} {top:.1f}V{bottom:.1f}" stroke="#1a5fb4" opacity=".5" stroke-width="3"/>')
        parts.append(f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="4" fill="#1a5fb4"><title>{py:.4f}</title></circle>')
        if i % every == 0:
            parts.append(_text(cx, HEIGHT - _BOTTOM + 17, words[i], "middle"))
    path = " ".join(f"{cx:.1f},{cy:.1f}" for cx, cy in (at(px, py) for px, py in points))
    parts.append(f'<polyline points="{path}" fill="none" stroke="#1a5fb4" stroke-width="2"/>')
    parts.append(_text((_LEFT + WIDTH) / 2, HEIGHT - 8, x_label, "middle"))
    parts.append(f'<g transform="rotate(-90 14 {HEIGHT / 2})">{_text(14, HEIGHT / 2, y_label, "middle")}</g>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" role="img" '
        f'font-family="system-ui,sans-serif" font-size="12">{"".join(parts)}</svg>'
    )


def _padded(low: float, high: float) -> tuple[float, float]:
    """A range with a little room on both sides."""
    room = (high - low) * 0.06 or abs(high) * 0.05 or 0.05
    return low - room, high + room


def _grid(low: float, high: float) -> str:
    """Horizontal lines at round values."""
    parts = []
    step = _step((high - low) / 4)
    for n in range(math.ceil(low / step), math.floor(high / step) + 1):
        py = HEIGHT - _BOTTOM - (n * step - low) / (high - low) * (HEIGHT - _BOTTOM - _TOP)
        parts.append(f'<path d="M{_LEFT} {py:.1f}H{WIDTH - _RIGHT}" stroke="#888" opacity=".35"/>')
        parts.append(_text(_LEFT - 6, py + 4, f"{n * step:.6g}", "end"))
    return "".join(parts)


def _step(wanted: float) -> float:
    """The largest of 1, 2 and 5 times a power of ten that is at most what is wanted."""
    power: float = 10.0 ** math.floor(math.log10(wanted))
    return next((m * power for m in (5, 2) if m * power <= wanted), power)


def _text(x: float, y: float, text: str, anchor: str) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} fill="currentColor" opacity=".75">{html.escape(text)}</text>'
