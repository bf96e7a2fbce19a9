"""Reductions that are bad on purpose: a good pipeline leaves too few false candidates to learn from."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from nightsift.core.random import generator
from nightsift.images.align import Alignment
from nightsift.units import Unit

THRESHOLD = 4.0
LEAST_SHIFT, MOST_SHIFT = 0.1, 1.0  # px by which template and frame are put beside each other, log-uniform


@dataclass(frozen=True, slots=True)
class Care:
    """Which guards of a reduction are up.

    Attributes
    ----------
    name : str
        ``"standard"`` with all of them, ``"careless"`` otherwise.
    cosmic_rays : bool
        Cosmic rays are masked.
    artefacts : bool
        Streaks, bleed trails, the surroundings of saturated pixels and halos of bright stars are masked.
    kernel : bool
        The matching kernel may vary over the frame.
    shift : tuple of float
        Template moved by x, y (pixel), as one wave over the frame: an alignment that missed the distortion. A constant
        shift would be taken up by the kernel.
    """

    name: str = "standard"
    cosmic_rays: bool = True
    artefacts: bool = True
    kernel: bool = True
    shift: tuple[float, float] = (0.0, 0.0)


CAREFUL = Care()


def draw_carelessness(seed: int, *key: str) -> Care:
    """Draw which guards are lowered: each exposure shows other faults, so that none of them fills the set.

    Parameters
    ----------
    seed : int
        Seed of the set.
    *key : str
        What names the exposure.

    Returns
    -------
    Care
        Cosmic rays unmasked in every second exposure, artefacts in two of three, a stiff kernel in two of three, a
        shift in two of three.
    """
    rng = generator(seed, "careless", *key)
    size, angle = np.exp(rng.uniform(np.log(LEAST_SHIFT), np.log(MOST_SHIFT))), rng.uniform(0.0, 2.0 * np.pi)
    up = rng.random(4) < (1 / 2, 1 / 3, 1 / 3, 1 / 3)
    shift = (0.0, 0.0) if up[3] else (float(size * np.cos(angle)), float(size * np.sin(angle)))
    return Care("careless", bool(up[0]), bool(up[1]), bool(up[2]), shift)


def misaligned(alignment: Alignment, shift: tuple[float, float]) -> Alignment:
    """An alignment that misses a wave over the frame.

    Parameters
    ----------
    alignment : Alignment
        A good one.
    shift : tuple of float
        Amplitude in x and y (pixel); the wave runs along the same direction, one period over the frame.

    Returns
    -------
    Alignment
        The bad one; the good one itself where the shift is zero.
    """
    size = float(np.hypot(*shift))
    if size == 0.0:
        return alignment
    rows, columns = np.mgrid[: alignment.grid.shape[1], : alignment.grid.shape[2]] * float(alignment.step)
    along = (columns * shift[0] / alignment.shape[1] + rows * shift[1] / alignment.shape[0]) / size
    wave = np.sin(2.0 * np.pi * along)
    return dataclasses.replace(alignment, grid=alignment.grid + np.reshape(shift, (2, 1, 1)) * wave)


def lowered(unit: Unit, care: Care) -> Unit:
    """The unit with its guards lowered, and a lower threshold.

    Parameters
    ----------
    unit : Unit
        A unit.
    care : Care
        Which guards stay up.

    Returns
    -------
    Unit
        The same telescope, reduced badly on purpose; the unit itself where all guards are up.
    """
    if care.name == CAREFUL.name:
        return unit
    sections: dict[str, dict[str, Any]] = {
        "artefacts": {"cosmic_rays": unit.artefacts.cosmic_rays and care.cosmic_rays},
        "alignment": {"order": 1, "max_residual": 3.0},
        "detection": {"threshold": min(THRESHOLD, unit.detection.threshold)},
    }
    if not care.artefacts:
        sections["artefacts"] |= {"streaks": False, "bleed": False, "saturation_grow": 0, "bright_star_radius": 0.0}
    if not care.kernel and unit.subtraction.method == "hotpants":
        sections["subtraction"] = {"options": {**unit.subtraction.options, "kernel_order": 0, "flux_order": 0}}
    return changed(unit, **sections)


def changed(unit: Unit, **sections: dict[str, Any]) -> Unit:
    """A unit with some keys of some sections replaced, checked as if they had been read.

    Parameters
    ----------
    unit : Unit
        A unit.
    **sections : dict
        Keys by section.

    Returns
    -------
    Unit
        The changed unit.
    """
    values = unit.model_dump()
    for section, changes in sections.items():
        values[section] |= changes
    return Unit.model_validate(values)
