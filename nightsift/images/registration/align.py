"""Align a frame with its template: a first guess through both WCS or by the pattern of the stars, refined by stars."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import numpy.typing as npt
from astropy.wcs import WCS, NoConvergence
from astropy.wcs.utils import proj_plane_pixel_scales
from scipy import ndimage
from scipy.spatial import cKDTree

from nightsift.core.errors import AlignmentFailed
from nightsift.core.flags import Mask
from nightsift.core.frames import Frame, StarTable
from nightsift.images.registration.asterism_match import FloatArray, chance, match_pattern, mutual_neighbours
from nightsift.images.registration.mapping import FittedMapping, Mapping, fit_mapping, fit_tan_sip
from nightsift.unit.units import AlignmentOptions

if TYPE_CHECKING:
    from nightsift.core.frames import Template


BRIGHT = 300  # stars used to find the match
RADIUS = 3.0  # px, within which stars count as the same before the fit
LOG_CHANCE = -14.0  # a match by chance is accepted once in a million frames
Guess = Callable[[FloatArray], FloatArray]
_COARSEST, _FINEST = 32, 4  # px between the nodes of the grid
_GRID_ERROR = 0.005  # px that interpolation between nodes may cost
_CELLS = 32  # a side, in the middle of which interpolation is tested
_MANY = 3000  # stars used to refine it
_FRACTION = 0.2  # of the bright stars inside the template must have a partner
_CENTRED = np.int32(~(Mask.SATURATED.value | Mask.BRIGHT_STAR.value))


def _first_guesses(
    frame: Frame, first: FloatArray, reference: Frame, *, second: FloatArray, options: AlignmentOptions
) -> Iterator[tuple[str, Guess]]:
    """Give first guesses that are beyond chance, the more trusted one first."""
    if options.use_wcs and (guess := _by_wcs(frame, first, reference, second=second, options=options)) is not None:
        yield "wcs", guess
    if (guess := _by_pattern(frame, first, reference, second=second)) is not None:
        yield "pattern", guess


def _by_wcs(
    frame: Frame, first: FloatArray, reference: Frame, *, second: FloatArray, options: AlignmentOptions
) -> Guess | None:
    """Carry stars over through both WCS, then vote for the offset that is left."""
    wcs, reference_wcs = frame.wcs, reference.wcs
    if wcs is None or reference_wcs is None:
        return None

    def through(xy: FloatArray) -> FloatArray:
        return np.asarray(reference_wcs.all_world2pix(wcs.all_pix2world(xy, 0), 0, quiet=True), dtype=np.float64)

    if len(first) < 3:
        return None
    # Without the distortion first: on the other side of the sky that one has no inverse.
    rough = reference_wcs.wcs_world2pix(wcs.all_pix2world(first[:BRIGHT], 0), 0)
    if not bool(np.isfinite(rough).all()):
        return None
    try:
        carried = through(first[:BRIGHT])
    except NoConvergence:
        return None
    if not bool(np.isfinite(carried).all()):
        return None
    scale = 3600.0 * float(np.mean(proj_plane_pixel_scales(reference_wcs)))
    offset = _vote(carried, second[:BRIGHT], options.tolerance / scale)
    if offset is None:
        return None
    i, _ = mutual_neighbours(carried + offset, second[:BRIGHT], RADIUS)
    if chance(carried + offset, second[:BRIGHT], len(i), radius=RADIUS) > LOG_CHANCE:
        return None
    return lambda xy: through(xy) + offset


def _vote(carried: FloatArray, second: FloatArray, tolerance: float) -> FloatArray | None:
    """Offset on which most pairs of stars agree (pixel)."""
    pairs = cKDTree(carried).sparse_distance_matrix(cKDTree(second), tolerance, output_type="coo_matrix")
    if pairs.nnz == 0:
        return None
    offsets = second[pairs.col] - carried[pairs.row]
    edges = np.arange(-tolerance - 3.0, tolerance + 3.0 + 1.0, 1.0)
    votes = ndimage.gaussian_filter(np.histogram2d(offsets[:, 0], offsets[:, 1], bins=(edges, edges))[0], 1.0)
    best = np.unravel_index(int(votes.argmax()), votes.shape)
    peak = np.array([edges[best[0]] + 0.5, edges[best[1]] + 0.5])
    near = offsets[np.hypot(*(offsets - peak).T) < RADIUS]
    return np.asarray(np.median(near, axis=0)) if len(near) else None


def _by_pattern(frame: Frame, first: FloatArray, reference: Frame, *, second: FloatArray) -> Guess | None:
    ratio = frame.meta.pixel_scale / reference.meta.pixel_scale
    limits = (0.8 * ratio, 1.25 * ratio) if np.isfinite(ratio) and ratio > 0 else (0.4, 2.5)
    match = match_pattern(first[:BRIGHT], second[:BRIGHT], RADIUS, scale=limits, log_chance=LOG_CHANCE)
    return None if match is None else match.affine


@dataclass(frozen=True, slots=True, eq=False)
class Alignment:
    """Where each science pixel lies on the template.

    Attributes
    ----------
    grid : ndarray of float64, shape (2, gy, gx)
        x and y on the template (pixel) at science pixels ``(step * i, step * j)``; the last nodes lie at or beyond
        the edge of the frame.
    step : int
        Distance of nodes (pixel).
    shape : tuple of int
        ``(ny, nx)`` of the science frame.
    residual : float
        Median distance of the brighter half of the matched stars (pixel).
    rms : float
        Root mean square of the same distances (pixel).
    matched : int
        Stars matched.
    method : str
        ``"wcs"`` or ``"pattern"``.
    wcs : astropy.wcs.WCS or None
        Coordinates of the science frame, refined through the template's; those of the frame itself where the template
        has none.
    """

    grid: npt.NDArray[np.float64]
    step: int
    shape: tuple[int, int]
    residual: float
    rms: float
    matched: int
    method: str
    wcs: WCS | None = None

    def to_template(
        self, x: npt.ArrayLike, y: npt.ArrayLike
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Map science pixels to template pixels, bilinear between nodes.

        Parameters
        ----------
        x, y : array_like of float
            Positions on the science frame (pixel); extrapolated linearly beyond its edge.

        Returns
        -------
        x, y : ndarray of float64
            Positions on the template (pixel).
        """
        u, v = np.broadcast_arrays(np.asarray(x, np.float64) / self.step, np.asarray(y, np.float64) / self.step)
        i = np.clip(np.floor(u).astype(np.intp), 0, self.grid.shape[2] - 2)
        j = np.clip(np.floor(v).astype(np.intp), 0, self.grid.shape[1] - 2)
        u, v = u - i, v - j
        below = self.grid[:, j, i] * (1 - u) + self.grid[:, j, i + 1] * u
        above = self.grid[:, j + 1, i] * (1 - u) + self.grid[:, j + 1, i + 1] * u
        xy = below * (1 - v) + above * v
        return xy[0], xy[1]


