"""Templates: group the frames of each source by unit, field and band, build one template of each group."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from prefect import flow

from flows.pool import Outcome, run_all
from flows.tracking import recorded
from nightsift.archive.survey import Runner, Survey, load_survey
from nightsift.core.errors import SourceError
from nightsift.unit.units import Unit
from tasks.discover import Exposure, find_exposures
from tasks.retry import run_logger
from tasks.steps import checked_units
from tasks.template import TemplateRow, make_template

Group = tuple[str, str, str]
"""Unit, field and band."""


@dataclass(frozen=True, slots=True)
class TemplateSummary:
    """Result of a run that builds templates.

    Attributes
    ----------
    rows : tuple of TemplateRow
        One per template.
    problems : tuple of str
        What went wrong outside of any template, such as frames whose header cannot be read.
    seconds : float
        Wall seconds.
    """

    rows: tuple[TemplateRow, ...] = ()
    problems: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def states(self) -> dict[str, int]:
        """Templates by state."""
        return dict(Counter(row.state for row in self.rows))

    @property
    def exit_code(self) -> int:
        """0 when every template is done or was before, 1 otherwise."""
        return 1 if self.problems or any(row.state not in ("done", "kept") for row in self.rows) else 0


def build_templates(
    survey: Survey | str | Path,
    units: Sequence[str] | None = None,
    until: str | None = None,
    *,
    runner: Runner | None = None,
    redo: bool = False,
    progress: Callable[[TemplateRow, int], None] | None = None,
    track: bool = True,
) -> TemplateSummary:
    """Build the templates of a survey, tracked by Prefect where a server answers or can be started.

    Parameters
    ----------
    survey : Survey, str or Path
        The survey, or its file.
    units : sequence of str, optional
        Only these units.
    until : str, optional
        Use frames up to this night only (``YYYY-MM-DD``).
    runner : Runner, optional
        How templates are spread, instead of what the survey says.
    redo : bool, optional
        Build templates again that are up to date.
    progress : callable, optional
        Called with each template that ended and the number of templates.
    track : bool, optional
        False to run without Prefect.

    Returns
    -------
    TemplateSummary
        What came out.

    Raises
    ------
    ConfigurationError
        If survey or unit files are wrong; nothing was built.
    """
    survey = survey if isinstance(survey, Survey) else load_survey(survey)
    plan = (survey, tuple(units or ()), until, runner or survey.runner, redo, progress)
    checked_units(survey, units or ())  # a wrong configuration ends the run before anything is started
    return recorded(templates, f"{survey.name} templates", *plan, track=track)


def _build(
    survey: Survey,
    only: tuple[str, ...],
    until: str | None,
    runner: Runner,
    redo: bool,
    progress: Callable[[TemplateRow, int], None] | None,
    tracked: bool,
) -> TemplateSummary:
    began, logger = time.perf_counter(), run_logger()
    units = survey.load_units(only)
    groups, problems = _grouped(survey, units, until)
    calls = [
        {
            **survey.task_options(units[name]),
            "field": sky_field,
            "band": band,
            "urls": [one.url for one in frames],
            "redo": redo,
            "label": f"{name} {sky_field} {band}",
        }
        for (name, sky_field, band), frames in groups.items()
    ]
    logger.info("%d templates of %d frames", len(calls), sum(len(frames) for frames in groups.values()))
    rows: list[TemplateRow] = []
    for ended in run_all(make_template, calls, runner, tracked=tracked):
        rows.append(ended.result if ended.error is None else _lost(ended))
        if progress is not None:
            progress(rows[-1], len(calls))
    return TemplateSummary(tuple(rows), tuple(problems), time.perf_counter() - began)


templates = flow(name="templates", persist_result=False, validate_parameters=False)(_build)


def _grouped(
    survey: Survey, units: dict[str, Unit], until: str | None
) -> tuple[dict[Group, list[Exposure]], list[str]]:
    """Return the frames by unit, field and band, and a problem for each frame whose header cannot be read."""
    groups: dict[Group, dict[str, Exposure]] = {}
    problems = []
    for source, unit in survey.sources_of(units):
        if not source.templates:
            continue
        try:
            found = find_exposures(source, unit, source.templates, fetch=True)
        except SourceError as error:
            problems.append(f"{source.unit}: {error}")
            continue
        for one in found:
            if not one.band:
                problems.append(f"{one.url}: its header cannot be read or lacks a fact, see nightsift unit check")
            elif until is None or (one.night or "") <= until:
                groups.setdefault((one.unit, one.field, one.band), {})[one.url] = one
    return {group: list(frames.values()) for group, frames in groups.items()}, problems


def _lost(ended: Outcome) -> TemplateRow:
    call = ended.call
    message = f"{type(ended.error).__name__}: {ended.error}"
    return TemplateRow(
        call["label"].split()[0], call["field"], call["band"], "failed", message, offered=len(call["urls"])
    )
