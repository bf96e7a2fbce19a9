"""From exposures to nights: the inputs freed from what they owe to sky, seeing, field and clouds.

An exposure is compared with the calibration exposures of its own field and band where there are enough of them. The
value of a night is the median over its exposures; of what clouds change, over its clear ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.clear_sky import LEAST_OF_FIELD, ClearSky, learn_clear_sky
from models.exposure_inputs import COLUMNS, INPUTS, Input, Inputs, log_of

Float64 = npt.NDArray[np.float64]
Line = tuple[float, float]

LEAST_RANGE = 0.05
"""Range of sky or seeing (relative) from which a line is told from a level."""
MOST_PAIRED = 300
"""Exposures that a robust line is drawn through."""


@dataclass(frozen=True, slots=True, eq=False)
class InputModel:
    """What the calibration exposures were like.

    Attributes
    ----------
    noise : tuple of float
        Variance of the sky at level zero (adu2) and its growth with the level (adu).
    slopes : dict of str to float
        Growth with the log of the seeing, of inputs that follow it.
    levels : dict of (str, str) to float
        Median by input and field; the field ``""`` stands for all.
    clear : ClearSky
        Zero points without clouds.
    """

    noise: Line
    slopes: Mapping[str, float]
    levels: Mapping[tuple[str, str], float]
    clear: ClearSky

    def night(self, inputs: Inputs) -> dict[str, float]:
        """Values of one night.

        Parameters
        ----------
        inputs : mapping of str to ndarray, shape (n_exposures,)
            Ledger columns of its exposures.

        Returns
        -------
        dict of str to float
            Median over the exposures by input, less the level of their fields; NaN where none has a value, and where
            clouds change it and no exposure was clear.
        """
        fields, cloudy = _fields(inputs), self._cloudy(inputs)
        values = {}
        for one in INPUTS:
            own = self._freed(one, inputs)
            level = np.array([self.levels.get((one.name, f), self.levels.get((one.name, ""), 0.0)) for f in fields])
            used = np.isfinite(own) & ~cloudy if one.clouds else np.isfinite(own)
            middle = np.mean if one.name == "refused" else np.median
            values[one.name] = float(middle((own - level)[used])) if used.any() else float("nan")
        return values

    def clouds(self, inputs: Inputs) -> tuple[float, float]:
        """Extinction of a night without a clear exposure.

        Parameters
        ----------
        inputs : mapping of str to ndarray, shape (n_exposures,)
            Ledger columns of its exposures.

        Returns
        -------
        least, greatest : float
            Over its exposures (mag); NaN where one was clear, or none has a zero point.
        """
        zero_point = _number(inputs, "zero_point")
        cloudy, known = self._cloudy(inputs), np.isfinite(zero_point)
        if not cloudy.any() or (known & ~cloudy).any():
            return float("nan"), float("nan")
        lost = self.clear.extinction(zero_point, _fields(inputs))[cloudy]
        return float(lost.min()), float(lost.max())

    def _cloudy(self, inputs: Inputs) -> npt.NDArray[np.bool_]:
        return self.clear.cloudy(_number(inputs, "zero_point"), _fields(inputs))

    def _freed(self, one: Input, inputs: Inputs) -> Float64:
        return _freed(one, inputs, self.noise, self.slopes)


def learn_inputs(nights: Sequence[Inputs]) -> InputModel:
    """Learn what the exposures of the calibration nights were like.

    Parameters
    ----------
    nights : sequence of mapping
        Ledger columns of the exposures of each night.

    Returns
    -------
    InputModel
        Lines, levels by field, and the clear sky.
    """
    joined = {
        name: np.concatenate([np.asarray(one[name]) for one in nights])
        for name in (*COLUMNS, "field", "refused", "good")
    }
    fields, noise = _fields(joined), _noise_line(joined)
    clear = learn_clear_sky(_number(joined, "zero_point"), fields)
    cloudy = clear.cloudy(_number(joined, "zero_point"), fields)
    width = log_of(joined["seeing"])
    slopes = {one.name: robust_slope(width, one.of(joined)) for one in INPUTS if one.freed_from == "seeing"}
    levels = {}
    for one in INPUTS:
        values = _freed(one, joined, noise, slopes)
        used = np.isfinite(values) & ~cloudy if one.clouds else np.isfinite(values)
        for field in ("", *np.unique(fields[used])):
            inside = used & (fields == field) if field else used
            if inside.sum() >= (LEAST_OF_FIELD if field else 1):
                levels[one.name, str(field)] = float(np.median(values[inside]))
    return InputModel(noise, slopes, levels, clear)


def robust_slope(x: Float64, y: Float64) -> float:
    """Slope of a line that outliers do not turn: the median over all pairs (Theil 1950; Sen 1968).

    Parameters
    ----------
    x, y : ndarray, shape (n,)
        Places and values; what is not finite is passed over.

    Returns
    -------
    float
        The slope; 0 where x hardly varies.
    """
    good = np.isfinite(x) & np.isfinite(y)
    x, y = x[good], y[good]
    if len(x) > MOST_PAIRED:
        chosen = np.linspace(0, len(x) - 1, MOST_PAIRED).astype(int)
        x, y = x[chosen], y[chosen]
    if len(x) < LEAST_OF_FIELD or np.ptp(x) < LEAST_RANGE:
        return 0.0
    first, second = np.triu_indices(len(x), 1)
    apart = x[second] - x[first]
    told = np.abs(apart) > 0.1 * np.ptp(x)  # pairs at one place tell noise only
    return float(np.median((y[second] - y[first])[told] / apart[told]))


def _number(inputs: Inputs, name: str) -> Float64:
    return np.asarray(inputs[name], dtype=np.float64)


def _fields(inputs: Inputs) -> npt.NDArray[np.str_]:
    return np.asarray(inputs["field"]).astype(np.str_)


def _freed(one: Input, inputs: Inputs, noise: Line, slopes: Mapping[str, float]) -> Float64:
    """Values of an input less what the lines promise at the sky and the seeing of each exposure."""
    values = one.of(inputs)
    if one.freed_from == "sky":
        return values - log_of(noise[0] + noise[1] * _number(inputs, "sky"))
    if one.freed_from == "seeing" and slopes[one.name]:
        return values - slopes[one.name] * log_of(inputs["seeing"])
    return values


def _noise_line(inputs: Inputs) -> Line:
    """Line of the variance of the sky against its level, robust, by relative errors; level only where it falls."""
    sky = np.asarray(inputs["sky"], dtype=np.float64)
    variance = np.asarray(inputs["sky_rms"], dtype=np.float64) ** 2
    good = np.isfinite(sky) & np.isfinite(variance) & (variance > 0)
    if not good.any():
        return 1.0, 0.0
    sky, variance = sky[good], variance[good]
    weight = 1.0 / variance
    slope = 0.0
    if np.ptp(sky) > LEAST_RANGE * max(abs(float(np.median(sky))), 1.0):
        design = np.stack([np.ones_like(sky), sky], axis=1)
        for _ in range(5):
            solved, *_ = np.linalg.lstsq(design * weight[:, None], variance * weight, rcond=None)
            off = np.abs(design @ solved / variance - 1.0)
            weight = 1.0 / variance / np.maximum(1.0, off / max(1.5 * float(np.median(off)), 1e-3))
        if solved[1] > 0 and (design @ solved > 0).all():
            return float(solved[0]), float(solved[1])
    return float(np.median(variance)), slope
