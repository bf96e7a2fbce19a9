"""Targets of sky alerts: what is to be observed and reduced first, one small file per sky alert.

``archive/alerts/<event>/targets.json`` is written by the flow of the sky alert and the operator's commands, atomically.
A reader sees the old or the new file, never a part, and a damaged file costs only its own sky alert.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from nightsift.archive.paths import Archive
from nightsift.core.errors import BadAlertFile
from nightsift.io.atomic import atomic
from nightsift.sky.fields import SkyField
from nightsift.sky.sphere import unit_vectors

State = Literal["waiting", "active", "paused", "stopped", "retracted"]
STATES: tuple[State, ...] = ("waiting", "active", "paused", "stopped", "retracted")
LARGEST = 32 * 2**20
"""Bytes: a larger targets file is none."""
TOUCHING = 0.5
"""Weight of a frame centred outside a field but within the circle around it: part of the frame still covers it."""


@dataclass(frozen=True)
class Target:
    """What one sky alert wants observed.

    Attributes
    ----------
    event : str
        Identity of the event.
    t0 : float
        Time of the event (MJD UTC): exposures before it are of no use.
    until : float
        When the sky alert's claim ends (MJD UTC).
    state : str
        ``waiting`` for approval, ``active``, ``paused``, ``stopped`` or ``retracted``.
    fields : tuple of SkyField
        Wanted fields, best first.
    probability : tuple of float
        Probability that each holds the source.
    excluded : tuple of str
        Units that the operators took out.
    revision : int
        Running number of the notice that ranked the fields.
    """

    event: str
    t0: float
    until: float
    state: State
    fields: tuple[SkyField, ...] = ()
    probability: tuple[float, ...] = ()
    excluded: tuple[str, ...] = ()
    revision: int = 0

    def __post_init__(self) -> None:
        if self.state not in STATES:
            raise ValueError(f"the state of an alert is one of {', '.join(STATES)}, got {self.state!r}")
        if len(self.fields) != len(self.probability):
            raise ValueError("each field needs its probability")
        if not (math.isfinite(self.t0) and math.isfinite(self.until)):
            raise ValueError("t0 and until must be times")

    @cached_property
    def _centres(self) -> npt.NDArray[np.float64]:
        if not self.fields:
            return np.empty((0, 3))
        return unit_vectors(np.array([one.ra for one in self.fields]), np.array([one.dec for one in self.fields]))

    @cached_property
    def _reach(self) -> npt.NDArray[np.float64]:
        return np.cos(np.deg2rad([one.radius for one in self.fields]))

    def weight(self, unit: str, ra: float, dec: float, *, mjd: float) -> float:
        """Weight of an exposure by the field that it is centred on, 0 where the sky alert has no use for it."""
        if self.state != "active" or unit in self.excluded or not self.t0 <= mjd <= self.until:
            return 0.0
        if not (math.isfinite(ra) and math.isfinite(dec)):
            return 0.0
        near = np.flatnonzero(self._centres @ unit_vectors(ra, dec) >= self._reach) if self.fields else ()
        best = 0.0
        for number in near:
            field = self.fields[number]
            if field.units and unit not in field.units:
                continue
            full = 1.0 if field.holds(ra, dec) else TOUCHING
            best = max(best, full * max(self.probability[number], 1e-9))
        return best


def folder_of(archive: Archive, event: str) -> Path:
    """Return the folder of a sky alert, ``archive/alerts/<event>``; a name that could lead elsewhere is encoded."""
    return archive.skyalert(event)


def write_target(archive: Archive, target: Target) -> Path:
    """Write what a sky alert wants, in place of what it wanted before.

    Parameters
    ----------
    archive : Archive
        The archive.
    target : Target
        What it wants.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    DiskFull
        If it does not fit.
    """
    path = folder_of(archive, target.event) / "targets.json"
    fields = [
        {
            "name": one.name, "grid": one.grid, "ra": one.ra, "dec": one.dec, "radius": one.radius,
            "corners": one.corners, "units": one.units, "probability": probability,
        }
        for one, probability in zip(target.fields, target.probability, strict=True)
    ]  # fmt: skip
    content = {
        "event": target.event, "revision": target.revision, "state": target.state, "t0_mjd_utc": target.t0,
        "until_mjd_utc": target.until, "excluded_units": target.excluded, "fields": fields,
    }  # fmt: skip
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(content), encoding="utf-8")
    return path


def read_target(path: Path) -> Target:
    """Read what a sky alert wants.

    Parameters
    ----------
    path : Path
        Its ``targets.json``.

    Returns
    -------
    Target
        What it wants.

    Raises
    ------
    BadAlertFile
        If the file is missing, damaged or too large.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"larger than {LARGEST} bytes")
        content = json.loads(path.read_text(encoding="utf-8"))
        fields = content["fields"]
        return Target(
            event=str(content["event"]),
            t0=float(content["t0_mjd_utc"]),
            until=float(content["until_mjd_utc"]),
            state=content["state"],
            fields=tuple(_field(one) for one in fields),
            probability=tuple(float(one["probability"]) for one in fields),
            excluded=tuple(str(one) for one in content["excluded_units"]),
            revision=int(content["revision"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadAlertFile(path=str(path), what=" ".join(str(error).split()) or type(error).__name__) from error


def active_targets(archive: Archive) -> tuple[Target, ...]:
    """Return what all active sky alerts want; cheap enough for every tick of a watch loop.

    A damaged file counts as none here; `damaged_targets` names it.
    """
    found = (_or_none(path) for path in _files(archive))
    return tuple(one for one in found if one is not None and one.state == "active")


def damaged_targets(archive: Archive) -> list[str]:
    """Say which targets files cannot be read, and why.

    Parameters
    ----------
    archive : Archive
        The archive.

    Returns
    -------
    list of str
        One line per damaged file.
    """
    messages = []
    for path in _files(archive):
        try:
            read_target(path)
        except BadAlertFile as error:
            messages.append(str(error))
    return messages


def wants(targets: Sequence[Target], unit: str, ra: float, *, dec: float, mjd: float) -> float:
    """Return the priority of an exposure among those that wait, by the active sky alerts: larger is sooner.

    It is the largest probability of a field that holds the centre of the frame (deg, NaN where unknown), half of it
    where the frame only touches the field; 0 where no sky alert wants it.
    """
    return max((one.weight(unit, ra, dec, mjd=mjd) for one in targets), default=0.0)


def _files(archive: Archive) -> Iterable[Path]:
    return sorted((archive.root / "alerts").glob("*/targets.json"))


def _or_none(path: Path) -> Target | None:
    try:
        return read_target(path)
    except BadAlertFile:
        return None


def _field(row: dict[str, Any]) -> SkyField:
    corners = tuple((float(a), float(d)) for a, d in row["corners"])
    units = tuple(str(one) for one in row["units"])
    return SkyField(
        str(row["name"]), float(row["ra"]), float(row["dec"]), corners, float(row["radius"]), units, str(row["grid"])
    )
