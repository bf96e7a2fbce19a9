"""Figures of merit of a difference, and the verdict drawn from them.

See docs/algorithms.md, section 12. All thresholds stand in `LIMITS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limit:
    """A figure of merit and where it becomes suspect or bad.

    Attributes
    ----------
    metric : str
        Name of the figure in `Difference.metrics`.
    suspect, bad : float
        Beyond these the difference is suspect, or bad.
    above : bool
        Whether large values are the bad ones.
    text : str
        What it means, as a format string over ``value``.
    """

    metric: str
    suspect: float
    bad: float
    above: bool
    text: str


LIMITS = (
    Limit("anchors_used", 8, 3, False, "only {value:.0f} anchor stars carry the fit"),
    Limit("anchors_clipped_fraction", 0.4, 0.7, True, "{value:.0%} of the anchor stars were clipped"),
    Limit("star_residual", 2.0, 5.0, True, "residuals at stars are {value:.2f} times the photon noise"),
    Limit("model_error", 0.05, 0.15, True, "{value:.1%} of the stars' flux is left over"),
    Limit("registration", 0.15, 0.4, True, "stars are shifted by {value:.2f} px against the template"),
    Limit("dipole_rate", 0.3, 0.6, True, "{value:.0%} of the bright stars leave a dipole"),
    Limit("noise_scale", 1.3, 2.0, True, "the noise on the sky is {value:.2f} times what the variances say"),
    Limit("sky_pull", 0.3, 1.0, True, "the score is offset by {value:.2f} sigma on the sky"),
    Limit("background_residual", 0.3, 1.0, True, "the background is uneven by {value:.2f} sigma of a pixel"),
    Limit("kernel_sum_variation", 0.3, 1.0, True, "the flux scale varies by {value:.0%} over the frame"),
    Limit("usable_fraction", 0.5, 0.1, False, "only {value:.0%} of the pixels are usable"),
)
"""Figures that are judged; the others in `Difference.metrics` only inform."""


def judge(metrics: Mapping[str, float]) -> tuple[str, tuple[str, ...]]:
    """Give the verdict on a difference.

    Parameters
    ----------
    metrics : mapping of str to float
        Figures of merit; those of `LIMITS` that are absent or NaN are not judged.

    Returns
    -------
    verdict : str
        ``"good"``, ``"suspect"`` or ``"bad"``: the worst of all figures.
    reasons : tuple of str
        Why it is not good.
    """
    verdict, reasons = "good", []
    for limit in LIMITS:
        value = metrics.get(limit.metric)
        if value is None or value != value:
            continue
        sign = 1.0 if limit.above else -1.0
        if sign * value <= sign * limit.suspect:
            continue
        reasons.append(limit.text.format(value=value))
        if sign * value > sign * limit.bad:
            verdict = "bad"
        elif verdict == "good":
            verdict = "suspect"
    return verdict, tuple(reasons)
