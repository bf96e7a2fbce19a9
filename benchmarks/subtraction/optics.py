"""A PSF that varies over the frame, drawn pixel by pixel: the ground truth of `fields`."""

from __future__ import annotations

from dataclasses import dataclass

import numba as nb
import numpy as np

NODES = np.array([-np.sqrt(0.15), 0.0, np.sqrt(0.15)])
WEIGHTS = np.array([5.0, 8.0, 5.0]) / 18.0
"""Gauss-Legendre quadrature over a pixel."""


@dataclass(frozen=True)
class Optics:
    """A Moffat PSF whose width and ellipticity vary over the frame.

    ``fwhm (1 + slope_x u + slope_y v + bowl (u^2 + v^2))`` with u, v in [-1, 1]; ``e1 + twist1 u + bend v^2`` and
    ``e2 + twist2 v`` are the components of the reduced shear of its outline.
    """

    shape: tuple[int, int]
    fwhm: float
    beta: float
    slope_x: float = 0.0
    slope_y: float = 0.0
    bowl: float = 0.0
    e1: float = 0.0
    e2: float = 0.0
    twist1: float = 0.0
    twist2: float = 0.0
    bend: float = 0.0

    def parameters(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Full width at half maximum (pixel, geometric mean of the axes) and ellipticity at positions."""
        u, v = 2 * np.asarray(x, float) / (self.shape[1] - 1) - 1, 2 * np.asarray(y, float) / (self.shape[0] - 1) - 1
        fwhm = self.fwhm * (1 + self.slope_x * u + self.slope_y * v + self.bowl * (u**2 + v**2))
        return fwhm, self.e1 + self.twist1 * u + self.bend * v**2, self.e2 + self.twist2 * v

    def add(self, image: np.ndarray, x: np.ndarray, y: np.ndarray, flux: np.ndarray, cut: float) -> None:
        """Add point sources to an image, each out to where it falls below `cut` per pixel."""
        fwhm, e1, e2 = self.parameters(x, y)
        x, y, flux = (np.asarray(one, float) for one in (x, y, flux))
        _add_sources(image, x, y, flux, fwhm, e1, e2, self.beta, cut)

    def stamp(self, x: float, y: float, half: int, dx: float = 0.0, dy: float = 0.0) -> np.ndarray:
        """The PSF of a position, centred on the middle of a stamp (its sum is below 1 by the light outside)."""
        fwhm, e1, e2 = self.parameters(np.array([x]), np.array([y]))
        image = np.zeros((2 * half + 1, 2 * half + 1))
        centre = np.array([half + dx]), np.array([half + dy])
        _add_sources(image, *centre, np.ones(1), fwhm, e1, e2, self.beta, 0.0)
        return image


@nb.njit(cache=True, nogil=True, fastmath=True)
def _add_sources(image, xs, ys, fluxes, fwhms, e1s, e2s, beta, cut):  # type: ignore[no-untyped-def]
    ny, nx = image.shape
    for i in range(xs.shape[0]):
        x, y, e1, e2 = xs[i], ys[i], e1s[i], e2s[i]
        alpha2 = fwhms[i] ** 2 / (4.0 * (2.0 ** (1.0 / beta) - 1.0))
        peak = fluxes[i] * (beta - 1.0) / (np.pi * alpha2)
        e = e1 * e1 + e2 * e2
        a = (1.0 + e - 2.0 * e1) / (1.0 - e) / alpha2
        b = (1.0 + e + 2.0 * e1) / (1.0 - e) / alpha2
        c = -4.0 * e2 / (1.0 - e) / alpha2
        reach = float(max(nx, ny))
        if cut > 0:
            ratio = max(abs(peak) / cut, 1.0)
            stretch = (1.0 + np.sqrt(e)) / np.sqrt(1.0 - e)
            reach = min(reach, max(3.0 * fwhms[i], stretch * np.sqrt(alpha2 * max(ratio ** (1.0 / beta) - 1.0, 0.0))))
        fine = (4.0 * fwhms[i]) ** 2
        for py in range(max(0, int(np.ceil(y - reach))), min(ny - 1, int(np.floor(y + reach))) + 1):
            dy = py - y
            width2 = reach * reach - dy * dy
            if cut > 0 and width2 < 0:
                continue
            width = np.sqrt(width2) if cut > 0 else reach
            for px in range(max(0, int(np.ceil(x - width))), min(nx - 1, int(np.floor(x + width))) + 1):
                dx = px - x
                if dx * dx + dy * dy > fine:
                    image[py, px] += peak * (1.0 + a * dx * dx + b * dy * dy + c * dx * dy) ** (-beta)
                    continue
                total = 0.0
                for j in range(3):
                    sy = dy + NODES[j]
                    for k in range(3):
                        sx = dx + NODES[k]
                        total += WEIGHTS[j] * WEIGHTS[k] * (1.0 + a * sx * sx + b * sy * sy + c * sx * sy) ** (-beta)
                image[py, px] += peak * total
