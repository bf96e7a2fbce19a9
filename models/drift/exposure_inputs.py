"""Inputs of the drift test that come from exposures: numbers of the ledger, freed from sky, seeing, field and clouds.

========== ==================================================================================================
seeing     log of the seeing
focus      log of the width of the stars' core, less what the calibration nights have at that seeing
elongation ellipticity of stars, the same
tilt       gradient of their width over the field, the same
sky        log of the sky level
noise      log of the variance of the sky over the line variance(sky) of the calibration nights: gain, read noise,
           flat field, in moonlight as in the dark
zero_point zero point: transparency, gain, optics
depth      limiting magnitude less what zero point, noise and seeing of the exposure promise: the subtraction's part
stars      log of the density of stars
candidates log of the density of candidates
unflagged  part of the candidates without a flag (arcsine of the root), where the difference is good: others are
           flagged as a whole
accepted   part of the unflagged candidates above the threshold (arcsine of the root)
residual   log of the residuals at stars over their noise
alignment  log of the residual of the alignment
refused    part of the exposures that were refused (arcsine of the root)
========== ==================================================================================================

An exposure is compared with the calibration exposures of its own field and band where there are enough of them. The
value of a night is the median over its exposures; of what clouds change, over its clear ones.

**Clouds** dim one exposure and not the next, and they do it on good nights of a good instrument. So they make no
scatter to be averaged: an exposure is clear or it is not. The clear level and its scatter are those of the shortest
half of the calibration exposures (Rousseeuw and Leroy 1988, Statistica Neerlandica 42, 103), which up to half of them
under cloud do not move. A mirror with dew and a camera with another gain dim every exposure alike, which tells them
from clouds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from nightsift.core.robust import SIGMA_TO_IQR

Float64 = npt.NDArray[np.float64]
Inputs = Mapping[str, npt.NDArray[np.generic]]

COLUMNS = (
    "seeing", "core_width", "ellipticity", "width_gradient", "sky", "sky_rms", "zero_point", "limiting_mag", "n_stars",
    "area", "n_candidates", "n_unflagged", "n_accepted", "star_residual", "align_residual",
)  # fmt: skip
"""Ledger columns that are read, beside ``state``, ``verdict``, ``field`` and ``band``."""
Texts = npt.NDArray[np.str_]
LEAST_CLOUD = 0.1
"""Extinction (mag) below which no exposure counts as cloudy."""
SIGMAS = 5.0
"""The same in scatters of clear exposures; the greater counts."""
STEADY = 0.1
"""Range (mag) of the extinction over all exposures of two nights within which it is no cloud's."""
LEAST_OF_FIELD = 5
"""Calibration exposures of a field from which it has a level of its own."""
Line = tuple[float, float]
LEAST_RANGE = 0.05
"""Range of sky or seeing (relative) from which a line is distinguished from a level."""
MOST_PAIRED = 300
"""Exposures that a robust line is drawn through."""


@dataclass(frozen=True, slots=True)
class Input:
    """One number of an exposure.

    Attributes
    ----------
    name, title : str
        In tables, and for people.
    tail : str
        Which departures count: ``"both"``, ``"high"`` or ``"low"``.
    floor : float
        Smallest deviation from night to night that is believed.
    of : callable
        Values of exposures, from their ledger columns.
    freed_from : {"", "sky", "seeing"}
        What the values of good exposures follow, on a line that each unit has of its own.
    clouds : bool
        Whether clouds change it.
    """

    name: str
    title: str
    tail: str
    floor: float
    of: Callable[[Inputs], Float64]
    freed_from: Literal["", "sky", "seeing"] = ""
    clouds: bool = True


def _log(values: npt.NDArray[np.generic]) -> Float64:
    """Natural logarithm, NaN where a number is not above zero."""
    numbers = np.asarray(values, dtype=np.float64)
    return np.log(np.where(numbers > 0, numbers, np.nan))


def _part(count: npt.NDArray[np.generic], of: npt.NDArray[np.generic]) -> Float64:
    """Anscombe's transform of a part; NaN where there is nothing that it is a part of."""
    k, n = np.asarray(count, dtype=np.float64), np.asarray(of, dtype=np.float64)
    return np.where(n > 0, np.arcsin(np.sqrt(np.clip((k + 0.375) / (n + 0.75), 0.0, 1.0))), np.nan)


