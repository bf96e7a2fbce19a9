"""How a night is watched while it goes on: table ``[watch]`` of the survey file."""

from __future__ import annotations

from pydantic import Field

from nightsift.configuration import Section


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
        30.0, gt=0.0, description="minutes without a frame of a unit, in the dark, after which people are told"
    )
    lag_limit: float = Field(
        15.0, gt=0.0, description="minutes between a frame on disk and its ledger row beyond which people are told"
    )
