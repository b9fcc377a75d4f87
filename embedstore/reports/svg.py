"""Line and scatter charts as SVG text, the only drawings that reports need."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 640, 300
LEFT, _BOTTOM, RIGHT, _TOP = 64, 46, 16, 14  # margins around the axes
_MAX_TICK_LABELS = 14
_COLOR = "#1a5fb4"


@dataclass(frozen=True)
class _Axes:
    """The range of the data, mapped to the drawing."""

    left: float
    right: float
    low: float
    high: float

    def x(self, value: float) -> float:
        """Return the horizontal position of a value; a single value is in the middle."""
        share = (value - self.left) / (self.right - self.left) if self.right > self.left else 0.5
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Return the vertical position of a value."""
        return HEIGHT - _BOTTOM - (value - self.low) / (self.high - self.low) * (HEIGHT - _BOTTOM - _TOP)


def line_chart(
    points: Sequence[tuple[float, float]],
    *,
    x_label: str,
    y_label: str,
    tick_labels: Sequence[str] | None = None,
    error_ends: Sequence[tuple[float, float]] | None = None,
    reference: Sequence[tuple[float, float]] = (),
) -> str:
    """Draw points joined in order, with axes.

    Args:
        points: ``(x, y)``, at least one.
        x_label: name of the horizontal axis.
        y_label: name of the vertical axis.
        tick_labels: a label below each point; by default its x.
        error_ends: the lower and upper end of the bar at each point; by default no bars.
        reference: points of a dashed line; by default none.
    """
    bars = list(error_ends or [(y, y) for _, y in points])
    xs = [x for x, _ in points]
    ys = [y for ends in bars for y in ends] + [y for _, y in (*points, *reference)]
    axes = _Axes(min(xs), max(xs), *_padded(min(ys), max(ys)))
    ticks = list(tick_labels) if tick_labels is not None else [f"{x:.3g}" for x in xs]
    step = max(1, len(ticks) // _MAX_TICK_LABELS)
    parts = [_grid(axes), _dashed(axes, reference)]
    parts += [_marker(axes, point, bar) for point, bar in zip(points, bars, strict=True)]
    parts += [_text(axes.x(x), HEIGHT - _BOTTOM + 17, ticks[i], "middle") for i, x in enumerate(xs) if i % step == 0]
    path = " ".join(f"{axes.x(x):.1f},{axes.y(y):.1f}" for x, y in points)
    parts.append(f'<polyline points="{path}" fill="none" stroke="{_COLOR}" stroke-width="2"/>')
    return _drawing(parts, x_label, y_label)


def scatter_chart(
    points: Sequence[tuple[float, float]], *, x_label: str, y_label: str, reference: Sequence[tuple[float, float]] = ()
) -> str:
    """Draw points with axes.

    Args:
        points: ``(x, y)``, at least one.
        x_label: name of the horizontal axis.
        y_label: name of the vertical axis.
        reference: points of a dashed line; by default none.
    """
    xs, ys = [x for x, _ in (*points, *reference)], [y for _, y in (*points, *reference)]
    axes = _Axes(*_padded(min(xs), max(xs)), *_padded(min(ys), max(ys)))
    parts = [_grid(axes), _x_ticks(axes), _dashed(axes, reference)]
    parts += [
        f'<circle cx="{axes.x(x):.1f}" cy="{axes.y(y):.1f}" r="3" fill="{_COLOR}" opacity=".55">'
        f"<title>{x:.4g}, {y:.4g}</title></circle>"
        for x, y in points
    ]
    return _drawing(parts, x_label, y_label)


def escape(text: str) -> str:
    """Return a text as HTML."""
    return html.escape(text)


def _x_ticks(axes: _Axes) -> str:
    """Draw round values below the horizontal axis."""
    step = _round_step((axes.right - axes.left) / 6)
    numbers = range(math.ceil(axes.left / step), math.floor(axes.right / step) + 1)
    return "".join(_text(axes.x(n * step), HEIGHT - _BOTTOM + 17, f"{n * step:.6g}", "middle") for n in numbers)


def _drawing(parts: list[str], x_label: str, y_label: str) -> str:
    """Return the parts with the names of the axes as one drawing."""
    parts.append(_text((LEFT + WIDTH) / 2, HEIGHT - 8, x_label, "middle"))
    parts.append(f'<g transform="rotate(-90 14 {HEIGHT / 2})">{_text(14, HEIGHT / 2, y_label, "middle")}</g>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" role="img" '
        f'font-family="system-ui,sans-serif" font-size="12">{"".join(parts)}</svg>'
    )


def _dashed(axes: _Axes, points: Sequence[tuple[float, float]]) -> str:
    """Draw a dashed line through the points."""
    path = " ".join(f"{axes.x(x):.1f},{axes.y(y):.1f}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="#888" stroke-dasharray="5 4"/>' if points else ""


def _marker(axes: _Axes, point: tuple[float, float], bar: tuple[float, float]) -> str:
    """Draw a point with its error bar; hovering shows the value."""
    x, y = axes.x(point[0]), axes.y(point[1])
    marker = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{_COLOR}"><title>{point[1]:.4f}</title></circle>'
    if bar[0] == bar[1]:
        return marker
    top, bottom = axes.y(bar[1]), axes.y(bar[0])
    return f'<path d="M{x:.1f} {top:.1f}V{bottom:.1f}" stroke="{_COLOR}" opacity=".5" stroke-width="3"/>{marker}'


def _padded(low: float, high: float) -> tuple[float, float]:
    """Return a range with a margin on both sides."""
    margin = (high - low) * 0.06 or abs(high) * 0.05 or 0.05
    return low - margin, high + margin


def _grid(axes: _Axes) -> str:
    """Draw horizontal lines at round values."""
    parts = []
    step = _round_step((axes.high - axes.low) / 4)
    for n in range(math.ceil(axes.low / step), math.floor(axes.high / step) + 1):
        y = axes.y(n * step)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#888" opacity=".35"/>')
        parts.append(_text(LEFT - 6, y + 4, f"{n * step:.6g}", "end"))
    return "".join(parts)


def _round_step(at_most: float) -> float:
    """Return the largest of 1, 2 and 5 times a power of ten that is not above a limit."""
    power: float = 10.0 ** math.floor(math.log10(at_most))
    return next((m * power for m in (5, 2) if m * power <= at_most), power)


def _text(x: float, y: float, text: str, anchor: str) -> str:
    position = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {position} fill="currentColor" opacity=".75">{html.escape(text)}</text>'
