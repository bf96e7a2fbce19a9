"""What the exposures of a night were like: numbers of the ledger, freed from what they owe to the field and the sky.

========== ==================================================================================================
seeing     log of the seeing
sky        log of the sky level
noise      log of the variance of the sky over the line variance(sky) of the calibration nights: gain, read noise,
           flat field, in moonlight as in the dark
zero_point zero point: transparency, gain, optics
depth      limiting magnitude less what zero point, noise and seeing of the exposure promise: the subtraction's part
stars      log of the density of stars
candidates log of the density of candidates
unflagged  part of the candidates without a flag (arcsine of the root)
accepted   part of the unflagged candidates above the threshold (arcsine of the root)
residual   log of the residuals at stars over their noise
alignment  log of the residual of the alignment
refused    part of the exposures that were refused (arcsine of the root)
========== ==================================================================================================

An exposure is compared with the calibration exposures of its own field and band where there are enough of them. The
value of a night is the median over its exposures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
Inputs = Mapping[str, npt.NDArray[np.generic]]

COLUMNS = (
    "seeing", "sky", "sky_rms", "zero_point", "limiting_mag", "n_stars", "area", "n_candidates", "n_unflagged",
    "n_accepted", "star_residual", "align_residual",
)  # fmt: skip
"""Ledger columns that are read, beside ``state``, ``field`` and ``band``."""
LEAST_OF_FIELD = 5
"""Calibration exposures of a field from which it has a level of its own."""


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
    """

    name: str
    title: str
    tail: str
    floor: float
    of: Callable[[Inputs], Float64]


def _log(values: npt.NDArray[np.generic]) -> Float64:
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


INPUTS: tuple[Input, ...] = (
    Input("seeing", "seeing (log)", "both", 0.03, lambda one: _log(one["seeing"])),
    Input("sky", "sky level (log)", "both", 0.05, lambda one: _log(one["sky"])),
    Input("noise", "noise of the sky against its level (log)", "both", 0.02, lambda one: 2.0 * _log(one["sky_rms"])),
    Input("zero_point", "zero point (mag)", "both", 0.02, lambda one: np.asarray(one["zero_point"], dtype=np.float64)),
    Input("depth", "depth against its promise (mag)", "both", 0.03, _depth),
    Input("stars", "density of stars (log)", "both", 0.05, lambda one: _density(one, "n_stars")),
    Input("candidates", "density of candidates (log)", "both", 0.1, lambda one: _density(one, "n_candidates")),
    Input("unflagged", "part without a flag", "both", 0.03, lambda one: _part(one["n_unflagged"], one["n_candidates"])),
    Input("accepted", "part accepted", "both", 0.03, lambda one: _part(one["n_accepted"], one["n_unflagged"])),
    Input("residual", "residuals at stars (log)", "both", 0.05, lambda one: _log(one["star_residual"])),
    Input("alignment", "residual of the alignment (log)", "both", 0.1, lambda one: _log(one["align_residual"])),
    Input(
        "refused", "part of the exposures refused", "high", 0.1,
        lambda one: _part(np.asarray(one["refused"], dtype=np.float64), np.ones(len(one["refused"]))),
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class InputModel:
    """What the calibration exposures were like.

    Attributes
    ----------
    line : tuple of float
        Variance of the sky at level zero (adu2) and its growth with the level (adu), of the calibration exposures.
    levels : dict of (str, str) to float
        Median by input and field; the field ``""`` stands for all.
    """

    line: tuple[float, float]
    levels: dict[tuple[str, str], float]

    def night(self, inputs: Inputs) -> dict[str, float]:
        """Values of one night.

        Parameters
        ----------
        inputs : mapping of str to ndarray, shape (n_exposures,)
            Ledger columns of its exposures.

        Returns
        -------
        dict of str to float
            Median over the exposures by input, less the level of their fields; NaN where none has a value.
        """
        fields = np.asarray(inputs["field"]).astype(str)
        values = {}
        for one in INPUTS:
            own = _freed(one, inputs, self.line)
            level = np.array([self.levels.get((one.name, f), self.levels.get((one.name, ""), 0.0)) for f in fields])
            known = (own - level)[np.isfinite(own)]
            middle = np.mean if one.name == "refused" else np.median
            values[one.name] = float(middle(known)) if len(known) else float("nan")
        return values


def learn_inputs(nights: Sequence[Inputs]) -> InputModel:
    """Learn what the exposures of the calibration nights were like.

    Parameters
    ----------
    nights : sequence of mapping
        Ledger columns of the exposures of each night.

    Returns
    -------
    InputModel
        Line of the noise, and levels by field.
    """
    joined = {
        name: np.concatenate([np.asarray(one[name]) for one in nights]) for name in (*COLUMNS, "field", "refused")
    }
    line = _noise_line(joined)
    fields = joined["field"].astype(str)
    levels = {}
    for one in INPUTS:
        values = _freed(one, joined, line)
        finite = np.isfinite(values)
        for field in ("", *np.unique(fields[finite])):
            inside = finite & (fields == field) if field else finite
            if inside.sum() >= (LEAST_OF_FIELD if field else 1):
                levels[one.name, str(field)] = float(np.median(values[inside]))
    return InputModel(line, levels)


def _freed(one: Input, inputs: Inputs, line: tuple[float, float]) -> Float64:
    """Values of an input; the noise less what the line promises at the level of the sky."""
    values = one.of(inputs)
    if one.name != "noise":
        return values
    promised = line[0] + line[1] * np.asarray(inputs["sky"], dtype=np.float64)
    return values - _log(promised)


def _noise_line(inputs: Inputs) -> tuple[float, float]:
    """Line of the variance of the sky against its level, robust, by relative errors; level only where it falls."""
    sky = np.asarray(inputs["sky"], dtype=np.float64)
    variance = np.asarray(inputs["sky_rms"], dtype=np.float64) ** 2
    good = np.isfinite(sky) & np.isfinite(variance) & (variance > 0)
    if not good.any():
        return 1.0, 0.0
    sky, variance = sky[good], variance[good]
    weight = 1.0 / variance
    slope = 0.0
    if np.ptp(sky) > 0.05 * max(abs(float(np.median(sky))), 1.0):
        design = np.stack([np.ones_like(sky), sky], axis=1)
        for _ in range(5):
            solved, *_ = np.linalg.lstsq(design * weight[:, None], variance * weight, rcond=None)
            off = np.abs(design @ solved / variance - 1.0)
            weight = 1.0 / variance / np.maximum(1.0, off / max(1.5 * float(np.median(off)), 1e-3))
        if solved[1] > 0 and (design @ solved > 0).all():
            return float(solved[0]), float(solved[1])
    return float(np.median(variance)), slope
