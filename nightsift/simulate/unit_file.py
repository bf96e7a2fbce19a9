"""Unit files for simulated units."""

from __future__ import annotations

from nightsift.simulate.options import SimulationOptions
from nightsift.simulate.unit_options import UnitOptions


def unit_toml(options: SimulationOptions, unit: UnitOptions) -> str:
    """Text of the unit file of a simulated unit.

    Parameters
    ----------
    options : SimulationOptions
        The survey.
    unit : UnitOptions
        The unit.

    Returns
    -------
    str
        TOML in the format of ``units/_defaults.toml``.
    """
    use_wcs = "true" if unit.header_wcs != "none" else "false"
    return f"""# Simulated unit of the survey "{options.name}", seed {options.seed}.
name = "{unit.name}"
description = "simulated: {unit.pixel_scale:.2f} arcsec/pixel, seeing {unit.optics.seeing:.1f} arcsec"

[facts]
gain = {{ card = "GAIN" }}
read_noise = {{ card = "RDNOISE" }}
saturation = {{ card = "SATURATE" }}
pedestal = {{ card = "PEDESTAL" }}
pixel_scale = {{ card = "PIXSCALE" }}
band = {{ card = "FILTER" }}
exposure = {{ card = "EXPTIME" }}
time = {{ card = "DATE-OBS", position = "start" }}
field = {{ card = "OBJECT" }}
ra = {{ card = "RA" }}
dec = {{ card = "DEC" }}
zero_point = {{ card = "MAGZP" }}

[site]
longitude = {unit.longitude}
latitude = {unit.latitude}

[alignment]
use_wcs = {use_wcs}

[model]
name = "{options.model}"
threshold = {options.threshold}
"""


def survey_toml(options: SimulationOptions) -> str:
    """Text of the survey file of a simulated survey.

    Parameters
    ----------
    options : SimulationOptions
        The survey.

    Returns
    -------
    str
        TOML as `nightsift.survey.load_survey` reads it.
    """
    lines = [
        f"# Simulated survey, seed {options.seed}.",
        f'name = "{options.name}"',
        'archive = "archive"',
        'units = "units"',
        "",
        "[runner]",
        'kind = "processes"',
        "workers = 2",
    ]
    for unit in options.units:
        lines += [
            "",
            "[[source]]",
            f'unit = "{unit.name}"',
            f'frames = "nights/*/{unit.name}"',
            f'templates = "templates/{unit.name}"',
            'pattern = "*.fit*"',
        ]
    return "\n".join(lines) + "\n"
