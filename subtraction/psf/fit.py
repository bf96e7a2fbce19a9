"""Point-spread function of a frame, varying over it: a field of profiles and what the stars show beyond it.

See docs/algorithms.md, section 7.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from nightsift.core.errors import TooFewStars
from nightsift.core.frames import Frame, StarTable
from nightsift.core.psf import Psf, polynomial_terms
from nightsift.core.robust import mad_sigma
from nightsift.images.stars.stars import typical_fwhm
from subtraction.fields import ImageField, affordable_order, n_terms, nodes
from subtraction.psf.deviation import (
    Basis,
    deviation_equations,
    draw_deviation,
    fit_deviation,
    is_better,
    light_of,
    make_basis,
    predicted_gain,
)
from subtraction.psf.moffat import NODES, SHAPES, WEIGHTS, draw_moffat, half_width
from subtraction.psf.neighbours import without_neighbours
from subtraction.psf.profile import assemble, eliminate, fit_profile, follow, prior_of, star_equations
from subtraction.psf.stars import Cutouts, choose_stars, cut_stars

Float64 = npt.NDArray[np.float64]

WANTED_INSIDE = 0.99
"""Part of the light that the image should hold, if it can."""

LARGEST_HALF = 32

OVERSAMPLED_BELOW = 2.6
"""FWHM (pixel) below which images sampled once per pixel cannot be shifted, so that finer ones are stored."""

OVERSAMPLING = 3

HIGHEST = 5
"""Highest order of the polynomials of the image."""

REPRESENTED = 1e-3
"""Error, as a part of the peak, with which the polynomials of the image must follow the model."""

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


@dataclass(frozen=True, slots=True, eq=False)
class PsfModel:
    """The fitted model, from which images are drawn.

    Attributes
    ----------
    profile : ndarray of float64, shape (n_terms, 4)
        Polynomial terms of the shape parameters.
    deviation : ndarray of float64, shape (n_terms, k)
        Polynomial terms of the amplitudes.
    orders : tuple of int
        Order of either.
    basis : Basis
        Functions of the deviation.
    shape : tuple of int
        ``(ny, nx)`` of the frame.
    """

    profile: Float64
    deviation: Float64
    orders: tuple[int, int]
    basis: Basis
    shape: tuple[int, int]

    def draw(self, x: float, y: float, half: int, oversampling: int = 1) -> Float64:
        """Image of a star of unit flux at a position, centred on the middle pixel.

        Parameters
        ----------
        x, y : float
            Position on the frame (pixel).
        half : int
            Half width (pixel).
        oversampling : int, optional
            Samples a pixel; each is the light in a whole pixel.

        Returns
        -------
        ndarray of float64, shape (2 oversampling half + 1,) * 2
            The image; its sum (over a stride of `oversampling`) is one less what lies outside.
        """
        place = [polynomial_terms(np.array([x]), np.array([y]), self.shape, order)[0] for order in self.orders]
        image = np.empty((2 * half * oversampling + 1,) * 2)
        draw_moffat(place[0] @ self.profile, 0.0, 0.0, 1.0 / oversampling, NODES, WEIGHTS, image)
        amplitudes = place[1] @ self.deviation
        if not bool(amplitudes.any()):
            return image
        b = self.basis
        draw_deviation(amplitudes, b.powers, b.sigma, b.norm, b.wing, 1.0 / oversampling, NODES, WEIGHTS, image)
        return np.asarray(image / (1.0 + float(amplitudes @ light_of(b))))


def _sample_model(model: PsfModel, size: int = 0) -> Psf:
    """Polynomial images of a model.

    The shape of the profile is a polynomial of the position, the image is none: it is drawn at Chebyshev nodes and
    fitted with the lowest order that follows it.
    """
    ny, nx = model.shape
    centre = ((nx - 1) / 2, (ny - 1) / 2)
    fwhm = float(np.exp(model.profile[0, 0]))
    half = size // 2 if size > 0 else _half(model, centre, fwhm)
    middle = model.draw(*centre, half)
    fine = OVERSAMPLING if fwhm < OVERSAMPLED_BELOW else 1
    order = max(model.orders)
    for order in range(max(model.orders), HIGHEST):
        x, y = nodes(model.shape, order)
        images = np.stack([model.draw(float(a), float(b), half, fine) for a, b in zip(x, y, strict=True)])
        through = np.linalg.pinv(polynomial_terms(x, y, model.shape, order))
        flat = through @ images.reshape(len(images), -1)
        field = ImageField(flat.reshape(-1, *images.shape[1:]).astype(np.float32), order, model.shape)
        check = ((0.5, 0.5), (0.02, 0.03), (0.97, 0.05), (0.05, 0.96), (0.98, 0.98), (0.5, 0.02), (0.03, 0.5))
        worst = max(
            float(np.abs(field.at(u * nx, v * ny) - model.draw(u * nx, v * ny, half, fine)).max()) for u, v in check
        )
        if order == 0 or worst < REPRESENTED * float(middle.max()):
            break
    wings = float(np.clip(1.0 - middle.sum(), 0.0, 0.4))
    coarse, finer = (field.terms, None) if fine == 1 else (field.terms[:, ::fine, ::fine], field.terms)
    return Psf(np.ascontiguousarray(coarse), order, model.shape, half_width(middle), wings, finer)


def _half(model: PsfModel, centre: tuple[float, float], fwhm: float) -> int:
    """Half width that holds the wanted part of the light, three times the FWHM at least."""
    least = int(np.clip(np.ceil(3.0 * fwhm), 5, LARGEST_HALF))
    for half in range(least, LARGEST_HALF):
        if float(model.draw(*centre, half).sum()) >= WANTED_INSIDE:
            return half
    return LARGEST_HALF


def fit_psf(frame: Frame, stars: StarTable, size: int = 0, *, order: int | None = None, threads: int = 0) -> Psf:
    """Fit a spatially varying PSF to the clean stars of a frame.

    Parameters
    ----------
    frame : Frame
        Background-subtracted frame.
    stars : StarTable
        Its stars (`nightsift.images.stars.stars.find_stars`).
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
    return _sample_model(fit_model(frame, stars, order, threads=threads), size)


