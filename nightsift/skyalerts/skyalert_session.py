"""What stays in memory between sky alerts: grids, units, catalogues, the ledger, and the frames that have arrived."""

from __future__ import annotations

import datetime as dt
import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nightsift.archive.paths import Archive
from nightsift.archive.skyalert_options import SkyAlertOptions
from nightsift.archive.survey import Survey
from nightsift.context.hosts import load_hosts
from nightsift.context.known_objects import Movers, load_known
from nightsift.context.orbits import read_orbits
from nightsift.core.errors import BadTable
from nightsift.core.rows import LedgerRow
from nightsift.core.tables import LEDGER
from nightsift.core.times import mjd_of
from nightsift.io.parquet import read_table
from nightsift.site.site import Site
from nightsift.sky.fields import SkyField
from nightsift.skyalerts.event_store.inbox import notices
from nightsift.skyalerts.event_store.targets import Target
from nightsift.skyalerts.planning.planning import Planned, fields_of, make_plan, orders, sites_of
from nightsift.skyalerts.planning.tilings import template_fields
from nightsift.skyalerts.products.gather import Gathered, gather
from nightsift.skyalerts.products.rank import Catalogues
from nightsift.skyalerts.products.write import write_products
from nightsift.unit.units import Unit


class SkyAlertSession:
    """What the flows of sky alerts work with; a plain object, so that nobody takes it apart to track it.

    Parameters
    ----------
    survey : Survey
        The survey.
    units : mapping of str to Unit
        Its units by name.

    Raises
    ------
    BadTiling, BadTable
        If a grid or a catalogue that the survey names cannot be read.
    """

    def __init__(self, survey: Survey, units: Mapping[str, Unit]) -> None:
        self.survey, self.units = survey, dict(units)
        self.archive = Archive(survey.archive)
        self.fields: tuple[SkyField, ...] = fields_of(survey, self.archive, tuple(self.units))
        self.sites = sites_of(survey, self.units)
        self.catalogues = _open_catalogues(survey.alert, self.sites)
        self.view = LedgerView(self.archive)
        self.frames: dict[str, Any] = {}
        self.tried: dict[str, float] = {}  # monotonic time until which a frame is left alone
        self.plans: dict[str, Planned] = {}
        self.gathered: dict[str, Gathered] = {}
        self._seen: dict[str, tuple[int, int]] = {}

    def plan(self, event: str) -> Planned:
        """Rank the fields of an event and write what is wanted (see `planning.planning.make_plan`)."""
        if not self.survey.alert.tilings:  # templates may have been built since
            self.fields = template_fields(self.archive, tuple(self.units))
        self._seen[event] = self._signs(event)
        self.plans[event] = make_plan(self.survey, self.archive, event, fields=self.fields, sites=self.sites, now=now())
        return self.plans[event]

    def give_up(self, event: str) -> None:
        """Leave an event that cannot be planned alone until a notice or an order comes."""
        self._seen[event] = self._signs(event)

    def is_stale(self, event: str) -> bool:
        """Whether a notice or an order has come since the event was planned."""
        return self._seen.get(event) != self._signs(event)

    def gather(self, event: str) -> Gathered:
        """Read what is new of the exposures and candidates of an event (see `nightsift.skyalerts.products.gather`)."""
        target, days = self.plans[event].target, self.survey.alert.ranking.history_days
        known = self.gathered.get(event)
        self.gathered[event] = gather(self.archive, target.t0, target.fields, history_days=days, known=known)
        return self.gathered[event]

    def write_products(self, event: str, problems: tuple[str, ...] = ()) -> int:
        """Rank the candidates of an event, write table, page and drafts; return the number of objects."""
        planned, options = self.plans[event], self.survey.alert
        waiting = 0 if planned.target.state == "retracted" else len(self.pending(planned.target))
        if waiting:
            problems = (*problems, f"{waiting} exposures wait to be reduced")
        report = options.report
        if not report.survey:
            report = report.model_copy(update={"survey": self.survey.name})
        made = write_products(
            self.archive, planned.alert, planned.skymap, target=planned.target, catalogues=self.catalogues,
            ranking=options.ranking, report=report, known=self.gathered.get(event), problems=problems,
        )  # fmt: skip
        self.gathered[event] = made.gathered
        return int(made.ranked.num_rows)

    def pending(self, target: Target) -> list[Any]:
        """Frames that have arrived, are wanted and were not reduced or tried yet, most wanted first."""
        nights = {one.exposure.night for one in self.frames.values() if one.exposure.night}
        finished = {row["url"] for row in self.view.rows(sorted(nights)) if row["state"] != "failed"}
        weighted = [
            (target.weight(one.exposure.unit, one.ra, one.dec, mjd=one.mjd), one)
            for url, one in self.frames.items()
            if url not in finished and self.tried.get(url, 0.0) <= time.monotonic()
        ]
        return [one for weight, one in sorted(weighted, key=lambda pair: -pair[0]) if weight > 0.0]

    def news(self) -> list[str]:
        """Events with notices, orders, frames or reduced exposures that their ranked candidates do not rest on yet."""
        found = [event for event in self._seen if self.is_stale(event)]
        for event, planned in self.plans.items():
            target = planned.target
            if event in found:
                continue
            if target.state == "active" and now() <= target.until:
                rows = self.view.rows(_nights_around(self.archive, target.t0, target.until))
                reduced = {row["exposure_id"] for row in _exposures_after(target, rows)}
                known = self._known(event) if event in self.gathered else None
                if known is None or reduced - known or self.pending(target):
                    found.append(event)
        return found

    def lacking_templates(self, target: Target) -> list[str]:
        """Return the wanted fields that units have no template of, one line per unit."""
        lines = []
        for name in self.units:
            wanted = [one for one in target.fields if not one.units or name in one.units]
            own = template_fields(self.archive, (name,)) if wanted and name not in target.excluded else ()
            bare = [one.name for one in wanted if not any(_meet(one, have) for have in own)]
            if bare and name not in target.excluded:
                shown = ", ".join(bare[:8]) + (" and more" if len(bare) > 8 else "")
                lines.append(f"{name} has no template of {len(bare)} of {len(wanted)} wanted fields: {shown}")
        return lines

    def _known(self, event: str) -> set[str]:
        return set(self.gathered[event].exposures["exposure_id"].to_pylist())

    def _signs(self, event: str) -> tuple[int, int]:
        return len(notices(self.archive, event)), len(orders(self.archive, event))


