"""Bring images of any projection, scale and orientation onto another grid by their WCS, with the package reproject.

Exposures and their templates differ by parts of a pixel and are resampled by a Lanczos kernel of our own
(`nightsift.images.resampling.warp`), since the mapping comes from their stars. Here only coordinates count.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from astropy.wcs import WCS, NoConvergence
from astropy.wcs.utils import pixel_to_pixel

from nightsift.core.frames import FloatImage
from nightsift.sky.sphere import separation, sky_to_plane

FINER = 0.85
"""Source over target pixel, below which pixels are averaged. Interpolation leaves pixels out there, which costs 9 % of
the S/N at 0.8; above, averaging costs sharpness, and up to 0.2 % of flux where stars are undersampled."""

_STEP = 16  # target pixels between the nodes at which the mapping is looked at
_MARGIN = 8  # source pixels beyond the part that is needed

Window = tuple[slice, slice]


@dataclass(frozen=True, slots=True, eq=False)
class Overlap:
    """The part that an image has in common with a grid.

    Attributes
    ----------
    target, source : tuple of slice
        Rows and columns of the grid that the image may reach, and of the image that reach the grid.
    share : float
        Fraction of the grid that lies on the image.
    """

    target: Window
    source: Window
    share: float


def sky_scale(wcs: WCS, shape: tuple[int, int]) -> float:
    """Return the scale of a pixel at the centre of an image of `shape` (ny, nx), as it is on the sky (arcsec)."""
    x, y = (shape[1] - 1) / 2.0, (shape[0] - 1) / 2.0
    sky = wcs.pixel_to_world([x, x + 1.0, x], [y, y, y + 1.0])
    points = sky.icrs.cartesian.xyz.value.T
    return float(np.degrees(np.sqrt(np.linalg.norm(np.cross(points[1] - points[0], points[2] - points[0])))) * 3600.0)


def circle(wcs: WCS, shape: tuple[int, int]) -> tuple[float, float, float]:
    """Return centre (ICRS, deg) and radius (deg) of the circle round an image; the radius is NaN where it has none."""
    ny, nx = shape
    centre = wcs.pixel_to_world((nx - 1) / 2.0, (ny - 1) / 2.0).icrs
    corners = wcs.pixel_to_world([-0.5, nx - 0.5, -0.5, nx - 0.5], [-0.5, -0.5, ny - 0.5, ny - 0.5]).icrs
    reach = separation(centre.ra.deg, centre.dec.deg, corners.ra.deg, corners.dec.deg)
    return float(centre.ra.deg), float(centre.dec.deg), float(np.max(reach))


def north_up_wcs(ra: float, dec: float, scale: float, *, shape: tuple[int, int]) -> WCS:
    """Make gnomonic coordinates with north up and east to the left.

    Parameters
    ----------
    ra, dec : float
        Centre (deg, ICRS).
    scale : float
        Pixel (arcsec).
    shape : tuple of int
        ``(ny, nx)``.

    Returns
    -------
    astropy.wcs.WCS
        The coordinates.
    """
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [ra, dec]
    wcs.wcs.crpix = [(shape[1] + 1) / 2.0, (shape[0] + 1) / 2.0]
    wcs.wcs.cdelt = [-scale / 3600.0, scale / 3600.0]
    wcs.wcs.radesys = "ICRS"
    wcs.wcs.set()
    wcs.array_shape = shape
    return wcs


def overlap(wcs: WCS, shape: tuple[int, int], target: WCS, *, target_shape: tuple[int, int]) -> Overlap | None:
    """Find what an image has in common with a grid.

    Parameters
    ----------
    wcs : astropy.wcs.WCS
        Coordinates of the image.
    shape : tuple of int
        ``(my, mx)`` of the image.
    target : astropy.wcs.WCS
        Coordinates of the grid.
    target_shape : tuple of int
        ``(ny, nx)`` of the grid.

    Returns
    -------
    Overlap or None
        None where they have nothing in common.
    """
    a, b = circle(wcs, shape), circle(target, target_shape)
    # On the other side of the sky many projections have no inverse, or a wrong one; NaN: an image of the whole sky.
    if separation(a[0], a[1], b[0], b[1]) > 1.01 * (a[2] + b[2]):
        return None
    ny, nx = target_shape
    rows, columns = _nodes(ny), _nodes(nx)
    y, x = (axis.ravel() for axis in np.meshgrid(rows, columns, indexing="ij"))
    u, v = _mapped(target, wcs, x, y=y)
    inside = (u >= -0.5) & (u <= shape[1] - 0.5) & (v >= -0.5) & (v <= shape[0] - 0.5)
    if not bool(inside.any()):
        return None
    reached = (_span(y[inside], ny, _STEP), _span(x[inside], nx, _STEP))
    near = inside | ((np.abs(u - shape[1] / 2) < shape[1]) & (np.abs(v - shape[0] / 2) < shape[0]))
    near &= (y >= reached[0].start - 0.5) & (y <= reached[0].stop) & (x >= reached[1].start - 0.5) & (
        x <= reached[1].stop)  # fmt: skip
    needed = (_span(v[near], shape[0], _MARGIN), _span(u[near], shape[1], _MARGIN))
    return Overlap(reached, needed, float(inside.mean()))


def reproject_planes(
    planes: npt.NDArray[np.float32], wcs: WCS, target: WCS, *, shape: tuple[int, int]
) -> npt.NDArray[np.float32]:
    """Bring planes of one image onto a grid as surface brightness: what is 1 everywhere stays 1.

    Where the pixels of the image are finer than those of the grid by more than `FINER`, they are averaged (DeForest
    2004, Hann window); where they are not, interpolated by cubic splines.

    Parameters
    ----------
    planes : ndarray of float32, shape (n, my, mx)
        Images on one grid, all finite.
    wcs : astropy.wcs.WCS
        Their coordinates.
    target : astropy.wcs.WCS
        Coordinates of the new grid.
    shape : tuple of int
        ``(ny, nx)`` of the new grid.

    Returns
    -------
    ndarray of float32, shape (n, ny, nx)
        NaN outside of the image.
    """
    from reproject import reproject_adaptive, reproject_interp

    ratio = sky_scale(wcs, planes.shape[1:]) / sky_scale(target, shape)
    plain = {
        "shape_out": (len(planes), *shape),
        "return_footprint": False,
        "roundtrip_coords": False,
        "parallel": False,
    }
    if ratio < FINER:
        out = np.empty((len(planes), *shape), dtype=np.float32)  # its type is that of the sums
        reproject_adaptive((planes, wcs), target, kernel="hann", boundary_mode="strict", output_array=out, **plain)
        return out
    found = reproject_interp((planes, wcs), target, order="bicubic", **plain)
    return np.asarray(found, dtype=np.float32)


def pixel_area(wcs: WCS, target: WCS, *, shape: tuple[int, int]) -> FloatImage:
    """Area of each pixel of a grid in pixels of an image: what turns surface brightness into flux.

    Parameters
    ----------
    wcs, target : astropy.wcs.WCS
        Coordinates of the image and of the grid.
    shape : tuple of int
        ``(ny, nx)`` of the grid.

    Returns
    -------
    ndarray of float32, shape (ny, nx)
        The areas.
    """
    rows, columns = _nodes(shape[0]), _nodes(shape[1])
    y, x = (axis.ravel() for axis in np.meshgrid(rows, columns, indexing="ij"))
    u, v = _mapped(target, wcs, x, y=y)
    right, up = _mapped(target, wcs, x + 0.5, y=y), _mapped(target, wcs, x, y=y + 0.5)
    nodes = 4.0 * np.abs((right[0] - u) * (up[1] - v) - (right[1] - v) * (up[0] - u)).reshape(len(rows), len(columns))
    known = np.isfinite(nodes)
    nodes = np.where(known, nodes, np.median(nodes[known]) if known.any() else 1.0)
    along = np.stack([np.interp(np.arange(shape[0]), rows, column) for column in nodes.T], axis=1)
    return np.stack([np.interp(np.arange(shape[1]), columns, row) for row in along]).astype(np.float32)


def cutout(
    image: FloatImage,
    wcs: WCS,
    position: tuple[float, float],
    *,
    size: float,
    pixel_scale: float | None = None,
    north_up: bool = True,
) -> tuple[FloatImage, WCS]:
    """Cut a square of any size out of an image, north up and east to the left.

    Parameters
    ----------
    image : ndarray of float32, shape (my, mx)
        The image; pixels that are NaN stay so, and spoil only their neighbours.
    wcs : astropy.wcs.WCS
        Its coordinates.
    position : tuple of float
        Right ascension and declination of the centre (deg, ICRS).
    size : float
        Side of the square (arcsec).
    pixel_scale : float, optional
        Pixel of the cutout (arcsec); that of the image by default.
    north_up : bool, optional
        False to leave the image turned as it is.

    Returns
    -------
    cutout : ndarray of float32, shape (n, n)
        The part, in units of surface brightness of the image; NaN where the image does not reach.
    wcs : astropy.wcs.WCS
        Its coordinates.

    Raises
    ------
    ValueError
        If size or scale is no positive number, or the cutout would have more than 10,000 pixels a side.
    """
    native = sky_scale(wcs, image.shape)
    scale = native if pixel_scale is None else pixel_scale
    if not (np.isfinite(size) and size > 0.0 and np.isfinite(scale) and scale > 0.0):
        raise ValueError(f"size and scale must be positive, got {size} and {scale} arcsec")
    side = max(1, round(size / scale))
    if side > 10_000:
        raise ValueError(
            f"a cutout of {size:g} arcsec at {scale:g} arcsec/pixel has {side} pixels a side, at most 10000"
        )
    grid = north_up_wcs(*position, scale, shape=(side, side))
    if not north_up:
        grid.wcs.pc = _orientation(wcs, image.shape)
        grid.wcs.set()
    out = np.full((side, side), np.nan, dtype=np.float32)
    found = overlap(wcs, image.shape, grid, target_shape=(side, side))
    if found is None:
        return out, grid
    part = image[found.source]
    hole = ~np.isfinite(part)
    planes = np.stack([np.where(hole, np.float32(0), part), (~hole).astype(np.float32)])
    value, weight = reproject_planes(planes, wcs[found.source], grid, shape=(side, side))
    np.divide(value, weight, out=out, where=weight > 0.5)
    return out, grid


def _orientation(wcs: WCS, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """How an image is turned and mirrored at its centre, from one that has north up and east to the left."""
    x, y = (shape[1] - 1) / 2.0, (shape[0] - 1) / 2.0
    sky = wcs.pixel_to_world([x, x + 1.0, x], [y, y, y + 1.0]).icrs
    west, north = sky_to_plane(sky.ra.deg[1:], sky.dec.deg[1:], sky.ra.deg[0], sky.dec.deg[0])
    matrix = np.array([-west, north])
    return np.asarray(matrix / np.sqrt(np.abs(np.linalg.det(matrix))))


def _nodes(length: int) -> npt.NDArray[np.float64]:
    return np.linspace(0.0, length - 1.0, max(2, -(-length // _STEP) + 1))


def _span(values: npt.NDArray[np.float64], length: int, margin: int) -> slice:
    return slice(max(0, int(np.floor(values.min())) - margin), min(length, int(np.ceil(values.max())) + margin + 1))


def _mapped(
    target: WCS, wcs: WCS, x: npt.NDArray[np.float64], *, y: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Positions of target pixels on an image; NaN where the distortion of the image has no inverse."""
    try:
        u, v = pixel_to_pixel(target, wcs, x, y)
    except NoConvergence as error:
        u, v = np.asarray(error.best_solution, dtype=np.float64).T
        for which in (error.divergent, error.slow_conv):
            if which is not None:
                u[which] = v[which] = np.nan
    return np.asarray(u, dtype=np.float64), np.asarray(v, dtype=np.float64)
