"""Point-spread function of a frame, varying over it: a field of profiles and what the stars show beyond it.

See docs/algorithms.md, section 7.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from nightsift.core.robust import mad_sigma
from nightsift.errors import TooFewStars
from nightsift.frames import Frame
from nightsift.images.stars import StarTable, typical_fwhm
from nightsift.psf import Psf, polynomial_terms
from subtraction.kernel.spatial import affordable_order, n_terms
from subtraction.psf.deviation import deviation_equations, fit_deviation, is_better, predicted_gain
from subtraction.psf.functions import make_basis
from subtraction.psf.images import PsfModel, sample_model
from subtraction.psf.moffat import SHAPES
from subtraction.psf.neighbours import without_neighbours
from subtraction.psf.profile import assemble, eliminate, fit_profile, follow, prior_of, star_equations
from subtraction.psf.stars import Cutouts, choose_stars, cut_stars

Float64 = npt.NDArray[np.float64]

STARS_PER_TERM = 4
"""Stars needed for each polynomial term of the profile but the constant; whether it helps is then measured."""

HIGHEST_ORDER = 3
DEVIATION_ORDER = 2
DEVIATION_ROUNDS = 2
FIRST_STARS = 120
"""Stars of the first rounds, which only need to come near."""

STARS_PER_FUNCTION = 12
"""Stars needed for each polynomial term of the deviation but the constant."""

FOLDS = 5

APART_ROUNDS = 3
APART = 0.003
"""Change of the light in the core from which neighbours are taken away."""

APART_STARS = 200
"""Stars whose neighbours are fitted."""


def fit_psf(frame: Frame, stars: StarTable, size: int = 0, order: int | None = None, threads: int = 0) -> Psf:
    """Fit a spatially varying PSF to the clean stars of a frame.

    Parameters
    ----------
    frame : Frame
        Background-subtracted frame.
    stars : StarTable
        Its stars (`nightsift.images.stars.find_stars`).
    size : int, optional
        Width of the PSF image (pixel, odd); 0 to hold 99 % of the light and three FWHM on each side.
    order : int or None, optional
        Highest order of the polynomials of the model; None or a negative number for 3. At most as much is used as
        the stars carry and as predicts stars held out better than a lower order.
    threads : int, optional
        Number of threads, 0 for all cores.

    Returns
    -------
    Psf
        The PSF; its sum is one over the whole plane, beyond the image by the wings of the model.

    Raises
    ------
    TooFewStars
        If fewer than three stars can be used.
    """
    return sample_model(fit_model(frame, stars, order, threads), size)


def fit_model(frame: Frame, stars: StarTable, order: int | None = None, threads: int = 0) -> PsfModel:
    """Fit the model from which the images of a PSF are drawn.

    An elliptical Moffat profile, its four shape parameters polynomials of the position, is fitted to all stars at
    once; then a linear deviation from it. What each star has of its own (flux, position, level) is eliminated from
    its normal equations, so that every choice after that costs no pixels.

    Parameters
    ----------
    frame : Frame
        Background-subtracted frame.
    stars : StarTable
        Its stars.
    order : int or None, optional
        As in `fit_psf`.
    threads : int, optional
        Number of threads, 0 for all cores.

    Returns
    -------
    PsfModel
        The model.

    Raises
    ------
    TooFewStars
        If fewer than three stars can be used.
    """
    chosen = choose_stars(frame, stars)
    guess = typical_fwhm(chosen)
    half = int(np.clip(np.ceil(3.0 * guess), 5, 20))
    cut = cut_stars(frame, chosen, stars, half, guess)
    if len(cut) < 3:
        where = frame.meta.path or frame.meta.exposure_id
        raise TooFewStars(found=len(cut), needed=3, where=f"{where} (clean stars for the PSF)")
    wanted = HIGHEST_ORDER if order is None or order < 0 else order
    model = fit_cut(cut, guess, frame.shape, wanted, threads)
    return _apart(frame, stars, cut, model, (guess, wanted, threads))


def _apart(frame: Frame, stars: StarTable, cut: Cutouts, model: PsfModel, how: tuple[float, int, int]) -> PsfModel:
    """Where neighbours widen the PSF, the model of stars whose neighbours are taken away; else the one given."""
    guess, wanted, threads = how
    few = cut.only(np.arange(len(cut)) < APART_STARS)
    for done in range(APART_ROUNDS):
        alone, clean = without_neighbours(frame, few, stars, sample_model(model), threads)
        if clean.sum() < max(5, 0.3 * len(few)):
            break
        new = fit_cut(alone.only(clean), guess, frame.shape, wanted, threads)
        change = abs(_core_light(new, guess) - _core_light(model, guess))
        # What is taken away is not known perfectly; where it matters little the stars are better left as they are.
        if done == 0 and change < APART:
            break
        model = new
        if change < 0.2 * APART:
            break
    return model


def _core_light(model: PsfModel, fwhm: float) -> float:
    """Part of the light within about one FWHM of the middle, at the centre of the frame."""
    ny, nx = model.shape
    return float(model.draw((nx - 1) / 2, (ny - 1) / 2, max(1, round(fwhm))).sum())


def fit_cut(cut: Cutouts, guess: float, shape: tuple[int, int], wanted: int, threads: int = 0) -> PsfModel:
    """Fit the model to stamps of stars.

    Parameters
    ----------
    cut : Cutouts
        The stamps; their `own` follows the fit.
    guess : float
        Usual FWHM (pixel).
    shape : tuple of int
        ``(ny, nx)`` of the frame.
    wanted : int
        Highest order of the polynomials.
    threads : int, optional
        Number of threads, 0 for all cores.

    Returns
    -------
    PsfModel
        The model.
    """
    with threadpool_limits(limits=1, user_api="blas"):
        field, kept, profile_order = _fit_field(cut, guess, shape, wanted, threads)
        basis = make_basis(field[0])
        shapes = polynomial_terms(kept.x, kept.y, shape, profile_order) @ field
        highest = affordable_order(len(kept), min(DEVIATION_ORDER, wanted), STARS_PER_FUNCTION)
        for _ in range(DEVIATION_ROUNDS):
            matrices, vectors, through = deviation_equations(kept, shapes, basis, threads)
            deviation, deviation_order = fit_deviation(kept, (matrices, vectors), highest, shape)
            if not bool(deviation.any()):
                break
            # What is not symmetric moves the stars.
            follow(kept, through, polynomial_terms(kept.x, kept.y, shape, deviation_order) @ deviation)
    return PsfModel(field, deviation, (profile_order, deviation_order), basis, shape)


def _fit_field(
    cut: Cutouts, guess: float, shape: tuple[int, int], wanted: int, threads: int
) -> tuple[Float64, Cutouts, int]:
    """Field of profiles, the stars that agree with it, and its order."""
    highest = affordable_order(len(cut), wanted, STARS_PER_TERM)
    # Stars are as wide as seeing and pixel together.
    start = np.array([0.5 * np.log(max(guess**2 - 0.6, 1.0)), 0.0, 0.0, np.log(2.5)])
    few = np.arange(len(cut)) < FIRST_STARS
    first = cut.only(few)
    field, misfit = fit_profile(first, np.ones(len(first), np.bool_), start[None], start, 0, shape, 3, threads)
    low = affordable_order(len(first), min(highest, 1), STARS_PER_TERM)
    field, misfit = fit_profile(first, _alike(misfit), field, start, low, shape, 3, threads)
    cut.own[few] = first.own
    field, misfit = fit_profile(cut, np.ones(len(cut), np.bool_), field, start, low, shape, 2, threads)
    order = _best_order(cut.only(_alike(misfit)), field, low, highest, shape, threads)
    field, misfit = fit_profile(cut, _alike(misfit), field, start, order, shape, 1, threads)
    field, misfit = fit_profile(cut, _alike(misfit), field, start, order, shape, 1, threads)
    return field, cut.only(_alike(misfit)), order


def _best_order(cut: Cutouts, field: Float64, now: int, highest: int, shape: tuple[int, int], threads: int) -> int:
    """Order that predicts best the shapes of stars held out, by the linearised equations of each star."""
    if highest == 0:
        return 0
    shapes = polynomial_terms(cut.x, cut.y, shape, now) @ field
    matrices, vectors, _ = star_equations(cut, shapes, threads)
    matrices, vectors, _ = eliminate(matrices, vectors, SHAPES)
    # The unknown is the difference from the mean shape, not from the present field.
    vectors = vectors + np.einsum("nij,nj->ni", matrices, shapes - field[0])
    design = polynomial_terms(cut.x, cut.y, shape, highest)
    folds = np.arange(len(cut)) % FOLDS
    best, chosen = np.full(len(cut), -np.inf), 0
    for order in range(highest + 1):
        t = n_terms(order)
        gain = np.zeros(len(cut))
        for f in range(FOLDS):
            out = folds == f
            matrix, vector = assemble(design[~out, :t], matrices[~out], vectors[~out])
            c = np.linalg.solve(matrix + np.diag(prior_of(t).ravel()), vector).reshape(t, SHAPES)
            gain[out] = predicted_gain(design[out, :t] @ c, matrices[out], vectors[out])
        if order == 0 or is_better(gain, best):
            best, chosen = gain, order
    return chosen


def _alike(misfit: Float64) -> npt.NDArray[np.bool_]:
    """Stars whose misfit does not stand out: galaxies, blends and variable backgrounds do."""
    if len(misfit) < 4:
        return np.ones(len(misfit), dtype=np.bool_)
    centre = float(np.median(misfit))
    spread = mad_sigma(misfit, centre)
    return np.asarray(misfit <= centre + 4.0 * max(spread, 0.1 * centre))
