"""Stars drawn into a frame in compiled loops, and what spoils it: streaks, cosmic rays, ghosts, aureoles, clouds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit
from scipy.ndimage import zoom

from nightsift.simulate.optics import FramePsf

Image = npt.NDArray[np.float32]
Values = npt.NDArray[np.float64]
CLOUD_GRID = 9  # nodes a side: structures down to an eighth of the frame


def render_stars(
    shape: tuple[int, int],
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
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


@dataclass(frozen=True, slots=True, eq=False)
class Clouds:
    """Extinction over a frame.

    Attributes
    ----------
    extinction : ndarray of float64, shape (9, 9)
        Extinction (mag) on nodes from corner to corner.
    shape : tuple of int
        ``(ny, nx)`` of the frame.
    """

    extinction: Values
    shape: tuple[int, int]

    def transmission(self, x: Values, y: Values) -> Values:
        """Transmission at positions, interpolated linearly between the nodes.

        Parameters
        ----------
        x, y : ndarray, shape (n,)
            Positions (pixel).

        Returns
        -------
        ndarray of float64, shape (n,)
            Fraction of the light that passes.
        """
        u = np.clip(x / (self.shape[1] - 1), 0, 1) * (CLOUD_GRID - 1)
        v = np.clip(y / (self.shape[0] - 1), 0, 1) * (CLOUD_GRID - 1)
        i, j = np.minimum(u.astype(int), CLOUD_GRID - 2), np.minimum(v.astype(int), CLOUD_GRID - 2)
        fu, fv = u - i, v - j
        e = self.extinction
        low = e[j, i] * (1 - fu) + e[j, i + 1] * fu
        high = e[j + 1, i] * (1 - fu) + e[j + 1, i + 1] * fu
        return np.asarray(10 ** (-0.4 * (low * (1 - fv) + high * fv)))

    def image(self) -> Image:
        """Return the transmission of every pixel, float32, shape (ny, nx)."""
        factors = (self.shape[0] / CLOUD_GRID, self.shape[1] / CLOUD_GRID)
        full = zoom(self.extinction.astype(np.float32), factors, order=1, grid_mode=False)
        return np.asarray(np.power(np.float32(10), np.float32(-0.4) * full), dtype=np.float32)


def draw_clouds(rng: np.random.Generator, shape: tuple[int, int], extinction: float, *, patchy: bool) -> Clouds:
    """Draw the extinction over a frame of a given mean (mag), patchy or the same everywhere."""
    nodes = np.full((CLOUD_GRID, CLOUD_GRID), extinction)
    if patchy:
        waves = zoom(rng.standard_normal((4, 4)), CLOUD_GRID / 4, order=3)
        nodes = extinction * np.clip(1.0 + 0.35 * waves, 0.1, 2.5)
    return Clouds(nodes, shape)


def sky_shape(rng: np.random.Generator, shape: tuple[int, int], gradient: float) -> Image:
    """Draw the sky's brightness relative to the centre: a tilted, slightly bent plane, float32, shape (ny, nx)."""
    slope, angle, bend = rng.uniform(0, gradient), rng.uniform(0, 2 * np.pi), rng.uniform(-0.3, 0.3)
    u = np.linspace(-0.5, 0.5, shape[1], dtype=np.float32)[None, :]
    v = np.linspace(-0.5, 0.5, shape[0], dtype=np.float32)[:, None]
    along = np.float32(np.cos(angle)) * u + np.float32(np.sin(angle)) * v
    return np.asarray(1.0 + np.float32(slope) * (along + np.float32(bend) * along**2), dtype=np.float32)


def add_streak(rng: np.random.Generator, light: Image, psf: FramePsf, *, noise: float) -> npt.NDArray[np.bool_]:
    """Add the streak of a satellite.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    light : ndarray of float32, shape (ny, nx)
        Image to add to.
    psf : FramePsf
        Gives the streak its width.
    noise : float
        Noise of a pixel; the streak's peak is 1.5 to 80 times that.

    Returns
    -------
    ndarray of bool, shape (ny, nx)
        Pixels that it brightens by more than a half of the noise.
    """
    ny, nx = light.shape
    x0, y0, angle = rng.uniform(0, nx), rng.uniform(0, ny), rng.uniform(0, np.pi)
    long = 2.0 * float(np.hypot(nx, ny))
    # Most cross the whole frame; some begin or end on it.
    start, end = (-long, long) if rng.random() < 0.7 else (-rng.uniform(0.05, 0.8) * nx, rng.uniform(0.05, 0.8) * nx)
    peak = noise * np.exp(rng.uniform(np.log(1.5), np.log(80.0)))
    sigma = psf.fwhm / 2.3548 * rng.uniform(1.0, 1.4)
    flashing = rng.uniform(0.3, 1.0) if rng.random() < 0.25 else 0.0
    wavelength, phase = rng.uniform(40, 400), rng.uniform(0, 2 * np.pi)
    hit = np.zeros(light.shape, dtype=bool)
    _draw_streak(light, hit, x0, y0, angle, start, end, peak, sigma, flashing, wavelength, phase, 0.5 * noise)
    return hit


@njit(cache=True, nogil=True, fastmath=True)
def _draw_streak(  # type: ignore[no-untyped-def]
    light, hit, x0, y0, angle, start, end, peak, sigma, flashing, wavelength, phase, threshold
):
    ny, nx = light.shape
    c, s = np.cos(angle), np.sin(angle)
    reach = 5.0 * sigma
    for j in range(ny):
        for i in range(nx):
            across = (j - y0) * c - (i - x0) * s
            if abs(across) > reach:
                continue
            along = (i - x0) * c + (j - y0) * s
            beyond = max(start - along, along - end, 0.0)
            if beyond > reach:
                continue
            value = peak * np.exp(-(across * across + beyond * beyond) / (2 * sigma * sigma))
            if flashing > 0:
                value *= 1.0 - flashing * (0.5 + 0.5 * np.sin(2 * np.pi * along / wavelength + phase))
            light[j, i] += np.float32(value)
            if value > threshold:
                hit[j, i] = True