class LedgerView:
    """Ledger rows of some nights, read again only where files are new.

    Parameters
    ----------
    archive : Archive
        The archive.
    """

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._rows: dict[Path, tuple[int, LedgerRow]] = {}

    def rows(self, nights: list[str]) -> list[LedgerRow]:
        """Rows of some nights.

        Parameters
        ----------
        nights : list of str
            The nights.

        Returns
        -------
        list of dict
            Schema `nightsift.core.tables.LEDGER`; a file that is just being replaced is read the next time.
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


def _nights_around(archive: Archive, first: float, last: float) -> list[str]:
    """Nights that may hold exposures of a time (MJD UTC).

    A night has the date of its evening anywhere on Earth, so that one more on both sides is looked at.
    """
    begin, end = (dt.date(1858, 11, 17) + dt.timedelta(days=int(mjd) + more) for mjd, more in ((first, -1), (last, 1)))
    return [one for one in archive.nights() if begin.isoformat() <= one <= end.isoformat()]


def _exposures_after(target: Target, rows: list[LedgerRow]) -> list[LedgerRow]:
    """Ledger rows that are done, were taken after the event, and lie in a field of the sky alert in any state."""
    running = Target(
        target.event, target.t0, target.until, "active", target.fields, target.probability, target.excluded
    )
    return [
        row
        for row in rows
        if row["state"] == "done"
        and row["ra"] is not None
        and row["dec"] is not None
        and row["mjd"] is not None
        and running.weight(row["unit"], row["ra"], row["dec"], mjd=row["mjd"]) > 0.0
    ]


def _open_catalogues(options: SkyAlertOptions, sites: Mapping[str, Site]) -> Catalogues:
    """Read the catalogues that a survey names; what is not named is not compared with."""
    hosts = load_hosts(options.galaxies) if options.galaxies else None
    movers = Movers(read_orbits(os.path.expandvars(options.orbits)), sites) if options.orbits else None
    return Catalogues(hosts, load_known(options.stars, options.nuclei), movers)


def now() -> float:
    """Return the time (MJD UTC)."""
    return mjd_of(datetime.now(UTC))


def _meet(one: SkyField, other: SkyField) -> bool:
    """Whether the centre of either field lies in the other."""
    return bool(one.holds(other.ra, other.dec) or other.holds(one.ra, one.dec))
