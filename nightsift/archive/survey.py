"""The survey file: units, their frames and sites, the archive, and how nights are run, watched and reported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from nightsift.archive.skyalert_options import SkyAlertOptions, default_skyalert
from nightsift.core.configuration import Section, closest, read_toml, validate
from nightsift.core.errors import ConfigurationError
from nightsift.site.site import SurveySite
from nightsift.unit.units import Unit, load_unit


class WatchOptions(Section):
    """How a night is watched."""

    poll: float = Field(5.0, gt=0.0, le=600.0, description="seconds between two looks at the frame source")
    settle: float = Field(
        10.0,
        ge=0.0,
        le=3600.0,
        description="seconds that size and time of a frame must stay the same before it is read",
    )
    sun_altitude: float = Field(
        -12.0, ge=-30.0, le=5.0, description="altitude of the Sun in degrees at which the night begins and ends"
    )
    close_after: float = Field(
        30.0, ge=0.0, le=600.0, description="minutes after dawn in which late frames are still waited for"
    )
    exposure_timeout: float = Field(
        900.0, gt=0.0, description="seconds after which the process of an exposure that hangs is killed"
    )
    silent_after: float = Field(
        30.0, gt=0.0, description="minutes without a frame of a unit, in the dark, after which people are notified"
    )
    lag_limit: float = Field(
        15.0, gt=0.0, description="minutes between a frame on disk and its ledger row beyond which people are notified"
    )


class NotifyOptions(Section):
    """Who is notified of problems of a night, and by what; no secret is in it."""

    command: tuple[str, ...] = Field((), description="program and its arguments; the text comes on its standard input")
    urls_env: tuple[str, ...] = Field(
        (), description="environment variables that hold addresses of apprise, with blanks between them"
    )
    urls_file: str = Field("", description="file of addresses of apprise, one per line, outside of any repository")
    blocks: tuple[str, ...] = Field((), description="notification blocks of Prefect, as slack-webhook/operators")

    @field_validator("urls_env")
    @classmethod
    def _names_of_variables(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if any("://" in name for name in names):
            raise ValueError("an address may hold a password | name the environment variable that holds it")
        return names


class Runner(Section):
    """How exposures are spread over processes."""

    kind: Literal["in-process", "processes", "dask"] = Field("processes", description="in-process, processes or dask")
    workers: int = Field(2, ge=1, le=4096, description="exposures reduced at the same time")
    address: str = Field("", description="address of a Dask scheduler; empty to start one")

    @model_validator(mode="after")
    def _address_is_used(self) -> Runner:
        if self.address and self.kind != "dask":
            raise ValueError(f'kind = "{self.kind}" uses no address | write kind = "dask", or remove the address')
        return self


def _default_runner() -> Runner:
    return Runner.model_validate({})


def _default_watch() -> WatchOptions:
    return WatchOptions.model_validate({})


def _default_notify() -> NotifyOptions:
    return NotifyOptions.model_validate({})


class Source(Section):
    """Frames of one unit."""

    unit: str = Field(min_length=1, description="name of the unit")
    frames: str = Field(min_length=1, description="folder, glob or URL of the frames")
    templates: str = Field("", description="folder, glob or URL of frames that templates are built from")
    pattern: str = Field("*.fit*", min_length=1, description="what file names must match")
    site: str = Field("", description="name of the [site.NAME] table where the unit stands")


class Survey(Section):
    """A survey."""

    name: str = Field(min_length=1, description="name of the survey")
    archive: Path = Field(description="folder that results are written to")
    units: str = Field("", description="folder of unit files, searched before those shipped")
    runner: Runner = Field(default_factory=_default_runner)
    sources: tuple[Source, ...] = Field(alias="source", min_length=1, description="one [[source]] table per unit")
    sites: dict[str, SurveySite] = Field(
        alias="site", default_factory=dict, description="one [site.NAME] table per site"
    )
    watch: WatchOptions = Field(default_factory=_default_watch)
    notify: NotifyOptions = Field(default_factory=_default_notify)
    alert: SkyAlertOptions = Field(default_factory=default_skyalert)
    file: str = Field("", description="file that it was read from (set on reading)")

    @model_validator(mode="after")
    def _sources_are_unique(self) -> Survey:
        names = [(source.unit, source.frames) for source in self.sources]
        twice = sorted({f"{unit} ({frames})" for unit, frames in names if names.count((unit, frames)) > 1})
        if twice:
            raise ValueError(f"the source {', '.join(twice)} is given twice | remove one [[source]] table")
        for source in self.sources:
            if source.site and source.site not in self.sites:
                advice = closest(source.site, self.sites) if self.sites else f"add a table [site.{source.site}]"
                raise ValueError(f"the source of {source.unit} names the site '{source.site}' | {advice}")
        return self

    @classmethod
    def for_folder(
        cls, folder: str | Path, unit: str, archive: str | Path, *, pattern: str = "*.fit*", templates: str = ""
    ) -> Survey:
        """Survey of one folder of frames, without a survey file.

        Parameters
        ----------
        folder : str or Path
            Folder, glob or URL of the frames.
        unit : str
            Name of the unit, or the path of its file.
        archive : str or Path
            Folder that results are written to.
        pattern : str, optional
            What file names must match.
        templates : str, optional
            Folder, glob or URL of frames that templates are built from.

        Returns
        -------
        Survey
            With one source; in-process.
        """
        here = Path.cwd()
        source = {
            "unit": str(unit),
            "frames": _absolute(str(folder), here),
            "templates": _absolute(str(templates), here),
            "pattern": pattern,
        }
        content = {
            "name": Path(str(folder)).name or "night",
            "archive": Path(archive).absolute(),
            "runner": {"kind": "in-process"},
            "source": [source],
        }
        return validate(cls, content, Path(str(folder)))

    @property
    def unit_folders(self) -> tuple[Path, ...]:
        """Folders searched for unit files before those shipped."""
        return (Path(self.units),) if self.units else ()

    def load_unit(self, name: str) -> Unit:
        """Read a unit of the survey by its name; `ConfigurationError` where there is none or its file is wrong."""
        for folder in self.unit_folders:
            if not folder.is_dir():
                raise ConfigurationError(
                    file=self.file, table="top level", key="units", what=f"there is no folder {folder}",
                    advice="correct the path, which starts from the folder of the file, or leave it out",
                )  # fmt: skip
        return load_unit(name, self.unit_folders)

    def load_units(self, only: Sequence[str] = ()) -> dict[str, Unit]:
        """Read the units that sources name.

        Parameters
        ----------
        only : sequence of str, optional
            Only these; all when empty.

        Returns
        -------
        dict of str to Unit
            Units by name, in the order of the sources.

        Raises
        ------
        ConfigurationError
            If a unit is not in the survey, or its file is wrong.
        """
        names = list(dict.fromkeys(source.unit for source in self.sources))
        for name in only:
            if name not in names:
                raise ConfigurationError(
                    file=self.file, table="source", key="unit", what=f"there is no unit '{name}'",
                    advice=f"the survey has {', '.join(names)}",
                )  # fmt: skip
        return {unit.name: unit for unit in (self.load_unit(name) for name in names if not only or name in only)}

    def sources_of(self, units: Mapping[str, Unit]) -> list[tuple[Source, Unit]]:
        """Return the sources of some units, each with its unit, in the order of the sources."""
        # a source names its unit, or the file of it
        known = {name: unit for unit in units.values() for name in (unit.file, unit.name)}
        return [(source, known[source.unit]) for source in self.sources if source.unit in known]

    def task_options(self, unit: Unit) -> dict[str, Any]:
        """Return what every task on frames of a unit is called with (`unit`, `archive`, `folders`), as plain values."""
        return {
            "unit": unit.file or unit.name,
            "archive": str(self.archive),
            "folders": [str(folder) for folder in self.unit_folders],
        }


def load_survey(path: str | Path) -> Survey:
    """Read a survey file.

    Parameters
    ----------
    path : str or Path
        The TOML file; relative paths in it start from its folder.

    Returns
    -------
    Survey
        The survey, all local paths absolute.

    Raises
    ------
    ConfigurationError
        If the file is missing or wrong; the error names table, key and a hint.
    """
    path = Path(path)
    content = read_toml(path)
    survey = validate(Survey, {**content, "file": str(path)}, path)
    base = path.absolute().parent
    changes: dict[str, Any] = {
        "archive": Path(_absolute(str(survey.archive), base)),
        "units": _absolute(survey.units, base),
        "notify": survey.notify.model_copy(update={"urls_file": _absolute(survey.notify.urls_file, base)}),
        "alert": survey.alert.placed(lambda place: _absolute(place, base)),
        "sources": tuple(
            source.model_copy(update={key: _absolute(getattr(source, key), base) for key in ("frames", "templates")})
            for source in survey.sources
        ),
    }
    return survey.model_copy(update=changes)


def _absolute(place: str, base: Path) -> str:
    """A place as it is when empty, a URL or absolute; otherwise from the base."""
    if not place or "://" in place:
        return place
    path = Path(place).expanduser()
    return str(path if path.is_absolute() else base / path)
