"""Stamps as small PNG pictures inside HTML."""

from __future__ import annotations

import base64
import io

import numpy as np
import numpy.typing as npt

from nightsift.core.robust import mad_sigma
from nightsift.frames import Stamps

GAP = 1
"""Pixels between the planes of a picture."""

MASKED = np.array([214, 120, 92], dtype=np.uint8)
"""Colour of masked pixels."""


def strip(stamps: Stamps) -> str:
    """Draw science, template and difference of the first stamp side by side, y upwards.

    Science and template are stretched by asinh from just below their sky to their peak; the difference is linear and
    symmetric about zero, mid-grey, so that a real source and its negative look alike but for the sign.

    Parameters
    ----------
    stamps : Stamps
        At least one stamp.

    Returns
    -------
    str
        A data URI of a PNG of ``(3 size + 2) x size`` pixels.
    """
    data, mask = stamps.data[0], stamps.mask[0]
    grey = [_stretched(data[..., 0], mask), _stretched(data[..., 1], mask), _symmetric(data[..., 2], mask)]
    planes = [np.repeat(plane[..., None], 3, axis=2) for plane in grey]
    for plane in planes:
        plane[mask] = (plane[mask] // 3 + MASKED // 3 * 2).astype(np.uint8)
    gap = np.full((data.shape[0], GAP, 3), 255, dtype=np.uint8)
    joined = np.concatenate([planes[0], gap, planes[1], gap, planes[2]], axis=1)
    return png(joined[::-1])


def png(pixels: npt.NDArray[np.uint8]) -> str:
    """Encode pixels.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (ny, nx, 3)
        Red, green and blue, first row on top.

    Returns
    -------
    str
        A data URI.
    """
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _stretched(image: npt.NDArray[np.float32], mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    good = image[~mask & np.isfinite(image)]
    if good.size < 2:
        return np.full(image.shape, 128, dtype=np.uint8)
    sky, noise = _level(good)
    high = max(float(np.quantile(good, 0.997)), sky + 6.0 * noise)
    scaled = np.arcsinh(np.maximum(image - (sky - 2.0 * noise), 0.0) / (3.0 * noise))
    top = np.arcsinh((high - sky + 2.0 * noise) / (3.0 * noise))
    return _bytes(scaled / top)


def _symmetric(image: npt.NDArray[np.float32], mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    good = image[~mask & np.isfinite(image)]
    if good.size < 2:
        return np.full(image.shape, 128, dtype=np.uint8)
    _, noise = _level(good)
    limit = max(5.0 * noise, 0.8 * float(np.abs(good).max()))
    return _bytes(0.5 + 0.5 * image / limit)


def _level(good: npt.NDArray[np.float32]) -> tuple[float, float]:
    """Median and robust noise; never zero, so that a constant stamp can be drawn too."""
    sky = float(np.median(good))
    noise = mad_sigma(good, sky)
    return sky, max(noise, 1e-6 * abs(sky), 1e-9)


def _bytes(values: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
    return np.asarray(np.clip(np.nan_to_num(values), 0.0, 1.0) * 255.0 + 0.5, dtype=np.uint8)
