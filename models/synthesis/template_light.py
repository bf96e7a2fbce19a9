"""Light put into a template: sources that were there when it was taken and are gone from the science frame.

A supernova, a flare or the bright phase of a variable that happened while the template was taken is as real as one in
the science frame. The light gets the PSF that the template has on the grid of the science frame, and its photon noise
by the gain that the template has as a mean of many frames.

Stars of the template vary by light that is added to one of the two frames, because light cannot be taken out of a frame
without its noise. A star that is brighter tonight gets light in the science frame; one that is fainter tonight gets
light in the template: it was brighter then. Both ways the photon noise is right.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy.spatial import cKDTree

from models.synthesis.placement import FADED, VARIED, Placement, PlacementOptions, separated
from nightsift.context.template_sources import TemplateSources
from nightsift.core.frames import Frame, Pair
from nightsift.images.injection import inject_stars
from nightsift.images.photometry.psf_photometry import UNUSABLE, psf_fluxes
from nightsift.images.stars.moments import moments

Values = npt.NDArray[np.float64]
BRIGHT = 20.0  # standard deviations of the sky from which a pixel shows the gain
ENOUGH = 50  # such pixels
SEEN = 5.0  # signal-to-noise ratio from which a source stands in the list of a template
BLENDED = 1.0  # FWHM within which two sources of a template are seen as one
STAR = 0.5  # score below which a source counts as a star
LEAST_SNR = 10.0  # of the star in the template
MOST_SHIFT = 2.5  # px by which the light may lie off the place in the list
MOST = 1 / 20  # of the stars that may vary: more would spoil what the subtraction is matched by
CORE = 1.0  # FWHM within which light is weighed


def effective_gain(template: Frame) -> float:
    """Gain of a mean of frames, from the growth of its variance with the light in a pixel.

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


