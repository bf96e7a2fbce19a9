"""What the stars of a frame tell of its optics: shape of the core, elongation, change of the width over the field.

The air widens every star and hardly changes the shape of its profile. A defocused pupil is a disc or a ring and
flattens the core: such a star is wider in a narrow window than in a wide one, whatever the seeing. The windows scale
with the width of the stars. Few pixels a star leave a relation of shape to width that is the unit's own; it is learnt
where the shapes are compared (`models.exposure_inputs`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nightsift.core.robust import MAD_TO_SIGMA
from nightsift.frames import Frame
from nightsift.images.moments import moments
from nightsift.images.shapes import FWHM_PER_SIGMA
from nightsift.images.stars import NO_LIGHT, StarTable, clean_stars, typical_fwhm
from nightsift.parallel import over_rows

Float64 = npt.NDArray[np.float64]

NARROW, WIDE = 0.8, 1.2
"""Windows in which the core is measured, in widths of the stars."""
LEAST_STARS = 8
"""Clean stars below which nothing is said."""
_LOOKED_AT, _MEASURED = 4000, 200  # brightest stars: more cost time, and tell no more


@dataclass(frozen=True, slots=True)
class StarShapes:
    """Shapes of the stars of a frame.

    Attributes
    ----------
    core_width : float
        Width of the stars in a narrow window over that in a wide one, both freed from the window: 1 for a Gaussian,
        less with wings, more with a flat core.
    ellipticity : float
        Length of the median of (a2 - b2) / (a2 + b2) as a vector of twice the position angle: noise cancels, trails
        stay.
    width_gradient : float
        Relative change of the width along the steepest direction, over half the longer side of the frame.
    """

    core_width: float = float("nan")
    ellipticity: float = float("nan")
    width_gradient: float = float("nan")


def star_shapes(frame: Frame, stars: StarTable) -> StarShapes:
    """Measure the shapes of the clean stars of a frame.

    Parameters
    ----------
    frame : Frame
        Background-subtracted frame.
    stars : ndarray of STAR_DTYPE, shape (n,)
        Its stars, the brightest first.

    Returns
    -------
    StarShapes
        Medians over the brightest clean stars; NaN for fewer than `LEAST_STARS` of them.
    """
    looked_at = stars[:_LOOKED_AT]
    good = looked_at[clean_stars(looked_at, frame.shape)][:_MEASURED]
    if len(good) < LEAST_STARS:
        return StarShapes()
    sigma = typical_fwhm(stars) / FWHM_PER_SIGMA
    narrow, wide = (_sizes(frame, good, scale * sigma) for scale in (NARROW, WIDE))
    ratio = narrow / wide
    core = float(np.median(ratio[np.isfinite(ratio)])) if np.isfinite(ratio).any() else float("nan")
    a, b, theta = (good[name].astype(np.float64) for name in ("a", "b", "theta"))
    e = (a**2 - b**2) / (a**2 + b**2)
    mean = np.hypot(np.median(e * np.cos(2.0 * theta)), np.median(e * np.sin(2.0 * theta)))
    return StarShapes(core, float(mean), _gradient(good, frame.shape))


def _sizes(frame: Frame, stars: StarTable, sigma: float) -> Float64:
    """Mean standard deviation (pixel) of stars by moments in a window, the window taken out."""
    x, y = stars["x"].astype(np.float64), stars["y"].astype(np.float64)
    out = np.empty(len(stars))

    def some(begin: int, end: int) -> None:
        out[begin:end] = moments(frame.data, frame.mask, NO_LIGHT, x[begin:end], y[begin:end], sigma, 1.0)[:, 2]

    over_rows(some, len(stars), 64)
    return out


def _gradient(stars: StarTable, shape: tuple[int, int]) -> float:
    """Steepest slope of the log width over the field, of a fit with a term for field curvature, outliers clipped."""
    half = 0.5 * max(shape)
    u, v = (stars["x"] - 0.5 * (shape[1] - 1)) / half, (stars["y"] - 0.5 * (shape[0] - 1)) / half
    terms, width = np.stack([np.ones_like(u), u, v, u**2 + v**2], axis=1), np.log(stars["fwhm"].astype(np.float64))
    inside = np.ones(len(stars), dtype=np.bool_)
    solved: Float64 = np.zeros(4)
    for _ in range(3):
        solved = np.asarray(np.linalg.lstsq(terms[inside], width[inside], rcond=None)[0], dtype=np.float64)
        off = np.abs(width - terms @ solved)
        inside = off <= 3.0 * MAD_TO_SIGMA * float(np.median(off)) + 1e-9
        if inside.sum() < LEAST_STARS:
            break
    return float(np.hypot(solved[1], solved[2]))
