"""A light curve as a small SVG picture: detections with errors, limits before the event, the event itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

WIDTH, HEIGHT = 248.0, 84.0
LEFT, RIGHT, TOP, BOTTOM = 34.0, 8.0, 8.0, 20.0
POINT, LIMIT, EVENT, INK = "#0072b2", "#8a949e", "#d55e00", "#5b6671"


def light_curve(points: Sequence[tuple[float, float, float]], limits: Sequence[tuple[float, float]], t0: float) -> str:
    """Draw magnitudes over hours or days after the event.

    Parameters
    ----------
    points : sequence of (float, float, float)
        Time (MJD UTC), magnitude and its error.
    limits : sequence of (float, float)
        Time and 5-sigma limit of exposures that do not show the object.
    t0 : float
        Time of the event.

    Returns
    -------
    str
        An SVG element; empty without a finite magnitude.
    """
    good = [one for one in points if math.isfinite(one[0] + one[1])]
    upper = [one for one in limits if math.isfinite(one[0] + one[1])]
    if not good:
        return ""
    times = [t0, *(one[0] for one in good)]
    scale, unit = (24.0, "h") if max(times) - t0 < 2.0 else (1.0, "d")
    hours = [(one - t0) * scale for one in times]
    span = max(max(hours) - min(hours), 0.2)
    low, high = min(hours) - (0.36 if upper else 0.06) * span, max(hours) + 0.06 * span
    mags = [one[1] for one in (*good, *upper)]
    bright, faint = min(mags) - 0.25, max(mags) + (0.6 if upper else 0.25)

    def x(mjd: float) -> float:  # what lies before the axis is drawn at its beginning
        part = ((mjd - t0) * scale - low) / (high - low)
        return LEFT + (WIDTH - LEFT - RIGHT) * max(part, 0.04)

    def y(mag: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (mag - bright) / (faint - bright)

    parts = [_frame(x, y, (low, high), (bright, faint), unit, t0, scale)]
    for t, m in upper:
        parts.append(f'<path d="M{x(t) - 4:.1f} {y(m):.1f}h8l-4 6z" fill="none" stroke="{LIMIT}"/>')
        parts.append(f'<text x="{x(t) + 6:.1f}" y="{y(m) + 4:.1f}" font-size="9" fill="{LIMIT}">{_when(t - t0)}</text>')
    for t, m, error in good:
        bar = min(error, 1.0) if math.isfinite(error) else 0.0
        top, bottom = max(y(m - bar), TOP), min(y(m + bar), HEIGHT - BOTTOM)
        parts.append(f'<path d="M{x(t):.1f} {top:.1f}V{bottom:.1f}" stroke="{POINT}"/>')
        parts.append(f'<circle cx="{x(t):.1f}" cy="{y(m):.1f}" r="2.6" fill="{POINT}"/>')
    label = f"Light curve: {len(good)} magnitudes, {len(upper)} limits"
    box = f'viewBox="0 0 {WIDTH:.0f} {HEIGHT:.0f}" role="img" aria-label="{label}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {box} font-family="inherit">{"".join(parts)}</svg>'


def _frame(
    x: Callable[[float], float], y: Callable[[float], float], times: tuple[float, float], mags: tuple[float, float],
    unit: str, t0: float, scale: float,
) -> str:  # fmt: skip
    """Axes, labels of their ends, and a line at the event."""
    bottom = HEIGHT - BOTTOM
    text = f'font-size="9.5" fill="{INK}"'
    parts = [
        f'<path d="M{LEFT} {TOP}V{bottom}H{WIDTH - RIGHT}" fill="none" stroke="#b9c1c9"/>',
        f'<path d="M{x(t0):.1f} {TOP}V{bottom}" stroke="{EVENT}" stroke-dasharray="2 2"/>',
    ]
    parts += [
        f'<text x="{LEFT - 4}" y="{y(mag) + 3:.1f}" text-anchor="end" {text}>{mag:g}</text>' for mag in _ticks(*mags, 3)
    ]
    for time in _ticks(max(times[0], 0.0), times[1], 4):
        place = x(t0 + time / scale)
        word = f"{time:g} {unit}".replace("-", "−")
        parts.append(f'<text x="{place:.1f}" y="{HEIGHT - 6}" text-anchor="middle" {text}>{word}</text>')
    return "".join(parts)


def _when(days: float) -> str:
    """Time before or after the event."""
    text = f"{days * 24.0:.0f} h" if abs(days) < 2.0 else f"{days:.0f} d"
    return text.replace("-", "−")


def _ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers between two ends."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(one * power for one in (1.0, 2.0, 5.0, 10.0) if one * power >= rough)
    first = math.ceil(low / step)
    return [round(k * step, 10) for k in range(first, math.floor(high / step) + 1)]
