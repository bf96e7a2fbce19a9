"""What can be chosen of a simulated survey (sky, transients, artefacts, exposures), and the named surveys."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from nightsift.core.errors import ConfigurationError
from nightsift.simulate.unit_options import DetectorOptions, OpticsOptions, UnitOptions, random_unit


@dataclass(frozen=True, slots=True)
class SkyOptions:
    """Static sky.

    Attributes
    ----------
    galactic_latitude : float
        Sets the density of stars (deg).
    star_density : float
        Factor on the density of stars.
    galaxy_density : float
        Factor on the density of galaxies.
    brightest : float
        Brightest star (mag).
    """

    galactic_latitude: float = 45.0
    star_density: float = 1.0
    galaxy_density: float = 1.0
    brightest: float = 8.0


@dataclass(frozen=True, slots=True)
class TransientOptions:
    """What moves, varies and appears: mean number on a frame, by kind.

    Fluxes are log-uniform in the signal-to-noise ratio that the object reaches under the unit's median
    conditions.

    Attributes
    ----------
    supernova, hostless, nuclear, variable, asteroid : float
        Mean number on a frame.
    min_snr, max_snr : float
        Range of the signal-to-noise ratio.
    following_light : float
        Fraction of the supernovae whose positions follow their host's light; the others are uniform in the
        effective radii of their host, from 0 to `max_offset`.
    max_offset : float
        Largest host offset (effective radii).
    separation : float
        Smallest distance between two of them (full widths at half maximum).
    min_rate, max_rate : float
        Range of the asteroids' motion (arcsec/min), log-uniform.
    """

    supernova: float = 8.0
    hostless: float = 4.0
    nuclear: float = 2.0
    variable: float = 4.0
    asteroid: float = 3.0
    min_snr: float = 3.0
    max_snr: float = 100.0
    following_light: float = 0.5
    max_offset: float = 5.0
    separation: float = 6.0
    min_rate: float = 0.15
    max_rate: float = 4.0


@dataclass(frozen=True, slots=True)
class ArtefactOptions:
    """What spoils frames.

    Attributes
    ----------
    cosmic_rays : float
        Cosmic rays per million pixels and minute.
    streak_probability : float
        Probability that a frame has a satellite streak.
    ghost_flux : float
        Flux of a ghost over that of its star.
    cloud_probability : float
        Probability that an exposure has clouds.
    cloud_extinction : float
        Largest extinction by clouds (mag).
    gradient : float
        Largest gradient of the sky over the frame, relative.
    moon : float
        Largest brightening of the sky by the Moon (mag).
    """

    cosmic_rays: float = 12.0
    streak_probability: float = 0.15
    ghost_flux: float = 2e-4
    cloud_probability: float = 0.15
    cloud_extinction: float = 1.0
    gradient: float = 0.05
    moon: float = 1.5


@dataclass(frozen=True, slots=True)
class SimulationOptions:
    """A simulated survey.

    Attributes
    ----------
    name : str
        Name of the survey.
    seed : int
        Everything drawn depends on it and on nothing else.
    units : tuple of UnitOptions
        The telescope units.
    fields : int
        Fields of each unit.
    nights : tuple of str
        Nights of the survey (local date of the evening).
    visits : int
        Visits to each field in a night.
    visit_minutes : float
        Time between visits (min).
    template_frames : int
        Frames of each field taken on earlier nights, for templates.
    sky : SkyOptions
        Static sky.
    transients : TransientOptions
        What moves, varies and appears.
    artefacts : ArtefactOptions
        What spoils frames.
    compress : bool
        Write tile-compressed ``.fits.fz`` instead of ``.fits``.
    threshold : float
        Real/bogus threshold written into the unit files.
    model : str
        Model named in the unit files.
    """

    name: str
    seed: int
    units: tuple[UnitOptions, ...]
    fields: int = 3
    nights: tuple[str, ...] = ("2026-11-20",)
    visits: int = 4
    visit_minutes: float = 25.0
    template_frames: int = 5
    sky: SkyOptions = field(default_factory=SkyOptions)
    transients: TransientOptions = field(default_factory=TransientOptions)
    artefacts: ArtefactOptions = field(default_factory=ArtefactOptions)
    compress: bool = False
    threshold: float = 0.796
    model: str = "base"

    @classmethod
    def preset(cls, name: str, seed: int = 1, **changes: Any) -> SimulationOptions:
        """Return the options of a named preset, some replaced; `ConfigurationError` for a name that is not known."""
        if name not in PRESETS:
            raise _wrong("preset", name, list(PRESETS))
        known = [one.name for one in dataclasses.fields(cls)]
        for key in changes:
            if key not in known:
                raise _wrong(key, changes[key], known)
        return dataclasses.replace(PRESETS[name](seed), **changes)


def _wrong(key: str, value: object, known: list[str]) -> ConfigurationError:
    close = get_close_matches(str(value if key == "preset" else key), known, 1)
    advice = f"did you mean '{close[0]}'?" if close else f"choose one of {', '.join(known)}"
    what = f"'{value}' is not known" if key == "preset" else "there is no such option"
    return ConfigurationError(file="options of the simulation", table="simulate", key=key, what=what, advice=advice)


def _tiny(seed: int) -> SimulationOptions:
    optics = OpticsOptions(seeing=3.6, coma=0.4)
    unit = UnitOptions(
        name="tiny-1", shape=(320, 384), pixel_scale=1.4, zero_point=21.8, dither=6.0, distortion=0.8, optics=optics
    )
    return SimulationOptions(
        name="tiny",
        seed=seed,
        units=(unit,),
        fields=1,
        visits=2,
        template_frames=3,
        sky=SkyOptions(galactic_latitude=18.0, brightest=10.5),
        transients=TransientOptions(supernova=4, hostless=3, nuclear=1, variable=2, asteroid=2),
        artefacts=ArtefactOptions(cloud_probability=0.0),
    )


def _good_unit() -> UnitOptions:
    """A well-behaved telescope with a CCD."""
    return UnitOptions(
        name="north-1",
        shape=(1024, 1024),
        pixel_scale=1.24,
        zero_point=22.4,
        rotation=2.0,
        optics=OpticsOptions(seeing=3.4, beta=3.3, ellipticity=0.05, coma=0.5, defocus=0.3, curvature=0.4),
        detector=DetectorOptions(gain=0.62, read_noise=5.0, full_well=38000.0, hot_columns=2, vignetting=0.1),
    )


def _wide_unit() -> UnitOptions:
    """A wide, mildly undersampled one with coma, whose header has no distortion."""
    return UnitOptions(
        name="south-2",
        shape=(1024, 1056),
        pixel_scale=2.1,
        zero_point=21.9,
        exposure=40.0,
        band="r",
        rotation=182.0,
        longitude=149.07,
        latitude=-31.27,
        header_wcs="linear",
        distortion=5.0,
        optics=OpticsOptions(
            seeing=3.9, beta=3.8, ellipticity=0.08, ellipticity_angle=70.0, coma=1.3, astigmatism=0.7, curvature=0.6
        ),
        detector=DetectorOptions(
            gain=1.5,
            read_noise=9.0,
            full_well=90000.0,
            pedestal=300,
            hot_columns=3,
            dead_columns=1,
            vignetting=0.22,
            flat_error=0.005,
        ),
    )


def _small_unit() -> UnitOptions:
    """A small, defocused one with a CMOS camera, without WCS."""
    return UnitOptions(
        name="south-3",
        shape=(960, 1080),
        pixel_scale=1.05,
        zero_point=21.6,
        exposure=90.0,
        band="g",
        rotation=95.0,
        parity=1,
        longitude=149.07,
        latitude=-31.27,
        header_wcs="none",
        rotation_jitter=0.25,
        dither=25.0,
        sky_mag=20.4,
        optics=OpticsOptions(
            seeing=3.3, beta=2.9, defocus=2.3, focus_jitter=0.3, tilt_x=0.6, coma=0.4, trail=1.2, obstruction=0.45
        ),
        detector=DetectorOptions(
            gain=0.25, read_noise=2.2, full_well=15500.0, bleed=False, dark=0.4, hot_pixels=400.0, dead_pixels=80.0
        ),
    )


def _demo(seed: int) -> SimulationOptions:
    """Three unlike units."""
    return SimulationOptions(
        name="demo",
        seed=seed,
        units=(_good_unit(), _wide_unit(), _small_unit()),
        fields=3,
        sky=SkyOptions(galactic_latitude=18.0),
    )


def _training(seed: int) -> SimulationOptions:
    units = tuple(random_unit(seed, index) for index in range(8))
    return SimulationOptions(
        name="training",
        seed=seed,
        units=units,
        fields=3,
        visits=3,
        sky=SkyOptions(galactic_latitude=30.0, galaxy_density=2.0),
        transients=TransientOptions(supernova=90, hostless=30, nuclear=20, variable=25, asteroid=20),
        artefacts=ArtefactOptions(streak_probability=0.35, cloud_probability=0.25),
    )


PRESETS: dict[str, Callable[[int], SimulationOptions]] = {"tiny": _tiny, "demo": _demo, "training": _training}
