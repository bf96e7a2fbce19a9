"""Point-spread function of a frame: seeing disc, third-order aberrations, tracking and pixel, over the field."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.fft

from nightsift.simulate.unit_options import OpticsOptions

NODES = 3  # nodes a side: the aberrations vary at most as the square of the position


@dataclass(frozen=True, slots=True, eq=False)
class FramePsf:
    """Pixel-integrated point-spread function, sampled finely on 3 x 3 nodes of the frame.

    Between nodes it is interpolated by Lagrange polynomials of second order in x and y. Beyond `radius` it
    goes on as the power law of its Moffat profile.

    Attributes
    ----------
    nodes : ndarray of float32, shape (9, m, m)
        Flux in a pixel centred at each sub-pixel offset; a stride of `oversampling` sums to the flux inside.
    oversampling : int
        Samples per pixel.
    radius : float
        Radius (pixel) where the images pass into the power law.
    wing, core_width, beta : float
        The wing is ``wing * (1 + (r / core_width)**2) ** -beta``, per pixel for unit flux.
    shape : tuple of int
        ``(ny, nx)`` of the frame.
    fwhm : float
        Full width at half maximum at the centre (pixel): that of a circle of the same half-maximum area.
    noise_pixels : float
        ``1 / sum(psf**2)`` at the centre (pixel).
    """

    nodes: npt.NDArray[np.float32]
    oversampling: int
    radius: float
    wing: float
    core_width: float
    beta: float
    shape: tuple[int, int]
    fwhm: float
    noise_pixels: float

    def weights(self, x: npt.ArrayLike, y: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Return the weights of the nodes at positions (pixel), float32, shape (n, 9), summing to one."""
        u = 2.0 * np.atleast_1d(np.asarray(x, float)) / max(self.shape[1] - 1, 1) - 1.0
        v = 2.0 * np.atleast_1d(np.asarray(y, float)) / max(self.shape[0] - 1, 1) - 1.0
        # Lagrange polynomials of the nodes -1, 0, 1.
        lu = np.stack([u * (u - 1) / 2, 1 - u**2, u * (u + 1) / 2], axis=1)
        lv = np.stack([v * (v - 1) / 2, 1 - v**2, v * (v + 1) / 2], axis=1)
        return np.asarray((lv[:, :, None] * lu[:, None, :]).reshape(len(u), NODES * NODES), dtype=np.float32)

    def at(self, x: float, y: float) -> npt.NDArray[np.float32]:
        """Return the finely sampled image at a position (pixel), float32, shape (m, m)."""
        return np.asarray(np.tensordot(self.weights(x, y)[0], self.nodes, axes=1), dtype=np.float32)