def brighten_template(template: Frame, x: Values, y: Values, *, flux: Values, rng: np.random.Generator) -> Frame:
    """Return a template with stars added at x, y (pixel), of `flux` (ADU of the template), with their photon noise.

    The template needs its PSF. The variance is raised, and what reaches saturation is marked.
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
        Synthetic transients, schema `nightsift.core.tables.TRUTH`.
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
    fits = psf_fluxes(template.data, template.variance, template.mask, psf=psf, x=at[:, 0], y=at[:, 1])
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
    if sources.half_light is not None:
        joined["half_light"] = np.concatenate([sources.half_light, np.zeros(n)])
    bare = Pair(pair.science, template.replace(psf=None), pair.coverage)
    return bare, dataclasses.replace(sources, **joined)


@dataclass(frozen=True, slots=True, eq=False)
class Stars:
    """Stars seen in both frames of a pair.

    Attributes
    ----------
    x, y : ndarray of float64, shape (2, n)
        Positions of their light in the science frame and in the template (pixel).
    flux : ndarray of float64, shape (n,)
        PSF fluxes in the template (ADU of the science frame).
    scale : float
        Factor from the fluxes of the template to those of the science frame; NaN without a star.
    """

    x: Values
    y: Values
    flux: Values
    scale: float


@dataclass(frozen=True, slots=True, eq=False)
class VariedStars:
    """Stars that vary.

    Attributes
    ----------
    x, y : ndarray of float64, shape (n,)
        Where light is added (pixel).
    flux : ndarray of float64, shape (n,)
        Light added (ADU of the science frame).
    sign : ndarray of int64, shape (n,)
        +1 brighter in the science frame, -1 fainter.
    steady : ndarray of float64, shape (n,)
        Light that they have without it (ADU of the science frame).
    """

    x: Values
    y: Values
    flux: Values
    sign: npt.NDArray[np.int64]
    steady: Values

    def __len__(self) -> int:
        return len(self.x)

    @property
    def star(self) -> tuple[Values, Values]:
        """Fluxes in the science frame and in the template (ADU of the science frame)."""
        up = self.sign > 0
        return self.steady + np.where(up, self.flux, 0.0), self.steady + np.where(up, 0.0, self.flux)

    def take(self, rows: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> VariedStars:
        """Some of them, by row or by mask."""
        return VariedStars(*(getattr(self, name)[rows] for name in ("x", "y", "flux", "sign", "steady")))

    def placement(self) -> Placement:
        """As synthetic transients without a host."""
        n = len(self)
        kind, host = np.repeat([VARIED], n).astype(np.str_), np.full(n, -1, dtype=np.int64)
        return Placement(self.x, self.y, self.flux, kind, host, np.full(n, np.nan))


def no_stars() -> VariedStars:
    """Return no varying stars."""
    nothing = np.empty(0)
    return VariedStars(nothing, nothing, nothing, np.empty(0, dtype=np.int64), nothing)


def measure_stars(pair: Pair, sources: TemplateSources) -> Stars:
    """Find the light of the stars of a template in both frames.

    Parameters
    ----------
    pair : Pair
        Science and template, both with their PSF.
    sources : TemplateSources
        Sources of the template on this grid; galaxies, faint and masked ones are left out.

    Returns
    -------
    Stars
        Those that are whole in both frames.
    """
    ny, nx = pair.science.shape
    some = sources.take(sources.clean & (sources.star_galaxy < STAR) & (sources.snr > LEAST_SNR))
    some = some.take((some.x > 0) & (some.y > 0) & (some.x < nx - 1) & (some.y < ny - 1))
    sides = [_light(one, some.x, some.y) for one in (pair.science, pair.template)]
    good = sides[0][3] & sides[1][3]
    x, y, flux = (np.stack([np.asarray(side[k], np.float64)[good] for side in sides]) for k in range(3))
    scale = float(np.median(flux[0] / flux[1])) if good.any() else float("nan")
    return Stars(x, y, flux[1] * scale, scale)


def vary(
    stars: Stars,
    noise: npt.NDArray[np.float32],
    taken: Values,
    *,
    options: PlacementOptions,
    fwhm: float,
    rng: np.random.Generator,
) -> VariedStars:
    """Draw stars that vary, half of them up and half down, by the same factors.

    Parameters
    ----------
    stars : Stars
        What may vary.
    noise : ndarray of float32, shape (ny, nx)
        Standard deviation of the flux of a point source in the science frame (ADU), NaN where nothing can be put.
    taken : ndarray of float64, shape (m, 2)
        x, y of what changes.
    options : PlacementOptions
        Number and range of changes.
    fwhm : float
        Full width at half maximum (pixel).
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    VariedStars
        Those whose change has a signal-to-noise ratio within the range of synthetic transients.
    """
    n = len(stars.flux)
    part = rng.uniform(options.least_variation, options.most_variation, n)
    down = rng.random(n) < 0.5
    flux = stars.flux * np.where(down, part / (1.0 - part), part)
    side = down.astype(np.int64)
    x, y = (one[side, np.arange(n)] for one in (stars.x, stars.y))
    columns, rows = np.floor(x + 0.5).astype(np.int64), np.floor(y + 0.5).astype(np.int64)
    inside = (columns >= 0) & (rows >= 0) & (columns < noise.shape[1]) & (rows < noise.shape[0])
    snr = np.full(n, np.nan)
    snr[inside] = flux[inside] / noise[rows[inside], columns[inside]]
    fit = (snr >= options.min_snr) & (snr <= options.max_snr)
    order = rng.permutation(n)
    free = order[separated(x[order], y[order], fit[order], taken=taken, radius=options.separation * fwhm)]
    most = min(int(rng.poisson(options.varied * noise.size / 1e6)), int(MOST * n))
    return VariedStars(x, y, flux, np.where(down, -1, 1).astype(np.int64), stars.flux).take(np.sort(free[:most]))


def _light(frame: Frame, x: Values, y: Values) -> tuple[Values, Values, Values, npt.NDArray[np.bool_]]:
    """Positions and PSF fluxes of stars in one frame, and which of them are whole."""
    assert frame.psf is not None
    fwhm = frame.psf.fwhm
    found = moments(frame.data, frame.mask, UNUSABLE, x, y, max(fwhm / 2.355, 0.8), CORE * fwhm)
    near = np.hypot(found[:, 0] - x, found[:, 1] - y) <= MOST_SHIFT
    at_x, at_y = np.where(near, found[:, 0], x), np.where(near, found[:, 1], y)
    fits = psf_fluxes(frame.data, frame.variance, frame.mask, psf=frame.psf, x=at_x, y=at_y)
    good = near & (fits.masked_fraction == 0) & (fits.flux > 0)
    return at_x, at_y, fits.flux.astype(np.float64), np.asarray(good)
