"""Where synthetic transients go and how bright they are: drawn for each exposure, from a seed that names it.

Habits of earlier factories are avoided here. The generator is seeded with the identity of the exposure, so that no two
exposures share their offsets. Hosts are drawn by a stated prior, not the brightest near. Brightness is drawn in units
of the noise at the place, down to below the limit of the survey, so that magnitudes stop nowhere early. Places are
pixels of the frame, so no right ascension is ever jittered. What is new is at least a separation from what changes
already, and from each other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from nightsift.context.galaxies import Galaxies
from nightsift.core.random import generator

Values = npt.NDArray[np.float64]
GALAXY_PIXEL = "galaxy_pixel"
PLACED = "-galaxy-"
"""In the names of what was placed in a galaxy instead of detected."""
INJECTED, TRANSPLANTED, FADED, VARIED = "injected", "transplanted", "faded", "varied_star"


def busy_galaxies(galaxies: Galaxies, taken: Values, reach: float, *, separation: float) -> npt.NDArray[np.bool_]:
    """Tell in the reach of which galaxies something changes already, shape (n,).

    They are no hosts: leaving out only the places too near to what changes would favour large offsets. `taken` (m, 2)
    holds x, y of what changes, `reach` is the largest offset from a host (half-light radii), `separation` the least
    distance from what changes (pixel).
    """
    if not len(taken) or not len(galaxies):
        return np.zeros(len(galaxies), dtype=np.bool_)
    distance, _ = cKDTree(taken).query(np.column_stack([galaxies.x, galaxies.y]))
    return np.asarray(distance < reach * galaxies.radius + separation)


def separated(
    x: Values, y: Values, candidates: npt.NDArray[np.bool_], *, taken: Values, radius: float
) -> npt.NDArray[np.bool_]:
    """Tell which places are no nearer than a radius to one drawn earlier that stays, nor to what is taken.

    Parameters
    ----------
    x, y : ndarray of float64, shape (n,)
        Places (pixel).
    candidates : ndarray of bool, shape (n,)
        Those that count.
    taken : ndarray of float64, shape (m, 2)
        x, y of what is taken.
    radius : float
        Least distance (pixel).

    Returns
    -------
    ndarray of bool, shape (n,)
        Those that stay.
    """
    keep = candidates.copy()
    places = np.column_stack([x, y])
    if len(taken):
        distance, _ = cKDTree(taken).query(np.where(candidates[:, None], places, 1e9))
        keep &= distance >= radius
    rows = np.flatnonzero(keep)
    for first, second in sorted(map(tuple, cKDTree(places[rows]).query_pairs(radius))) if len(rows) else ():
        if keep[rows[first]]:
            keep[rows[second]] = False
    return keep


@dataclass(frozen=True, slots=True)
class PlacementOptions:
    """Number, places and brightness of synthetic transients.

    Attributes
    ----------
    injected, transplanted : float
        Stars of the PSF model, and pixels of minor planets, for each million pixels.
    on_hosts : float
        Part of the injected stars that is put on a galaxy; minor planets all are. The rest is uniform over the frame.
    max_offset : float
        Largest distance from the host (half-light radii); offsets are uniform from 0 to it.
    host_power : float
        A host is drawn with a probability proportional to its flux to this power: 0 all galaxies alike, 1 by light, as
        transients come. One half keeps the few bright and extended ones, on which subtraction is hard, and most of
        the others.
    min_radius : float
        Smallest half-light radius of a host (pixel): below it, offsets mean nothing.
    min_snr, max_snr : float
        Range of the signal-to-noise ratio that the source would have on the science frame, log-uniform (uniform in
        magnitude). The lowest lies below the limit of every survey.
    separation : float
        Least distance between any two sources that are new, and to those known to change (full widths at half
        maximum).
    fading : float
        Part of the injected stars that is put into the template instead of the science frame: light that is gone.
        One in four is one in five of all synthetic transients. Where none fades, a network takes fading for bogus.
    varied : float
        Stars whose light changes, for each million pixels, half of them up and half down
        (`models.synthesis.template_light`).
    least_variation, most_variation : float
        By which part of its light such a star changes, uniform.
    """

    injected: float = 170.0
    transplanted: float = 60.0
    on_hosts: float = 0.6
    max_offset: float = 5.0
    host_power: float = 0.5
    min_radius: float = 0.3
    min_snr: float = 3.5
    max_snr: float = 200.0
    separation: float = 4.0
    fading: float = 0.25
    varied: float = 40.0
    least_variation: float = 0.1
    most_variation: float = 0.6


@dataclass(frozen=True, slots=True, eq=False)
class Placement:
    """Synthetic transients of one exposure, before anything is drawn.

    Attributes
    ----------
    x, y : ndarray of float64, shape (n,)
        Positions (pixel).
    flux : ndarray of float64, shape (n,)
        Fluxes (ADU).
    source : ndarray of str, shape (n,)
        ``"injected"``, ``"transplanted"`` or ``"faded"``.
    host : ndarray of int64, shape (n,)
        Row of the host among the galaxies, -1 without.
    offset : ndarray of float64, shape (n,)
        Distance from it (half-light radii), NaN without.
    """

    x: Values
    y: Values
    flux: Values
    source: npt.NDArray[np.str_]
    host: npt.NDArray[np.int64]
    offset: Values

    def __len__(self) -> int:
        return len(self.x)

    def take(self, rows: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> Placement:
        """Some of the transients, by row or by mask."""
        names = ("x", "y", "flux", "source", "host", "offset")
        return Placement(*(getattr(self, name)[rows] for name in names))


def place(
    seed: int,
    key: tuple[str, ...],
    shape: tuple[int, int],
    *,
    noise: Values | npt.NDArray[np.float32],
    fwhm: float,
    galaxies: Galaxies,
    taken: Values,
    options: PlacementOptions,
) -> Placement:
    """Draw the synthetic transients of one exposure.

    Parameters
    ----------
    seed : int
        Seed of the set.
    key : tuple of str
        What names the exposure and its reduction; the draw depends on seed and key only.
    shape : tuple of int
        ``(ny, nx)``.
    noise : ndarray, shape (ny, nx)
        Standard deviation of the flux of a point source at each pixel (ADU); not finite where nothing can be put.
    fwhm : float
        Full width at half maximum of a star (pixel).
    galaxies : Galaxies
        Possible hosts.
    taken : ndarray of float64, shape (m, 2)
        x, y of what is known to change on the frame.
    options : PlacementOptions
        Number, places and brightness.

    Returns
    -------
    Placement
        The transients; fewer than asked for where the frame has no room.
    """
    rng = generator(seed, "placement", *key)
    area = shape[0] * shape[1] / 1e6
    wanted = {one: int(rng.poisson(getattr(options, one) * area)) for one in (INJECTED, TRANSPLANTED)}
    source = np.repeat([INJECTED, TRANSPLANTED], [wanted[INJECTED], wanted[TRANSPLANTED]])
    source = source[rng.permutation(len(source))]
    n = len(source)
    x, y = rng.uniform(-0.5, shape[1] - 0.5, n), rng.uniform(-0.5, shape[0] - 0.5, n)
    hosted = (source == TRANSPLANTED) | (rng.random(n) < options.on_hosts)
    host = np.full(n, -1, dtype=np.int64)
    offset = np.full(n, np.nan)
    busy = busy_galaxies(galaxies, taken, options.max_offset, separation=options.separation * fwhm)
    drawn = draw_hosts(rng, galaxies, int(hosted.sum()), options=options, free=~busy)
    hosted = np.flatnonzero(hosted)[: len(drawn)]
    host[hosted], offset[hosted] = drawn, rng.uniform(0.0, options.max_offset, len(drawn))
    x[hosted], y[hosted] = positions_beside(rng, galaxies, drawn, offset=offset[hosted])
    keep = (source == INJECTED) | (host >= 0)
    columns, rows = np.floor(x + 0.5).astype(np.int64), np.floor(y + 0.5).astype(np.int64)
    keep &= (columns >= 0) & (rows >= 0) & (columns < shape[1]) & (rows < shape[0])
    sigma = np.full(n, np.nan)
    sigma[keep] = noise[rows[keep], columns[keep]]
    snr = np.exp(rng.uniform(np.log(options.min_snr), np.log(options.max_snr), n))
    keep &= np.isfinite(sigma)
    keep &= separated(x, y, keep, taken=taken, radius=options.separation * fwhm)
    return Placement(x, y, snr * sigma, source.astype(np.str_), host, offset).take(keep)


def draw_hosts(
    rng: np.random.Generator,
    galaxies: Galaxies,
    n: int,
    *,
    options: PlacementOptions,
    free: npt.NDArray[np.bool_] | None = None,
) -> npt.NDArray[np.int64]:
    """Draw hosts by the prior ``p ~ flux**host_power``, none twice.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    galaxies : Galaxies
        Possible hosts; those without a magnitude count as the faintest one known.
    n : int
        Number of hosts wanted.
    options : PlacementOptions
        Prior and least radius.
    free : ndarray of bool, optional
        Galaxies that may be drawn; all when not given.

    Returns
    -------
    ndarray of int64, shape (at most n,)
        Rows; fewer where there are fewer galaxies large enough.
    """
    fit = np.flatnonzero((galaxies.radius >= options.min_radius) & (True if free is None else free))
    if not len(fit) or n == 0:
        return np.empty(0, dtype=np.int64)
    mag = galaxies.mag[fit]
    mag = np.where(np.isfinite(mag), mag, np.max(mag[np.isfinite(mag)], initial=0.0))
    weight = 10 ** (-0.4 * options.host_power * (mag - mag.min()))
    # weighted without replacement: Efraimidis & Spirakis (2006)
    return np.asarray(fit[np.argsort(rng.exponential(size=len(fit)) / weight)][:n], dtype=np.int64)


def positions_beside(
    rng: np.random.Generator, galaxies: Galaxies, host: npt.NDArray[np.int64], *, offset: Values
) -> tuple[Values, Values]:
    """Draw positions x, y (n,) (pixel) at offsets (half-light radii) from hosts, rows of the galaxies.

    On the ellipse of equal light, uniform in eccentric angle.
    """
    phi = rng.uniform(0.0, 2.0 * np.pi, len(host))
    along = offset * galaxies.radius[host] * np.cos(phi)
    across = offset * galaxies.radius[host] * galaxies.axis_ratio[host] * np.sin(phi)
    cosine, sine = np.cos(galaxies.angle[host]), np.sin(galaxies.angle[host])
    return galaxies.x[host] + cosine * along - sine * across, galaxies.y[host] + sine * along + cosine * across


def nearest_with_phase(
    galaxies: Galaxies,
    host: npt.NDArray[np.int64],
    offset: Values,
    *,
    at: tuple[Values, Values],
    phase: Values,
    most: float,
) -> tuple[Values, Values]:
    """Places for sources that keep their sub-pixel phase: of the nearest nine, that whose offset is the one drawn.

    Taking the nearest place of all would leave few small offsets in galaxies as small as a pixel, and some beyond the
    largest.

    Parameters
    ----------
    galaxies : Galaxies
        The galaxies.
    host : ndarray of int64, shape (n,)
        Rows of the hosts.
    offset : ndarray of float64, shape (n,)
        Offsets drawn (half-light radii).
    at : (ndarray, ndarray) of float64, shape (n,)
        x, y wanted (pixel).
    phase : ndarray of float64, shape (2, n)
        x, y of each source from the centre of its nearest pixel (pixel).
    most : float
        Largest offset (half-light radii); a place beyond it is taken only where there is no other.

    Returns
    -------
    x, y : ndarray of float64, shape (n,)
        Places (pixel) on whole pixels plus the phase, within 1.5 px of those wanted along each axis.
    """
    side = np.repeat([-1.0, 0.0, 1.0], 3), np.tile([-1.0, 0.0, 1.0], 3)
    places = [np.floor(one - own + 0.5) + own + step[:, None] for one, own, step in zip(at, phase, side, strict=True)]
    x, y = (one.ravel() for one in places)
    came = galaxies.offsets(np.tile(host, len(side[0])), x, y).reshape(len(side[0]), -1)
    best = np.argmin(np.abs(came - offset) + 1e3 * (came > most), axis=0)
    every = np.arange(len(host))
    return places[0][best, every], places[1][best, every]
