"""Stars drawn into a frame, in compiled loops."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from nightsift.simulate.optics import FramePsf

Image = npt.NDArray[np.float32]


def render_stars(
    shape: tuple[int, int],
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    flux: npt.ArrayLike,
    psf: FramePsf,
    noise: float = 1.0,
    into: Image | None = None,
) -> Image:
    """Draw point sources.

    Parameters
    ----------
    shape : tuple of int
        ``(ny, nx)``.
    x, y : array_like, shape (n,)
        Positions (pixel); they may lie outside.
    flux : array_like, shape (n,)
        Total fluxes.
    psf : FramePsf
        Point-spread function of the frame.
    noise : float, optional
        Noise of a pixel in units of `flux`: a profile is drawn out to where it falls below a fiftieth of it.
    into : ndarray of float32, shape (ny, nx), optional
        Image to add to.

    Returns
    -------
    ndarray of float32, shape (ny, nx)
        The image (`into` when given).
    """
    image = np.zeros(shape, dtype=np.float32) if into is None else into
    xs, ys, fluxes = (np.atleast_1d(np.asarray(part, dtype=np.float64)) for part in (x, y, flux))
    reach = _reach(fluxes, psf, noise)
    near = (xs > -reach - 1) & (xs < shape[1] + reach) & (ys > -reach - 1) & (ys < shape[0] + reach)
    xs, ys, fluxes, reach = xs[near], ys[near], fluxes[near], reach[near]
    # Outside the frame the point-spread function is that of the nearest edge.
    weights = psf.weights(np.clip(xs, 0, shape[1] - 1), np.clip(ys, 0, shape[0] - 1))
    middle = psf.nodes.shape[1] // 2
    core = np.minimum(reach, middle // psf.oversampling - 1).astype(np.int64)
    _draw_cores(image, xs, ys, fluxes, core, weights, psf.nodes, psf.oversampling, psf.radius)
    bright = reach > psf.radius
    draw_wings(
        image, xs[bright], ys[bright], fluxes[bright], reach[bright], psf.wing, psf.core_width, psf.beta, psf.radius
    )
    return image


def _reach(flux: npt.NDArray[np.float64], psf: FramePsf, noise: float) -> npt.NDArray[np.float64]:
    """Radius at which profiles sink into the noise (pixel)."""
    level = np.maximum(np.abs(flux) * psf.wing / (0.02 * noise), 1.0)
    radius = psf.core_width * np.sqrt(level ** (1.0 / psf.beta))
    blur = max(psf.fwhm - 2 * psf.core_width * np.sqrt(2 ** (1 / psf.beta) - 1), 0.0)
    return np.asarray(np.clip(radius + blur, 2.0 * psf.fwhm, max(psf.shape)), dtype=np.float64)


@njit(cache=True, nogil=True, fastmath=True)
def _taper(r2: float, radius: float) -> float:
    """One inside, falling smoothly to zero at `radius`."""
    inner = 0.8 * radius
    if r2 <= inner * inner:
        return 1.0
    if r2 >= radius * radius:
        return 0.0
    t = (radius - np.sqrt(r2)) / (radius - inner)
    return float(t * t * (3.0 - 2.0 * t))


@njit(cache=True, nogil=True, fastmath=True)
def _keys(t: float) -> tuple[float, float, float, float]:
    """Weights of cubic convolution (Keys 1981), a = -1/2."""
    return (
        ((-0.5 * t + 1.0) * t - 0.5) * t,
        (1.5 * t - 2.5) * t * t + 1.0,
        ((-1.5 * t + 2.0) * t + 0.5) * t,
        (0.5 * t - 0.5) * t * t,
    )


@njit(cache=True, nogil=True, fastmath=True)
def _draw_cores(image, xs, ys, fluxes, reach, weights, nodes, step, radius):  # type: ignore[no-untyped-def]
    ny, nx = image.shape
    n_nodes, size = nodes.shape[0], nodes.shape[1]
    middle = size // 2
    line = np.empty(size, dtype=np.float32)
    for star in range(len(xs)):
        ix, iy = int(np.floor(xs[star] + 0.5)), int(np.floor(ys[star] + 0.5))
        r = reach[star]
        px, py = middle - (xs[star] - ix) * step, middle - (ys[star] - iy) * step
        bx, by = int(np.floor(px)), int(np.floor(py))
        x0, x1, x2, x3 = _keys(px - bx)
        wy = _keys(py - by)
        first, last = max(bx - 1 - r * step, 0), min(bx + 3 + r * step, size)
        low, high = max(-r, -ix), min(r, nx - 1 - ix)
        w0, w1, w2, w3 = (np.float32(x0), np.float32(x1), np.float32(x2), np.float32(x3))
        tapered = (r + 1) ** 2 * 2 > 0.64 * radius * radius
        for j in range(max(-r, -iy), min(r, ny - 1 - iy) + 1):
            row = by + j * step
            line[first:last] = 0.0
            for tap in range(4):
                k = row - 1 + tap
                if k < 0 or k >= size:
                    continue
                for n in range(n_nodes):
                    w = np.float32(wy[tap] * weights[star, n] * fluxes[star])
                    source = nodes[n, k, first:last]
                    target = line[first:last]
                    for i in range(last - first):
                        target[i] += w * source[i]
            out = image[iy + j]
            dy2 = (iy + j - ys[star]) ** 2
            for i in range(low, high + 1):
                b = bx + i * step
                if b < 1 or b + 2 >= size:
                    continue
                value = w0 * line[b - 1] + w1 * line[b] + w2 * line[b + 1] + w3 * line[b + 2]
                if tapered:
                    value *= np.float32(_taper(dy2 + (ix + i - xs[star]) ** 2, radius))
                out[ix + i] += value


@njit(cache=True, nogil=True, fastmath=True)
def draw_wings(image, xs, ys, fluxes, reach, wing, width, beta, radius):  # type: ignore[no-untyped-def]
    """Add round Moffat wings beyond a radius.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
        Image to add to.
    xs, ys, fluxes, reach : ndarray of float64, shape (n,)
        Positions (pixel), fluxes, and radii out to which the wings are drawn (pixel).
    wing, width, beta : float
        The wing is ``wing * (1 + (r / width)**2) ** -beta`` for unit flux.
    radius : float
        Radius within which something else is drawn (pixel); the wings rise smoothly towards it.
    """
    ny, nx = image.shape
    inner2 = (0.8 * radius) ** 2
    for star in range(len(xs)):
        r = reach[star]
        for j in range(max(int(ys[star] - r), 0), min(int(ys[star] + r) + 2, ny)):
            dy2 = (j - ys[star]) ** 2
            if dy2 > r * r:
                continue
            out = image[j]
            span = np.sqrt(r * r - dy2)
            for i in range(max(int(xs[star] - span), 0), min(int(xs[star] + span) + 2, nx)):
                r2 = dy2 + (i - xs[star]) ** 2
                if r2 > inner2 and r2 <= r * r:
                    part = 1.0 - _taper(r2, radius)
                    out[i] += np.float32(part * fluxes[star] * wing * (1.0 + r2 / width**2) ** -beta)
