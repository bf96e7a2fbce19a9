"""Where telescopes stand."""

from __future__ import annotations

from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, field_validator

from nightsift.configuration import Section


class Site(Section):
    """An observing site."""

    latitude: float = Field(ge=-90.0, le=90.0, description="geodetic latitude in degrees, north positive")
    longitude: float = Field(ge=-180.0, le=360.0, description="longitude in degrees, east positive")
    height: float = Field(0.0, ge=-500.0, le=9000.0, description="height above the ellipsoid in metres")
    timezone: str = Field("UTC", min_length=1, description="clock of the site, as Atlantic/Canary")

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