def fit_model(frame: Frame, stars: StarTable, order: int | None = None, *, threads: int = 0) -> PsfModel:
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
    cut = cut_stars(frame, chosen, stars, half=half, fwhm=guess)
    if len(cut) < 3:
        where = frame.meta.path or frame.meta.exposure_id
        raise TooFewStars(found=len(cut), needed=3, where=f"{where} (clean stars for the PSF)")
    wanted = HIGHEST_ORDER if order is None or order < 0 else order
    model = _fit_cut(cut, guess, frame.shape, wanted=wanted, threads=threads)
    return _apart(frame, stars, cut, model=model, guess=guess, wanted=wanted, threads=threads)


def _apart(
    frame: Frame, stars: StarTable, cut: Cutouts, *, model: PsfModel, guess: float, wanted: int, threads: int
) -> PsfModel:
    """Where neighbours widen the PSF, the model of stars whose neighbours are taken away; else the one given."""
    few = cut.only(np.arange(len(cut)) < APART_STARS)
    for done in range(APART_ROUNDS):
        alone, clean = without_neighbours(frame, few, stars, psf=_sample_model(model), threads=threads)
        if clean.sum() < max(5, 0.3 * len(few)):
            break
        new = _fit_cut(alone.only(clean), guess, frame.shape, wanted=wanted, threads=threads)
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


def _fit_cut(cut: Cutouts, guess: float, shape: tuple[int, int], *, wanted: int, threads: int = 0) -> PsfModel:
    """Fit the model to stamps of stars."""
    with threadpool_limits(limits=1, user_api="blas"):
        field, agreeing, profile_order = _fit_field(cut, guess, shape, wanted=wanted, threads=threads)
        basis = make_basis(field[0])
        shapes = polynomial_terms(agreeing.x, agreeing.y, shape, profile_order) @ field
        highest = affordable_order(len(agreeing), min(DEVIATION_ORDER, wanted), STARS_PER_FUNCTION)
        for _ in range(DEVIATION_ROUNDS):
            matrices, vectors, through = deviation_equations(agreeing, shapes, basis, threads=threads)
            deviation, deviation_order = fit_deviation(agreeing, (matrices, vectors), highest, shape=shape)
            if not bool(deviation.any()):
                break
            # What is not symmetric moves the stars.
            follow(agreeing, through, polynomial_terms(agreeing.x, agreeing.y, shape, deviation_order) @ deviation)
    return PsfModel(field, deviation, (profile_order, deviation_order), basis, shape)


def _fit_field(
    cut: Cutouts, guess: float, shape: tuple[int, int], *, wanted: int, threads: int
) -> tuple[Float64, Cutouts, int]:
    """Field of profiles, the stars that agree with it, and its order."""
    highest = affordable_order(len(cut), wanted, STARS_PER_TERM)
    # Stars are as wide as seeing and pixel together.
    start = np.array([0.5 * np.log(max(guess**2 - 0.6, 1.0)), 0.0, 0.0, np.log(2.5)])
    few = np.arange(len(cut)) < FIRST_STARS
    first = cut.only(few)
    field, misfit = fit_profile(
        first, np.ones(len(first), np.bool_), start[None], start=start, order=0, shape=shape, rounds=3, threads=threads
    )
    low = affordable_order(len(first), min(highest, 1), STARS_PER_TERM)
    field, misfit = fit_profile(
        first, _alike(misfit), field, start=start, order=low, shape=shape, rounds=3, threads=threads
    )
    cut.own[few] = first.own
    field, misfit = fit_profile(
        cut, np.ones(len(cut), np.bool_), field, start=start, order=low, shape=shape, rounds=2, threads=threads
    )
    order = _best_order(cut.only(_alike(misfit)), field, low, highest=highest, shape=shape, threads=threads)
    field, misfit = fit_profile(
        cut, _alike(misfit), field, start=start, order=order, shape=shape, rounds=1, threads=threads
    )
    field, misfit = fit_profile(
        cut, _alike(misfit), field, start=start, order=order, shape=shape, rounds=1, threads=threads
    )
    return field, cut.only(_alike(misfit)), order


def _best_order(
    cut: Cutouts, field: Float64, field_order: int, *, highest: int, shape: tuple[int, int], threads: int
) -> int:
    """Order that predicts best the shapes of stars held out, by the linearised equations of each star."""
    if highest == 0:
        return 0
    shapes = polynomial_terms(cut.x, cut.y, shape, field_order) @ field
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
