"""Point-spread function of a frame, varying as a polynomial over it.

See docs/algorithms.md, section 7.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from nightsift.errors import TooFewStars
from nightsift.frames import Frame
from nightsift.images.stars import StarTable, clean_stars, typical_fwhm
from nightsift.psf import Psf, polynomial_terms
from subtraction.masks import HARD
from subtraction.profiles import fit_moffat, half_width, moffat, shift_image
from subtraction.spatial import affordable_order

Float64 = npt.NDArray[np.float64]

MAX_STARS = 600
STARS_PER_TERM = 6
"""Stars needed for each polynomial term of the PSF but the constant."""

HIGHEST_ORDER = 3
ROUNDS = 7
PROFILE_ROUNDS = 3
"""Rounds, of all, in which a Moffat profile is fitted before what differs from it."""

DEVIATION = 0.15
"""How far the PSF may stray from the profile, as a part of it, before the noise of the stars holds it back."""


@dataclass(slots=True, eq=False)
class _Cutouts:
    """Stamps of stars around their nearest pixels, and what is fitted to each."""

    x: Float64
    y: Float64
    dx: Float64
    dy: Float64
    flux: Float64
    data: Float64
    variance: Float64
    good: npt.NDArray[np.bool_]


def fit_psf(frame: Frame, stars: StarTable, size: int = 0, order: int | None = None) -> Psf:
    """Fit a spatially varying PSF to the clean stars of a frame.

    The model lives on the pixel grid and is shifted to each star by Lanczos interpolation; residuals are shifted
    back and added to it, star by star weighted with their noise, until model and stars agree (after Anderson and
    King 2000, PASP 112, 1360, sec. 3). The data themselves are never resampled, so the PSF is not widened.

    Parameters
    ----------
    frame : Frame
        Background-subtracted frame.
    stars : StarTable
        Its stars (`nightsift.images.stars.find_stars`).
    size : int, optional
        Width of the PSF image (pixel, odd); 0 for six times the seeing.
    order : int or None, optional
        Order of the polynomial; None or a negative number to derive it from the number of stars.

    Returns
    -------
    Psf
        The PSF, sum one everywhere.

    Raises
    ------
    TooFewStars
        If fewer than three stars can be used.
    """
    chosen = _choose(frame, stars)
    fwhm = typical_fwhm(chosen)
    half = size // 2 if size > 0 else int(np.clip(np.ceil(3.0 * fwhm), 4, 24))
    cut = _cut(frame, chosen, half)
    _leave_out_neighbours(cut, stars, fwhm)
    if len(cut.x) < 3:
        where = frame.meta.path or frame.meta.exposure_id
        raise TooFewStars(found=len(cut.x), needed=3, where=f"{where} (clean stars for the PSF)")
    wanted = HIGHEST_ORDER if order is None or order < 0 else order
    order = affordable_order(len(cut.x), wanted, STARS_PER_TERM)
    terms = _iterate(cut, frame.shape, order, fwhm)
    psf = Psf(np.ascontiguousarray(terms, dtype=np.float32), order, frame.shape, fwhm)
    ny, nx = frame.shape
    return Psf(psf.terms, order, frame.shape, half_width(psf.at((nx - 1) / 2, (ny - 1) / 2)))


def _choose(frame: Frame, stars: StarTable) -> StarTable:
    """Clean stars; where these are few, fainter and less isolated ones too."""
    chosen = stars[:0]
    for isolation, snr in ((4.0, 30.0), (3.0, 15.0), (2.5, 10.0), (1.5, 7.0)):
        chosen = stars[clean_stars(stars, frame.shape, isolation=isolation, snr=snr)]
        if len(chosen) >= 15:
            break
    if len(chosen) < 3:
        where = frame.meta.path or frame.meta.exposure_id
        raise TooFewStars(found=len(chosen), needed=3, where=f"{where} (clean stars for the PSF)")
    return chosen[:MAX_STARS]


def _cut(frame: Frame, stars: StarTable, half: int) -> _Cutouts:
    """Cut stamps; pixels outside the frame or masked are not good."""
    rows, columns = np.rint(stars["y"]).astype(np.int64), np.rint(stars["x"]).astype(np.int64)
    steps = np.arange(-half, half + 1)
    ny, nx = frame.shape
    y, x = rows[:, None, None] + steps[None, :, None], columns[:, None, None] + steps[None, None, :]
    inside = (y >= 0) & (y < ny) & (x >= 0) & (x < nx)
    y, x = np.clip(y, 0, ny - 1), np.clip(x, 0, nx - 1)
    good = inside & ((frame.mask[y, x] & HARD) == 0)
    data = np.where(good, frame.data[y, x], 0.0).astype(np.float64)
    variance = np.where(good, frame.variance[y, x], 1.0).astype(np.float64)
    core = good[:, half - 2 : half + 3, half - 2 : half + 3].all(axis=(1, 2))
    keep = core & (good.mean(axis=(1, 2)) > 0.7)
    xs, ys = stars["x"].astype(np.float64), stars["y"].astype(np.float64)
    return _Cutouts(
        xs[keep], ys[keep], (xs - columns)[keep], (ys - rows)[keep],
        stars["flux"].astype(np.float64)[keep], data[keep], variance[keep], good[keep],
    )  # fmt: skip


def _leave_out_neighbours(cut: _Cutouts, stars: StarTable, fwhm: float) -> None:
    """Take the pixels around all other known stars out of each stamp."""
    half = cut.data.shape[1] // 2
    tree = cKDTree(np.column_stack((stars["x"], stars["y"])))
    steps = np.arange(-half, half + 1)
    for s, near in enumerate(tree.query_ball_point(np.column_stack((cut.x, cut.y)), 1.5 * half)):
        x, y = stars["x"][near] - cut.x[s] + cut.dx[s], stars["y"][near] - cut.y[s] + cut.dy[s]
        for nx, ny in zip(x, y, strict=True):
            distance = float(np.hypot(nx - cut.dx[s], ny - cut.dy[s]))
            if distance > 1.0:
                reach = min(1.5 * fwhm, 0.6 * distance)
                cut.good[s] &= np.hypot(steps[None, :] - nx, steps[:, None] - ny) > reach


def _iterate(cut: _Cutouts, shape: tuple[int, int], order: int, fwhm: float) -> Float64:
    """Polynomial terms of the PSF: a Moffat profile and what the stars show beyond it, held back by its noise."""
    design = polynomial_terms(cut.x, cut.y, shape, order)
    size = cut.data.shape[1]
    base = np.zeros((design.shape[1], size, size))
    base[0] = moffat(np.array([fwhm, 0.0, 0.0, 3.5]), size // 2)
    terms = base.copy()
    used = np.ones(len(cut.x), dtype=np.bool_)
    for round_number in range(ROUNDS):
        models = np.tensordot(design, terms, axes=1)
        residual, misfit = _fit_stars(cut, models, move=round_number > 0)
        used = _clip(misfit, used)
        back = np.empty_like(residual)
        for s in range(len(residual)):
            shift_image(residual[s], -cut.dx[s], -cut.dy[s], back[s])
        noise = np.median(np.sqrt(cut.variance), axis=(1, 2)) / np.maximum(cut.flux, 1e-30)
        weight = np.where(used & (cut.flux > 0), 1.0 / (noise**2 + (0.01 * terms[0].max()) ** 2), 0.0)
        if round_number < PROFILE_ROUNDS:
            seen = terms[0] + np.tensordot(weight, back, axes=1) / max(float(weight.sum()), 1e-30)
            base[0] = fit_moffat(seen, fwhm)
            terms = base.copy()
            continue
        weighted = design * weight[:, None]
        inverse = np.linalg.pinv(weighted.T @ design)
        step = (inverse @ (weighted.T @ back.reshape(len(back), -1))).reshape(terms.shape)
        freedom = DEVIATION * base[0] + 0.01 * DEVIATION * base[0].max()
        held = freedom**2 / (freedom**2 + np.maximum(np.diag(inverse), 0.0)[:, None, None])
        terms = _normalised(base + held * (terms - base + step))
    return terms


def _fit_stars(cut: _Cutouts, models: Float64, move: bool) -> tuple[Float64, Float64]:
    """Fit flux and position of each star; return residuals in units of its flux, and its misfit."""
    residual = np.zeros_like(cut.data)
    misfit = np.full(len(cut.x), np.inf)
    shifted = np.empty_like(models[0])
    half = shifted.shape[0] // 2
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    far = np.hypot(x, y) > 0.67 * half
    for s in range(len(cut.x)):
        shift_image(models[s], cut.dx[s], cut.dy[s], shifted)
        gy, gx = np.gradient(shifted)
        design = np.stack([shifted, -gx, -gy], axis=-1)
        weight = np.where(cut.good[s], 1.0 / (cut.variance[s] + (0.02 * cut.flux[s] * shifted) ** 2), 0.0)
        solved = _solve_star(design, cut.data[s], weight)
        if not (np.isfinite(solved).all() and solved[0] > 0):
            cut.flux[s] = 0.0
            continue
        cut.flux[s] = solved[0]
        if move:
            limit = 0.3
            cut.dx[s] += float(np.clip(solved[1] / solved[0], -limit, limit))
            cut.dy[s] += float(np.clip(solved[2] / solved[0], -limit, limit))
            shift_image(models[s], cut.dx[s], cut.dy[s], shifted)
        left = cut.data[s] - solved[0] * shifted
        ring = far & cut.good[s]
        if int(ring.sum()) > 50:
            # What is around the star but not of it: unseen neighbours, an uneven sky.
            level = float(np.median(left[ring]))
            cut.data[s][cut.good[s]] -= level
            left -= level
        chi = left * np.sqrt(weight)
        # Pixels far off belong to a neighbour.
        left[(np.abs(chi) > 5.0) | ~cut.good[s]] = 0.0
        residual[s] = left / solved[0]
        core = (np.hypot(x - cut.dx[s], y - cut.dy[s]) <= 0.6 * half) & cut.good[s]
        misfit[s] = float((chi[core] ** 2).mean())
        if max(abs(cut.dx[s]), abs(cut.dy[s])) > 1.5:
            misfit[s] = np.inf
    return residual, misfit


def _solve_star(design: Float64, data: Float64, weight: Float64) -> Float64:
    flat = design.reshape(-1, 3)
    weighted = flat * weight.reshape(-1, 1)
    matrix = weighted.T @ flat
    matrix += 1e-12 * np.diag(np.maximum(np.diag(matrix), 1e-30))
    return np.asarray(np.linalg.solve(matrix, weighted.T @ data.ravel()))


def _clip(misfit: Float64, used: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Stars whose misfit does not stand out."""
    finite = used & np.isfinite(misfit)
    if int(finite.sum()) < 4:
        return finite if bool(finite.any()) else used
    centre = float(np.median(misfit[finite]))
    spread = 1.4826 * float(np.median(np.abs(misfit[finite] - centre)))
    return np.asarray(misfit <= centre + 4.0 * max(spread, 0.1 * centre))


def _normalised(terms: Float64) -> Float64:
    """Sum one at every position: the constant term sums to one, the others to nothing."""
    terms = terms / terms[0].sum()
    terms[1:] -= terms[1:].sum(axis=(1, 2))[:, None, None] * terms[0]
    return terms
