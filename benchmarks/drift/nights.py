"""Nights of simulated units, clean ones and ones with planted faults, simulated and reduced as a survey would be.

    python benchmarks/drift/nights.py --out FOLDER

Makes what is not there yet. Each unit is a random telescope with one field and two exposures a night: few, so that
drift is harder to see than in service. A fault is the same telescope on the same sky with something changed from one
night on; its templates are those from before. Every night is reduced by the pipeline, and sources are injected into its
first exposure.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import os
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import date, timedelta
from pathlib import Path
from typing import Any

SEED = 41
SHAPE = (448, 448)
VISITS = 2
FIRST = date(2026, 9, 1)
REFERENCE, CLEAN, FAULTY = 12, 38, 2
"""Nights of the calibration set, nights after it without a fault, nights with one."""
STRENGTHS = ("weak", "strong")
FAULTS = ("defocus", "gain", "node", "flat", "cloud", "pipeline")


def nights(first: int, number: int) -> tuple[str, ...]:
    return tuple(str(FIRST + timedelta(days=first + one)) for one in range(number))


def options_of(index: int, when: tuple[str, ...]) -> Any:
    """The survey of one unit: the random unit, its sky, what moves and varies."""
    from nightsift.simulate.options import SimulationOptions, SkyOptions, TransientOptions
    from nightsift.simulate.unit_options import random_unit

    unit = dataclasses.replace(random_unit(SEED, index, SHAPE), dither=6.0)
    return SimulationOptions(
        name="drift", seed=SEED, units=(unit,), fields=1, visits=VISITS, nights=when, template_frames=5,
        sky=SkyOptions(galactic_latitude=25.0, galaxy_density=2.0),
        transients=TransientOptions(supernova=30, hostless=8, nuclear=5, variable=8, asteroid=6),
    )  # fmt: skip


def planted(fault: str, strength: str, index: int) -> Any:
    """The same survey with a fault; for a change of the pipeline the frames stay as they are."""
    from nightsift.simulate.unit_options import random_unit

    when = nights(REFERENCE + CLEAN, FAULTY)
    options = dataclasses.replace(options_of(index, when), template_frames=0)
    strong, unit = strength == "strong", options.units[0]
    optics, detector = unit.optics, unit.detector
    width = optics.seeing / unit.pixel_scale
    if fault == "defocus":
        optics = dataclasses.replace(optics, defocus=abs(optics.defocus) + (0.6 if strong else 0.3) * width)
    elif fault == "gain":
        detector = dataclasses.replace(detector, gain=detector.gain * (1.6 if strong else 1.15))
    elif fault == "node":
        other = random_unit(SEED, index + 100, SHAPE)
        detector = other.detector
        if strong:
            optics = dataclasses.replace(
                other.optics, seeing=optics.seeing, defocus=other.optics.defocus * width / 4.0
            )  # another telescope under the same seeing
    elif fault == "flat":
        detector = dataclasses.replace(
            detector, flat_error=0.02 if strong else 0.012, vignetting=detector.vignetting + (0.25 if strong else 0.1)
        )
    elif fault == "cloud":
        clouds = dataclasses.replace(options.artefacts, cloud_probability=1.0, cloud_extinction=2.5 if strong else 1.2)
        options = dataclasses.replace(options, artefacts=clouds)
    return dataclasses.replace(options, units=(dataclasses.replace(unit, optics=optics, detector=detector),))


def changed_unit(unit: Any, fault: str, strength: str) -> Any:
    """The unit as the pipeline reads it: other options where the fault is one of the pipeline."""
    from nightsift.unit.units import Unit

    if fault != "pipeline":
        return unit
    values = unit.model_dump()
    if strength == "strong":  # an older configuration: stiff kernel, no masks
        values["subtraction"]["options"] |= {"kernel_order": 0, "flux_order": 0}
        values["artefacts"] |= {"cosmic_rays": False, "bright_star_radius": 0.0, "saturation_grow": 0}
    else:  # somebody lowers the threshold
        values["detection"] |= {"threshold": 4.4}
    return Unit.model_validate(values)


def make(out: Path, index: int, fault: str = "", strength: str = "") -> str:
    """Make one unit's nights, or its nights with a fault, unless they are there."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from nightsift.archive.paths import Archive
    from nightsift.archive.survey import load_survey
    from nightsift.simulate.survey import simulate

    home = out / f"unit-{index:02d}"
    folder = home / (f"{fault}-{strength}" if fault else "clean")
    if (folder / "done").is_file() or (fault and not (home / "clean" / "done").is_file()):
        return f"{folder.relative_to(out)} is there already"
    began = time.perf_counter()
    shutil.rmtree(folder, ignore_errors=True)
    archive = Archive(folder / "archive")
    if fault:
        options = planted(fault, strength, index)
        _frames_with_fault(folder, index, options)
        clean = load_survey(home / "clean" / "nightsift.toml")
        shutil.copytree(Path(clean.archive) / "templates", archive.root / "templates")
    else:
        options = options_of(index, nights(0, REFERENCE + CLEAN))
        clean = load_survey(simulate(folder, options))
        _templates(clean, clean.load_unit(options.units[0].name), archive)
    if fault == "gain":
        _hide_gain(folder, options_of(index, ()).units[0], options.units[0])
    unit = changed_unit(clean.load_unit(options.units[0].name), fault, strength)
    source = clean.sources[0].model_copy(update={"frames": str(folder / "nights" / "*" / unit.name)})
    states = _reduce(source, unit, archive)
    for spent in ("nights", "templates"):
        shutil.rmtree(folder / spent, ignore_errors=True)
    (folder / "done").write_text("")
    return f"{folder.relative_to(out)} {states} in {time.perf_counter() - began:.0f} s"