def _depth(inputs: Inputs) -> Float64:
    columns = {name: np.asarray(inputs[name], dtype=np.float64) for name in ("limiting_mag", "zero_point")}
    promised = columns["zero_point"] - 2.5 / np.log(10.0) * (_log(inputs["sky_rms"]) + _log(inputs["seeing"]))
    return columns["limiting_mag"] - promised


def _density(inputs: Inputs, name: str) -> Float64:
    return np.log(np.asarray(inputs[name], dtype=np.float64) + 0.5) - _log(inputs["area"])


def _unflagged(inputs: Inputs) -> Float64:
    part = _part(inputs["n_unflagged"], inputs["n_candidates"])
    return np.where(np.asarray(inputs["good"], dtype=np.float64) > 0, part, np.nan)


def _number(name: str) -> Callable[[Inputs], Float64]:
    return lambda inputs: np.asarray(inputs[name], dtype=np.float64)


INPUTS: tuple[Input, ...] = (
    Input("seeing", "seeing (log)", "both", 0.03, lambda rows: _log(rows["seeing"]), clouds=False),
    Input(
        "focus", "width of the stars' core against their width (log)", "both", 0.002,
        lambda rows: _log(rows["core_width"]), "seeing", clouds=False,
    ),
    Input("elongation", "ellipticity of stars", "both", 0.005, _number("ellipticity"), "seeing", clouds=False),
    Input(
        "tilt", "change of the width of stars over the field", "both", 0.008, _number("width_gradient"), "seeing",
        clouds=False,
    ),
    Input("sky", "sky level (log)", "both", 0.05, lambda rows: _log(rows["sky"])),
    Input(
        "noise", "noise of the sky against its level (log)", "both", 0.02, lambda rows: 2.0 * _log(rows["sky_rms"]),
        "sky", clouds=False,
    ),
    Input("zero_point", "zero point (mag)", "both", 0.02, _number("zero_point")),
    Input("depth", "depth against its promise (mag)", "both", 0.03, _depth),
    Input("stars", "density of stars (log)", "both", 0.05, lambda rows: _density(rows, "n_stars")),
    Input("candidates", "density of candidates (log)", "both", 0.1, lambda rows: _density(rows, "n_candidates")),
    Input("unflagged", "part without a flag", "both", 0.03, _unflagged),
    Input("accepted", "part accepted", "both", 0.03, lambda rows: _part(rows["n_accepted"], rows["n_unflagged"])),
    Input("residual", "residuals at stars (log)", "both", 0.05, lambda rows: _log(rows["star_residual"])),
    Input("alignment", "residual of the alignment (log)", "both", 0.1, lambda rows: _log(rows["align_residual"])),
    Input(
        "refused", "part of the exposures refused", "high", 0.1,
        lambda rows: _part(np.asarray(rows["refused"], dtype=np.float64), np.ones(len(rows["refused"]))), clouds=False,
    ),
)  # fmt: skip
"""All inputs, in the order in which people read them."""


@dataclass(frozen=True, slots=True, eq=False)
class ClearSky:
    """Zero points of clear exposures.

    Attributes
    ----------
    levels : dict of str to (float, float)
        Zero point and its scatter (mag) by field; the field ``""`` stands for all.
    """

    levels: Mapping[str, tuple[float, float]]

    def extinction(self, zero_point: Float64, fields: Texts) -> Float64:
        """Return the light (mag), shape (n,), that exposures lost against the clear sky of their field, else NaN."""
        return np.asarray(self._of(fields)[:, 0] - zero_point, dtype=np.float64)

    def cloudy(self, zero_point: Float64, fields: Texts) -> npt.NDArray[np.bool_]:
        """Tell which exposures were taken through clouds, shape (n,); False where the zero point is not known."""
        limit = np.maximum(SIGMAS * self._of(fields)[:, 1], LEAST_CLOUD)
        return np.asarray(self.extinction(zero_point, fields) > limit)

    def _of(self, fields: Texts) -> Float64:
        whole = self.levels.get("", (np.nan, np.nan))
        return np.array([self.levels.get(str(one), whole) for one in fields], dtype=np.float64).reshape(-1, 2)


