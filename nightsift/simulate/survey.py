"""A simulated survey on disk: frames, unit files, survey file, truth."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.io import fits

from nightsift.core import tables
from nightsift.simulate.field import FieldSky, make_sky
from nightsift.simulate.frame import SimulatedFrame, make_frame
from nightsift.simulate.options import SimulationOptions
from nightsift.simulate.plan import Field, plan_exposures, plan_fields
from nightsift.simulate.unit_options import UnitOptions


def simulate(
    out: Path, options: SimulationOptions, workers: int = 1, *, progress: Callable[[int, int], None] | None = None
) -> Path:
    """Write a simulated survey.

    Parameters
    ----------
    out : Path
        Folder to write to; it is made when absent.
    options : SimulationOptions
        The survey.
    workers : int, optional
        Processes that write; the result does not depend on their number.
    progress : callable, optional
        Called with the number of fields that are written, and of all, at the begin and after each.

    Returns
    -------
    Path
        The survey file, ``out/nightsift.toml``. Beside it lie ``units/<unit>.toml``,
        ``templates/<unit>/*.fits``, ``nights/<night>/<unit>/*.fits``, ``truth.parquet`` (schema
        `nightsift.core.tables.TRUTH`), ``exposures.parquet`` (true conditions), ``sky.parquet`` (stars and
        galaxies) and ``options.json``.
    """
    out = Path(out)
    (out / "units").mkdir(parents=True, exist_ok=True)
    for unit in options.units:
        (out / "units" / f"{unit.name}.toml").write_text(unit_toml(options, unit))
    jobs = [(out, options, unit, field) for unit in options.units for field in plan_fields(options, unit)]
    tell = progress or (lambda done, total: None)
    tell(0, len(jobs))
    parts = []
    if workers > 1 and len(jobs) > 1:
        # Fresh processes: a fork would copy the threads of numerical libraries in an unknown state.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context) as pool:
            for part in pool.map(_write_field, *zip(*jobs, strict=True)):
                parts.append(part)
                tell(len(parts), len(jobs))
    else:
        for job in jobs:
            parts.append(_write_field(*job))
            tell(len(parts), len(jobs))
    truth, exposures, sky = (pa.concat_tables(column) for column in zip(*parts, strict=True))
    pq.write_table(truth, out / "truth.parquet")
    pq.write_table(exposures, out / "exposures.parquet")
    pq.write_table(sky, out / "sky.parquet")
    (out / "options.json").write_text(json.dumps(dataclasses.asdict(options), indent=1))
    survey = out / "nightsift.toml"
    survey.write_text(_survey_toml(options))
    return survey


def write_frame(frame: SimulatedFrame, path: Path) -> None:
    """Write a frame as a camera does: 16-bit unsigned integers, tile-compressed when the name ends in ``.fz``."""
    if path.suffix == ".fz":
        compressed = fits.CompImageHDU(frame.data, frame.header, compression_type="RICE_1")
        fits.HDUList([fits.PrimaryHDU(), compressed]).writeto(path, overwrite=True)
    else:
        fits.PrimaryHDU(frame.data, frame.header).writeto(path, overwrite=True)


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


def _survey_toml(options: SimulationOptions) -> str:
    """Text of the survey file of a simulated survey."""
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


def _write_field(
    out: Path, options: SimulationOptions, unit: UnitOptions, field: Field
) -> tuple[pa.Table, pa.Table, pa.Table]:
    """Write all exposures of a field; return truth, conditions and sky."""
    sky = make_sky(options, unit, field)
    truths, rows = [], []
    for exposure in plan_exposures(options, unit, field):
        frame = make_frame(options, sky, exposure)
        folder = out / ("templates" if exposure.role == "template" else f"nights/{exposure.night}") / unit.name
        folder.mkdir(parents=True, exist_ok=True)
        write_frame(frame, folder / frame.file_name)
        if exposure.role == "night":
            truths.append(frame.truth)
        rows.append(
            {
                "exposure_file": frame.file_name,
                "unit": unit.name,
                "field": field.name,
                "night": exposure.night,
                "role": exposure.role,
                "mjd": exposure.mid_mjd,
                "seeing": frame.psf.fwhm * unit.pixel_scale,
                "fwhm": frame.psf.fwhm,
                "sky": frame.sky,
                "extinction": exposure.extinction,
                "cloudy": exposure.cloudy,
                "zero_point": frame.zero_point,
                "limiting_mag": frame.limiting_mag,
                "streaks": exposure.streaks,
                "ra": frame.wcs.ra,
                "dec": frame.wcs.dec,
            }
        )
    truth = pa.concat_tables(truths) if truths else tables.TRUTH.empty_table()
    return truth, pa.Table.from_pylist(rows), _sky_table(sky)


def _sky_table(sky: FieldSky) -> pa.Table:
    stars, galaxies = sky.stars, sky.galaxies
    n, m = len(stars.mag), len(galaxies.mag)
    empty = np.full(n, np.nan)
    name = sky.field.name
    return pa.table(
        {
            "object_id": [f"{name}-s{i:05d}" for i in range(n)] + [f"{name}-g{i:05d}" for i in range(m)],
            "field": [name] * (n + m),
            "kind": ["star"] * n + ["galaxy"] * m,
            "ra": np.concatenate([stars.ra, galaxies.ra]),
            "dec": np.concatenate([stars.dec, galaxies.dec]),
            "mag": np.concatenate([stars.mag, galaxies.mag]),
            "radius": np.concatenate([empty, galaxies.radius]),
            "axis_ratio": np.concatenate([empty, galaxies.axis_ratio]),
            "angle": np.concatenate([empty, galaxies.angle]),
            "index": np.concatenate([empty, galaxies.index]),
        }
    )
