"""Summary of a night for the command line, the log and the Prefect artifacts."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
from httpx import HTTPError
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from nightsift.archive import ledger
from nightsift.archive.paths import WITHOUT_NIGHT, Archive, night_title, sort_nights
from nightsift.core.rows import ReducedRow
from tasks.retry import run_logger

MOST_ROWS = 1000
"""Exposures in a table artifact; the ledger holds all."""


@dataclass(frozen=True, slots=True)
class NightSummary:
    """Summary of a run over one night or more.

    Attributes
    ----------
    nights : tuple of str
        Nights touched.
    found, skipped : int
        Exposures found, and those among them that were finished before.
    states : dict of str to int
        Exposures reduced now, by state, and those that could not be scored again, as failed.
    rescored : int
        Exposures of which only the stored stamps were scored again.
    candidates, accepted : int
        Candidates of all exposures of these nights, and those without a flag above the unit's threshold.
    reports : dict of str to Path
        Report by night.
    problems : tuple of str
        What went wrong outside of any exposure.
    silent : tuple of str
        Units of which no exposure was found.
    rows : tuple of dict
        Ledger rows of the exposures reduced now.
    seconds : float
        Wall seconds of the run.
    tracked : bool
        Whether a Prefect server knew of it.
    """

    nights: tuple[str, ...] = ()
    found: int = 0
    skipped: int = 0
    states: dict[str, int] = field(default_factory=dict)
    rescored: int = 0
    candidates: int = 0
    accepted: int = 0
    reports: dict[str, Path] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()
    rows: tuple[ReducedRow, ...] = ()
    seconds: float = 0.0
    tracked: bool = False

    @property
    def exit_code(self) -> int:
        """0 when every exposure is done or was before, 1 otherwise."""
        return 1 if self.problems or any(state != "done" for state in self.states) else 0


def sentence(summary: NightSummary) -> str:
    """Return the result of a run in one sentence.

    Parameters
    ----------
    summary : NightSummary
        What came out.

    Returns
    -------
    str
        The sentence.
    """
    ended = [f"{number} {state}" for state, number in sorted(summary.states.items())]
    ended += [f"{summary.rescored} scored again"] if summary.rescored else []
    states = ", ".join(ended) or "nothing to reduce"
    undated = sum(row.get("night") == WITHOUT_NIGHT for row in summary.rows)
    states += f" ({undated} of them without a night)" if undated else ""
    return (
        f"{summary.found} exposures found, {summary.skipped} finished before; {states}; "
        f"{summary.accepted} of {summary.candidates} candidates accepted; {summary.seconds:.0f} s"
    )


def summarise(
    archive: Archive,
    nights: Sequence[str],
    rows: Sequence[ReducedRow],
    *,
    problems: Sequence[str],
    found: int,
    skipped: int,
) -> NightSummary:
    """Count the exposures and candidates of a run.

    Parameters
    ----------
    archive : Archive
        The archive.
    nights : sequence of str
        Nights touched.
    rows : sequence of dict
        Ledger rows of the exposures reduced or scored again in this run.
    problems : sequence of str
        What went wrong outside of any exposure.
    found, skipped : int
        Exposures found, and those finished before.

    Returns
    -------
    NightSummary
        Without reports and seconds.
    """
    candidates = accepted = 0
    for one in nights:
        table = ledger.read(archive, one)
        candidates += pc.sum(table["n_candidates"]).as_py() or 0
        accepted += pc.sum(table["n_accepted"]).as_py() or 0
    is_rescored = [row["state"] == "done" and row.get("rescored", False) for row in rows]
    states = dict(Counter(row["state"] for row, only_scores in zip(rows, is_rescored, strict=True) if not only_scores))
    return NightSummary(
        tuple(nights), found, skipped, states, sum(is_rescored), candidates, accepted, problems=tuple(problems),
        rows=tuple(rows),
    )  # fmt: skip


def publish_artifacts(summary: NightSummary) -> None:
    """Show a run in the Prefect UI: its exposures with their stage seconds, and a summary.

    A flow run must be going on; a server that does not take them costs only them.
    """
    try:
        _publish(summary)
    except HTTPError as error:
        run_logger().warning("the Prefect server does not take the tables of the night: %s", error)


def _publish(summary: NightSummary) -> None:
    latest = sort_nights(summary.nights)[-1] if summary.nights else "none"
    key = re.sub(r"[^a-z0-9-]+", "-", f"night-{latest}".lower())
    table = [_artifact_row(row) for row in summary.rows[:MOST_ROWS]]
    more = f" (the first {MOST_ROWS} of {len(summary.rows)})" if len(summary.rows) > MOST_ROWS else ""
    create_table_artifact(table, key=f"{key}-exposures", description=f"Exposures reduced, seconds by stage{more}")
    names = ", ".join(night_title(one) for one in summary.nights)
    lines = [f"# Night {names or 'without exposures'}", "", sentence(summary), ""]
    lines += [f"- report of {one}: `{path}`" for one, path in summary.reports.items()]
    lines += [f"- **problem**: {problem}" for problem in summary.problems]
    for state in ("failed", "refused", "waiting", "elsewhere"):
        some = [row for row in summary.rows if row["state"] == state]
        lines += ["", f"## {len(some)} {state}", ""] if some else []
        lines += [f"- {row['unit']} `{Path(row['url']).name}`: {row['message']}" for row in some[:MOST_ROWS]]
    create_markdown_artifact("\n".join(lines), key=key, description="What came out of the night")


def _artifact_row(row: ReducedRow) -> dict[str, Any]:
    stages = {stage: f"{seconds:.2f}" for stage, seconds in json.loads(row["stage_seconds"]).items()}
    head = {"unit": row["unit"], "file": Path(row["url"]).name, "field": row.get("field") or "", "state": row["state"]}
    return {**head, "reason": row["reason"], "seconds": f"{row['seconds']:.2f}", **stages}