def learn_clear_sky(zero_point: Float64, fields: Texts) -> ClearSky:
    """Learn the zero points of clear exposures.

    Parameters
    ----------
    zero_point : ndarray, shape (n,)
        Zero points of the calibration exposures (mag); NaN where not known.
    fields : ndarray of str, shape (n,)
        Field of each.

    Returns
    -------
    ClearSky
        Levels by field.
    """
    known = np.isfinite(zero_point)
    levels = {}
    for field in ("", *np.unique(fields[known])):
        own = zero_point[known & (fields == field)] if field else zero_point[known]
        if len(own) >= (LEAST_OF_FIELD if field else 1):
            levels[str(field)] = shortest_half(own)
    return ClearSky(levels)


def shortest_half(values: Float64) -> tuple[float, float]:
    """Return location and scatter of the densest half of a sample of at least one value.

    The mean of the shortest half, and the standard deviation of a normal distribution with a half so short.
    """
    ordered = np.sort(values)
    size = len(ordered) // 2 + 1
    lengths = ordered[size - 1 :] - ordered[: len(ordered) - size + 1]
    first = int(np.argmin(lengths))
    return float(ordered[first : first + size].mean()), float(lengths[first] / SIGMA_TO_IQR)


def steady_loss(nights: Float64) -> bool:
    """Tell whether nights without a clear exposure all lost the same light: an instrument's loss, not that of clouds.

    `nights` (n, 2): least and greatest extinction of each (mag), NaN with a clear exposure. True for two nights or more
    within `STEADY` of each other.
    """
    return bool(len(nights) > 1 and np.isfinite(nights).all() and np.ptp(nights) <= STEADY)


@dataclass(frozen=True, slots=True, eq=False)
class InputModel:
    """Lines, levels and clear sky of the calibration exposures.

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
        """Return the values of a night by input, from the ledger columns of its exposures.

        Parameters
        ----------
        inputs : mapping of str to ndarray, shape (n_exposures,)
            Ledger columns.

        Returns
        -------
        dict of str to float
            Median over the exposures less the level of their fields; NaN where none has a value, and where clouds
            change it and no exposure was clear.
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
        """Return the extinction of a night without a clear exposure.

        Parameters
        ----------
        inputs : mapping of str to ndarray, shape (n_exposures,)
            Ledger columns.

        Returns
        -------
        least, greatest : float
            Over its exposures (mag); NaN where one was clear, or none has a zero point.
        """
        zero_point = _input_number(inputs, "zero_point")
        cloudy, known = self._cloudy(inputs), np.isfinite(zero_point)
        if not cloudy.any() or (known & ~cloudy).any():
            return float("nan"), float("nan")
        lost = self.clear.extinction(zero_point, _fields(inputs))[cloudy]
        return float(lost.min()), float(lost.max())

    def _cloudy(self, inputs: Inputs) -> npt.NDArray[np.bool_]:
        return self.clear.cloudy(_input_number(inputs, "zero_point"), _fields(inputs))

    def _freed(self, which: Input, inputs: Inputs) -> Float64:
        return _freed(which, inputs, self.noise, slopes=self.slopes)


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
    clear = learn_clear_sky(_input_number(joined, "zero_point"), fields)
    cloudy = clear.cloudy(_input_number(joined, "zero_point"), fields)
    width = _log(joined["seeing"])
    slopes = {one.name: robust_slope(width, one.of(joined)) for one in INPUTS if one.freed_from == "seeing"}
    levels = {}
    for one in INPUTS:
        values = _freed(one, joined, noise, slopes=slopes)
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
    distant = np.abs(apart) > 0.1 * np.ptp(x)  # pairs at one place show noise only
    return float(np.median((y[second] - y[first])[distant] / apart[distant]))


def _input_number(inputs: Inputs, name: str) -> Float64:
    return np.asarray(inputs[name], dtype=np.float64)


def _fields(inputs: Inputs) -> npt.NDArray[np.str_]:
    return np.asarray(inputs["field"]).astype(np.str_)


def _freed(which: Input, inputs: Inputs, noise: Line, *, slopes: Mapping[str, float]) -> Float64:
    """Values of an input less what the lines promise at the sky and the seeing of each exposure."""
    values = which.of(inputs)
    if which.freed_from == "sky":
        return values - _log(noise[0] + noise[1] * _input_number(inputs, "sky"))
    if which.freed_from == "seeing" and slopes[which.name]:
        return values - slopes[which.name] * _log(inputs["seeing"])
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
