"""Identity and calibration of what gives a unit's scores: the model and the calibration that its unit file names."""

from __future__ import annotations

import functools
import json
from pathlib import Path

from models.calibration.calibrate import Calibration
from models.network.inputs import Recipe
from models.network.store import NO_MODEL, RECIPE, find, model_id
from nightsift.core.errors import ConfigurationError, ModelMismatch
from nightsift.unit.units import Unit


def calibration_of(unit: Unit) -> Calibration | None:
    """Read the calibration that a unit file names.

    Parameters
    ----------
    unit : Unit
        The unit.

    Returns
    -------
    Calibration or None
        None where the unit names none.

    Raises
    ------
    ConfigurationError
        If the file is absent, is no calibration, or belongs to another model.
    """
    if not unit.model.calibration or unit.model.name == NO_MODEL:
        return None
    path = Path(unit.file).parent / unit.model.calibration
    try:
        calibration = _read(path, path.stat().st_mtime_ns)
    except (OSError, ModelMismatch) as error:
        raise wrong_calibration(unit, f"{path} cannot be used: {error}") from error
    current = model_id(unit.model.name)
    if calibration.model_id != current:
        raise wrong_calibration(
            unit, f"{path} was learnt for the model {calibration.model_id}, and the unit scores with {current}"
        )
    return calibration


def scoring_identity(unit: Unit) -> str:
    """Return the identity of the model that scores a unit, with that of its calibration where there is one.

    Raises `ModelMismatch` if there is no such model, `ConfigurationError` if the calibration cannot be used.
    """
    identity = model_id(unit.model.name)
    calibration = calibration_of(unit)
    return identity if calibration is None else f"{identity}+{calibration.digest}"


def check_stamps(unit: Unit) -> None:
    """Check that the stamps of a unit are as wide as its model needs, by the model's recipe; nothing is loaded.

    Parameters
    ----------
    unit : Unit
        The unit.

    Raises
    ------
    ConfigurationError
        If they are not, or if the recipe cannot be read.
    """
    if unit.model.name == NO_MODEL:
        return
    path = find(unit.model.name) / RECIPE
    try:
        needed = Recipe.from_mapping(json.loads(path.read_text(encoding="utf-8"))).size
    except (OSError, ValueError, ModelMismatch) as error:
        raise ConfigurationError(
            file=unit.file, table="model", key="name", what=f"{path} cannot be used: {error}",
            advice="make the model again: nightsift train",
        ) from error  # fmt: skip
    if unit.stamps.size < needed:
        raise ConfigurationError(
            file=unit.file, table="stamps", key="size",
            what=f"{unit.stamps.size} px, and the model '{unit.model.name}' needs {needed}",
            advice=f"size = {needed}, or name another model",
        )  # fmt: skip


def wrong_calibration(unit: Unit, what: str) -> ConfigurationError:
    """Make the error of a calibration of a unit that cannot be used or learnt; `what` says why."""
    return ConfigurationError(
        file=unit.file, table="model", key="calibration", what=what,
        advice="learn one with nightsift calibrate, or leave it empty",
    )  # fmt: skip


@functools.lru_cache(maxsize=64)
def _read(path: Path, changed: int) -> Calibration:
    return Calibration.from_json(path.read_text(encoding="utf-8"), str(path))
