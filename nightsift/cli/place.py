"""What a command works on: a survey file, or a folder of frames with a unit and an archive."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from nightsift.errors import ConfigurationError

if TYPE_CHECKING:
    from nightsift.survey import Runner, Survey

RunnerKind = Literal["in-process", "processes", "dask"]


def survey_at(where: str, units: list[str], archive: Path | None, templates: str = "") -> Survey:
    """Read a survey file, or make a survey of a folder of frames of one unit."""
    from nightsift.survey import Survey, load_survey

    if where.endswith(".toml"):
        survey = load_survey(where)
        return survey if archive is None else survey.model_copy(update={"archive": archive.absolute()})
    if len(units) != 1 or archive is None:
        raise ConfigurationError(
            file=where, table="command line", key="--unit, --archive", what="a folder of frames does not tell its unit",
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


def open_survey(where: Path) -> tuple[Survey, Any]:
    """Read a survey file; give its archive with it."""
    from nightsift.io.paths import Archive
    from nightsift.survey import load_survey

    survey = load_survey(where)
    return survey, Archive(survey.archive)
