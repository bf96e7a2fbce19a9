"""A field of the survey: everything on its sky, what appears, varies and moves in it, and the unit's detector."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nightsift.core.random import generator
from nightsift.simulate.detector import Detector, make_detector
from nightsift.simulate.galaxies import Galaxies, Stars, draw_galaxies, draw_radii, draw_stars, scatter
from nightsift.simulate.optics import make_psf
from nightsift.simulate.options import SimulationOptions, TransientOptions
from nightsift.simulate.plan import Field, plan_exposures
from nightsift.simulate.unit_options import UnitOptions
from nightsift.sky.sphere import offset_position, separation

Values = npt.NDArray[np.float64]
KINDS = ("supernova", "hostless", "nuclear", "variable", "asteroid")


@dataclass(frozen=True, slots=True, eq=False)
class Transients:
    """Objects of a field that are not the same at every time; one row each.

    Attributes
    ----------
    object_id : tuple of str
        Identities.
    kind : ndarray of str, shape (n,)
        One of `KINDS`.
    ra, dec : ndarray of float64, shape (n,)
        Positions (deg), of asteroids at `epoch`.
    mag : ndarray of float64, shape (n,)
        Magnitude; the mean one of a variable star.
    amplitude, period, phase : ndarray of float64, shape (n,)
        Semi-amplitude (mag), period (d) and phase (0 to 1) of variable stars, 0 for others.
    east, north : ndarray of float64, shape (n,)
        Motion (arcsec/min), 0 for others than asteroids.
    host : ndarray of int, shape (n,)
        Row of the host galaxy, -1 without.
    offset : ndarray of float64, shape (n,)
        Distance from the host (effective radii), NaN without.
    epoch : float
        Time of the positions (MJD).
    """

    object_id: tuple[str, ...]
    kind: npt.NDArray[np.str_]
    ra: Values
    dec: Values
    mag: Values
    amplitude: Values
    period: Values
    phase: Values
    east: Values
    north: Values
    host: npt.NDArray[np.int64]
    offset: Values
    epoch: float

    def positions(self, mjd: float) -> tuple[Values, Values]:
        """Return right ascensions and declinations (deg) at a time (MJD), shape (n,)."""
        degrees = (mjd - self.epoch) * 1440.0 / 3600.0
        return offset_position(self.ra, self.dec, self.east * degrees, north=self.north * degrees)

    def relative_flux(self, mjd: float, night: bool) -> Values:
        """Return fluxes at a time (MJD) over that of magnitude zero; only variable stars shine on template nights."""
        cycle = (mjd / np.where(self.period > 0, self.period, 1.0) + self.phase) % 1.0
        # Steep rise, slow decline: two harmonics of a pulsating star.
        wave = -0.8 * np.sin(2 * np.pi * cycle) - 0.3 * np.sin(4 * np.pi * cycle)
        flux = 10 ** (-0.4 * (self.mag + self.amplitude * wave))
        return np.asarray(np.where((self.kind == "variable") | night, flux, 0.0))


def draw_transients(
    rng: np.random.Generator,
    field: str,
    centre: tuple[float, float],
    *,
    half_width: float,
    per_frame: float,
    faintest: float,
    epoch: float,
    galaxies: Galaxies,
    options: TransientOptions,
    separation: float = 0.0,
) -> Transients:
    """Draw all transients, variables and movers of a field.

    Hosts are drawn with weights of the square root of their light, so that the few bright and extended
    galaxies, on which subtraction is hard, are not lost among the many small ones.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    field : str
        Name of the field, part of the identities.
    centre : tuple of float
        Centre ``(ra, dec)`` (deg).
    half_width : float
        Half the width of the field (deg).
    per_frame : float
        Area of the field over that of a frame.
    faintest : float
        Magnitude that reaches a signal-to-noise ratio of one under median conditions.
    epoch : float
        Middle of the night (MJD).
    galaxies : Galaxies
        Possible hosts.
    options : TransientOptions
        Numbers and ranges.
    separation : float, optional
        Smallest distance between two objects (deg); of two nearer ones the later drawn is left out.

    Returns
    -------
    Transients
        The objects.
    """
    hosts = np.flatnonzero(galaxies.mag < faintest - 1.0)
    wanted = {kind: float(getattr(options, kind)) for kind in KINDS}
    if not len(hosts):
        wanted["supernova"] = wanted["nuclear"] = 0.0
    kinds = np.repeat(KINDS, [rng.poisson(wanted[kind] * per_frame) for kind in KINDS])
    n = len(kinds)
    ra, dec = scatter(rng, centre, half_width, n=n)
    snr = np.exp(rng.uniform(np.log(options.min_snr), np.log(options.max_snr), n))
    mag = faintest - 2.5 * np.log10(snr)
    host, offset = np.full(n, -1), np.full(n, np.nan)
    needy = np.flatnonzero((kinds == "supernova") | (kinds == "nuclear"))
    if len(needy):  # each host once as long as there are enough
        rounds = [_bright_first(rng, galaxies, hosts) for _ in range(len(needy) // len(hosts) + 1)]
        host[rng.permutation(needy)] = np.concatenate(rounds)[: len(needy)]
    bound = host >= 0
    offset[bound] = _host_offsets(rng, kinds[bound], galaxies.index[host[bound]], options=options)
    ra[bound], dec[bound] = _beside_hosts(rng, galaxies, host[bound], offset=offset[bound], kinds=kinds[bound])
    variable, moving = kinds == "variable", kinds == "asteroid"
    # The *change* of a variable star is what is drawn; the star itself is brighter.
    amplitude = np.where(variable, np.exp(rng.uniform(np.log(0.08), np.log(0.6), n)), 0.0)
    mag = np.where(variable, mag + 2.5 * np.log10(np.clip(0.9 * amplitude, 0.05, 1.0)), mag)
    rate = np.where(moving, np.exp(rng.uniform(np.log(options.min_rate), np.log(options.max_rate), n)), 0.0)
    angle = rng.uniform(0, 2 * np.pi, n)
    period = np.where(variable, np.exp(rng.uniform(np.log(0.08), np.log(3.0), n)), 0.0)
    phase = rng.random(n)
    keep = _apart(rng.permutation(n), ra, dec, least=separation)
    return Transients(
        object_id=tuple(f"{field}-{kinds[row][:2]}{row:05d}" for row in keep),
        kind=kinds[keep],
        ra=ra[keep],
        dec=dec[keep],
        mag=mag[keep],
        amplitude=amplitude[keep],
        period=period[keep],
        phase=phase[keep],
        east=(rate * np.sin(angle))[keep],
        north=(rate * np.cos(angle))[keep],
        host=host[keep],
        offset=offset[keep],
        epoch=epoch,
    )


def _bright_first(rng: np.random.Generator, galaxies: Galaxies, hosts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Draw all hosts without replacement, weighted by the root of their light (Efraimidis & Spirakis 2006)."""
    weight = 10 ** (-0.2 * (galaxies.mag[hosts] - galaxies.mag[hosts].min()))
    return hosts[np.argsort(rng.exponential(size=len(hosts)) / weight)]