@dataclass(frozen=True, slots=True, eq=False)
class Registration:
    """A mapping between two frames and what it rests on.

    Attributes
    ----------
    mapping : Mapping
        From the pixels of the first frame to those of the second, at any position.
    method : str
        ``"wcs"`` or ``"pattern"``.
    first, second : ndarray of int, shape (n,)
        Rows of the matched stars in both star tables.
    residual, rms : float
        Median and root mean square distance of the brighter half of them (pixel).
    """

    mapping: Mapping
    method: str
    first: npt.NDArray[np.intp]
    second: npt.NDArray[np.intp]
    residual: float
    rms: float


def align(frame: Frame, stars: StarTable, template: Template, *, options: AlignmentOptions) -> Alignment:
    """Align a frame with its template.

    Parameters
    ----------
    frame : Frame
        The science frame, with or without WCS.
    stars : StarTable
        Its stars.
    template : Template
        The template with its stars.
    options : AlignmentOptions
        The ``[alignment]`` table of the unit.

    Returns
    -------
    Alignment
        The mapping on a coarse grid, its quality, and the refined WCS.

    Raises
    ------
    AlignmentFailed
        If no match is beyond chance, too few stars match, or they lie too far apart.
    """
    found = register(frame, stars, template.frame, reference_stars=template.stars, options=options)
    wcs = frame.wcs
    if template.frame.wcs is not None:
        wcs = inherit_wcs(found.mapping, frame.shape, template.frame.wcs)
    grid, step = node_grid(found.mapping, frame.shape)
    return Alignment(grid, step, frame.shape, found.residual, found.rms, len(found.first), found.method, wcs)


