"""Synthetic transients: drawn, put into science frame or template before the subtraction, and told as truth."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.placement import FADED, INJECTED, TRANSPLANTED, VARIED, Placement, PlacementOptions, place, settle
from models.residuals import places
from models.template_light import brighten_template
from models.varied_stars import measure_stars, no_stars, vary
from nightsift.context.galaxies import Galaxies
from nightsift.context.known_objects import ASTEROID
from nightsift.context.template_sources import TemplateSources
from nightsift.core.random import generator
from nightsift.frames import Frame, Pair
from nightsift.images.inject import inject_stars
from nightsift.images.photometry import ZeroPoint
from nightsift.images.transplant import Movers, cut_movers, free_of, transplant
from nightsift.psf import Psf
from nightsift.tables import TRUTH, table

Values = npt.NDArray[np.float64]


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
    stars: TemplateSources | None = None,
) -> tuple[Pair, pa.Table, dict[str, int]]:
    """Put synthetic transients into a pair: what brightens into the science frame, what fades into the template.

    Parameters
    ----------
    pair : Pair
        Science with its PSF, and template. Where the template has a PSF too, a part of the stars fades and stars vary;
        without one everything brightens.
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
    stars : TemplateSources, optional
        Sources of the template: what may vary, and what tells its flux scale.

    Returns
    -------
    pair : Pair
        With the transients.
    truth : pyarrow.Table
        The transients, schema `nightsift.tables.TRUTH`.
    asked : dict of str to int
        How many were put in, by kind.
    """
    science = pair.science
    assert science.psf is not None
    key = (reduction, *key_of(science))
    taken = places(known)
    plan = place(seed, key, science.shape, noise, science.psf.fwhm, galaxies, taken, options)
    measured = measure_stars(pair, stars) if stars is not None and pair.template.psf is not None else None
    varied = no_stars()
    if measured is not None and np.isfinite(measured.scale):
        plan = fade_some(plan, options.fading, generator(seed, "fading", *key))
        taken = np.concatenate([taken, np.column_stack([plan.x, plan.y])])
        varied = vary(measured, noise, taken, options, science.psf.fwhm, generator(seed, "varied", *key))
    movers = known.filter(pa.array(np.asarray(known["kind"].to_pylist(), dtype=object) == ASTEROID))
    cuts = cut_movers(pair, science.psf, *places(movers).T)
    rng = generator(seed, "noise", *key)
    injected, faded = plan.take(plan.source == INJECTED), plan.take(plan.source == FADED)
    up, down = varied.take(varied.sign > 0), varied.take(varied.sign < 0)
    x, y, flux = (np.concatenate([getattr(injected, one), getattr(up, one)]) for one in ("x", "y", "flux"))
    frame = inject_stars(science, x, y, flux, science.psf, rng)
    frame, moved = _move(frame, science.psf, cuts, plan.take(plan.source == TRANSPLANTED), galaxies, options, rng)
    template = pair.template
    if measured is not None and len(faded) + len(down):
        x, y, flux = (np.concatenate([getattr(faded, one), getattr(down, one)]) for one in ("x", "y", "flux"))
        template = brighten_template(template, x, y, flux / measured.scale, generator(seed, "template noise", *key))
    truth = [synthetic_truth(one, science, galaxies, zero, reduction) for one in (injected, moved, faded)]
    truth.append(synthetic_truth(varied.placement(), science, galaxies, zero, reduction, varied.star))
    asked = {INJECTED: len(injected), TRANSPLANTED: len(moved), FADED: len(faded), VARIED: len(varied)}
    return Pair(frame, template, pair.coverage), pa.concat_tables(truth), asked


def _move(
    frame: Frame,
    psf: Psf,
    cuts: Movers,
    moved: Placement,
    galaxies: Galaxies,
    options: PlacementOptions,
    rng: np.random.Generator,
) -> tuple[Frame, Placement]:
    """Transplant minor planets, as far as there are brighter ones; where they came to lie."""
    moved = moved.take(moved.flux < float(cuts.flux.max(initial=0.0)))
    if not len(moved):
        return frame, moved
    which = np.array([rng.choice(np.flatnonzero(cuts.flux >= flux)) for flux in moved.flux], dtype=np.int64)
    phase = np.array([one[which] - np.floor(one[which] + 0.5) for one in (cuts.x, cuts.y)])
    x, y = settle(galaxies, moved.host, moved.offset, (moved.x, moved.y), phase, options.max_offset)
    frame, x, y = transplant(frame, psf, cuts, which, x, y, moved.flux, rng)
    return frame, dataclasses.replace(moved, x=x, y=y, offset=galaxies.offsets(moved.host, x, y))


def fade_some(plan: Placement, part: float, rng: np.random.Generator) -> Placement:
    """Let a part of the injected stars fade; places, hosts and brightness stay.

    Parameters
    ----------
    plan : Placement
        The transients.
    part : float
        Part of the injected stars, 0 to 1.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    Placement
        The same with the source ``"faded"`` for some.
    """
    fades = (plan.source == INJECTED) & (rng.random(len(plan)) < part)
    return dataclasses.replace(plan, source=np.where(fades, FADED, plan.source).astype(np.str_))


def synthetic_truth(
    plan: Placement,
    science: Frame,
    galaxies: Galaxies,
    zero: ZeroPoint,
    reduction: str,
    varied: tuple[Values, Values] | None = None,
) -> pa.Table:
    """Truth of synthetic transients; the magnitude is that of the light that came or went.

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
    varied : (ndarray, ndarray) of float64, shape (n,), optional
        Fluxes in the science frame and in the template (ADU of the science frame) of stars that vary.

    Returns
    -------
    pyarrow.Table
        Schema `nightsift.tables.TRUTH`.
    """
    n, meta = len(plan), science.meta
    gone = plan.source == FADED
    now, before = varied if varied is not None else (np.where(gone, 0.0, plan.flux), np.where(gone, plan.flux, 0.0))
    nowhere = np.full(n, np.nan)
    ra, dec = science.wcs.all_pix2world(plan.x, plan.y, 0) if science.wcs is not None and n else (nowhere, nowhere)
    hosted = plan.host >= 0
    columns: dict[str, Any] = {
        "exposure_file": [Path(meta.path).name] * n,
        "unit": [meta.unit] * n, "night": [meta.night] * n, "field": [meta.field] * n, "mjd": np.full(n, meta.mjd),
        "kind": plan.source.tolist(),
        "object_id": [f"{meta.exposure_id}-{reduction}-{one}{k:04d}" for k, one in enumerate(plan.source)],
        "ra": ra, "dec": dec, "x": plan.x, "y": plan.y,
        "mag": zero.value - 2.5 * np.log10(plan.flux), "flux": now, "reference_flux": before,
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
