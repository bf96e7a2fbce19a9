"""The table ``[alert]`` of a survey file: which alerts are acted on, on which fields, and where notices come from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from pydantic import Field

from nightsift.alerts.alert import Role
from nightsift.alerts.products.options import RankingOptions, ReportOptions, default_ranking, default_report
from nightsift.configuration import Section


class Tiling(Section):
    """A tile grid."""

    name: str = Field(min_length=1, description="name of the grid")
    file: str = Field(min_length=1, description="text or CSV file with name, right ascension and declination (deg)")
    width: float = Field(0.0, ge=0, lt=90, description="width of a field (deg); 0 to read it from the file beside it")
    height: float = Field(0.0, ge=0, lt=90, description="height of a field (deg); 0 for that of the width")
    shape: Literal["square", "circle"] = Field("square", description="square, or a circle of this diameter")
    units: tuple[str, ...] = Field((), description="units that observe these fields; empty for all")


class AlertOptions(Section):
    """Sky alerts."""

    roles: tuple[Role, ...] = Field(
        ("observation",), description="notices acted on: observation, mock, test; others are kept and told"
    )
    approval: bool = Field(False, description="whether an alert waits until somebody approves it")
    far: float = Field(3.9e-7, gt=0, description="false-alarm rate (Hz) above which an alert waits for approval")
    significant: bool = Field(
        True, description="whether alerts that their sender calls insignificant wait for approval"
    )
    largest_area: float = Field(
        40000.0, gt=0, description="area that holds 90 % (deg2) above which an alert waits for approval"
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
    tilings: tuple[Tiling, ...] = Field((), alias="tiling", description="one [[alert.tiling]] table a tile grid")

    def placed(self, absolute: Callable[[str], str]) -> AlertOptions:
        """Return the same options with all places of files absolute.

        Parameters
        ----------
        absolute : callable
            Makes a place absolute; leaves an empty one empty.

        Returns
        -------
        AlertOptions
            The options.
        """
        tilings = tuple(one.model_copy(update={"file": absolute(one.file)}) for one in self.tilings)
        single = {name: absolute(getattr(self, name)) for name in ("galaxies", "orbits", "folder")}
        several = {name: tuple(map(absolute, getattr(self, name))) for name in ("stars", "nuclei")}
        return self.model_copy(update={"tilings": tilings, **single, **several})


def default_alert() -> AlertOptions:
    """Options where a survey file says nothing of alerts."""
    return AlertOptions.model_validate({})
