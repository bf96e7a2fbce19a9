"""What a campaign will cost, from what its archive knows: seconds by the ledger, bytes by the products on disk."""

from __future__ import annotations

import shutil
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nightsift import ledger
from nightsift.io.paths import Archive

GUESSED_SECONDS = 10.0
GUESSED_BYTES = 2_000_000
SAMPLE = 50
"""Exposures of each unit whose products are measured."""

RUN_BYTES = 18_000
"""Database of Prefect that a task run takes, logs included (measured)."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a campaign will cost.

    Attributes
    ----------
    exposures : dict of str to int
        Exposures by unit.
    seconds : dict of str to float
        Seconds an exposure by unit.
    product_bytes : dict of str to float
        Bytes an exposure by unit.
    guessed : tuple of str
        Units of which the archive knows nothing: their figures are guesses.
    chunks : int
        Chunks, each a task run.
    workers : int
        Chunks that run at the same time.
    free : int
        Bytes free on the disk of the archive.
    """

    exposures: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    product_bytes: dict[str, float] = field(default_factory=dict)
    guessed: tuple[str, ...] = ()
    chunks: int = 0
    workers: int = 1
    free: int = 0

    @property
    def work(self) -> float:
        """Seconds of all exposures one after the other."""
        return sum(number * self.seconds[unit] for unit, number in self.exposures.items())

    @property
    def wall(self) -> float:
        """Seconds that it will take, as many exposures as workers at the same time."""
        return self.work / max(min(self.workers, self.chunks), 1)

    @property
    def written(self) -> float:
        """Bytes that will be written to the archive."""
        return sum(number * self.product_bytes[unit] for unit, number in self.exposures.items())

    @property
    def database(self) -> int:
        """Bytes that tracking will take in the database of Prefect."""
        return self.chunks * RUN_BYTES

    @property
    def fits(self) -> bool:
        """Whether the disk has room for what will be written, a tenth more for safety."""
        return 1.1 * self.written < self.free


def estimate(archive: Archive, units: Iterable[str], chunks: int, workers: int) -> Cost:
    """Estimate what exposures will cost.

    Parameters
    ----------
    archive : Archive
        The archive that knows what exposures of these units have cost.
    units : iterable of str
        Unit of each exposure.
    chunks : int
        Number of chunks.
    workers : int
        Chunks that run at the same time.

    Returns
    -------
    Cost
        The estimate; units that the archive does not know count like the others, or as a guess.
    """
    exposures = dict(Counter(units))
    known = {unit: _known(archive, unit) for unit in exposures}
    measured = [one for one in known.values() if one is not None]
    usual = (
        (statistics.median(one[0] for one in measured), statistics.median(one[1] for one in measured))
        if measured
        else (GUESSED_SECONDS, float(GUESSED_BYTES))
    )
    each = {unit: one or usual for unit, one in known.items()}
    return Cost(
        exposures,
        {unit: one[0] for unit, one in each.items()},
        {unit: one[1] for unit, one in each.items()},
        tuple(sorted(unit for unit, one in known.items() if one is None)),
        chunks,
        workers,
        shutil.disk_usage(_existing(archive.home)).free,
    )


def _known(archive: Archive, unit: str) -> tuple[float, float] | None:
    """Median seconds and mean bytes of an exposure in the latest nights of a unit; None where there are none."""
    rows = []
    for night in reversed(archive.nights()):
        some = [row for row in ledger.read(archive, night, unit).to_pylist() if row["state"] == "done"]
        rows += some
        if len(rows) >= SAMPLE:  # the machine and the code of today tell more than those of last year
            break
    if not rows:
        return None
    sizes = [_bytes(archive, row) for row in rows[:SAMPLE]]
    return statistics.median(row["seconds"] for row in rows), statistics.fmean(sizes)


def _bytes(archive: Archive, row: Mapping[str, str]) -> int:
    where = row["night"], row["unit"], row["exposure_id"]
    files = archive.ledger(*where), archive.candidates(*where), archive.stamps(*where)
    return sum(path.stat().st_size for path in files if path.exists())


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path
