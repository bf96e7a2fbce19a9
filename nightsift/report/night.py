"""The report of a night as one HTML page that needs nothing else: its verdict, exposures and best candidates."""

from __future__ import annotations

import datetime as dt
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from nightsift import __version__
from nightsift.archive.ledger import STATES
from nightsift.archive.paths import WITHOUT_NIGHT
from nightsift.core.flags import Flag, names
from nightsift.core.frames import Stamps
from nightsift.core.probabilities import LEGEND, log_odds_text, probability_text
from nightsift.core.rows import CandidateRow, LedgerRow
from nightsift.report import plots
from nightsift.report.pictures import number, page_template, strip, stylesheet, utc_minute

_OTHERS = (("refused", "refused"), ("waiting", "waiting for a template"), ("failed", "failed"))
FLAGGED_SHARE = 0.25
"""Part of the places that is left to flagged candidates."""

TEMPLATE = "night.html.j2"
MOST_ROWS = 2000
"""Exposures listed; beyond, the table says that there are more."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What there is to say about a night.

    Attributes
    ----------
    grade : str
        "good", "fair" (something was refused, waits or is suspect) or "bad" (something failed, or a unit has nothing).
    sentence : str
        For people.
    """

    grade: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Choice:
    """Candidates to be shown.

    Attributes
    ----------
    best : pyarrow.Table
        Candidates without a flag, best score first: those above the threshold of their unit, then the next best.
    flagged : pyarrow.Table
        The best of those with a flag, best score first.
    accepted : int
        Candidates without a flag above the threshold, shown or not.
    shown_accepted : int
        Those among them that are shown: the first rows of `best`.
    """

    best: pa.Table
    flagged: pa.Table
    accepted: int
    shown_accepted: int


def render_night(
    night: str,
    ledger: pa.Table,
    candidates: pa.Table,
    *,
    choice: Choice,
    stamps: Mapping[str, Stamps],
    thresholds: Mapping[str, float],
    problems: Sequence[str] = (),
    made: dt.datetime | None = None,
) -> str:
    """Write the report of a night.

    Parameters
    ----------
    night : str
        Night label.
    ledger : pyarrow.Table
        Its ledger rows, schema `nightsift.core.tables.LEDGER`; may be empty.
    candidates : pyarrow.Table
        All its candidates, schema `nightsift.core.tables.CANDIDATES`; may be empty.
    choice : Choice
        Those to be shown.
    stamps : mapping of str to Stamps
        Their stamps by candidate identity; a candidate without is shown without.
    thresholds : mapping of str to float
        Score from which a candidate counts as accepted, by unit.
    problems : sequence of str, optional
        What went wrong outside of any exposure.
    made : datetime, optional
        When the report was made; now by default.

    Returns
    -------
    str
        A complete HTML document.
    """
    rows = ledger.to_pylist()
    summary = verdict(rows, choice.accepted, problems)
    page = page_template(TEMPLATE, fixed=fixed, odds=log_odds_text, probability=probability_text)
    exposures = sorted((_exposure(row) for row in rows), key=lambda one: (one["unit"], one["mjd"] or 0.0, one["file"]))
    files = {one["exposure_id"]: one["file"] for one in exposures}
    accepted = [_card(row, stamps, thresholds, files=files) for row in choice.best.to_pylist()]
    return page.render(
        title="Exposures without a night" if night == WITHOUT_NIGHT else f"Night {night}",
        made=utc_minute(made),
        version=__version__,
        style=stylesheet(),
        verdict=summary,
        problems=problems,
        units=_by_unit(rows, candidates),
        states=STATES,
        total=len(rows),
        trends=plots.trends(ledger),
        sky=plots.sky_map(ledger),
        failures=[one for one in exposures if one["state"] != "done"],
        suspects=[one for one in exposures if one["state"] == "done" and one["verdict"] not in (None, "good")],
        exposures=exposures[:MOST_ROWS],
        hidden=max(0, len(exposures) - MOST_ROWS),
        stages=list(dict.fromkeys(stage for one in exposures for stage in one["stages"])),
        choice=choice,
        accepted=accepted[: choice.shown_accepted],
        next_best=accepted[choice.shown_accepted :],
        flagged=[_card(row, stamps, thresholds, files=files) for row in choice.flagged.to_pylist()],
        n_candidates=candidates.num_rows,
        thresholds=sorted(thresholds.items()),
        legend=LEGEND,
        flag_texts=_flag_counts(candidates),
    )


def verdict(rows: Sequence[LedgerRow], accepted: int, problems: Sequence[str] = ()) -> Verdict:
    """Judge a night by its ledger.

    Parameters
    ----------
    rows : sequence of mapping
        Ledger rows of the night.
    accepted : int
        Candidates without a flag above the threshold.
    problems : sequence of str, optional
        What went wrong outside of any exposure.

    Returns
    -------
    Verdict
        Grade and sentence.
    """
    if not rows:
        return Verdict("bad" if problems else "fair", "No exposure of this night is in the ledger.")
    states = Counter(row["state"] for row in rows)
    suspect = sum(row["state"] == "done" and row["verdict"] not in (None, "good") for row in rows)
    units = sorted({row["unit"] for row in rows})
    empty = [unit for unit in units if not any(row["state"] == "done" for row in rows if row["unit"] == unit)]
    done = states["done"]
    parts = [f"{_all_or(done, len(rows))} reduced"]
    parts += [f"{states[state]} {text}" for state, text in _OTHERS if states[state]]
    parts += [f"{suspect} with a suspect difference"] if suspect else []
    tail = {0: "no candidate stands out", 1: "1 candidate stands out"}.get(accepted, f"{accepted} candidates stand out")
    sentence = f"{', '.join(parts)}; {tail}."
    if empty:
        sentence += f" Nothing usable came from {', '.join(empty)}."
    bad = bool(states["failed"] or problems or empty)
    fair = bool(states["refused"] or states["waiting"] or suspect)
    return Verdict("bad" if bad else "fair" if fair else "good", sentence)