def _apart(order: npt.NDArray[np.int64], ra: Values, dec: Values, *, least: float) -> npt.NDArray[np.int64]:
    """Rows, sorted, of which no two are nearer than the least distance (deg); earlier ones in `order` stay."""
    taken = np.zeros(len(ra), dtype=bool)
    for row in order:
        taken[row] = not (separation(ra[taken], dec[taken], ra[row], dec[row]) < least).any()
    return np.flatnonzero(taken)


def _host_offsets(
    rng: np.random.Generator, kinds: npt.NDArray[np.str_], index: Values, *, options: TransientOptions
) -> Values:
    n = len(kinds)
    offset = rng.uniform(0.0, options.max_offset, n)
    light = rng.random(n) < options.following_light
    fractions = rng.random(n)
    for sersic in np.unique(index):
        rows = light & (index == sersic)
        offset[rows] = draw_radii(float(sersic), fractions[rows])
    return np.where(kinds == "nuclear", 0.0, offset)


def _beside_hosts(
    rng: np.random.Generator,
    galaxies: Galaxies,
    host: npt.NDArray[np.int64],
    *,
    offset: Values,
    kinds: npt.NDArray[np.str_],
) -> tuple[Values, Values]:
    """Positions on ellipses of equal host light; at the angles where a disc's light is."""
    phi = rng.uniform(0, 2 * np.pi, len(host))
    along = offset * galaxies.radius[host] * np.cos(phi)
    across = offset * galaxies.radius[host] * galaxies.axis_ratio[host] * np.sin(phi)
    angle = np.deg2rad(galaxies.angle[host])
    east = along * np.sin(angle) + across * np.cos(angle)
    north = along * np.cos(angle) - across * np.sin(angle)
    return offset_position(galaxies.ra[host], galaxies.dec[host], east / 3600.0, north=north / 3600.0)


