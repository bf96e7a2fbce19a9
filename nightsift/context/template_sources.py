"""Sources of a template as an exposure sees them: where they lie, what they are, and which is next to a position."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from nightsift.core.flags import Mask
from nightsift.images.stars.stars import typical_fwhm

if TYPE_CHECKING:
    from nightsift.core.frames import SourceTable, StarTable, Template
    from nightsift.images.registration.align import Alignment

Values = npt.NDArray[np.float64]
_HALFWAY = 0.18  # relative excess of the width over that of stars at which a source is as likely a galaxy as a star
_SOFTNESS = 0.04  # scatter of the widths of bright stars, relative
_POWER = 1.5  # of radii of Sersic profiles behind a Moffat seeing, by which one takes the other out within a tenth
_BRIGHT = 50.0  # signal-to-noise ratio of the stars that show the half-light radius of the seeing
_WIDE = 0.7  # FWHM of the seeing in half-light radius from which a window as wide as stars misses the shape
_EVEN = 0.5  # score where the shape cannot be measured


@dataclass(frozen=True, slots=True, eq=False)
class TemplateSources:
    """Sources of a template on the pixel grid of an exposure.

    Attributes
    ----------
    identity : ndarray of str, shape (n,)
        Template's unit, field, band and running number: the same on every exposure that uses the template.
    x, y : ndarray of float64, shape (n,)
        Positions (pixel of the exposure).
    flux : ndarray of float64, shape (n,)
        Aperture flux (ADU of the template).
    mag : ndarray of float64, shape (n,)
        Total magnitude: of galaxies within the Kron ellipse, where the template has a catalogue; NaN where it has no
        zero point.
    snr : ndarray of float64, shape (n,)
        Signal-to-noise ratio in the template.
    star_galaxy : ndarray of float64, shape (n,)
        0 as wide as the stars of the template, 1 wider; 0.5 where it cannot be measured.
    major, minor : ndarray of float64, shape (n,)
        Gaussian axes with the seeing in them (pixel).
    angle : ndarray of float64, shape (n,)
        Direction of the major axis (rad from +x to +y of the exposure).
    clean : ndarray of bool, shape (n,)
        No mask bit in the core.
    seeing : float
        Full width at half maximum of the stars of the template (pixel).
    half_light : ndarray of float64, shape (n,), or None
        Half-light radii without the seeing (pixel, the mean of the axes; NaN where not measured); None where the
        template has no catalogue.
    """

    identity: npt.NDArray[np.str_]
    x: Values
    y: Values
    flux: Values
    mag: Values
    snr: Values
    star_galaxy: Values
    major: Values
    minor: Values
    angle: Values
    clean: npt.NDArray[np.bool_]
    seeing: float
    half_light: Values | None = None

    def __len__(self) -> int:
        return len(self.x)

    def take(self, rows: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> TemplateSources:
        """Some of the sources, by row or by mask."""
        names = ("identity", "x", "y", "flux", "mag", "snr", "star_galaxy", "major", "minor", "angle", "clean")
        light = None if self.half_light is None else self.half_light[rows]
        return dataclasses.replace(self, half_light=light, **{name: getattr(self, name)[rows] for name in names})


def sources_on_frame(template: Template, alignment: Alignment) -> TemplateSources:
    """Put the sources of a template on the grid of an exposure.

    Parameters
    ----------
    template : Template
        With the table of its sources.
    alignment : Alignment
        Mapping from the exposure to the template.

    Returns
    -------
    TemplateSources
        All sources whose position is known, also those beyond the edge.
    """
    stars, meta = template.stars, template.frame.meta
    seeing = typical_fwhm(stars)
    score = _galaxy_scores(stars["fwhm"].astype(np.float64), stars["snr"].astype(np.float64), seeing)
    half_light = None if template.catalogue is None else _half_light(stars, template.catalogue, seeing)
    major, minor, theta = _axes(stars, template.catalogue, None if half_light is None else half_light > seeing * _WIDE)
    x, y = _to_science(alignment, stars["x"].astype(np.float64), stars["y"].astype(np.float64))
    step = 2.0
    tip = _to_science(alignment, stars["x"] + step * np.cos(theta), stars["y"] + step * np.sin(theta))
    dx, dy = tip[0] - x, tip[1] - y
    scale = np.hypot(dx, dy) / step
    flux = _total_flux(template, score)
    mag = template.zero_point - 2.5 * np.log10(np.where(flux > 0, flux, np.nan))
    clean = (stars["flag"] & ~Mask.BRIGHT_STAR.value) == 0
    whole = TemplateSources(
        np.array([f"{meta.unit}/{meta.field}/{meta.band}-t{row:05d}" for row in range(len(stars))], dtype=np.str_),
        x, y, stars["flux"].astype(np.float64), mag, stars["snr"].astype(np.float64), score,
        major * scale, minor * scale, np.arctan2(dy, dx), np.asarray(clean, dtype=np.bool_),
        seeing * float(np.median(scale)) if len(scale) else seeing,
        None if half_light is None else half_light * scale,
    )  # fmt: skip
    return whole.take(np.isfinite(x) & np.isfinite(y))


def _half_light(stars: StarTable, catalogue: SourceTable, seeing: float) -> Values:
    """Half-light radii freed of the seeing (pixel); 0 for a star, NaN where not measured."""
    radius = catalogue["radius"].astype(np.float64)
    alike = (stars["flag"] == 0) & (stars["snr"] > _BRIGHT) & (np.abs(stars["fwhm"] - seeing) < 0.1 * seeing)
    alike &= np.isfinite(radius)
    star = float(np.median(radius[alike])) if alike.any() else 0.58 * seeing
    return np.asarray(np.maximum(radius**_POWER - star**_POWER, 0.0) ** (1.0 / _POWER))


def _axes(
    stars: StarTable, catalogue: SourceTable | None, wide: npt.NDArray[np.bool_] | None
) -> tuple[Values, Values, Values]:
    """Gaussian axes and their direction, of wide sources by the catalogue: a window as wide as stars misses them."""
    ours = [stars[name].astype(np.float64) for name in ("a", "b", "theta")]
    if catalogue is None or wide is None:
        return ours[0], ours[1], ours[2]
    theirs = [catalogue[name].astype(np.float64) for name in ("a", "b", "theta")]
    known = wide & np.isfinite(theirs[0]) & np.isfinite(theirs[1]) & np.isfinite(theirs[2])
    major, minor, theta = (np.where(known, b, a) for a, b in zip(ours, theirs, strict=True))
    return major, minor, theta


def _total_flux(template: Template, score: Values) -> Values:
    """Fluxes (ADU of the template) of stars by the aperture correction, of galaxies within their Kron ellipse."""
    growth = template.growth.value if template.growth is not None else float("nan")
    total = template.stars["flux"] * 10.0 ** (0.4 * (growth if np.isfinite(growth) else 0.0))
    if template.catalogue is None:
        return np.asarray(total, dtype=np.float64)
    kron = template.catalogue["flux"].astype(np.float64)
    return np.asarray(np.where((score > _EVEN) & (kron > 0), kron, total), dtype=np.float64)


def _galaxy_scores(fwhm: Values, snr: Values, seeing: float) -> Values:
    """Star-galaxy scores, 0 to 1, by the width alone: a logistic function of the excess over the stars of the frame."""
    known = np.isfinite(fwhm) & (seeing > 0)
    excess = np.where(known, fwhm, seeing) / (seeing if seeing > 0 else 1.0) - 1.0 - _HALFWAY
    spread = np.hypot(_SOFTNESS, 1.0 / np.maximum(snr, 1.0))
    score = 1.0 / (1.0 + np.exp(-np.clip(excess / spread, -40.0, 40.0)))
    return np.asarray(np.where(known, score, _EVEN))


def nearest_source(sources: TemplateSources, x: Values, y: Values) -> tuple[Values, Values]:
    """Return distance (pixel) and star-galaxy score of the source nearest to each position, NaN without sources."""
    if not len(sources) or not len(x):
        return np.full(len(x), np.nan), np.full(len(x), np.nan)
    distance, row = cKDTree(np.column_stack([sources.x, sources.y])).query(np.column_stack([x, y]))
    return np.asarray(distance), sources.star_galaxy[row]


def _to_science(alignment: Alignment, x: Values, y: Values) -> tuple[Values, Values]:
    """Positions on the exposure (pixel) of positions on its template: the alignment turned round.

    Fixed point: an affine map is fitted to the nodes, then what it misses is mapped back; mappings between frames of
    one field are so smooth that six rounds leave less than a thousandth of a pixel.
    """
    rows, columns = np.mgrid[: alignment.grid.shape[1], : alignment.grid.shape[2]].reshape(2, -1) * alignment.step
    terms = np.column_stack([np.ones(len(rows)), columns, rows])
    fitted = np.linalg.lstsq(terms, alignment.grid.reshape(2, -1).T, rcond=None)[0]
    back = np.linalg.inv(fitted[1:].T)
    aim = np.stack([np.asarray(x, np.float64), np.asarray(y, np.float64)])
    found = back @ (aim - fitted[0][:, None])
    for _ in range(6):
        found = found + back @ (aim - np.stack(alignment.to_template(found[0], found[1])))
    return found[0], found[1]
