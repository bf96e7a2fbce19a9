"""What is read of the exposures of a night: numbers of the ledger, one a channel.

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

What clouds change is read of clear exposures only (`models.clear_sky`). How the values of exposures become those of
nights: `models.input_model`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
Inputs = Mapping[str, npt.NDArray[np.generic]]

COLUMNS = (
    "seeing", "core_width", "ellipticity", "width_gradient", "sky", "sky_rms", "zero_point", "limiting_mag", "n_stars",
    "area", "n_candidates", "n_unflagged", "n_accepted", "star_residual", "align_residual",
)  # fmt: skip
"""Ledger columns that are read, beside ``state``, ``verdict``, ``field`` and ``band``."""


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


def log_of(values: npt.NDArray[np.generic]) -> Float64:
    """Natural logarithm.

    Parameters
    ----------
    values : ndarray, shape (n,)
        Numbers.

    Returns
    -------
    ndarray of float64, shape (n,)
        NaN where they are not above zero.
    """
    numbers = np.asarray(values, dtype=np.float64)
    return np.log(np.where(numbers > 0, numbers, np.nan))


def _part(count: npt.NDArray[np.generic], of: npt.NDArray[np.generic]) -> Float64:
    """Anscombe's transform of a part; NaN where there is nothing that it is a part of."""
    k, n = np.asarray(count, dtype=np.float64), np.asarray(of, dtype=np.float64)
    return np.where(n > 0, np.arcsin(np.sqrt(np.clip((k + 0.375) / (n + 0.75), 0.0, 1.0))), np.nan)


def _depth(inputs: Inputs) -> Float64:
    columns = {name: np.asarray(inputs[name], dtype=np.float64) for name in ("limiting_mag", "zero_point")}
    promised = columns["zero_point"] - 2.5 / np.log(10.0) * (log_of(inputs["sky_rms"]) + log_of(inputs["seeing"]))
    return columns["limiting_mag"] - promised


def _density(inputs: Inputs, name: str) -> Float64:
    return np.log(np.asarray(inputs[name], dtype=np.float64) + 0.5) - log_of(inputs["area"])


def _unflagged(inputs: Inputs) -> Float64:
    part = _part(inputs["n_unflagged"], inputs["n_candidates"])
    return np.where(np.asarray(inputs["good"], dtype=np.float64) > 0, part, np.nan)


def _number(name: str) -> Callable[[Inputs], Float64]:
    return lambda inputs: np.asarray(inputs[name], dtype=np.float64)


INPUTS: tuple[Input, ...] = (
    Input("seeing", "seeing (log)", "both", 0.03, lambda one: log_of(one["seeing"]), clouds=False),
    Input(
        "focus", "width of the stars' core against their width (log)", "both", 0.002,
        lambda one: log_of(one["core_width"]), "seeing", clouds=False,
    ),
    Input("elongation", "ellipticity of stars", "both", 0.005, _number("ellipticity"), "seeing", clouds=False),
    Input(
        "tilt", "change of the width of stars over the field", "both", 0.008, _number("width_gradient"), "seeing",
        clouds=False,
    ),
    Input("sky", "sky level (log)", "both", 0.05, lambda one: log_of(one["sky"])),
    Input(
        "noise", "noise of the sky against its level (log)", "both", 0.02, lambda one: 2.0 * log_of(one["sky_rms"]),
        "sky", clouds=False,
    ),
    Input("zero_point", "zero point (mag)", "both", 0.02, _number("zero_point")),
    Input("depth", "depth against its promise (mag)", "both", 0.03, _depth),
    Input("stars", "density of stars (log)", "both", 0.05, lambda one: _density(one, "n_stars")),
    Input("candidates", "density of candidates (log)", "both", 0.1, lambda one: _density(one, "n_candidates")),
    Input("unflagged", "part without a flag", "both", 0.03, _unflagged),
    Input("accepted", "part accepted", "both", 0.03, lambda one: _part(one["n_accepted"], one["n_unflagged"])),
    Input("residual", "residuals at stars (log)", "both", 0.05, lambda one: log_of(one["star_residual"])),
    Input("alignment", "residual of the alignment (log)", "both", 0.1, lambda one: log_of(one["align_residual"])),
    Input(
        "refused", "part of the exposures refused", "high", 0.1,
        lambda one: _part(np.asarray(one["refused"], dtype=np.float64), np.ones(len(one["refused"]))), clouds=False,
    ),
)  # fmt: skip
"""All inputs, in the order in which people read them."""
