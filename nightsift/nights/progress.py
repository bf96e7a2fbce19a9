"""How a night goes on, as the watch writes it down every few seconds: ``archive/status/<night> <site>.json``.

People and `nightsift status` read it; the ledger, not this file, says what is done.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from nightsift.io.atomic import atomic
from nightsift.io.paths import Archive
from nightsift.processes import Holder


@dataclass(slots=True)
class UnitProgress:
    """One unit tonight.

    Attributes
    ----------
    arrived, settling, waiting, running : int
        Frames that have settled since the beginning; still being written; ready but not begun; under way.
    ended : dict of str to int
        Frames that ended, by state.
    last_arrival : str
        When the last one was seen, UTC; empty for none.
    silent : bool
        Whether it delivers nothing although it is dark.
    source : str
        ``"ok"``, or what is wrong with its source.
    older : int
        Files that lay there before the night and are not looked at.
    """

    arrived: int = 0
    settling: int = 0
    waiting: int = 0
    running: int = 0
    ended: dict[str, int] = field(default_factory=dict)
    last_arrival: str = ""
    silent: bool = False
    source: str = "ok"
    older: int = 0


@dataclass(slots=True)
class Progress:
    """A night that is watched.

    Attributes
    ----------
    survey, site, night : str
        What is watched.
    state : str
        ``watching``, ``closing``, ``closed`` or ``stopped``.
    holder : dict
        Process that watches (`nightsift.processes.Holder`).
    started, updated, dusk, dawn : str
        Times, UTC; empty where there is none.
    units : dict of str to UnitProgress
        Each unit.
    lag : float
        Seconds that the oldest settled frame has been waiting or under way.
    latency_median, latency_worst : float or None
        Seconds from a frame on disk to its ledger row, over the night.
    running : list of dict
        What is being reduced: label, seconds, pid.
    troubles : list of str
        What people were told tonight.
    memory : float
        Memory of the watch and its workers (MB).
    """

    survey: str
    site: str
    night: str
    state: str
    holder: dict[str, Any]
    started: str
    updated: str = ""
    dusk: str = ""
    dawn: str = ""
    units: dict[str, UnitProgress] = field(default_factory=dict)
    lag: float = 0.0
    latency_median: float | None = None
    latency_worst: float | None = None
    running: list[dict[str, Any]] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    memory: float = 0.0

    def is_alive(self) -> bool:
        """Whether the process that wrote it is not known to have ended."""
        return not Holder(**self.holder).is_dead()


def status_name(night: str, site: str) -> str:
    """Name of the status of a night at a site.

    Parameters
    ----------
    night, site : str
        The night, and the site; empty without one.

    Returns
    -------
    str
        The name.
    """
    return f"{night} {site}" if site else night


def write_progress(archive: Archive, progress: Progress) -> None:
    """Write how a night goes on, atomically.

    Parameters
    ----------
    archive : Archive
        The archive.
    progress : Progress
        How it goes on.
    """
    with atomic(archive.status(status_name(progress.night, progress.site))) as temporary:
        temporary.write_text(json.dumps(asdict(progress), indent=1))


def read_progress(archive: Archive) -> list[Progress]:
    """Read how all nights went on that were watched, newest last; a damaged file is left out.

    Parameters
    ----------
    archive : Archive
        The archive.

    Returns
    -------
    list of Progress
        Sorted by night and site.
    """
    found = []
    for path in sorted(archive.status("any").parent.glob("[0-9]*.json")):
        try:
            found.append(_progress(json.loads(path.read_bytes())))
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            continue
    return found


def _progress(content: Mapping[str, Any]) -> Progress:
    units = {name: UnitProgress(**one) for name, one in content["units"].items()}
    return Progress(**{**content, "units": units})
