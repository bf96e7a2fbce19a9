"""The night's clock: when it gets dark at a site, what the night is called, and when the next one begins.

A night goes from noon to noon of mean solar time at the site, and is named by the date of its evening, as
`nightsift.core.times.night_of` names the night of an exposure. Sunset and sunrise are those of almanacs: the upper
limb on
a flat horizon with the usual refraction, the Sun's centre at -50'; they are good to a second of time, the difference of
UT1 and UTC.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from nightsift.core.times import MJD_ZERO, mjd_of, night_of
from nightsift.site.ephemeris import sun_altitude
from nightsift.site.site import Site

HORIZON = -50.0 / 60.0
"""Altitude of the Sun's centre at sunset and sunrise (deg)."""

STEP = timedelta(minutes=10)
DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Night:
    """A night at a site; all times UTC.

    Attributes
    ----------
    name : str
        Date of its evening, ``YYYY-MM-DD``.
    begins, ends : datetime
        Noon before and after it, mean solar time.
    sunset, sunrise : datetime or None
        None where the Sun does not cross the horizon.
    dusk, dawn : datetime or None
        When the Sun goes below and above the altitude asked for. Noon where it is dark all day (the polar night);
        None where it does not get dark.
    """

    name: str
    begins: datetime
    ends: datetime
    sunset: datetime | None
    dusk: datetime | None
    dawn: datetime | None
    sunrise: datetime | None

    def is_dark(self, moment: datetime) -> bool:
        """Tell whether the Sun is below the altitude asked for at a moment with its time zone."""
        return self.dusk is not None and self.dawn is not None and self.dusk <= moment < self.dawn


def night_at(site: Site, moment: datetime, altitude: float = -12.0) -> Night:
    """Return the night that a moment with its time zone belongs to; between noon and dusk the one to come."""
    return night_named(site, night_of(mjd_of(moment), site.longitude), altitude)


def night_named(site: Site, name: str, altitude: float = -12.0) -> Night:
    """Night of a date.

    Parameters
    ----------
    site : Site
        The site.
    name : str
        Date of its evening, ``YYYY-MM-DD``.
    altitude : float, optional
        Altitude of the Sun (deg) at which it is dark.

    Returns
    -------
    Night
        The night.
    """
    east = (site.longitude + 180.0) % 360.0 - 180.0
    begins = datetime.combine(date.fromisoformat(name), datetime.min.time(), UTC) + timedelta(hours=12.0 - east / 15.0)
    times = mjd_of(begins) + np.linspace(0.0, 1.0, round(DAY / STEP) + 1)
    altitudes = sun_altitude(site, times)
    sunset, sunrise = _crossings(site, times, altitudes, level=HORIZON)
    dusk, dawn = _crossings(site, times, altitudes, level=altitude)
    if (altitudes < altitude).any():
        # dark already at noon, or still at the next one: at the edges of the polar night and all through it
        dusk = begins if altitudes[0] < altitude else dusk
        dawn = begins + DAY if altitudes[-1] < altitude else dawn
    return Night(name, begins, begins + DAY, sunset, dusk, dawn, sunrise)


def next_dusk(site: Site, after: datetime, altitude: float = -12.0, *, days: int = 370) -> datetime | None:
    """When it next gets dark.

    Parameters
    ----------
    site : Site
        The site.
    after : datetime
        With its time zone.
    altitude : float, optional
        Altitude of the Sun (deg) at which it is dark.
    days : int, optional
        How far to look.

    Returns
    -------
    datetime or None
        The first beginning of a night after that moment, UTC; None where the Sun is never that low.
    """
    first = night_named(site, night_of(mjd_of(after), site.longitude), altitude)
    deepest = sun_altitude(site, mjd_of(first.begins) + np.arange(0.5, days))
    # the mean midnight is up to 16 minutes from the Sun's lowest place, which costs less than a degree
    for number in np.flatnonzero(deepest < altitude + 1.0):
        name = (date.fromisoformat(first.name) + int(number) * DAY).isoformat()
        dusk = night_named(site, name, altitude).dusk
        if dusk is not None and dusk > after:
            return dusk
    return None


def _crossings(
    site: Site, times: NDArray[np.float64], altitudes: NDArray[np.float64], *, level: float
) -> tuple[datetime | None, datetime | None]:
    """First way down through a level, and last way up; good to a second."""
    below = altitudes < level
    down = np.flatnonzero(~below[:-1] & below[1:])
    up = np.flatnonzero(below[:-1] & ~below[1:])

    def refined(index: int) -> datetime:
        fine = np.linspace(times[index], times[index + 1], 21)
        values = sun_altitude(site, fine) - level
        if values[0] > values[-1]:
            values = -values
        moment = MJD_ZERO + timedelta(days=float(np.interp(0.0, values, fine)))
        return moment.replace(microsecond=0)

    return (refined(int(down[0])) if len(down) else None, refined(int(up[-1])) if len(up) else None)
