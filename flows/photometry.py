"""Light curves: positions measured on every exposure of an archive that covers them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from nightsift import ledger, tables
from nightsift.errors import NightsiftError
from nightsift.io.paths import Archive
from nightsift.survey import Survey
from tasks.photometry import Position, may_cover, measure_exposure


def light_curves(
    survey: Survey,
    positions: Sequence[Position],
    night: str | None = None,
    unit: str | None = None,
    progress: Callable[[dict[str, Any], int], None] | None = None,
    recentre: float = 0.0,
) -> tuple[pa.Table, list[str]]:
    """Measure positions on all exposures that the ledger tells to be done and that cover them.

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

    Returns
    -------
    curves : pyarrow.Table
        Schema `nightsift.tables.LIGHT_CURVE`, sorted by position and time.
    problems : list of str
        What kept exposures from being measured.
    """
    archive = Archive(survey.archive)
    units = survey.load_units()
    rows = [row for row in ledger.read(archive, night, unit).to_pylist() if row["state"] == "done"]
    chosen = [(row, near) for row in rows if (near := may_cover(row, positions))]
    parts, problems = [tables.LIGHT_CURVE.empty_table()], []
    for row, near in chosen:
        one = units.get(row["unit"]) or survey.load_unit(row["unit"])
        state = "done"
        try:
            parts.append(measure_exposure.fn(row, one, archive, near, recentre))
        except NightsiftError as error:
            state = "failed"
            problems.append(f"{row['url']}: {error}")
        if progress is not None:
            progress({**row, "state": state, "n_points": parts[-1].num_rows if state == "done" else 0}, len(chosen))
    curves = pa.concat_tables(parts)
    return curves.sort_by([("name", "ascending"), ("mjd", "ascending"), ("unit", "ascending")]), problems
