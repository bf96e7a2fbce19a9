"""Light put into a template: what was there once and is gone from the science frame.

A supernova, a flare or the bright phase of a variable that happened while the template was taken is as real as one in
the science frame. The light gets the PSF that the template has on the grid of the science frame, and its photon noise
by the gain that the template has as a mean of many frames.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy.spatial import cKDTree

from models.placement import FADED
from nightsift.context.template_sources import TemplateSources
from nightsift.frames import Frame, Pair
from nightsift.images.inject import inject_stars
from nightsift.images.psf_photometry import psf_fluxes

Values = npt.NDArray[np.float64]
BRIGHT = 20.0  # standard deviations of the sky from which a pixel tells the gain
ENOUGH = 50  # such pixels
SEEN = 5.0  # signal-to-noise ratio from which a source stands in the list of a template
BLENDED = 1.0  # FWHM within which two sources of a template are seen as one


def effective_gain(template: Frame) -> float:
    """Gain of a mean of frames, from its own variance: how fast that grows with the light in a pixel.

    Parameters
    ----------
    template : Frame
        Background-subtracted, with its variance.

    Returns
    -------
    float
        electron/ADU; that of a single frame where too few pixels are bright.
    """
    free = template.mask == 0
    data, variance = template.data[free], template.variance[free]
    single = float(template.meta.gain)
    if not len(data):
        return single
    dark = float(np.median(variance))
    bright = data > BRIGHT * np.sqrt(dark)
    if bright.sum() < ENOUGH:
        return single
    growth = float(np.median((variance[bright] - dark) / data[bright]))
    return 1.0 / growth if growth > 0 else single


def brighten_template(template: Frame, x: Values, y: Values, flux: Values, rng: np.random.Generator) -> Frame:
    """Add stars to a template, with their photon noise.

    Parameters
    ----------
    template : Frame
        With its PSF; its light is left as it is elsewhere.
    x, y : ndarray of float64, shape (n,)
        Positions (pixel).
    flux : ndarray of float64, shape (n,)
        Fluxes (ADU of the template).
    rng : numpy.random.Generator
        Draws the photon noise.

    Returns
    -------
    Frame
        A copy with the stars, its variance raised, and what reaches saturation marked.
    """
    assert template.psf is not None
    meta = dataclasses.replace(template.meta, gain=effective_gain(template))
    return inject_stars(template.replace(meta=meta), x, y, flux, template.psf, rng).replace(meta=template.meta)


def as_built(pair: Pair, truth: pa.Table, sources: TemplateSources) -> tuple[Pair, TemplateSources]:
    """Take a pair as if its template had come with the added light: its PSF unknown again, new stars in its list.

    Parameters
    ----------
    pair : Pair
        With what fades in the template.
    truth : pyarrow.Table
        Synthetic transients, schema `nightsift.tables.TRUTH`.
    sources : TemplateSources
        Sources of the template before.

    Returns
    -------
    pair : Pair
        Its template without a PSF.
    sources : TemplateSources
        With the stars that are bright enough to be in the list and not blended with one that is.
    """
    template, psf = pair.template, pair.template.psf
    if psf is None:
        return pair, sources
    faded = truth.filter(pc.equal(truth["kind"], FADED))
    at = np.column_stack([np.asarray(faded[name], dtype=np.float64) for name in ("x", "y")])
    fits = psf_fluxes(template.data, template.variance, template.mask, psf, at[:, 0], at[:, 1])
    snr = (fits.flux / fits.flux_err).astype(np.float64)
    new = snr >= SEEN
    if len(sources) and len(at):
        new &= cKDTree(np.column_stack([sources.x, sources.y])).query(at)[0] > BLENDED * psf.fwhm
    n = int(new.sum())
    unknown, wide = np.full(n, np.nan), np.full(n, psf.fwhm / 2.355)
    columns: dict[str, Any] = {
        "identity": np.array([f"faded-{k}" for k in range(n)], dtype=np.str_), "x": at[new, 0], "y": at[new, 1],
        "flux": unknown, "mag": unknown, "snr": snr[new], "star_galaxy": np.zeros(n), "major": wide, "minor": wide,
        "angle": np.zeros(n), "clean": np.ones(n, dtype=np.bool_),
    }  # fmt: skip
    joined: dict[str, Any] = {
        name: np.concatenate([getattr(sources, name), column]) for name, column in columns.items()
    }
    bare = Pair(pair.science, template.replace(psf=None), pair.coverage)
    return bare, dataclasses.replace(sources, **joined)
