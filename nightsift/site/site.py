"""Where a telescope stands: the table ``[site]`` of a unit file and ``[site.NAME]`` of a survey file."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, field_validator

from nightsift.core.configuration import Section
from nightsift.core.errors import NightsiftError

if TYPE_CHECKING:
    from astropy.coordinates import EarthLocation


class NoLatitude(NightsiftError):
    """Something depends on where on Earth a telescope stands, and only its longitude is known."""

    problem = "a site at longitude {longitude} has no latitude"
    hint = "give its latitude (deg, north positive) in the table [site]"


class Site(Section):
    """Where a telescope stands."""

    longitude: float = Field(ge=-360.0, le=360.0, description="longitude in degrees, east positive")
    latitude: float | None = Field(default=None, ge=-90.0, le=90.0, description="geodetic, in degrees, north positive")
    height: float = Field(default=0.0, ge=-500.0, le=9000.0, description="height above the ellipsoid in metres")

    @property
    def geodetic(self) -> tuple[float, float, float]:
        """Longitude and latitude (rad) and height (m), as ERFA takes them; `NoLatitude` where it is not known."""
        if self.latitude is None:
            raise NoLatitude(longitude=self.longitude)
        return math.radians(self.longitude), math.radians(self.latitude), self.height

    @property
    def location(self) -> EarthLocation:
        """The same place for astropy; `NoLatitude` where the latitude is not known."""
        from astropy import units as u
        from astropy.coordinates import EarthLocation

        longitude, latitude, height = self.geodetic
        return EarthLocation.from_geodetic(longitude * u.rad, latitude * u.rad, height * u.m)


class SurveySite(Site):
    """A site whose nights are watched: its latitude is known, and its clock."""

    latitude: float = Field(ge=-90.0, le=90.0, description="geodetic, in degrees, north positive")
    timezone: str = Field(default="UTC", min_length=1, description="clock of the site, as Atlantic/Canary")

    @field_validator("timezone")
    @classmethod
    def _known(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError("unknown time zone | write a name of the IANA list, as Atlantic/Canary or UTC") from error
        return value

    @property
    def zone(self) -> ZoneInfo:
        """The clock of the site."""
        return ZoneInfo(self.timezone)
