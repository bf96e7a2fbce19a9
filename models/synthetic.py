"""Synthetic transients: drawn, put into the science frame before the subtraction, and told as truth."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.placement import INJECTED, TRANSPLANTED, Placement, PlacementOptions, place, settle
from models.residuals import places
from nightsift.context.galaxies import Galaxies
from nightsift.context.known_objects import ASTEROID
from nightsift.frames import Frame, Pair
from nightsift.images.inject import inject_stars
from nightsift.images.photometry import ZeroPoint
from nightsift.images.transplant import cut_movers, free_of, transplant
from nightsift.simulate.seeds import generator
from nightsift.tables import TRUTH, table


def point_source_noise(pair: Pair) -> npt.NDArray[np.float32]:
    """Standard deviation of the flux of a point source at each pixel of the science frame (ADU).

    Parameters
    ----------
    pair : Pair
        With the PSF of its science frame.

    Returns
    -------
    ndarray of float32, shape (ny, nx)
        NaN where nothing can be put: masked pixels of either frame.
    """
    science = pair.science
    assert science.psf is not None
    ny, nx = science.shape
    image = science.psf.at((nx - 1) / 2.0, (ny - 1) / 2.0).astype(np.float64)
    pixels = float(image.sum() ** 2 / np.sum(image**2))
    free = free_of(science.mask) & free_of(pair.template.mask)
    noise = np.full(science.shape, np.nan, dtype=np.float32)
    np.sqrt(science.variance * np.float32(pixels), out=noise, where=free)
    return noise


def add_transients(
    pair: Pair,
    noise: npt.NDArray[np.float32],
    galaxies: Galaxies,
    known: pa.Table,
    zero: ZeroPoint,
    reduction: str,
    seed: int,
    options: PlacementOptions,
) -> tuple[Pair, pa.Table, dict[str, int]]:
    """Put synthetic transients into the science frame of a pair.

    Parameters
    ----------
    pair : Pair
        Science with its PSF, and template.
    noise : ndarray of float32, shape (ny, nx)
        See `point_source_noise`.
    galaxies : Galaxies
        Possible hosts.
    known : pyarrow.Table
        What changes already, schema `nightsift.tables.TRUTH`; its minor planets are what is transplanted.
    zero : ZeroPoint
        For magnitudes.
    reduction : str
        Part of the seed.
    seed : int
        Seed of the set.
    options : PlacementOptions
        How many, where, how bright.

    Returns
    -------
    pair : Pair
        With the transients.
    truth : pyarrow.Table
        The transients, schema `nightsift.tables.TRUTH`.
    asked : dict of str to int
        How many were put in, by source.
    """
    science = pair.science
    assert science.psf is not None
    key = (reduction, *key_of(science))
    taken = places(known)
    plan = place(seed, key, science.shape, noise, science.psf.fwhm, galaxies, taken, options)
    movers = known.filter(pa.array(np.asarray(known["kind"].to_pylist(), dtype=object) == ASTEROID))
    cuts = cut_movers(pair, science.psf, *places(movers).T)
    rng = generator(seed, "noise", *key)
    stars_ = plan.take(plan.source == INJECTED)
    frame = inject_stars(science, stars_.x, stars_.y, stars_.flux, science.psf, rng)
    moved = plan.take(plan.source == TRANSPLANTED)
    brightest = float(cuts.flux.max(initial=0.0))
    moved = moved.take(moved.flux < brightest)
    if len(moved):
        which = np.array([rng.choice(np.flatnonzero(cuts.flux >= flux)) for flux in moved.flux], dtype=np.int64)
        phase = np.array([one[which] - np.floor(one[which] + 0.5) for one in (cuts.x, cuts.y)])
        x, y = settle(galaxies, moved.host, moved.offset, (moved.x, moved.y), phase, options.max_offset)
        frame, x, y = transplant(frame, science.psf, cuts, which, x, y, moved.flux, rng)
        offset = galaxies.offsets(moved.host, x, y)
        moved = dataclasses.replace(moved, x=x, y=y, offset=offset)
    truth = pa.concat_tables([synthetic_truth(one, science, galaxies, zero, reduction) for one in (stars_, moved)])
    return Pair(frame, pair.template, pair.coverage), truth, {INJECTED: len(stars_), TRANSPLANTED: len(moved)}


def synthetic_truth(plan: Placement, science: Frame, galaxies: Galaxies, zero: ZeroPoint, reduction: str) -> pa.Table:
    """Truth of synthetic transients.

    Parameters
    ----------
    plan : Placement
        The transients.
    science : Frame
        The frame that they were put into.
    galaxies : Galaxies
        Their hosts.
    zero : ZeroPoint
        Zero point of the frame.
    reduction : str
        Part of their identities.

    Returns
    -------
    pyarrow.Table
        Schema `nightsift.tables.TRUTH`.
    """
    n, meta = len(plan), science.meta
    nowhere = np.full(n, np.nan)
    ra, dec = science.wcs.all_pix2world(plan.x, plan.y, 0) if science.wcs is not None and n else (nowhere, nowhere)
    hosted = plan.host >= 0
    columns: dict[str, Any] = {
        "exposure_file": [Path(meta.path).name] * n,
        "unit": [meta.unit] * n, "night": [meta.night] * n, "field": [meta.field] * n, "mjd": np.full(n, meta.mjd),
        "kind": plan.source.tolist(),
        "object_id": [f"{meta.exposure_id}-{reduction}-{one}{k:04d}" for k, one in enumerate(plan.source)],
        "ra": ra, "dec": dec, "x": plan.x, "y": plan.y,
        "mag": zero.value - 2.5 * np.log10(plan.flux), "flux": plan.flux, "reference_flux": np.zeros(n),
        "host_id": [str(galaxies.host_id[row]) if row >= 0 else None for row in plan.host],
        "host_mag": pa.array(galaxies.mag[plan.host].astype(np.float32) if len(galaxies) else nowhere, pa.float32(),
                             mask=~hosted),
        "host_offset": pa.array(plan.offset.astype(np.float32), mask=~hosted),
        "obstructed": np.zeros(n, dtype=bool),
    }  # fmt: skip
    return table(columns, TRUTH)


def key_of(frame: Frame) -> tuple[str, str]:
    """What names an exposure in seeds.

    Parameters
    ----------
    frame : Frame
        The exposure.

    Returns
    -------
    unit, exposure_id : str
        Its unit and its identity.
    """
    return frame.meta.unit, frame.meta.exposure_id