def register(
    frame: Frame, stars: StarTable, reference: Frame, *, reference_stars: StarTable, options: AlignmentOptions
) -> Registration:
    """Find the mapping from one frame to another by their stars.

    Parameters
    ----------
    frame, reference : Frame
        Frames mapped from and to.
    stars, reference_stars : StarTable
        Their stars.
    options : AlignmentOptions
        The ``[alignment]`` table of the unit.

    Returns
    -------
    Registration
        Mapping, matched stars and residuals.

    Raises
    ------
    AlignmentFailed
        If no match is beyond chance, too few stars match, or they lie too far apart.
    """
    where = frame.meta.path or frame.meta.exposure_id
    rows, reference_rows = _usable(stars), _usable(reference_stars)
    first, second = _positions(stars[rows]), _positions(reference_stars[reference_rows])
    weights = _weights(stars[rows])
    refusal = "no match by WCS or star pattern is beyond chance"
    matched, residual = 0, float("nan")
    for method, base in _first_guesses(frame, first, reference, second=second, options=options):
        fitted = fit_mapping(
            base,
            first[:_MANY],
            second[:_MANY],
            shape=frame.shape,
            radius=2.0 * RADIUS,
            max_order=options.order,
            weights=weights,
        )
        if fitted is None:
            continue
        residual, rms = _residuals(fitted, stars["snr"][rows])
        matched = len(fitted.first)
        complaint = _complaint(fitted, first, second, residual=residual, options=options)
        if complaint is None:
            i, j = rows[fitted.first], reference_rows[fitted.second]
            return Registration(fitted.mapping, method, i, j, residual, rms)
        refusal = complaint
    _refuse(where, refusal, matched, residual=residual)


def node_grid(
    mapping: Mapping, shape: tuple[int, int], origin: tuple[int, int] = (0, 0)
) -> tuple[npt.NDArray[np.float64], int]:
    """Evaluate a mapping at the nodes of a grid, as coarse as bilinear interpolation allows.

    Parameters
    ----------
    mapping : Mapping
        The mapping.
    shape : tuple of int
        ``(ny, nx)`` of the area to cover.
    origin : tuple of int, optional
        Pixel ``(x, y)`` of the first node.

    Returns
    -------
    grid : ndarray of float64, shape (2, gy, gx)
        Mapped x and y.
    step : int
        Distance of nodes (pixel): the largest, 32 at most, that keeps the error below 0.005 px.
    """
    step = _COARSEST
    grid = _nodes(mapping, shape, origin, step=step)
    while step > _FINEST:
        gy, gx = grid.shape[1] - 1, grid.shape[2] - 1
        rows, columns = (np.unique(np.linspace(0, count - 1, min(count, _CELLS)).astype(np.intp)) for count in (gy, gx))
        j, i = (a.ravel() for a in np.meshgrid(rows, columns, indexing="ij"))
        # Interpolation is worst in the middle of a cell.
        middle = 0.25 * (grid[:, j, i] + grid[:, j + 1, i] + grid[:, j, i + 1] + grid[:, j + 1, i + 1])
        xy = np.stack([(i + 0.5) * step + origin[0], (j + 0.5) * step + origin[1]], axis=1)
        if float(np.nanmax(np.abs(mapping(xy).T - middle), initial=0.0)) < _GRID_ERROR:
            break
        step //= 2
        grid = _nodes(mapping, shape, origin, step=step)
    return grid, step


