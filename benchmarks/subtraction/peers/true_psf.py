"""The true PSF of a drawn frame, for peers that must be given one, and a matched filter for those without score."""

from __future__ import annotations

import json
from typing import Any

import numpy as np


def true_psf(planes: Any, name: str, half: int, x: float | None = None, y: float | None = None) -> np.ndarray:
    """The Moffat profile of `fields`, integrated over pixels, at a position (the centre of the frame by default)."""
    given = json.loads(str(planes["told"]))["optics"][0 if name == "science" else 1]
    ny, nx = planes[f"{name}_data"].shape
    u = 0.0 if x is None else 2 * x / (nx - 1) - 1
    v = 0.0 if y is None else 2 * y / (ny - 1) - 1
    fwhm = given["fwhm"] * (1 + given["slope_x"] * u + given["slope_y"] * v + given["bowl"] * (u**2 + v**2))
    e1, e2 = given["e1"] + given["twist1"] * u + given["bend"] * v**2, given["e2"] + given["twist2"] * v
    n = 5
    steps = (np.arange((2 * half + 1) * n) + 0.5) / n - half - 0.5
    dy, dx = steps[:, None], steps[None, :]
    e = e1**2 + e2**2
    alpha2 = fwhm**2 / (4 * (2 ** (1 / given["beta"]) - 1))
    r2 = (dx**2 * (1 + e - 2 * e1) + dy**2 * (1 + e + 2 * e1) - 4 * e2 * dx * dy) / ((1 - e) * alpha2)
    image = (1 + r2) ** -given["beta"]
    image = image.reshape(2 * half + 1, n, 2 * half + 1, n).sum(axis=(1, 3))
    return np.asarray(image / image.sum())


def score(planes: Any, difference: np.ndarray, variance: np.ndarray, mask: np.ndarray, name: str) -> np.ndarray:
    """Matched filter with the true PSF of a frame in 8 x 8 tiles, scaled to unit width on the whole frame."""
    from scipy import signal

    half, (ny, nx) = 8, mask.shape
    data = np.where(mask, 0, difference).astype(np.float32)
    noise = np.where(mask, np.median(variance[~mask]), variance).astype(np.float32)
    out = np.zeros(mask.shape, np.float32)
    for j in range(8):
        for i in range(8):
            rows, columns = slice(j * ny // 8, (j + 1) * ny // 8), slice(i * nx // 8, (i + 1) * nx // 8)
            middle = (columns.start + columns.stop) / 2, (rows.start + rows.stop) / 2
            psf = true_psf(planes, name, half, *middle).astype(np.float32)[::-1, ::-1]
            wide = tuple(slice(max(0, s.start - half), min(n, s.stop + half)) for s, n in ((rows, ny), (columns, nx)))
            up = signal.oaconvolve(data[wide], psf, mode="same")
            down = np.sqrt(np.maximum(signal.oaconvolve(noise[wide], psf**2, mode="same"), 1e-12))
            start = rows.start - wide[0].start, columns.start - wide[1].start
            part = (
                slice(start[0], start[0] + rows.stop - rows.start),
                slice(start[1], start[1] + columns.stop - columns.start),
            )
            out[rows, columns] = (up / down)[part]
    out[mask] = 0
    width = 1.4826 * np.median(abs(out[~mask]))
    return out / np.float32(width)