@dataclass(frozen=True, slots=True, eq=False)
class FieldSky:
    """Everything on the sky of one field, and the detector that looks at it.

    Attributes
    ----------
    field : Field
        The field.
    stars : Stars
        Its stars.
    galaxies : Galaxies
        Its galaxies.
    transients : Transients
        What appears, varies and moves in it.
    template_mjds : tuple of float
        Mid-exposure times of the frames for the template.
    detector : Detector
        The unit's detector.
    """

    field: Field
    stars: Stars
    galaxies: Galaxies
    transients: Transients
    template_mjds: tuple[float, ...]
    detector: Detector


def noise_magnitude(unit: UnitOptions, sky_mag: float, noise_pixels: float) -> float:
    """Return the magnitude of a point source of signal-to-noise ratio one, optimally weighted.

    `sky_mag` is in mag/arcsec2, `noise_pixels` is ``1 / sum(psf**2)``.
    """
    variance = sky_electrons(unit, sky_mag) + unit.detector.dark * unit.exposure + unit.detector.read_noise**2
    return unit.zero_point - 2.5 * math.log10(math.sqrt(variance * noise_pixels) / unit.exposure)


def make_sky(options: SimulationOptions, unit: UnitOptions, field: Field) -> FieldSky:
    """Draw the sky of one field.

    Parameters
    ----------
    options : SimulationOptions
        The survey.
    unit : UnitOptions
        The unit that observes the field.
    field : Field
        The field.

    Returns
    -------
    FieldSky
        Stars, galaxies, transients and the unit's detector.
    """
    psf = make_psf(unit.optics, unit.shape, unit.pixel_scale, seeing=unit.optics.seeing)
    faintest = noise_magnitude(unit, unit.sky_mag - 0.3, psf.noise_pixels)
    scale = unit.pixel_scale / 3600.0
    turn = np.deg2rad(unit.rotation)
    ny, nx = unit.shape
    widths = nx * abs(np.cos(turn)) + ny * abs(np.sin(turn)), nx * abs(np.sin(turn)) + ny * abs(np.cos(turn))
    half_width = float(0.5 * max(widths) + unit.dither + 0.02 * max(ny, nx) + 16) * scale
    centre = (field.ra, field.dec)

    def rng(what: str) -> np.random.Generator:
        return generator(options.seed, unit.name, field.name, what)

    galaxies = draw_galaxies(rng("galaxies"), centre, half_width, faintest=faintest + 1.0, options=options.sky)
    exposures = plan_exposures(options, unit, field)
    nightly = [e.mid_mjd for e in exposures if e.role == "night"]
    transients = draw_transients(
        rng("transients"),
        field.name,
        centre,
        half_width=half_width,
        per_frame=(2 * half_width) ** 2 / (nx * ny * scale**2),
        faintest=faintest,
        epoch=float(np.mean(nightly)) if nightly else 0.0,
        galaxies=galaxies,
        options=options.transients,
        separation=options.transients.separation * psf.fwhm * scale,
    )
    return FieldSky(
        field,
        draw_stars(rng("stars"), centre, half_width, faintest=faintest + 1.0, options=options.sky),
        galaxies,
        transients,
        tuple(e.mid_mjd for e in exposures if e.role == "template"),
        make_detector(generator(options.seed, unit.name, "detector"), unit.shape, unit.detector),
    )


def sky_electrons(unit: UnitOptions, sky_mag: float) -> float:
    """Return the electrons per pixel that a sky of `sky_mag` (mag/arcsec2) gives in one exposure."""
    return unit.exposure * unit.pixel_scale**2 * 10 ** (-0.4 * (sky_mag - unit.zero_point))
