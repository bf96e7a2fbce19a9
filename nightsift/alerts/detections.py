"""What the archive holds of an alert: the exposures after the event in its fields."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

from nightsift.alerts.targets import Target
from nightsift.errors import BadTable
from nightsift.io.parquet import read_table
from nightsift.io.paths import Archive
from nightsift.tables import LEDGER


class LedgerView:
    """Ledger rows of some nights, read again only where files are new.

    Parameters
    ----------
    archive : Archive
        The archive.
    """

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._rows: dict[Path, tuple[int, dict[str, Any]]] = {}

    def rows(self, nights: list[str]) -> list[dict[str, Any]]:
        """Rows of some nights.

        Parameters
        ----------
        nights : list of str
            The nights.

        Returns
        -------
        list of dict
            Schema `nightsift.tables.LEDGER`; a file that is just being replaced is read the next time.
        """
        found = []
        for path in (one for night in nights for one in self._archive.tables("ledger", night)):
            try:
                stamp = path.stat().st_mtime_ns
                if path not in self._rows or self._rows[path][0] != stamp:
                    self._rows[path] = (stamp, read_table(path, LEDGER).to_pylist()[0])
            except (OSError, BadTable, IndexError):
                continue
            found.append(self._rows[path][1])
        return found


def nights_around(archive: Archive, first: float, last: float) -> list[str]:
    """Nights of the archive that may hold exposures of a time.

    Parameters
    ----------
    archive : Archive
        The archive.
    first, last : float
        The time (MJD UTC).

    Returns
    -------
    list of str
        The nights; a night has the date of its evening anywhere on Earth, so that one more on both sides is looked at.
    """
    begin, end = (dt.date(1858, 11, 17) + dt.timedelta(days=int(mjd) + more) for mjd, more in ((first, -1), (last, 1)))
    return [one for one in archive.nights() if begin.isoformat() <= one <= end.isoformat()]


def exposures_after(target: Target, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Reduced exposures that an alert has use for.

    Parameters
    ----------
    target : Target
        The alert, in whatever state.
    rows : list of dict
        Ledger rows.

    Returns
    -------
    list of dict
        Those that are done, were taken after the event, and lie in a field of the alert.
    """
    running = Target(
        target.event, target.t0, target.until, "active", target.fields, target.probability, target.excluded
    )
    return [row for row in rows if row["state"] == "done" and row["ra"] is not None and row["mjd"] is not None
            and running.weight(row["unit"], row["ra"], row["dec"], row["mjd"]) > 0.0]  # fmt: skip
