"""Smooth mapping between the pixels of two frames: a base (WCS or affine) and a polynomial fitted to matched stars.

From such points with known positions on the sky a TAN-SIP coordinate system can be fitted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from astropy.wcs import WCS, Sip
from scipy.spatial import cKDTree

from nightsift.core.psf import polynomial_terms
from nightsift.images.registration.asterism_match import FloatArray, IntArray, mutual_neighbours
from nightsift.sky.sphere import sky_to_plane

_CLIP = 4.0  # robust sigma
_FOLDS = 5
_SINGULAR = 1e-12  # of the largest eigenvalue of the normal matrix
_STARS_A_TERM = 3  # an order is only tried with this many stars for each of its terms
_MAX_DEGREE = 5


@dataclass(frozen=True, slots=True, eq=False)
class Mapping:
    """From the pixels of a frame to those of another.

    Attributes
    ----------
    base : callable
        ``(n, 2) -> (n, 2)``: the first guess, by WCS or affine transformation.
    shape : tuple of int
        ``(ny, nx)`` of the frame mapped from; it scales the polynomial.
    linear : ndarray of float64, shape (3, 2)
        Correction up to first order, valid everywhere.
    curved : ndarray of float64, shape (n_terms, 2)
        Correction of all orders above, evaluated no further out than the stars that carry it.
    order : int
        Order of the correction; `curved` counts from 2 on.
    low, high : ndarray of float64, shape (2,)
        Box of the stars used.
    """

    base: Callable[[FloatArray], FloatArray]
    shape: tuple[int, int]
    linear: FloatArray
    curved: FloatArray
    order: int
    low: FloatArray
    high: FloatArray

    def __call__(self, xy: FloatArray) -> FloatArray:
        """Map positions.

        Parameters
        ----------
        xy : ndarray of float64, shape (n, 2)
            Positions (pixel); may lie outside the frame.

        Returns
        -------
        ndarray of float64, shape (n, 2)
            Positions (pixel) on the other frame.
        """
        mapped = self.base(xy) + _terms(xy, self.shape, 1) @ self.linear
        if self.order > 1:
            held = np.clip(xy, self.low, self.high)
            mapped = mapped + _terms(held, self.shape, self.order) @ self.curved
        return np.asarray(mapped, dtype=np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class FittedMapping:
    """A mapping and the stars that it was fitted to.

    Attributes
    ----------
    mapping : Mapping
        The mapping.
    first, second : ndarray of int, shape (n,)
        Indices of the matched stars that survived the clipping.
    distance : ndarray of float64, shape (n,)
        Their distances after the fit (pixel).
    """

    mapping: Mapping
    first: IntArray
    second: IntArray
    distance: FloatArray


def fit_mapping(
    base: Callable[[FloatArray], FloatArray],
    first: FloatArray,
    second: FloatArray,
    *,
    shape: tuple[int, int],
    radius: float,
    max_order: int,
    weights: FloatArray | None = None,
) -> FittedMapping | None:
    """Fit a mapping to stars, matching anew as it gets better.

    Parameters
    ----------
    base : callable
        First guess, right within `radius`.
    first, second : ndarray of float64, shape (n, 2)
        Star positions on both frames (pixel).
    shape : tuple of int
        ``(ny, nx)`` of the first frame.
    radius : float
        First search radius (pixel of the second frame).
    max_order : int
        Highest order of the polynomial; a lower one is taken unless cross-validation favours more, down to a mere
        shift.
    weights : ndarray of float64, shape (n,), optional
        Weight of each star of the first frame: the inverse of its position error.

    Returns
    -------
    FittedMapping or None
        None where fewer than four stars match.
    """
    tree = cKDTree(second)
    weights = np.ones(len(first)) if weights is None else weights
    mapping = _identity(base, shape)
    fitted: FittedMapping | None = None
    for step, order in enumerate((1, 1, 2, max_order, max_order, max_order)):
        i, j = mutual_neighbours(mapping(first), second, radius, tree=tree)
        if len(i) < 4:
            return None
        fitted = _fit(base, (first[i], second[j], weights[i]), (i, j), shape=shape, max_order=min(order, max_order))
        mapping = fitted.mapping
        typical = float(np.median(fitted.distance))
        radius = float(np.clip(6.0 * typical, 0.5, radius if step < 2 else 0.8 * radius + 0.1))
    return fitted


def _identity(base: Callable[[FloatArray], FloatArray], shape: tuple[int, int]) -> Mapping:
    nothing = np.zeros((3, 2))
    return Mapping(base, shape, nothing, nothing, 1, np.zeros(2), np.array([shape[1] - 1.0, shape[0] - 1.0]))


def _fit(
    base: Callable[[FloatArray], FloatArray],
    stars: tuple[FloatArray, FloatArray, FloatArray],
    rows: tuple[IntArray, IntArray],
    *,
    shape: tuple[int, int],
    max_order: int,
) -> FittedMapping:
    xy, target, weights = stars
    offset = target - base(xy)
    keep = np.ones(len(xy), dtype=np.bool_)
    order = 1
    for turn in range(6):
        if turn != 1:  # the second turn clips at the same order, so that outliers do not choose the order
            order = _best_order(xy[keep], offset[keep], weights[keep], shape=shape, max_order=max_order)
        terms = _terms(xy, shape, order)
        coefficients = _solve(terms[keep], offset[keep], weights[keep])
        # Distances of good matches, in units of their errors, follow a Rayleigh law: sigma = median / 1.177.
        distance = np.hypot(*(offset - terms @ coefficients).T) * weights
        clipped = distance <= _CLIP * float(np.median(distance[keep])) / 1.177 + 1e-9
        if int(clipped.sum()) < 4 or bool((clipped == keep).all()):
            break
        keep = clipped
    linear, curved = np.zeros((3, 2)), coefficients.copy()
    linear[: len(coefficients[:3])] = coefficients[:3]
    curved[:3] = 0.0
    mapping = Mapping(base, shape, linear, curved, order, xy[keep].min(axis=0), xy[keep].max(axis=0))
    left = np.hypot(*(target - mapping(xy)).T)
    return FittedMapping(mapping, rows[0][keep], rows[1][keep], left[keep])


def _best_order(
    xy: FloatArray, offset: FloatArray, weights: FloatArray, *, shape: tuple[int, int], max_order: int
) -> int:
    """Lowest order that predicts stars left out of the fit as well as any higher one does."""
    best, best_error = 0, np.inf
    fold = np.arange(len(xy)) % _FOLDS
    for order in range(max_order + 1):
        terms = _terms(xy, shape, order)
        if len(xy) < max(2 * _FOLDS, _STARS_A_TERM * terms.shape[1]):
            break
        missed = np.empty_like(offset)
        for k in range(_FOLDS):
            out, rest = fold == k, fold != k
            missed[out] = offset[out] - terms[out] @ _solve(terms[rest], offset[rest], weights[rest])
        error = float(np.median(np.hypot(*missed.T) * weights))
        if error < 0.97 * best_error:
            best, best_error = order, error
    return best


def _solve(terms: FloatArray, offset: FloatArray, weights: FloatArray) -> FloatArray:
    """Weighted least squares by the normal equations; directions that the stars do not tell stay 0."""
    weighted = terms * weights[:, None] ** 2
    inverse = np.linalg.pinv(weighted.T @ terms, rcond=_SINGULAR, hermitian=True)
    return np.asarray(inverse @ (weighted.T @ offset), dtype=np.float64)


def _terms(xy: FloatArray, shape: tuple[int, int], order: int) -> npt.NDArray[np.float64]:
    return polynomial_terms(xy[:, 0], xy[:, 1], shape, order)


def fit_tan_sip(
    xy: FloatArray, sky: FloatArray, centre: FloatArray, *, centre_sky: FloatArray, accuracy: float = 0.01
) -> WCS:
    """Fit a tangential projection with SIP distortion (Shupe et al. 2005) of the lowest degree that suffices.

    Parameters
    ----------
    xy : ndarray of float64, shape (n, 2)
        Pixel positions, 0 at the centre of the first pixel; n of 40 or more, spread over the frame.
    sky : ndarray of float64, shape (n, 2)
        Right ascension and declination (deg, ICRS) of the same points.
    centre, centre_sky : ndarray of float64, shape (2,)
        Reference pixel and its position on the sky (deg); the fit passes through it.
    accuracy : float, optional
        Largest error to be content with (pixel).

    Returns
    -------
    astropy.wcs.WCS
        The coordinate system; without SIP where a linear one is accurate enough.
    """
    uv = xy - centre
    plane = np.stack(sky_to_plane(sky[:, 0], sky[:, 1], *centre_sky), axis=1)
    scale = max(float(np.abs(uv).max()), 1.0)
    cd: FloatArray = np.zeros((2, 2))
    a: FloatArray = np.zeros((2, 2))
    b: FloatArray = np.zeros((2, 2))
    for degree in range(1, _MAX_DEGREE + 1):
        powers = [(p, total - p) for total in range(1, degree + 1) for p in range(total, -1, -1)]
        terms = np.stack([(uv[:, 0] / scale) ** p * (uv[:, 1] / scale) ** q for p, q in powers], axis=1)
        solution = np.asarray(np.linalg.lstsq(terms, plane, rcond=None)[0], dtype=np.float64)
        cd = np.asarray(solution[:2].T / scale, dtype=np.float64)
        missed = (plane - terms @ solution) @ np.linalg.inv(cd).T
        if degree > 1:
            a, b = np.zeros((degree + 1, degree + 1)), np.zeros((degree + 1, degree + 1))
            for (p, q), row in zip(powers[2:], solution[2:] @ np.linalg.inv(cd).T, strict=True):
                a[p, q], b[p, q] = row / scale ** (p + q)
        if float(np.abs(missed).max()) < accuracy:
            break
    return _wcs(centre, centre_sky, cd, a=a, b=b)


def _wcs(centre: FloatArray, centre_sky: FloatArray, cd: FloatArray, *, a: FloatArray, b: FloatArray) -> WCS:
    curved = bool(np.any(a) or np.any(b))
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"] if curved else ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crpix = centre + 1.0
    wcs.wcs.crval = centre_sky
    wcs.wcs.cd = cd
    wcs.wcs.radesys = "ICRS"
    if curved:
        wcs.sip = Sip(a, b, None, None, centre + 1.0)
    wcs.wcs.set()
    return wcs