def make_psf(
    optics: OpticsOptions,
    shape: tuple[int, int],
    pixel_scale: float,
    *,
    seeing: float,
    defocus: float = 0.0,
    trail: tuple[float, float] = (0.0, 0.0),
) -> FramePsf:
    """Point-spread function of one exposure.

    The seeing disc (Moffat 1969) is convolved with the spot diagram of defocus, astigmatism and coma of third
    order (e.g. Schroeder, Astronomical Optics, ch. 5) and with the tracking trail, and integrated over pixels.

    Parameters
    ----------
    optics : OpticsOptions
        The unit's optics.
    shape : tuple of int
        ``(ny, nx)`` of the frame.
    pixel_scale : float
        Pixel scale (arcsec/pixel).
    seeing : float
        Full width at half maximum of the seeing disc in this exposure (arcsec).
    defocus : float, optional
        Defocus added in this exposure (pixel).
    trail : tuple of float, optional
        Tracking trail ``(dx, dy)`` (pixel).

    Returns
    -------
    FramePsf
        The point-spread function.
    """
    seeing_px = max(seeing / pixel_scale, 0.5)
    spread = abs(optics.defocus + defocus) + abs(optics.curvature) + abs(optics.tilt_x) + abs(optics.tilt_y)
    spread += 2 * optics.coma + abs(optics.astigmatism) + 0.5 * float(np.hypot(*trail))
    half = int(np.ceil(min(4.5 * seeing_px + spread + 2, 40.0)))
    step = 5 if seeing_px < 3.0 else 4 if seeing_px < 5.0 else 3
    half_grid = step * half
    length = int(scipy.fft.next_fast_len(2 * half_grid + 1 + 2 * step, real=True))
    offsets = (np.arange(length) - length // 2) / step
    core_width = seeing_px / (2.0 * np.sqrt(2.0 ** (1.0 / optics.beta) - 1.0))
    seeing_ft = _seeing_transform(offsets, core_width, optics, step=step)
    cut = slice(length // 2 - half_grid, length // 2 + half_grid + 1)
    radius = half - 1.5
    outside = (1.0 + (radius / core_width) ** 2) ** (1.0 - optics.beta)
    # Flux of a Moffat profile per pixel, for unit total flux.
    wing = (optics.beta - 1.0) / (np.pi * core_width**2)
    nodes = np.empty((NODES * NODES, 2 * half_grid + 1, 2 * half_grid + 1), dtype=np.float32)
    inside = np.hypot(*np.meshgrid(offsets[cut], offsets[cut])) <= radius
    for index in range(NODES * NODES):
        u, v = float(index % NODES - 1), float(index // NODES - 1)
        spots = _spot_diagram(optics, u, v, defocus=optics.defocus + defocus, trail=trail, length=length, step=step)
        image = scipy.fft.irfft2(scipy.fft.rfft2(np.fft.ifftshift(spots)) * seeing_ft, s=(length, length))
        image = np.fft.fftshift(image)[cut, cut]
        nodes[index] = image * ((1.0 - outside) * step**2 / image[inside].sum())
    centre = nodes[(NODES * NODES) // 2]
    fwhm = 2.0 * np.sqrt(np.count_nonzero(centre > 0.5 * centre.max()) / np.pi) / step
    noise_pixels = 1.0 / float((centre[half_grid % step :: step, half_grid % step :: step] ** 2).sum())
    return FramePsf(nodes, step, radius, float(wing), float(core_width), optics.beta, shape, float(fwhm), noise_pixels)


def _seeing_transform(
    offsets: npt.NDArray[np.float64], core_width: float, optics: OpticsOptions, *, step: int
) -> npt.NDArray[np.complex128]:
    """Transform of the elliptic Moffat profile times that of the pixel."""
    axis_ratio, angle = 1.0 - optics.ellipticity, np.deg2rad(optics.ellipticity_angle)
    x, y = offsets[None, :], offsets[:, None]
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    moffat = (1.0 + (along**2 * axis_ratio + across**2 / axis_ratio) / core_width**2) ** -optics.beta
    transform = scipy.fft.rfft2(np.fft.ifftshift(moffat / moffat.sum()))
    n = len(offsets)
    pixel_y, pixel_x = np.sinc(np.fft.fftfreq(n, 1.0 / step)), np.sinc(np.fft.rfftfreq(n, 1.0 / step))
    return np.asarray(transform * pixel_y[:, None] * pixel_x[None, :], dtype=np.complex128)


def _spot_diagram(
    optics: OpticsOptions,
    u: float,
    v: float,
    *,
    defocus: float,
    trail: tuple[float, float],
    length: int,
    step: int,
) -> npt.NDArray[np.float64]:
    """Rays of an annular pupil where they hit the detector, centred on their mean, on the fine grid."""
    field_radius, direction = np.hypot(u, v) / np.sqrt(2.0), np.arctan2(v, u)
    rho = np.sqrt(np.linspace(optics.obstruction**2, 1.0, 25)[1::2])  # equal areas of the pupil
    theta = np.linspace(0, 2 * np.pi, 36, endpoint=False)
    rho, theta = (part.ravel() for part in np.meshgrid(rho, theta))
    focus = defocus + optics.tilt_x * u + optics.tilt_y * v + optics.curvature * field_radius**2
    astigmatism, coma = optics.astigmatism * field_radius**2, optics.coma * field_radius
    radial = (focus + astigmatism) * rho * np.cos(theta) + coma / 3.0 * rho**2 * (2.0 + np.cos(2 * theta))
    tangential = (focus - astigmatism) * rho * np.sin(theta) + coma / 3.0 * rho**2 * np.sin(2 * theta)
    x = radial * np.cos(direction) - tangential * np.sin(direction)
    y = radial * np.sin(direction) + tangential * np.cos(direction)
    along = np.linspace(-0.5, 0.5, 9) if np.hypot(*trail) > 0.05 else np.zeros(1)
    x = (x[:, None] - x.mean() + along * trail[0]).ravel() * step + length // 2
    y = (y[:, None] - y.mean() + along * trail[1]).ravel() * step + length // 2
    spots = np.zeros(length * length)
    ix, iy = np.floor(x).astype(np.intp), np.floor(y).astype(np.intp)
    fx, fy = x - ix, y - iy
    for dx, dy, part in ((0, 0, (1 - fx) * (1 - fy)), (1, 0, fx * (1 - fy)), (0, 1, (1 - fx) * fy), (1, 1, fx * fy)):
        spots += np.bincount((iy + dy) * length + ix + dx, weights=part, minlength=length * length)
    return spots.reshape(length, length) / len(x)
