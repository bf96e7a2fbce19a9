"""Finding charts: a part of the sky with north up and east to the left, where to look marked, scale and compass."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nightsift.core.frames import FloatImage, Frame
from nightsift.images.resampling.reprojection import cutout
from nightsift.report.night import sexagesimal
from nightsift.report.pictures import stretched

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

INK, MARK, EMPTY = (27, 34, 42), (200, 30, 30), (214, 219, 224)
BARS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 18000, 36000)
"""Lengths of a scale bar (arcsec)."""

GAP = 10
"""Pixels between charts side by side."""


def finding_chart(
    frame: Frame,
    position: tuple[float, float],
    size: float,
    *,
    title: str = "",
    caption: str = "",
    pixels: int = 480,
) -> npt.NDArray[np.uint8]:
    """Draw a finding chart, dark stars on a light sky.

    Parameters
    ----------
    frame : Frame
        Background-subtracted image with coordinates.
    position : tuple of float
        Right ascension and declination of what is to be found (deg, ICRS); the centre of the chart.
    size : float
        Side of the sky that it shows (arcsec).
    title : str, optional
        What is to be found.
    caption : str, optional
        What the image is.
    pixels : int, optional
        Side of the picture, without the lines of text above and below.

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)
        The chart, first row on top.

    Raises
    ------
    ValueError
        If the frame has no coordinates, or the size is no positive number.
    """
    from PIL import Image, ImageDraw

    if frame.wcs is None:
        raise ValueError("a finding chart needs an image with coordinates")
    if not (math.isfinite(size) and size > 0.0):
        raise ValueError(f"the size of a finding chart must be positive, got {size:g} arcsec")
    part, _ = cutout(_visible(frame), frame.wcs, position, size=size, pixel_scale=size / pixels)
    part = part[:pixels, :pixels]
    line = max(15, round(pixels / 26))
    font, small = _font(round(0.78 * line)), _font(round(0.66 * line))
    top, bottom = round((2.4 if title else 1.3) * line), round(1.5 * line)
    canvas = Image.new("RGB", (pixels, pixels + top + bottom), "white")
    canvas.paste(Image.fromarray(_sky(part)), (0, top))
    draw = ImageDraw.Draw(canvas)
    draw.text((2, 1), title, INK, font=font)
    draw.text((2, top - 1.25 * line), _place(position), INK, font=small)
    draw.text((2, pixels + top + 0.25 * line), f"{caption}{', ' if caption else ''}{angle(size)} wide", INK, font=small)
    _crosshair(draw, top, pixels)
    _scale_bar(draw, size, pixels, top=top, font=small)
    _compass(draw, top, pixels, font=small)
    return np.asarray(canvas, dtype=np.uint8)


def write_charts(path: Path, charts: Sequence[npt.NDArray[np.uint8]]) -> Path:
    """Write finding charts of one size side by side as a PNG, and return its path."""
    from PIL import Image

    gap = np.full((charts[0].shape[0], GAP, 3), 255, dtype=np.uint8)
    parts = [part for chart in charts for part in (gap, chart)][1:]
    Image.fromarray(np.ascontiguousarray(np.concatenate(parts, axis=1))).save(path, "PNG", optimize=True)
    return path


def angle(arcsec: float) -> str:
    """Return an angle in the unit that suits it, as ``30″``, ``5′`` or ``2°``."""
    for limit, unit, mark in ((3600.0, 3600.0, "°"), (60.0, 60.0, "′")):
        if arcsec >= limit:
            return f"{arcsec / unit:.3g}{mark}"
    return f"{arcsec:.3g}″"


def _visible(frame: Frame) -> FloatImage:
    """Pixels that hold light, saturated ones among them; the others NaN."""
    from nightsift.core.flags import HARD, OBSCURED

    hidden = (frame.mask & (HARD & ~OBSCURED)) != 0
    return np.where(hidden, np.float32(np.nan), frame.data)


def _sky(part: FloatImage) -> npt.NDArray[np.uint8]:
    hole = ~np.isfinite(part)
    bright = stretched(np.nan_to_num(part), hole) / 255.0
    grey = (255.0 * (1.0 - bright**1.5)).astype(np.uint8)  # the noise of the sky stays light
    picture = np.repeat(grey[..., None], 3, axis=2)
    picture[hole] = EMPTY
    return np.ascontiguousarray(picture[::-1])


def _place(position: tuple[float, float]) -> str:
    return f"{sexagesimal(*position)}   ({position[0]:.5f}, {position[1]:+.5f})"


def _font(size: int) -> Any:
    """The font of the other figures, which has all signs that are needed."""
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def _crosshair(draw: ImageDraw, top: int, pixels: int) -> None:
    """Four strokes that leave the place itself free."""
    x, y = pixels // 2, top + pixels // 2
    near, far = round(0.025 * pixels), round(0.07 * pixels)
    width = max(2, round(pixels / 240))
    for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        draw.line([x + near * dx, y + near * dy, x + far * dx, y + far * dy], fill=MARK, width=width)


def _scale_bar(draw: ImageDraw, size: float, pixels: int, *, top: int, font: Any) -> None:
    """A bar of round length, a quarter of the side at most."""
    length = max((one for one in BARS if one <= 0.25 * size), default=0.25 * size)
    text = angle(length)
    margin, height = 0.03 * pixels, 0.045 * pixels
    y = top + pixels - margin
    end = margin + pixels * length / size
    left, upper, right, _ = draw.textbbox((0, 0), text, font=font)
    box = [margin / 2, y - height - margin / 2, max(end, margin + right - left) + margin / 2, y + margin / 2]
    draw.rectangle(box, fill="white")
    draw.line([margin, y, end, y], fill=INK, width=max(2, round(pixels / 200)))
    draw.text((margin, y - height - upper / 2), text, INK, font=font)


def _compass(draw: ImageDraw, top: int, pixels: int, *, font: Any) -> None:
    """Arrows to the north and the east."""
    arm, margin = 0.075 * pixels, 0.03 * pixels
    x, y = pixels - margin - 0.01 * pixels, top + pixels - margin
    draw.rectangle([x - 1.75 * arm, y - 1.75 * arm, x + margin, y + margin / 2], fill="white")
    head = 0.2 * arm
    width = max(2, round(pixels / 240))
    for dx, dy in ((0, -1), (-1, 0)):
        end = (x + arm * dx, y + arm * dy)
        draw.line([x, y, *end], fill=INK, width=width)
        base = (end[0] - head * dx, end[1] - head * dy)
        draw.polygon([end, (base[0] + head * dy / 2, base[1] + head * dx / 2),
                      (base[0] - head * dy / 2, base[1] - head * dx / 2)], fill=INK)  # fmt: skip
    draw.text((x, y - arm - 0.02 * pixels), "N", INK, font=font, anchor="mb")
    draw.text((x - arm - 0.015 * pixels, y), "E", INK, font=font, anchor="rm")
