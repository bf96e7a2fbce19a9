"""How well a kernel predicts a star that was held out of its fit, without fitting again.

See docs/algorithms.md, section 4.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from subtraction.kernel.star_equations import StarEquations

Float64 = npt.NDArray[np.float64]

MOST_STARS = 300
"""Stars that are held out: the brightest, which see the kernel's faults first."""


def held_out_change(
    equations: StarEquations,
    column_noise: Float64,
    transfer: Float64,
    coefficients: Float64,
    terms: Float64,
    chosen: npt.NDArray[np.int64],
) -> Float64:
    """Rise of each star's squared residuals when the star is held out of the fit.

    Without star s the coefficients at its place change by ``-(1 - S N)^-1 S g``, with N its normal matrix less its
    noise, g its gradient ``b - N a`` and S what a change of the right side does to the coefficients there (the
    leave-one-out formula of linear least squares; Cook and Weisberg 1982, Residuals and Influence in Regression,
    sec. 2.2).

    Parameters
    ----------
    equations : StarEquations
        Equations of the stars.
    column_noise : ndarray of float64, shape (n_basis, n_basis)
        Covariance of the columns' noise where the convolved frame has unit variance.
    transfer : ndarray of float64, shape (n_terms * n_basis, n_terms * n_basis)
        What a change of the right side of the frame's equations does to the coefficients.
    coefficients : ndarray of float64, shape (n_terms, n_basis)
        The coefficients.
    terms : ndarray of float64, shape (n, n_terms)
        Polynomial terms at the stars.
    chosen : ndarray of int64, shape (m,)
        Stars to hold out, one at a time; all of them took part in the fit.

    Returns
    -------
    ndarray of float64, shape (m,)
        What is to be added to the star's weighted sum of squared residuals.
    """
    count, n_basis = coefficients.shape
    blocks = transfer.reshape(count, n_basis, count, n_basis).transpose(0, 2, 1, 3).reshape(count * count, -1)
    here = terms[chosen]
    products = (here[:, :, None] * here[:, None, :]).reshape(len(here), -1)
    spread = (products @ blocks).reshape(-1, n_basis, n_basis)
    normal = equations.normal[chosen]
    local = (here @ coefficients)[:, :, None]
    gradient = equations.right[chosen] - np.matmul(normal, local)[:, :, 0]
    noise = equations.noise[chosen][:, None, None] * column_noise[None]
    pull = gradient[:, :, None] + np.matmul(noise, local)
    left = np.eye(n_basis)[None] - np.matmul(spread, normal - noise)
    change = -np.linalg.solve(left, np.matmul(spread, pull))[:, :, 0]
    curved = np.matmul(normal, change[:, :, None])[:, :, 0]
    return np.asarray((change * (curved - 2.0 * gradient)).sum(axis=1))


def held_out_residual(
    equations: StarEquations,
    column_noise: Float64,
    transfer: Float64,
    coefficients: Float64,
    terms: Float64,
    used: npt.NDArray[np.bool_],
    chi2: Float64,
    freedom: Float64,
) -> float:
    """Root of the median reduced chi-square of the brighter stars, each predicted by the others.

    Parameters
    ----------
    equations : StarEquations
        As for `held_out_change`, like the next four.
    column_noise : ndarray of float64
        Covariance of the columns' noise.
    transfer : ndarray of float64
        Inverse of the penalised normal matrix.
    coefficients : ndarray of float64
        Solution of the fit.
    terms : ndarray of float64
        Spatial terms of each star.
    used : ndarray of bool, shape (n,)
        Stars that carried the fit.
    chi2, freedom : ndarray of float64, shape (n,)
        Reduced chi-square of each star in the fit and its degrees of freedom.

    Returns
    -------
    float
        NaN with fewer than ten stars.
    """
    stars = np.flatnonzero(used)
    if len(stars) < 10:
        return float("nan")
    brightness = np.einsum("sii->s", equations.normal[stars])
    chosen = stars[np.argsort(-brightness, kind="stable")][: min(MOST_STARS, (len(stars) + 1) // 2)]
    rise = held_out_change(equations, column_noise, transfer, coefficients, terms, chosen)
    values = chi2[chosen] + np.maximum(rise, 0.0) / np.maximum(freedom[chosen], 1.0)
    return float(np.sqrt(np.median(values)))