def _frames_with_fault(folder: Path, index: int, options: Any) -> None:
    """Frames of the nights with a fault, of the sky of the clean nights.

    `simulate` would draw another sky, as deep as the faulty unit sees.
    """
    from nightsift.simulate.field import make_sky
    from nightsift.simulate.frame import make_frame
    from nightsift.simulate.plan import plan_exposures, plan_fields
    from nightsift.simulate.survey import write_frame

    clean = options_of(index, nights(0, REFERENCE + CLEAN))
    before, after = clean.units[0], options.units[0]
    (field,) = plan_fields(clean, before)
    sky = make_sky(clean, before, field)
    if after.detector != before.detector:
        sky = dataclasses.replace(sky, detector=make_sky(options, after, field).detector)
    for exposure in plan_exposures(options, after, field):
        if exposure.role == "night":
            frame = make_frame(options, sky, exposure)
            path = folder / "nights" / exposure.night / after.name / frame.file_name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_frame(frame, path)


def _templates(survey: Any, unit: Any, archive: Any) -> None:
    from tasks.discover import find_exposures
    from tasks.template import make_template

    groups: dict[tuple[str, str], list[str]] = {}
    for one in find_exposures(survey.sources[0], unit, survey.sources[0].templates):
        groups.setdefault((one.field, one.band), []).append(one.url)
    for (field, band), urls in groups.items():
        make_template.fn(unit.name, field, band, urls, str(archive.root), [str(survey.units)])


def _reduce(source: Any, unit: Any, archive: Any) -> dict[str, int]:
    """Reduce every exposure; inject sources into the first one of each night that was reduced."""
    from nightsift.core.errors import NightsiftError
    from nightsift.io.parquet import write_table
    from tasks.discover import find_exposures
    from tasks.monitor import recover_injected
    from tasks.reduce import reduce_file

    states: dict[str, int] = {}
    injected: set[str] = set()
    for one in sorted(find_exposures(source, unit, source.frames), key=lambda e: e.url):
        row = reduce_file(one.url, unit, archive, night=one.night, label=one.label).row
        states[row["state"]] = states.get(row["state"], 0) + 1
        if row["state"] == "done" and row["night"] not in injected:
            injected.add(row["night"])
            try:
                table = recover_injected(row, unit, archive)
            except NightsiftError as error:  # sources can spoil a frame that was at the limit
                print(f"{row['url']}: {error}", flush=True)
                continue
            write_table(archive.injections(row["night"], row["unit"], row["exposure_id"]), table)
    return states


def _hide_gain(folder: Path, before: Any, after: Any) -> None:
    """The camera changed, and its header still tells the old gain and zero point."""
    import math

    from astropy.io import fits

    shift = 2.5 * math.log10(after.detector.gain / before.detector.gain)
    for path in sorted(folder.glob("nights/*/*/*.fits")):
        with fits.open(path, mode="update", do_not_scale_image_data=True) as hdus:
            hdus[0].header["GAIN"] = before.detector.gain
            hdus[0].header["MAGZP"] = round(hdus[0].header["MAGZP"] + shift, 3)


def make_all(out: Path, units: list[int], workers: int, strengths: Sequence[str] = STRENGTHS) -> None:
    """Make everything that is not there yet."""
    out.mkdir(parents=True, exist_ok=True)
    clean = [(out, index, "", "") for index in units]
    faulty = [(out, i, fault, strength) for fault in FAULTS for strength in strengths for i in units]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        for jobs in (clean, faulty):
            if jobs:
                for line in pool.map(make, *zip(*jobs, strict=True)):
                    print(line, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--units", type=int, nargs="+", default=list(range(8)), help="numbers of the random units")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--strengths", nargs="*", choices=STRENGTHS, default=STRENGTHS, help="of the faults; may be none"
    )
    arguments = parser.parse_args()
    make_all(arguments.out, arguments.units, arguments.workers, arguments.strengths)
