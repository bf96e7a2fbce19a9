"""Seconds from candidates to a ranked table, and to the page, on a sky map with many cells and a catalogue of galaxies.

    python benchmarks/skyalerts/products.py --skymap MAP.fits --galaxies GLADE.parquet [--candidates 10000]

Without files, a map of 786,432 cells and 800,000 galaxies are made up. CPU seconds of this process; the first round
pays for imports and caches, the second is what a process that stays up pays.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nightsift.archive.skyalert_options import default_ranking
from nightsift.context.hosts import HostCatalogue, load_hosts
from nightsift.context.known_objects import KnownPositions
from nightsift.core import tables
from nightsift.sky.fields import SkyField, square_field
from nightsift.skyalerts.planning.field_ranking import coverage, greedy
from nightsift.skyalerts.products.gather import Gathered, footprint_of
from nightsift.skyalerts.products.rank import Catalogues, rank_again, rank_candidates
from nightsift.skyalerts.products.sky_figure import sky_figure
from nightsift.skyalerts.skymaps.skymap import SkyMap
from nightsift.skyalerts.skymaps.skymap_file import read_skymap

T0 = 61364.25


def made_up_map(cells: int) -> SkyMap:
    """A ring of probability with distances, flat at one level."""
    from astropy_healpix import healpix_to_xyz

    level = max(int(np.ceil(np.log(cells / 12.0) / np.log(4.0))), 3)
    pixel = np.arange(12 * 4**level, dtype=np.int64)
    points = np.stack(healpix_to_xyz(pixel, 2**level, order="nested"), axis=-1)
    weight = np.exp(-0.5 * ((points[:, 2] - 0.3) / 0.05) ** 2 + 2.0 * points[:, 0])
    ones = np.ones(len(pixel))
    distance = 200.0 + 30.0 * points[:, 1]
    return SkyMap(level * np.ones(len(pixel), dtype=np.int64), pixel, weight / weight.sum(), distance, 40.0 * ones,
                  ones / (distance**2 + 1600.0))  # fmt: skip


def made_up_hosts(n: int, rng: np.random.Generator) -> HostCatalogue:
    """Galaxies spread evenly."""
    ra, dec = rng.uniform(0, 360, n), np.rad2deg(np.arcsin(rng.uniform(-1, 1, n)))
    distance = 800.0 * rng.uniform(1e-5, 1, n) ** (1 / 3)
    mag = -20.0 + rng.normal(0, 1, n) + 5.0 * np.log10(distance) + 25.0
    radius = 4000.0 / distance * rng.lognormal(0, 0.4, n)
    names = np.array([f"G{k}" for k in range(n)], dtype=object)
    return HostCatalogue(names, ra, dec, radius, rng.uniform(0.2, 1, n), rng.uniform(0, 180, n), mag, distance,
                         0.1 * distance)  # fmt: skip


def fields_of(skymap: SkyMap, wanted: int, side: float = 2.0) -> tuple[SkyField, ...]:
    """The fields of a grid that hold most."""
    step = 0.97 * side
    grid = [
        square_field(f"{k}-{j}", float(ra), float(dec), width=side)
        for j, dec in enumerate(np.arange(-88.0, 89.0, step))
        for k, ra in enumerate(np.arange(0.0, 360.0, step / np.cos(np.deg2rad(dec))))
    ]
    found = coverage(skymap, grid)
    order, _ = greedy(found, np.ones(len(grid), dtype=bool), wanted)
    return tuple(grid[k] for k in order)


def candidates_of(fields: tuple[SkyField, ...], n: int, rng: np.random.Generator) -> Gathered:
    """Two exposures of each field after the event and two before; half of the candidates are seen twice."""
    exposures, rows = [], []
    each = max(n // len(fields), 1)
    for number, field in enumerate(fields):
        ra = field.ra + rng.uniform(-0.95, 0.95, each) / np.cos(np.deg2rad(field.dec))
        dec = field.dec + rng.uniform(-0.95, 0.95, each)
        for visit, hours in enumerate((-48.0, -24.0, 1.0 + number / 60.0, 3.0 + number / 60.0)):
            name = f"u-{number:06d}-{visit}"
            mjd = T0 + hours / 24.0
            exposures.append({
                "exposure_id": name, "unit": "u", "night": "n", "state": "done", "reason": "", "message": "",
                "facts": "", "url": "", "checksum": "", "band": "L", "mjd": mjd, "ra": field.ra, "dec": field.dec,
                "area": 4.0, "seeing": 2.5, "limiting_mag": 20.5, "seconds": 0.0, "stage_seconds": "", "provenance": "",
                "version": "", "recorded_at": 0,
            })  # fmt: skip
            part = np.arange(each) % 10 == visit if hours < 0 else (np.arange(each) % 2 == 0) | (visit == 2)
            rows += [{
                "candidate_id": f"{name}-{k}", "exposure_id": name, "unit": "u", "night": "n", "field": field.name,
                "band": "L", "mjd": mjd, "x": 0.0, "y": 0.0, "ra": float(ra[k]), "dec": float(dec[k]), "sign": 1,
                "snr": float(rng.uniform(5, 50)), "n_pixels": 9, "elongation": 1.0, "flux": 1.0, "flux_err": 0.1,
                "flux_aperture": 1.0, "flux_aperture_err": 0.1, "mag": float(rng.uniform(16, 20)), "mag_err": 0.1,
                "dipole": 0.0, "masked_fraction": 0.0, "flags": 0, "template_id": "", "stamp_index": 0,
                "score": float(rng.beta(0.3, 0.3)), "score_std": 0.05,
            } for k in np.flatnonzero(part)]  # fmt: skip
    ledger = tables.table(exposures, tables.LEDGER)
    return Gathered(T0, ledger, tables.table(rows, tables.CANDIDATES), ledger, {})


def timed(call: Callable[..., Any], *given: Any) -> tuple[float, Any]:
    """CPU seconds of a call, and what it returns."""
    start = time.process_time()
    found = call(*given)
    return time.process_time() - start, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--skymap", type=Path)
    parser.add_argument("--galaxies", type=Path)
    parser.add_argument("--candidates", type=int, default=10000)
    parser.add_argument("--fields", type=int, default=100)
    parser.add_argument("--cells", type=int, default=786432)
    parser.add_argument("--stars", type=int, default=2000000)
    options = parser.parse_args()
    rng = np.random.default_rng(11)
    skymap = read_skymap(options.skymap) if options.skymap else made_up_map(options.cells)
    loading, hosts = timed(load_hosts, options.galaxies) if options.galaxies else timed(made_up_hosts, 800000, rng)
    stars = KnownPositions("stars", "star", rng.uniform(0, 360, options.stars), rng.uniform(-90, 90, options.stars))
    fields = fields_of(skymap, options.fields)
    gathered = candidates_of(fields, options.candidates, rng)
    catalogues, ranking = Catalogues(hosts, (stars,)), default_ranking()
    result: dict[str, Any] = {
        "cells": len(skymap), "galaxies": len(hosts), "stars": options.stars, "fields": len(fields),
        "detections": gathered.candidates.num_rows, "exposures": gathered.exposures.num_rows,
        "load_galaxies_s": loading,
    }  # fmt: skip
    for when in ("first", "warm"):
        result[f"rank_{when}_s"], ranked = timed(rank_candidates, gathered, skymap, catalogues, ranking)
        result[f"rank_again_{when}_s"], _ = timed(rank_again, ranked, skymap, hosts, T0, ranking)
        chances = [0.01] * len(fields)
        result[f"footprint_{when}_s"], seen = timed(footprint_of, gathered.exposures, T0, fields, chances, skymap)
        places = [(row["ra"], row["dec"]) for row in ranked.slice(0, 60).to_pylist()]
        observed = [one["observed"] for one in seen.fields]
        result[f"sky_figure_{when}_s"], _ = timed(sky_figure, skymap, fields, observed, places)
    result["objects"] = ranked.num_rows
    rounded = {key: round(one, 3) if isinstance(one, float) else one for key, one in result.items()}
    sys.stdout.write(json.dumps(rounded, indent=1) + "\n")


if __name__ == "__main__":
    main()
