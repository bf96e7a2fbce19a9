"""Images of a PSF model, and the polynomials that stand for them.

See docs/algorithms.md, section 7.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nightsift.psf import Psf, polynomial_terms
from subtraction.kernel.spatial import ImageField, nodes
from subtraction.psf.functions import Basis, draw_deviation, light_of
from subtraction.psf.moffat import NODES, WEIGHTS, draw_moffat
from subtraction.psf.profiles import half_width

Float64 = npt.NDArray[np.float64]

WANTED_INSIDE = 0.99
"""Part of the light that the image should hold, if it can."""

LARGEST_HALF = 32
OVERSAMPLED_BELOW = 2.6
"""FWHM (pixel) below which images sampled once a pixel cannot be shifted, so that finer ones are kept."""

OVERSAMPLING = 3
HIGHEST = 5
"""Highest order of the polynomials of the image."""

REPRESENTED = 1e-3
"""Error, as a part of the peak, with which the polynomials of the image must follow the model."""


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


def sample_model(model: PsfModel, size: int = 0) -> Psf:
    """Polynomial images of a model.

    The shape of the profile is a polynomial of the position, the image is none: it is drawn at Chebyshev nodes and
    fitted with the lowest order that follows it.

    Parameters
    ----------
    model : PsfModel
        The model.
    size : int, optional
        Width of the image (pixel, odd); 0 for what holds 99 % of the light, three times the FWHM on each side at
        least.

    Returns
    -------
    Psf
        The PSF; what the model has beyond the image is its `wings`.
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
