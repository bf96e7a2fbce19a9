"""Stamp sets of units that no model was trained on.

    python benchmarks/realbogus/new_units.py --out FOLDER --kind usual --units 0 1 2

Made by the factory like the sets that models are trained on, with more fields a unit. ``--kind usual`` draws units from
the same priors by another seed: how good a model is on a telescope of the kind it knows. ``--kind strange`` draws from
outside of them: undersampled or very wide, out of focus, trailed and elongated, with many hot pixels and poor flats.
What a new camera is like. `unseen_units` and `held_out` measure on the first, `benchmarks.transfer.strategies` carries
models over to the second.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import time
from pathlib import Path

import numpy as np

from models.training import examples
from nightsift.archive.survey import load_survey
from nightsift.simulate.survey import simulate
from nightsift.simulate.unit_options import UnitOptions, random_unit
from tasks.examples import harvest, survey_options


def strange_unit(seed: int, index: int) -> UnitOptions:
    """A random unit with optics and detector outside the priors of `random_unit`."""
    unit = random_unit(seed, index)
    rng = np.random.default_rng([seed, index])
    wide = bool(rng.random() < 0.5)
    fwhm = float(rng.uniform(6.0, 8.0) if wide else rng.uniform(1.2, 1.5))
    optics = dataclasses.replace(
        unit.optics, seeing=unit.pixel_scale * fwhm, beta=2.2, ellipticity=float(rng.uniform(0.25, 0.4)),
        defocus=float(rng.uniform(1.5, 2.5)), trail=float(rng.uniform(1.5, 3.0)), coma=2.0,
    )  # fmt: skip
    detector = dataclasses.replace(
        unit.detector, hot_pixels=float(rng.uniform(1500, 3000)), hot_columns=6, flat_error=0.03
    )
    return dataclasses.replace(unit, name=f"strange-{seed}-{index}", optics=optics, detector=detector)


KINDS = {"usual": random_unit, "strange": strange_unit}


def make(out: Path, kind: str, seed: int, index: int, fields: int, visits: int) -> Path:
    """The stamp set of one such unit; nothing is done where it is there."""
    folder = out / f"unit-{index:03d}"
    if not (folder / examples.TABLE).is_file():
        shutil.rmtree(folder, ignore_errors=True)
        unit = KINDS[kind](seed, index)
        options = dataclasses.replace(survey_options(seed, index), units=(unit,), fields=fields, visits=visits)
        survey = load_survey(simulate(folder / "survey", options))
        examples.write(folder, harvest(survey, f"{kind}-{seed}-{index}"))
        shutil.rmtree(folder / "survey")
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--kind", choices=sorted(KINDS), default="strange")
    parser.add_argument("--units", type=int, nargs="+", default=list(range(5)), help="their numbers")
    parser.add_argument("--seed", type=int, default=77, help="not one that a model was trained on")
    parser.add_argument("--fields", type=int, default=6)
    parser.add_argument("--visits", type=int, default=2)
    arguments = parser.parse_args()
    for index in arguments.units:
        start = time.perf_counter()
        made = make(arguments.out, arguments.kind, arguments.seed, index, arguments.fields, arguments.visits)
        found = examples.read(made)
        real = int(found.labels.sum())
        print(f"unit {index}: {real} real, {len(found) - real} bogus, {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
