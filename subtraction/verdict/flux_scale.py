"""How well the flux scale of a difference is borne out by its stars, part of the frame by part.

See docs/algorithms.md, section 12.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from subtraction.kernel.spatial import ImageField, nodes
from subtraction.verdict.residuals import excess_scatter
from subtraction.verdict.star_faults import StarFaults

Float64 = npt.NDArray[np.float64]

PARTS = 4
"""Parts of a frame along each axis."""

MIN_STARS = 5
"""Fewest stars from which the flux scale of a part is told."""

CERTAIN = 3.0
"""Standard errors that an offset must exceed before it counts."""

CLIP = 4.0
"""Stars whose flux differs from that of their part by more than this many sigma have changed."""


def flux_scale_error(x: Float64, y: Float64, faults: StarFaults, shape: tuple[int, int]) -> float:
    """Largest part of the stars' flux that is left over in one part of the frame.

    Clouds and flat fields change the flux scale from place to place. Where the difference follows them, nothing is left
    of the stars on average; where it does not, the stars of that part have all too much or too little subtracted.

    Parameters
    ----------
    x, y : ndarray of float64, shape (n,)
        Positions of the stars (pixel).
    faults : StarFaults
        What is left of them.
    shape : tuple of int
        ``(ny, nx)`` of the frame.

    Returns
    -------
    float
        Largest absolute weighted mean of the part of the flux that is left over, in any of 4 x 4 parts of the frame,
        less three standard errors, at least 0; NaN where no part has five stars.
    """
    known = np.isfinite(faults.left) & np.isfinite(faults.left_error)
    left, error = faults.left[known], faults.left_error[known]
    part_x, part_y = (
        np.clip((place[known] * PARTS / size).astype(np.int64), 0, PARTS - 1)
        for place, size in ((x, shape[1]), (y, shape[0]))
    )
    offsets = []
    for part in range(PARTS * PARTS):
        inside = part_y * PARTS + part_x == part
        if int(inside.sum()) >= MIN_STARS:
            mean, noise = _clipped_mean(left[inside], error[inside])
            offsets.append(max(abs(mean) - CERTAIN * noise, 0.0))
    return max(offsets, default=float("nan"))


def _clipped_mean(values: Float64, errors: Float64) -> tuple[float, float]:
    """Weighted mean without outliers and its error, scatter beyond the errors included."""
    sharp = errors <= np.median(errors)
    centre = float(np.median(values[sharp]))
    sigma = np.hypot(errors, excess_scatter(values - centre, errors))
    keep = np.abs(values - centre) <= CLIP * sigma
    weight = np.where(keep, sigma**-2.0, 0.0)
    if not weight.sum() > 0:
        return centre, float(sigma.min())
    return float((weight * values).sum() / weight.sum()), float(weight.sum() ** -0.5)


def flux_scale_metrics(field: ImageField, x: Float64, y: Float64) -> dict[str, float]:
    """Tell how the flux scale of a kernel changes over the frame, and how much of that no star tells.

    Parameters
    ----------
    field : ImageField
        The kernel.
    x, y : ndarray of float64, shape (n,)
        Stars by which it was fitted (pixel), at least one.

    Returns
    -------
    dict of str to float
        ``kernel_sum_variation``: largest less smallest sum over their mean; ``kernel_sum_unproven``: largest change of
        the sum between a place on the frame and one of the five stars nearest to it, over the mean: over less than
        that distance no stars tell the scale.
    """
    place_x, place_y = nodes(field.shape, max(field.order, PARTS))
    few = min(MIN_STARS, len(x))
    distance = (place_x[:, None] - x) ** 2 + (place_y[:, None] - y) ** 2
    nearest = np.argpartition(distance, few - 1, axis=1)[:, :few]
    there, proven = field.total(place_x, place_y), field.total(x, y)
    mean = float(np.abs(there.mean()))
    return {
        "kernel_sum_variation": float(there.max() - there.min()) / mean,
        "kernel_sum_unproven": float(np.abs(there[:, None] - proven[nearest]).max()) / mean,
    }
