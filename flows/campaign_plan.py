"""Planning a campaign: which exposures there are, which of them are to be reduced, and into which version."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from nightsift.archive import ledger, versions
from nightsift.archive.paths import WITHOUT_NIGHT, Archive
from nightsift.archive.survey import Survey
from nightsift.backfill import campaigns
from nightsift.backfill.campaigns import ORDERS, Campaign, Order, Planned, deal
from nightsift.core.errors import ConfigurationError
from nightsift.core.provenance import code_version
from nightsift.unit.units import Unit
from tasks.classify import model_of
from tasks.discover import Exposure, find_in_sources
from tasks.record import Work, recipe_of, work_left
from tasks.steps import checked_units


@dataclass(frozen=True, slots=True)
class Request:
    """What somebody wants to have reduced.

    Attributes
    ----------
    first, last : str
        First and last night (``YYYY-MM-DD``), both included; empty where there is no limit.
    units : tuple of str
        Only these units; all when empty.
    version : str
        Version of the catalogue to make; empty to fill up the one that is served.
    in_place, keep : bool
        Replace, or leave as it is, what other code, options, models or templates have made.
    batch : int
        Most exposures in a chunk.
    order : str
        What comes first.
    """

    first: str = ""
    last: str = ""
    units: tuple[str, ...] = ()
    version: str = ""
    in_place: bool = False
    keep: bool = False
    batch: int = 20
    order: Order = "oldest"

    def check(self) -> None:
        """Refuse what makes no sense.

        Raises
        ------
        ConfigurationError
            If a date, the order, the size of a batch or the name of the version is wrong.
        """
        for key, text in (("--from", self.first), ("--to", self.last)):
            if text and not _is_date(text):
                raise _wrong(key, f"'{text}' is no date", "give the local date of the evening, as 2023-01-31")
        if self.first and self.last and self.first > self.last:
            raise _wrong("--from", f"{self.first} lies after --to {self.last}", "exchange them")
        if self.batch < 1:
            raise _wrong("--batch", f"a batch holds one exposure or more, got {self.batch}", "20 to 50 serve well")
        if self.order not in ORDERS:
            raise _wrong("--order", f"there is no order '{self.order}'", f"known are {', '.join(ORDERS)}")
        if (bool(self.version), self.in_place, self.keep).count(True) > 1:
            raise _wrong("--version", "--version, --in-place and --keep exclude each other", "give one of them")
        if self.version:
            versions.check_name(self.version)


@dataclass(frozen=True, slots=True)
class Draft:
    """A campaign as it would be, or as it is where it was begun before.

    Attributes
    ----------
    campaign : Campaign
        What is to be done.
    chunks : list of tuple of Planned
        Exposures of each new chunk; empty where the campaign was begun before.
    begun : bool
        Whether it was begun before.
    found, outside, finished : int
        Exposures found, those of other nights, and those that need no work.
    other_recipe : int
        Exposures that are finished, but by other code, options, model or template.
    rescored : int
        Those among them that need only new scores: their stored stamps are scored again.
    problems : tuple of str
        Places that could not be looked into.
    """

    campaign: Campaign
    chunks: list[tuple[Planned, ...]] = field(default_factory=list)
    begun: bool = False
    found: int = 0
    outside: int = 0
    finished: int = 0
    other_recipe: int = 0
    rescored: int = 0
    problems: tuple[str, ...] = ()


def draft(survey: Survey, request: Request, look_again: bool = False) -> Draft:
    """Plan a campaign; nothing is written.

    Parameters
    ----------
    survey : Survey
        The survey.
    request : Request
        What is wanted.
    look_again : bool, optional
        Look for exposures that were not there yet when the campaign was planned.

    Returns
    -------
    Draft
        The plan; where the same was asked for before, that campaign.

    Raises
    ------
    ConfigurationError
        If the request, the survey, a unit or a model is wrong.
    """
    request.check()
    home = Archive(survey.archive)
    units = checked_units(survey, request.units)
    models = {name: model_of(unit) for name, unit in units.items()}
    campaign = _campaign(survey, request, home, units=units, models=models)
    begun = campaign.name in campaigns.names(home)
    if begun:
        campaign = campaigns.read(home, campaign.name)
        if not look_again:
            return Draft(campaign, begun=True)
    exposures, problems = find_in_sources(survey, units, fetch=bool(request.first or request.last))
    inside = [one for one in exposures if _inside(one.night, request)]
    target = Archive(Path(campaign.archive)) if request.version else home
    before = {row["url"]: row for row in campaigns.read_plan(home, campaign.name).to_pylist()} if begun else {}
    new = [one for one in inside if one.url not in before]
    todo, counts = _todo(new, target, units, models=models, keep=request.keep)
    chunks = deal([Planned(one.night or WITHOUT_NIGHT, one.unit, one.url, one.label) for one in todo],
                  request.batch, request.order)  # fmt: skip
    outside = len(exposures) - len(inside)
    return Draft(campaign, chunks, begun, len(exposures), outside, *counts, tuple(problems))


def _campaign(
    survey: Survey, request: Request, home: Archive, *, units: Mapping[str, Unit], models: Mapping[str, str]
) -> Campaign:
    recipes = {name: recipe_of(unit, models[name]) for name, unit in units.items()}
    name = campaigns.identity(
        request.first, request.last, survey=survey.name, recipes=recipes, version=request.version,
        in_place=request.in_place, keep=request.keep, batch=request.batch, order=request.order,
    )  # fmt: skip
    return Campaign(
        name, survey.name, str(home.version(request.version) if request.version else home.home), request.version,
        request.first, request.last, {name: unit.file or name for name, unit in units.items()},
        tuple(str(folder) for folder in survey.unit_folders), recipes, request.batch, request.order,
    )  # fmt: skip


def begin(survey: Survey, plan: Draft) -> None:
    """Write a draft: from here on there is a campaign.

    Parameters
    ----------
    survey : Survey
        The survey.
    plan : Draft
        The draft.

    Raises
    ------
    ConfigurationError
        If its version was begun by another recipe.
    """
    home, campaign = Archive(survey.archive), plan.campaign
    if campaign.version:
        models = {name: model_of(unit) for name, unit in survey.load_units(tuple(campaign.units)).items()}
        versions.begin(home, campaign.version, campaign.recipes, code=code_version(), models=models)
    if not plan.begun:
        campaigns.write(home, campaign, plan.chunks)
    elif plan.chunks:
        campaigns.extend(home, campaign, plan.chunks)


def _todo(
    exposures: Sequence[Exposure], archive: Archive, units: Mapping[str, Unit], *, models: Mapping[str, str], keep: bool
) -> tuple[list[Exposure], tuple[int, int, int]]:
    """Return the exposures without a final row of today's recipe, and how many have one, another one, need scores only.

    Files are known by their place: reading each to hash it would take as long as copying the archive. The content
    is looked at when the exposure's turn comes.
    """
    todo, finished, other, rescored = [], 0, 0, 0
    groups: dict[tuple[str, str], list[Exposure]] = {}
    for one in exposures:
        groups.setdefault((one.night or WITHOUT_NIGHT, one.unit), []).append(one)
    for (night, unit), group in sorted(groups.items()):
        rows = {row["url"]: row for row in ledger.read(archive, night, unit).to_pylist()}
        for one in group:
            row = rows.get(one.url)
            work = work_left(row, units[unit], models[unit], archive=archive)
            if work is Work.NOTHING:
                finished += 1
                continue
            rescored += work is Work.RESCORE
            by_others = row is not None and row["state"] in ledger.FINAL
            other += by_others
            if not (keep and by_others):
                todo.append(one)
    return todo, (finished, other, rescored)


def _inside(night: str | None, request: Request) -> bool:
    """Whether a night is asked for; unknown nights are, so that the row of the exposure says why."""
    return night is None or (request.first or night) <= night <= (request.last or night)


def _is_date(text: str) -> bool:
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
        return False
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _wrong(key: str, what: str, advice: str) -> ConfigurationError:
    return ConfigurationError(file="nightsift backfill", table="command line", key=key, what=what, advice=advice)