def _nodes(mapping: Mapping, shape: tuple[int, int], origin: tuple[int, int], *, step: int) -> npt.NDArray[np.float64]:
    gy, gx = (max(2, -(-(size - 1) // step) + 1) for size in shape)
    y, x = np.mgrid[0:gy, 0:gx] * float(step)
    xy = np.stack([x.ravel() + origin[0], y.ravel() + origin[1]], axis=1)
    return np.ascontiguousarray(mapping(xy).T.reshape(2, gy, gx))


def _usable(stars: StarTable) -> npt.NDArray[np.intp]:
    """Stars whose centroids mean something; saturated ones only serve where there are few others."""
    centred = np.flatnonzero((stars["flag"] & _CENTRED) == 0)
    clean = centred[(stars["flag"][centred] & Mask.SATURATED.value) == 0]
    return clean if len(clean) >= 50 else centred


def _weights(stars: StarTable) -> FloatArray:
    """Inverse position errors: photon noise of a Gaussian star and a floor for what noise does not explain."""
    error = 0.6 * stars["fwhm"].astype(np.float64) / np.maximum(stars["snr"], 1.0)
    return np.asarray(1.0 / np.hypot(np.where(np.isfinite(error), error, 1.0), 0.03))


def _positions(stars: StarTable) -> FloatArray:
    return np.stack([stars["x"], stars["y"]], axis=1).astype(np.float64)


def _residuals(fitted: FittedMapping, snr: npt.NDArray[np.float32]) -> tuple[float, float]:
    order = np.argsort(snr[fitted.first])[::-1]
    bright = fitted.distance[order[: max(10, len(order) // 2)]]
    return float(np.median(bright)), float(np.sqrt(np.mean(bright**2)))


def _complaint(
    fitted: FittedMapping, first: FloatArray, second: FloatArray, *, residual: float, options: AlignmentOptions
) -> str | None:
    """What speaks against a fit, None where nothing does."""
    if len(fitted.first) < options.min_stars:
        return f"{options.min_stars} matched stars needed"
    if residual > options.max_residual:
        return f"the residual may be {options.max_residual:g} px at most"
    a, b = first[:BRIGHT], second
    carried = fitted.mapping(a)
    radius = max(1.0, 4.0 * residual)
    i, _ = mutual_neighbours(carried, b, radius)
    if chance(carried, b, len(i), radius=radius) > LOG_CHANCE:
        return "the match found is not beyond chance"
    low, high = b.min(axis=0), b.max(axis=0)
    inside = int(((carried >= low) & (carried <= high)).all(axis=1).sum())
    if len(i) < _FRACTION * min(inside, len(b)):
        return f"only {len(i)} of {min(inside, len(b))} bright stars inside the template have a partner"
    return None


def inherit_wcs(mapping: Mapping, shape: tuple[int, int], wcs: WCS) -> WCS:
    """Give a frame the coordinates of another one through their mapping.

    Parameters
    ----------
    mapping : Mapping
        From the pixels of the frame to those of the other.
    shape : tuple of int
        ``(ny, nx)`` of the frame.
    wcs : astropy.wcs.WCS
        Coordinates of the other.

    Returns
    -------
    astropy.wcs.WCS
        Coordinates of the frame.
    """
    ny, nx = shape
    y, x = np.meshgrid(np.linspace(0, ny - 1, 15), np.linspace(0, nx - 1, 15), indexing="ij")
    xy = np.stack([x.ravel(), y.ravel()], axis=1)
    centre = np.array([[(nx - 1) / 2.0, (ny - 1) / 2.0]])
    sky = wcs.all_pix2world(mapping(xy), 0)
    return fit_tan_sip(xy, sky, centre[0], centre_sky=wcs.all_pix2world(mapping(centre), 0)[0])


def _refuse(where: str, what: str, matched: int, *, residual: float) -> NoReturn:
    raise AlignmentFailed(where=where, what=what, matched=matched, residual_px=residual)