def cosmic_rays(rng: np.random.Generator, shape: tuple[int, int], number: float) -> Image | None:
    """Draw the charge left by cosmic rays: straight muon tracks, scattered electrons ("worms") and spots.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    shape : tuple of int
        ``(ny, nx)``.
    number : float
        Expected number of hits.

    Returns
    -------
    ndarray of float32, shape (ny, nx), or None
        Charge (electron); None when nothing was hit.
    """
    n = int(rng.poisson(number))
    if n == 0:
        return None
    charge = np.zeros(shape, dtype=np.float32)
    x, y = rng.uniform(0, shape[1], n), rng.uniform(0, shape[0], n)
    angle = rng.uniform(0, 2 * np.pi, n)
    # Inclinations to the normal ~ cos^2: mostly short tracks, some long ones, over about two pixels of depth.
    length = 0.5 + 2.0 * np.tan(np.arccos(np.clip(rng.random(n) ** (1 / 3), 0.04, 1.0)))
    per_pixel = 250.0 + 600.0 * rng.gamma(1.5, 1.0, n)
    worm = rng.random(n) < 0.2
    length = np.where(worm, rng.uniform(5, 25, n), np.minimum(length, 60.0))
    steps = np.ceil(2 * length).astype(np.int64) + 1
    turns = rng.normal(0.0, 1.0, int(steps.sum())) * np.repeat(np.where(worm, 0.35, 0.0), steps)
    _draw_tracks(charge, x, y, angle, per_pixel, steps, turns)
    return charge


@njit(cache=True, nogil=True)
def _draw_tracks(charge, x, y, angle, per_pixel, steps, turns):  # type: ignore[no-untyped-def]
    ny, nx = charge.shape
    turn = 0
    for k in range(len(x)):
        px, py, direction = x[k], y[k], angle[k]
        for _ in range(steps[k]):
            direction += turns[turn]
            turn += 1
            px += 0.5 * np.cos(direction)
            py += 0.5 * np.sin(direction)
            i, j = int(np.floor(px)), int(np.floor(py))
            for dj in range(2):
                for di in range(2):
                    if 0 <= i + di < nx and 0 <= j + dj < ny:
                        # Charge diffuses by a fraction of a pixel: sharper than any point-spread function.
                        part = (1 - abs(px - i - di)) * (1 - abs(py - j - dj))
                        charge[j + dj, i + di] += np.float32(0.5 * per_pixel[k] * part)


def add_ghosts(light: Image, x: Values, y: Values, *, flux: Values, fraction: float, noise: float) -> int:
    """Add ghosts: out-of-focus images of bright stars, mirrored through the centre of the frame.

    Parameters
    ----------
    light : ndarray of float32, shape (ny, nx)
        Image to add to.
    x, y, flux : ndarray, shape (n,)
        Stars.
    fraction : float
        Flux of a ghost over that of its star.
    noise : float
        Noise of a pixel: ghosts below a twentieth of it are left out.

    Returns
    -------
    int
        Number of ghosts drawn.
    """
    ny, nx = light.shape
    outer = 0.035 * (nx + ny) / 2.0 + 8.0
    area = np.pi * outer**2 * (1 - 0.4**2)
    number = 0
    for star in np.flatnonzero(flux * fraction / area > 0.05 * noise):
        gx, gy = (nx - 1) - 0.92 * x[star] - 0.04 * nx, (ny - 1) - 0.92 * y[star] - 0.04 * ny
        left, right = max(int(gx - outer) - 2, 0), min(int(gx + outer) + 3, nx)
        low, high = max(int(gy - outer) - 2, 0), min(int(gy + outer) + 3, ny)
        if left >= right or low >= high:
            continue
        radius = np.hypot(np.arange(low, high)[:, None] - gy, np.arange(left, right)[None, :] - gx)
        ring = np.clip((outer - radius) / 2 + 0.5, 0, 1) * np.clip((radius - 0.4 * outer) / 2 + 0.5, 0, 1)
        light[low:high, left:right] += (flux[star] * fraction / area * ring).astype(np.float32)
        number += 1
    return number


def add_aureoles(
    light: Image, x: Values, y: Values, *, flux: Values, psf: FramePsf, fraction: float, noise: float
) -> None:
    """Add the wide aureole of bright stars, light scattered by dust and optics (King 1971).

    Parameters
    ----------
    light : ndarray of float32, shape (ny, nx)
        Image to add to.
    x, y, flux : ndarray, shape (n,)
        Stars.
    psf : FramePsf
        Point-spread function; the aureole is six times as wide.
    fraction : float
        Flux of the aureole over that of the star.
    noise : float
        Noise of a pixel: aureoles are drawn where above a twentieth of it.
    """
    width, beta = 6.0 * psf.fwhm, 1.6
    wing = (beta - 1.0) / (np.pi * width**2)
    level = flux * fraction * wing / (0.05 * noise)
    bright = level > 1.0
    reach = width * np.sqrt(np.maximum(level[bright], 1.0) ** (1.0 / beta) - 1.0)
    reach = np.minimum(reach, 0.5 * max(light.shape))
    draw_wings(light, x[bright], y[bright], fraction * flux[bright], reach, wing, width, beta, 1e-3)
