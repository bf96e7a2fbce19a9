"""Identity and calibration of what gives a unit's scores: the model and the calibration that its unit file names."""

from __future__ import annotations

import functools
from pathlib import Path

from models.calibration.calibrate import Calibration
from models.network.store import NO_MODEL, model_id
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


def wrong_calibration(unit: Unit, what: str) -> ConfigurationError:
    """Make the error of a calibration of a unit that cannot be used or learnt; `what` says why."""
    return ConfigurationError(
        file=unit.file, table="model", key="calibration", what=what,
        advice="learn one with nightsift calibrate, or leave it empty",
    )  # fmt: skip


@functools.lru_cache(maxsize=64)
def _read(path: Path, changed: int) -> Calibration:
    return Calibration.from_json(path.read_text(encoding="utf-8"), str(path))
