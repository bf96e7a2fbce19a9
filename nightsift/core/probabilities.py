"""Probabilities as people read them: digits that tell 0.99997 from 1, and log-odds that tell 0.99997 from 0.9999997."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the command line starts without numpy
    import numpy as np
    import numpy.typing as npt

LEGEND = (
    "Log odds: log10 of the odds to be real, by the real/bogus score: 0 is even, +3 is 1000 to 1 for real, "
    "−3 is 1000 to 1 for bogus."
)
"""What the log-odds of a score are, in one line."""

MOST_DIGITS = 17  # of a float64: no number needs more


def probability_text(value: float | None, digits: int = 3) -> str:
    """Return a probability with enough digits to tell it from 0 and 1.

    Parameters
    ----------
    value : float or None
        Between 0 and 1.
    digits : int, optional
        Significant digits of the distance from 0 or 1, whichever is nearer.

    Returns
    -------
    str
        The text, such as ``0.5``, ``0.99997`` or ``3.2e-05``; only 0 and 1 read ``0`` and ``1``. A dash for no number.
    """
    if value is None or not math.isfinite(value):
        return "–"
    if value <= 0.5 or value >= 1.0:
        return f"{value:.{digits}g}"
    return f"{value:.{_decimals(value, digits)}f}".rstrip("0")


def threshold_text(value: float) -> str:
    """Return a threshold as it can be put into a file: the shortest text that reads as the same number."""
    return repr(float(value))


def short_threshold(value: float, scores: npt.NDArray[np.floating], digits: int = 4) -> float:
    """Round a threshold as far as it decides every score as before.

    Parameters
    ----------
    value : float
        Threshold; a score at or above it is accepted.
    scores : ndarray, shape (n,)
        Scores that it must decide as before.
    digits : int, optional
        Least significant digits of the distance from 0 or 1, whichever is nearer.

    Returns
    -------
    float
        The nearest number of fewest decimals that does; `value` itself where it is not between 0 and 1.
    """
    if not 0.0 < value < 1.0:
        return float(value)
    value, wide = float(value), scores.astype("f8")
    accepted = wide >= value
    first = _decimals(value, digits)
    for decimals in range(first, first + MOST_DIGITS):
        step = 10.0**-decimals
        for rounded in (round(value, decimals), round(value + step / 2, decimals), round(value - step / 2, decimals)):
            if 0.0 < rounded < 1.0 and bool(((wide >= rounded) == accepted).all()):
                return rounded
    return float(value)


def _decimals(value: float, digits: int) -> int:
    """Decimals of a number between 0 and 1 that show some significant digits of its distance from the nearer end."""
    return digits - 1 - math.floor(math.log10(min(value, 1.0 - value)))


def log_odds(probability: float) -> float:
    """Return log10 of the odds of a probability; infinite for 0 and 1."""
    if not 0.0 < probability < 1.0:
        return math.inf if probability >= 1.0 else -math.inf
    return (math.log(probability) - math.log1p(-probability)) / math.log(10.0)


def log_odds_spread(probability: float, spread: float) -> float:
    """Return the standard deviation of the log-odds (log10) of samples from the mean and spread of their probabilities.

    That of the logarithm of a log-normal variable of the same relative spread: for probabilities near 0 and 1 the
    first-order ``spread / (p (1 - p))`` would be far too wide. Infinite for 0 and 1.
    """
    variance = probability * (1.0 - probability)
    if not variance > 0.0:
        return math.inf
    return math.sqrt(math.log1p((spread / variance) ** 2)) / math.log(10.0)


def log_odds_text(probability: float | None, spread: float | None = None) -> str:
    """Return the log-odds of a probability as people read them.

    Parameters
    ----------
    probability : float or None
        Between 0 and 1.
    spread : float, optional
        Standard deviation of its samples.

    Returns
    -------
    str
        Such as ``+4.5 ± 0.3``; ``> +7`` and ``< −7`` for 1 and 0, which have no odds; a dash for no number.
    """
    if probability is None or not math.isfinite(probability):
        return "–"
    if not 0.0 < probability < 1.0:
        return "> +7" if probability >= 1.0 else "< −7"
    text = f"{log_odds(probability):+.1f}".replace("-", "−")
    text = text.replace("−0.0", "0.0").replace("+0.0", "0.0")
    if spread is None or not math.isfinite(spread):
        return text
    return f"{text} ± {log_odds_spread(probability, spread):.1f}"
