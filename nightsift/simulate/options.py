"""What can be chosen of a simulated survey: sky, transients, artefacts, exposures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nightsift.simulate.unit_options import UnitOptions


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
        """Options of a named preset.

        Parameters
        ----------
        name : str
            ``"tiny"``, ``"demo"`` or ``"training"``.
        seed : int, optional
            Seed of the survey.
        **changes : Any
            Attributes to replace.

        Returns
        -------
        SimulationOptions
            The options.

        Raises
        ------
        ConfigurationError
            If there is no preset of that name.
        """
        from nightsift.simulate.presets import preset  # presets are made of these classes

        return preset(name, seed, changes)


Changes = Mapping[str, Any]