def _all_or(done: int, total: int) -> str:
    if total == 1:
        return "The only exposure was" if done else "The only exposure was not"
    return f"All {total} exposures were" if done == total else f"{done} of {total} exposures were"


def choose_candidates(
    candidates: pa.Table, thresholds: Mapping[str, float], most: int = 200, *, fill: int = 24
) -> Choice:
    """Choose the candidates to be shown.

    Parameters
    ----------
    candidates : pyarrow.Table
        Schema `nightsift.core.tables.CANDIDATES`.
    thresholds : mapping of str to float
        Score from which a candidate counts as accepted, by unit; units that are absent accept nothing.
    most : int, optional
        Candidates to show in all.
    fill : int, optional
        Places for candidates without a flag, also when fewer reach the threshold.

    Returns
    -------
    Choice
        The candidates.
    """
    units = candidates["unit"].to_pylist()
    limit = np.array([thresholds.get(unit, np.inf) for unit in units], dtype=np.float64)
    score = _numbers(candidates["score"], -1.0)
    clean = candidates["flags"].to_numpy() == 0
    accepted = clean & (score >= limit)
    # Without a model no score is known: then the signal-to-noise ratio alone gives the order.
    order = np.lexsort((-_numbers(candidates["snr"], 0.0), -score))
    places = most - int(most * FLAGGED_SHARE)
    n_accepted = int(accepted.sum())
    first, rest = order[accepted[order]][:places], order[(clean & ~accepted)[order]]
    best = np.concatenate([first, rest[: max(0, min(fill, places) - len(first))]])
    flagged = order[~clean[order]][: most - places]
    return Choice(candidates.take(pa.array(best)), candidates.take(pa.array(flagged)), n_accepted, len(first))


def _numbers(column: pa.ChunkedArray, missing: float) -> npt.NDArray[np.float64]:
    return np.asarray(np.nan_to_num(pc.fill_null(column, missing).to_numpy().astype(np.float64), nan=missing))


def fixed(value: float | None, digits: int = 2) -> str:
    """Return a number with a fixed number of digits, a dash where there is none."""
    return number(value, f".{digits}f")


def sexagesimal(ra: float | None, dec: float | None) -> str:
    """Position as people paste it.

    Parameters
    ----------
    ra, dec : float or None
        Position (deg).

    Returns
    -------
    str
        Hours and degrees to a tenth of an arcsecond; empty where unknown.
    """
    if ra is None or dec is None or not np.isfinite(ra + dec):
        return ""
    hundredths = round(ra % 360.0 / 15.0 * 360000.0) % 8640000
    tenths = round(abs(dec) * 36000.0)
    h, m, s = hundredths // 360000, hundredths // 6000 % 60, hundredths % 6000
    return (
        f"{h:02d}:{m:02d}:{s / 100:05.2f} "
        f"{'-' if dec < 0 else '+'}{tenths // 36000:02d}:{tenths // 600 % 60:02d}:{tenths % 600 / 10:04.1f}"
    )


def _clock(mjd: float | None) -> str:
    if mjd is None:
        return ""
    return (dt.datetime(1858, 11, 17) + dt.timedelta(days=mjd)).strftime("%m-%d %H:%M:%S")


def _exposure(row: LedgerRow) -> dict[str, Any]:
    stages = json.loads(row["stage_seconds"] or "{}")
    return {**row, "file": PurePosixPath(row["url"]).name, "time": _clock(row["mjd"]), "stages": stages}


def _card(
    row: CandidateRow, stamps: Mapping[str, Stamps], thresholds: Mapping[str, float], *, files: Mapping[str, str]
) -> dict[str, Any]:
    picture = strip(stamps[row["candidate_id"]]) if row["candidate_id"] in stamps else ""
    size = stamps[row["candidate_id"]].data.shape[1] if picture else 0
    return {
        **row,
        "picture": picture,
        "pixels": size,
        "position": sexagesimal(row["ra"], row["dec"]),
        "time": _clock(row["mjd"]),
        "names": names(row["flags"]),
        "file": files.get(row["exposure_id"], "the file"),
        "is_accepted": row["score"] is not None and row["score"] >= thresholds.get(row["unit"], np.inf),
    }


def _by_unit(rows: Sequence[LedgerRow], candidates: pa.Table) -> list[dict[str, Any]]:
    found = Counter(candidates["unit"].to_pylist())
    units = []
    for name in sorted({row["unit"] for row in rows}):
        own = [row for row in rows if row["unit"] == name]
        median = {
            column: _median([row[column] for row in own])
            for column in ("seeing", "zero_point", "limiting_mag", "align_residual", "seconds")
        }
        units.append(
            {
                "name": name,
                "n": len(own),
                "states": Counter(row["state"] for row in own),
                "candidates": found[name],
                "accepted": sum(row["n_accepted"] or 0 for row in own),
                "area": sum(row["area"] or 0.0 for row in own),
                **median,
            }
        )
    return units


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None


def _flag_counts(candidates: pa.Table) -> list[tuple[str, int, str]]:
    flags = candidates["flags"].to_numpy()
    counts = [(str(flag.name), int(np.count_nonzero(flags & flag.value)), flag.description) for flag in Flag]
    return [one for one in counts if one[1]]
