"""Synthetic transients put into science frame or template before the subtraction, and their truth.

Also what a subtraction leaves on galaxies where nothing changes: bogus examples that look like transients on hosts.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.synthesis.placement import (
    FADED,
    INJECTED,
    PLACED,
    TRANSPLANTED,
    VARIED,
    Placement,
    PlacementOptions,
    busy_galaxies,
    draw_hosts,
    nearest_with_phase,
    place,
)
from models.synthesis.template_light import brighten_template, measure_stars, no_stars, vary
from nightsift.context.galaxies import Galaxies
from nightsift.context.known_objects import ASTEROID
from nightsift.context.template_sources import TemplateSources
from nightsift.core.frames import Difference, FloatImage, Frame, Pair
from nightsift.core.psf import Psf
from nightsift.core.random import generator
from nightsift.core.tables import TRUTH, table
from nightsift.images.injection import Movers, cut_movers, free_of, inject_stars, transplant
from nightsift.images.photometry.difference_photometry import ZeroPoint
from nightsift.images.photometry.forced import forced_photometry

Values = npt.NDArray[np.float64]
SAMPLE = ("candidate_id", "unit", "night", "field", "exposure_id", "x", "y", "sign", "snr", "flags", "mag")
"""Columns of candidates that an example is made of."""


def quiet_galaxies(
    galaxies: Galaxies,
    changing: Values,
    detected: Values,
    *,
    n: int,
    clear: float,
    options: PlacementOptions,
    rng: np.random.Generator,
) -> Galaxies:
    """Draw at most `n` galaxies in which nothing changes and nothing was detected, by the prior of the hosts.

    `changing` and `detected` (m, 2) hold x, y (pixel), `clear` is the least distance from either (pixel).
    """
    free = ~busy_galaxies(galaxies, changing, 0.0, separation=clear) & ~busy_galaxies(
        galaxies, detected, 0.0, separation=clear
    )
    return galaxies.take(draw_hosts(rng, galaxies, n, options=options, free=free))


def residual_rows(difference: Difference, pair: Pair, zero: ZeroPoint, *, galaxies: Galaxies) -> pa.Table:
    """Residuals of galaxies as if they had been detected: at the highest score of either sign in the core of each.

    Parameters
    ----------
    difference : Difference
        The difference.
    pair : Pair
        What it was made of.
    zero : ZeroPoint
        Zero point of the frame.
    galaxies : Galaxies
        Galaxies; those outside the frame are left out.

    Returns
    -------
    pyarrow.Table
        Columns `SAMPLE`, one row a galaxy.
    """
    ny, nx = difference.shape
    inside = (galaxies.x > -0.5) & (galaxies.y > -0.5) & (galaxies.x < nx - 0.5) & (galaxies.y < ny - 0.5)
    some = galaxies.take(inside)
    reach = max(1, round(0.5 * difference.psf.fwhm))
    columns, rows = _highest(difference.score, some.x, some.y, reach=reach)
    measured = forced_photometry(difference, columns, rows, zero_point=zero)
    score, meta, n = difference.score[rows, columns], pair.science.meta, len(some)
    flux = np.asarray(measured["flux"].to_numpy(zero_copy_only=False), dtype=np.float64)
    mag, _ = zero.magnitudes(flux, flux)
    return pa.table(
        {
            "candidate_id": [f"{meta.exposure_id}{PLACED}{one}" for one in some.host_id],
            "unit": pa.array([meta.unit] * n, pa.string()),
            "night": pa.array([meta.night] * n, pa.string()),
            "field": pa.array([meta.field] * n, pa.string()),
            "exposure_id": pa.array([meta.exposure_id] * n, pa.string()),
            "x": columns.astype(np.float64),
            "y": rows.astype(np.float64),
            "sign": np.where(score < 0, -1, 1).astype(np.int8),
            "snr": np.abs(score).astype(np.float32),
            "flags": measured["flags"],
            "mag": pa.array(mag.astype(np.float32), mask=~np.isfinite(mag)),
        }
    )


def places(table: pa.Table) -> Values:
    """Return the finite positions of a table with columns x and y (pixel), shape (n, 2)."""
    positions = np.stack([np.asarray(table[name], dtype=np.float64) for name in ("x", "y")], axis=1)
    return np.asarray(positions[np.isfinite(positions).all(axis=1)])


def _highest(
    score: FloatImage, x: Values, y: Values, *, reach: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Pixel of the largest absolute score within a square around each position."""
    ny, nx = score.shape
    columns, rows = np.floor(x + 0.5).astype(np.int64), np.floor(y + 0.5).astype(np.int64)
    side = np.arange(-reach, reach + 1)
    i = np.clip(columns[:, None, None] + side[None, None, :], 0, nx - 1)
    j = np.clip(rows[:, None, None] + side[None, :, None], 0, ny - 1)
    i, j = np.broadcast_arrays(i, j)
    flat = (len(x), len(side) ** 2)
    best = np.argmax(np.abs(score[j, i]).reshape(flat), axis=1)
    every = np.arange(len(x))
    return i.reshape(flat)[every, best], j.reshape(flat)[every, best]


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
    *,
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
        What changes already, schema `nightsift.core.tables.TRUTH`; its minor planets are what is transplanted.
    zero : ZeroPoint
        For magnitudes.
    reduction : str
        Part of the seed.
    seed : int
        Seed of the set.
    options : PlacementOptions
        Number, places and brightness.
    stars : TemplateSources, optional
        Sources of the template: what may vary, and what gives its flux scale.

    Returns
    -------
    pair : Pair
        With the transients.
    truth : pyarrow.Table
        The transients, schema `nightsift.core.tables.TRUTH`.
    asked : dict of str to int
        Numbers put in, by kind.
    """
    science = pair.science
    assert science.psf is not None
    key = (reduction, *exposure_key(science))
    taken = places(known)
    plan = place(
        seed, key, science.shape, noise=noise, fwhm=science.psf.fwhm, galaxies=galaxies, taken=taken, options=options
    )
    measured = measure_stars(pair, stars) if stars is not None and pair.template.psf is not None else None
    varied = no_stars()
    if measured is not None and np.isfinite(measured.scale):
        plan = _fade_some(plan, options.fading, generator(seed, "fading", *key))
        taken = np.concatenate([taken, np.column_stack([plan.x, plan.y])])
        varied = vary(
            measured, noise, taken, options=options, fwhm=science.psf.fwhm, rng=generator(seed, "varied", *key)
        )
    movers = known.filter(pa.array(np.asarray(known["kind"].to_pylist(), dtype=object) == ASTEROID))
    cuts = cut_movers(pair, science.psf, *places(movers).T)
    rng = generator(seed, "noise", *key)
    injected, faded = plan.take(plan.source == INJECTED), plan.take(plan.source == FADED)
    up, down = varied.take(varied.sign > 0), varied.take(varied.sign < 0)
    x, y, flux = (np.concatenate([getattr(injected, one), getattr(up, one)]) for one in ("x", "y", "flux"))
    frame = inject_stars(science, x, y, flux, science.psf, rng)
    frame, moved = _move(
        frame,
        science.psf,
        cuts,
        moved=plan.take(plan.source == TRANSPLANTED),
        galaxies=galaxies,
        options=options,
        rng=rng,
    )
    template = pair.template
    if measured is not None and len(faded) + len(down):
        x, y, flux = (np.concatenate([getattr(faded, one), getattr(down, one)]) for one in ("x", "y", "flux"))
        template = brighten_template(
            template, x, y, flux=flux / measured.scale, rng=generator(seed, "template noise", *key)
        )
    truth = [
        _synthetic_truth(one, science, galaxies, zero=zero, reduction=reduction) for one in (injected, moved, faded)
    ]
    truth.append(
        _synthetic_truth(varied.placement(), science, galaxies, zero=zero, reduction=reduction, varied=varied.star)
    )
    asked = {INJECTED: len(injected), TRANSPLANTED: len(moved), FADED: len(faded), VARIED: len(varied)}
    return Pair(frame, template, pair.coverage), pa.concat_tables(truth), asked


def _move(
    frame: Frame,
    psf: Psf,
    cuts: Movers,
    *,
    moved: Placement,
    galaxies: Galaxies,
    options: PlacementOptions,
    rng: np.random.Generator,
) -> tuple[Frame, Placement]:
    """Transplant minor planets where brighter ones exist; return the frame and the positions that they got."""
    moved = moved.take(moved.flux < float(cuts.flux.max(initial=0.0)))
    if not len(moved):
        return frame, moved
    which = np.array([rng.choice(np.flatnonzero(cuts.flux >= flux)) for flux in moved.flux], dtype=np.int64)
    phase = np.array([one[which] - np.floor(one[which] + 0.5) for one in (cuts.x, cuts.y)])
    x, y = nearest_with_phase(
        galaxies, moved.host, moved.offset, at=(moved.x, moved.y), phase=phase, most=options.max_offset
    )
    frame, x, y = transplant(frame, psf, cuts, which=which, x=x, y=y, flux=moved.flux, rng=rng)
    return frame, dataclasses.replace(moved, x=x, y=y, offset=galaxies.offsets(moved.host, x, y))


def _fade_some(plan: Placement, part: float, rng: np.random.Generator) -> Placement:
    """Let a part of the injected stars fade; places, hosts and brightness stay."""
    fades = (plan.source == INJECTED) & (rng.random(len(plan)) < part)
    return dataclasses.replace(plan, source=np.where(fades, FADED, plan.source).astype(np.str_))


def _synthetic_truth(
    plan: Placement,
    science: Frame,
    galaxies: Galaxies,
    *,
    zero: ZeroPoint,
    reduction: str,
    varied: tuple[Values, Values] | None = None,
) -> pa.Table:
    """Truth of synthetic transients; the magnitude is that of the light that came or went.

    `varied` holds the fluxes in the science frame and in the template (ADU of the science frame) of stars that vary.
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


def exposure_key(frame: Frame) -> tuple[str, str]:
    """Return unit and identity of an exposure, which name it in seeds."""
    return frame.meta.unit, frame.meta.exposure_id
