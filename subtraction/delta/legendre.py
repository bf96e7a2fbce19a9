"""Legendre polynomials over the frame: terms that hardly know of each other, for the variation of a kernel.

See docs/algorithms.md, section 14.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numpy.polynomial import legendre

from nightsift.psf import polynomial_terms

Float64 = npt.NDArray[np.float64]


def legendre_terms(x: Float64, y: Float64, shape: tuple[int, int], order: int) -> Float64:
    """Products of Legendre polynomials, normalised to a mean square of one over the frame.

    Parameters
    ----------
    x, y : ndarray, shape (n,)
        Positions (pixel).
    shape : tuple of int
        ``(ny, nx)`` of the frame.
    order : int
        Highest total degree.

    Returns
    -------
    ndarray of float64, shape (n, n_terms)
        In the order of `nightsift.psf.polynomial_terms`.
    """
    return np.asarray(polynomial_terms(x, y, shape, order) @ monomials(order).T)


def monomials(order: int) -> Float64:
    """Legendre terms as combinations of the terms ``u**i v**j``.

    Parameters
    ----------
    order : int
        Highest total degree.

    Returns
    -------
    ndarray of float64, shape (n_terms, n_terms)
        A row a Legendre term.
    """
    place = {(total - j, j): k for k, (total, j) in enumerate((t, j) for t in range(order + 1) for j in range(t + 1))}
    out = np.zeros((len(place), len(place)))
    for (i, j), row in place.items():
        in_u, in_v = (legendre.leg2poly([0.0] * n + [np.sqrt(2.0 * n + 1.0)]) for n in (i, j))
        for a, left in enumerate(in_u):
            for b, right in enumerate(in_v):
                out[row, place[a, b]] += left * right
    return out
