"""What commands share: tables, progress as a bar or as plain lines, and the survey that they work on."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from nightsift.core.errors import ConfigurationError
from nightsift.core.probabilities import probability_text
from nightsift.core.rows import LedgerRow

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from nightsift.archive.paths import Archive
    from nightsift.archive.survey import Runner, Survey

Row = TypeVar("Row")
WIDTH_ELSEWHERE = 500  # a table that goes into a file or a pipe is never folded
STATE_STYLES = {"done": "green", "refused": "yellow", "waiting": "cyan", "failed": "bold red", "elsewhere": "dim"}
NIGHT = re.compile(r"\d{4}-\d\d-\d\d")
DATE_FORMATS = (
    "%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%Y%m%d", "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%d-%m-%Y", "%d %B %Y",
    "%d %b %Y",
)  # fmt: skip
"""How people write dates."""

PLANNED_NIGHTS = "in the pages of serve under Deployments > nightly > Upcoming"
"""Where people find them; Prefect's page Runs shows the past seven days only."""

RunnerKind = Literal["in-process", "processes", "dask"]


def console(stderr: bool = False) -> Console:
    """Return a console that keeps tables whole when the output is no terminal."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else max(WIDTH_ELSEWHERE, shutil.get_terminal_size().columns)
    return Console(file=stream, width=width, highlight=False, soft_wrap=False)


def show_table(title: str, header: Sequence[str], rows: Iterable[Sequence[Any]], *, right: Iterable[str] = ()) -> None:
    """Print a table; columns named in `right` are aligned to the right."""
    from rich import box
    from rich.table import Table

    out = console()
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD if out.is_terminal else box.ASCII2)
    right = set(right)
    for name in header:
        table.add_column(name, justify="right" if name in right else "left", overflow="fold")
    for row in rows:
        cells = [text(value) for value in row]
        style = next((STATE_STYLES[cell] for cell in cells if cell in STATE_STYLES), None)
        table.add_row(*cells, style=style)
    out.print(table)


def text(value: Any) -> str:
    """Value of a table cell as people read it; empty where there is none."""
    if value is None or value != value:
        return ""
    if isinstance(value, float):
        if 0.99 < value < 1.0:
            return probability_text(value)
        return f"{value:.5f}".rstrip("0").rstrip(".") if 100 <= abs(value) < 1e6 else f"{value:.5g}"
    return str(value)


class LineProgress(Generic[Row]):
    """Progress of a run: call it with each row as it ends.

    Parameters
    ----------
    noun : str
        What is counted, in the plural.
    line_of : callable
        Says one row in one line.
    starting : str, optional
        What goes on before the first row, which may take a minute.
    """

    def __init__(self, noun: str, line_of: Callable[[Row], str], starting: str = "") -> None:
        self.ended = 0
        self._noun, self._starting = noun, starting
        self._line_of = line_of
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> LineProgress[Row]:
        if self._starting:
            print(self._starting, flush=True)  # noqa: T201
        if sys.stdout.isatty():
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn(self._noun), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=console())
            self._task = self._bar.add_task("", total=None)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, row: Row, total: int) -> None:
        """Tell that one of `total` has ended."""
        self.ended += 1
        line = self._line_of(row)
        if self._bar is None or self._task is None:
            print(f"{self.ended}/{total} {line}", flush=True)  # noqa: T201
        else:
            # Lines scroll by above the bar: the narrow terminal of a remote session still shows both.
            self._bar.console.print(line, markup=False, highlight=False)
            self._bar.update(self._task, completed=self.ended, total=total)


def starting(track: bool) -> str:
    """Line to be read while a run starts what it needs."""
    server = "Prefect's server and the workers" if track and not os.environ.get("PREFECT_API_URL") else "the workers"
    return f"looking for frames, starting {server}"


def row_line(row: LedgerRow) -> str:
    """One line about one exposure of the ledger."""
    name = str(row.get("url", "")).rsplit("/", 1)[-1]
    line = f"{row.get('unit', '')} {name} {row.get('state', '')}"
    if row.get("state") == "done":
        counts = f"{row.get('n_candidates', 0)} candidates, {row.get('n_accepted', 0)} accepted"
        return f"{line} {counts}, {row['seconds']:.1f} s"
    return f"{line}: {row.get('reason', '')}"


def survey_at(where: str, units: list[str], archive: Path | None, *, templates: str = "") -> Survey:
    """Read a survey file, or make a survey of a folder of frames of one unit."""
    from nightsift.archive.survey import Survey, load_survey

    if where.endswith(".toml"):
        survey = load_survey(where)
        return survey if archive is None else survey.model_copy(update={"archive": archive.absolute()})
    if len(units) != 1 or archive is None:
        raise ConfigurationError(
            file=where, table="command line", key="--unit, --archive", what="a folder of frames does not say its unit",
            advice="name one with --unit and a folder for the products with --archive, or give a survey file",
        )  # fmt: skip
    return Survey.for_folder(where, units[0], archive, templates=templates)


def units_asked(where: str, units: list[str]) -> list[str] | None:
    """Units to restrict a run to; None for all, and for a folder, whose only unit is named already."""
    return units if units and where.endswith(".toml") else None


def runner_asked(survey: Survey, kind: RunnerKind | None, workers: int | None) -> Runner:
    """The survey's runner, with what the command line says instead."""
    changes = {key: value for key, value in (("kind", kind), ("workers", workers)) if value is not None}
    return survey.runner.model_copy(update=changes)


def night_given(value: str | None) -> str | None:
    """Check the night that an option gives: a date as 2026-11-20, or the name of the exposures without a night."""
    from nightsift.archive.paths import WITHOUT_NIGHT

    if value and value != WITHOUT_NIGHT and not (NIGHT.fullmatch(value) and _dates(value)):
        meant = " or ".join(sorted({f"{one:%Y-%m-%d}" for one in _dates(value)}))
        raise ConfigurationError(
            file="command line", table="nights", key=value, what="no date of a night",
            advice=f"write {meant}" if meant else "write year, month and day of the evening, as 2026-11-20",
        )  # fmt: skip
    return value


def _dates(value: str) -> list[datetime]:
    """Dates that a text may mean."""
    found = []
    for form in DATE_FORMATS:
        with suppress(ValueError):
            found.append(datetime.strptime(value.strip().partition("T")[0], form))
    return found


def nothing_recorded(archive: Archive, night: str | None, unit: str | None = None) -> ConfigurationError:
    """Make the error of a question about a night or unit of which an archive has nothing: it names those it has."""
    from nightsift.archive import ledger

    nights, units = archive.nights(undated=True), sorted(set(ledger.read(archive)["unit"].to_pylist()))
    wanted = " ".join(part for part in (night and f"of night {night}", unit and f"of unit {unit}") if part)
    known = f"recorded are the nights {few(nights)} of {few(units)}"
    return ConfigurationError(
        file=str(archive.root), table="archive", key="ledger", what=f"nothing is recorded {wanted}".strip(),
        advice=known if nights else "reduce a night first: nightsift night SURVEY.toml",
    )  # fmt: skip


def few(words: Sequence[str], most: int = 8) -> str:
    """The last of some words, and how many there are before them."""
    left = len(words) - most
    return ", ".join(words[-most:]) + (f" and {left} before them" if left > 0 else "")


def open_survey(where: Path) -> tuple[Survey, Any]:
    """Read a survey file; give its archive with it."""
    from nightsift.archive.paths import Archive
    from nightsift.archive.survey import load_survey

    survey = load_survey(where)
    return survey, Archive(survey.archive)
