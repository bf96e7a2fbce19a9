"""The table ``[alert]`` of a survey file: which sky alerts are acted on, and how their candidates are ranked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from pydantic import Field

from nightsift.core.configuration import Section

Role = Literal["observation", "mock", "test"]
ROLES: tuple[Role, ...] = ("observation", "mock", "test")


class RankingOptions(Section):
    """How candidates are ranked; the probabilities are priors of docs/algorithms.md, section 21."""

    history_days: float = Field(
        30.0, gt=0, le=4000, description="days before the event in which candidates count as older"
    )
    association: float = Field(
        1.5,
        gt=0,
        le=60,
        description="distance (arcsec) within which detections are one object; half the seeing if more",
    )
    apart_minutes: float = Field(15.0, gt=0, description="detections closer in time say nothing of motion (min)")
    limit_margin: float = Field(
        0.7, ge=0, description="magnitudes that an exposure must go deeper than an object to count as not seeing it"
    )
    visible_days: float = Field(30.0, gt=0, description="days that unrelated transients stay visible")
    unscored: float = Field(0.5, gt=0, lt=1, description="probability to be real of a detection without a score")
    flagged: float = Field(0.1, gt=0, le=1, description="factor on the score of detections that have a flag")
    moving: float = Field(0.5, gt=0, lt=1, description="part of single detections that moves or is false")
    seen_again: float = Field(
        0.9, gt=0.5, lt=1, description="probability that a deeper exposure shows a transient again"
    )
    known_star: float = Field(
        0.01, gt=0, le=1, description="probability that a candidate on a variable star is something new"
    )
    known_nucleus: float = Field(0.1, gt=0, le=1, description="the same on an active nucleus")
    known_mover: float = Field(0.01, gt=0, le=1, description="the same on a known minor planet")
    known_radius: float = Field(
        3.0,
        gt=0,
        le=60,
        description="distance (arcsec) that counts as on a known star or nucleus; half the seeing if more",
    )
    mover_radius: float = Field(5.0, gt=0, le=120, description="distance (arcsec) that counts as on a minor planet")
    hostless: float = Field(0.8, gt=0, lt=1, description="part of unrelated transients without a catalogued host")
    host_reach: float = Field(5.0, gt=0, le=50, description="largest distance from a host (its half-light radii)")
    host_kpc: float = Field(30.0, ge=0, le=300, description="distance from a host (kpc) that is never too far")


class UnitReport(Section):
    """Numbers of a unit with the Transient Name Server."""

    name: str = Field(min_length=1, description="name of the unit")
    instrument: str = Field("", description="its instrument number there")


class ReportOptions(Section):
    """Who reports, for the Transient Name Server and circulars; what is not set becomes a placeholder in the files."""

    survey: str = Field("", description="name of the survey as it signs")
    authors: str = Field("", description="authors, as they sign")
    reporting_group: str = Field("", description="number of the reporting group")
    data_source: str = Field("", description="number of the group that the data come from")
    units: tuple[UnitReport, ...] = Field((), alias="unit", description="one [[alert.report.unit]] table per unit")
    filters: dict[str, str] = Field(default_factory=dict, description='number of each band, as r = "22"')
    at_type: str = Field("1", description="kind of report: 1 possible supernova, 2 possible nova, 0 other")
    most: int = Field(20, ge=1, le=200, description="candidates reported at most")
    least_real: float = Field(0.5, ge=0, le=1, description="least probability to be real of those reported")
    credible: float = Field(0.99, gt=0, le=1, description="credible region within which candidates are reported")
    position_error: float = Field(0.5, gt=0, description="error of positions (arcsec)")

    def instrument_of(self, unit: str) -> str:
        """Return the instrument number of a unit, empty where it is not set."""
        return next((one.instrument for one in self.units if one.name == unit), "")


def default_ranking() -> RankingOptions:
    """Options where a survey file says nothing of the ranking."""
    return RankingOptions.model_validate({})


def default_report() -> ReportOptions:
    """Options where a survey file says nothing of reports."""
    return ReportOptions.model_validate({})


class Tiling(Section):
    """A tile grid."""

    name: str = Field(min_length=1, description="name of the grid")
    file: str = Field(min_length=1, description="text or CSV file with name, right ascension and declination (deg)")
    width: float = Field(0.0, ge=0, lt=90, description="width of a field (deg); 0 to read it from the file beside it")
    height: float = Field(0.0, ge=0, lt=90, description="height of a field (deg); 0 for that of the width")
    shape: Literal["square", "circle"] = Field("square", description="square, or a circle of this diameter")
    units: tuple[str, ...] = Field((), description="units that observe these fields; empty for all")


class SkyAlertOptions(Section):
    """Sky alerts: which are acted on, and what for."""

    roles: tuple[Role, ...] = Field(
        ("observation",), description="notices acted on: observation, mock, test; others are stored and reported"
    )
    approval: bool = Field(False, description="whether a sky alert waits until somebody approves it")
    far: float = Field(3.9e-7, gt=0, description="false-alarm rate (Hz) above which a sky alert waits for approval")
    significant: bool = Field(
        True, description="whether alerts that their sender calls insignificant wait for approval"
    )
    largest_area: float = Field(
        40000.0, gt=0, description="area that holds 90 % (deg2) above which a sky alert waits for approval"
    )
    hours: float = Field(72.0, gt=0, le=2000, description="exposures up to so long after the event jump the queue")
    fields: int = Field(100, ge=1, le=10000, description="fields that are asked for, best first")
    probability: float = Field(0.99, gt=0, le=1, description="probability after which no more fields are asked for")
    least: float = Field(
        0.01, ge=0, le=1, description="what a field must add to be asked for, as part of what the best one adds"
    )
    altitude: float = Field(30.0, ge=0, lt=90, description="least altitude of a field (deg)")
    sun_altitude: float = Field(-12.0, ge=-90, le=0, description="highest altitude of the Sun (deg)")
    moon_distance: float = Field(20.0, ge=0, le=180, description="least distance from the Moon (deg)")
    galaxies: str = Field("", description="parquet file of galaxies with distances, such as GLADE+ with HyperLEDA")
    stars: tuple[str, ...] = Field((), description="catalogues of known variable stars: parquet or CSV with positions")
    nuclei: tuple[str, ...] = Field((), description="catalogues of known active nuclei")
    orbits: str = Field("", description="orbits of minor planets, as of the Minor Planet Center")
    workers: int = Field(1, ge=0, le=256, description="processes of the listener that reduce; 0 to leave it to others")
    folder: str = Field("", description="folder in which notices arrive as files")
    topics: tuple[str, ...] = Field((), description="topics of GCN that are listened to")
    domain: str = Field("gcn.nasa.gov", description="domain of the broker of GCN")
    map_hosts: tuple[str, ...] = Field(
        ("gracedb.ligo.org", "heasarc.gsfc.nasa.gov", "roc.icecube.wisc.edu"),
        description="hosts that sky maps are fetched from by https",
    )
    ranking: RankingOptions = Field(default_factory=default_ranking)
    report: ReportOptions = Field(default_factory=default_report)
    tilings: tuple[Tiling, ...] = Field((), alias="tiling", description="one [[alert.tiling]] table per tile grid")

    def placed(self, absolute: Callable[[str], str]) -> SkyAlertOptions:
        """Return the options with all places of files made absolute by a callable, which leaves an empty one empty."""
        tilings = tuple(one.model_copy(update={"file": absolute(one.file)}) for one in self.tilings)
        single = {name: absolute(getattr(self, name)) for name in ("galaxies", "orbits", "folder")}
        several = {name: tuple(map(absolute, getattr(self, name))) for name in ("stars", "nuclei")}
        return self.model_copy(update={"tilings": tilings, **single, **several})


def default_skyalert() -> SkyAlertOptions:
    """Options where a survey file says nothing of sky alerts."""
    return SkyAlertOptions.model_validate({})
