"""Light curves: positions measured on every exposure of an archive that covers them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
from prefect import flow

from flows.pool import run_all
from flows.tracking import recorded
from nightsift.archive import ledger
from nightsift.archive.paths import Archive
from nightsift.archive.survey import Runner, Survey
from nightsift.core import tables
from tasks.photometry import Position, may_cover, measure_exposure
from tasks.steps import checked_units

IN_PROCESS = Runner(kind="in-process", workers=1, address="")

Progress = Callable[[dict[str, Any], int], None]
"""Called with the ledger row of each exposure, its state as measured now, and the number of exposures."""


def light_curves(
    survey: Survey,
    positions: Sequence[Position],
    night: str | None = None,
    *,
    unit: str | None = None,
    progress: Progress | None = None,
    recentre: float = 0.0,
    track: bool = False,
) -> tuple[pa.Table, list[str]]:
    """Measure positions on all exposures that are done and cover them.

    Differences are not kept in an archive, so each exposure is reduced again up to its difference, with the template
    and the options of today: points of one light curve are alike even where the night was reduced by an older version.

    Parameters
    ----------
    survey : Survey
        The survey.
    positions : sequence of Position
        Positions.
    night, unit : str, optional
        Only these; all when None.
    progress : callable, optional
        Called with the ledger row of each exposure, its state as measured now, and the number of exposures.
    recentre : float, optional
        How far (pixel) a position may move on each exposure to a peak of signal-to-noise ratio above ten.
    track : bool, optional
        True to let Prefect see the run. A question of some seconds starts no server by itself.

    Returns
    -------
    curves : pyarrow.Table
        Schema `nightsift.core.tables.LIGHT_CURVE`, sorted by position and time.
    problems : list of str
        What kept exposures from being measured.
    """
    checked_units(survey, [unit] if unit in {one.unit for one in survey.sources} else ())
    plan = (survey, tuple(positions), night, unit, progress, recentre)
    return recorded(photometry, f"light curves of {survey.name}", *plan, track=track)


def _measure(
    survey: Survey,
    positions: Sequence[Position],
    night: str | None,
    unit: str | None,
    progress: Progress | None,
    recentre: float,
    tracked: bool,
) -> tuple[pa.Table, list[str]]:
    archive = Archive(survey.archive)
    units = survey.load_units()
    rows = [row for row in ledger.read(archive, night, unit).to_pylist() if row["state"] == "done"]
    chosen = [(row, near) for row in rows if (near := may_cover(row, positions))]
    calls: list[dict[str, Any]] = [
        {
            "row": row, "unit": units.get(row["unit"]) or survey.load_unit(row["unit"]), "archive": archive,
            "positions": near, "recentre": recentre,
        }
        for row, near in chosen
    ]  # fmt: skip
    parts, problems = [tables.LIGHT_CURVE.empty_table()], list[str]()
    for ended in run_all(measure_exposure, calls, IN_PROCESS, tracked=tracked):
        row, state = ended.call["row"], "done"
        if ended.error is None:
            parts.append(ended.result)
        else:
            state = "failed"
            problems.append(f"{row['url']}: {ended.error}")
        if progress is not None:
            progress({**row, "state": state, "n_points": parts[-1].num_rows if state == "done" else 0}, len(chosen))
    curves = pa.concat_tables(parts)
    return curves.sort_by([("name", "ascending"), ("mjd", "ascending"), ("unit", "ascending")]), problems


photometry = flow(name="photometry", persist_result=False, validate_parameters=False)(_measure)
