"""How one exposure sees the sky: coordinates, point-spread function, clouds, flux scale and noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from nightsift.core.random import generator
from nightsift.simulate.artefacts import Clouds, draw_clouds
from nightsift.simulate.field import sky_electrons
from nightsift.simulate.optics import FramePsf, make_psf
from nightsift.simulate.options import SimulationOptions
from nightsift.simulate.plan import Exposure
from nightsift.simulate.projection import TanSip, make_projection


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """What turns positions and magnitudes into pixels and electrons.

    Attributes
    ----------
    exposure : Exposure
        The exposure.
    wcs : TanSip
        True coordinates.
    psf : FramePsf
        Point-spread function.
    clouds : Clouds
        Extinction.
    electrons : float
        Electrons from magnitude zero without extinction.
    sky : float
        Electrons per pixel from the sky.
    noise : float
        Noise of a pixel of empty sky (electron).
    """

    exposure: Exposure
    wcs: TanSip
    psf: FramePsf
    clouds: Clouds
    electrons: float
    sky: float
    noise: float


def make_view(options: SimulationOptions, exposure: Exposure) -> View:
    """View of one exposure.

    Parameters
    ----------
    options : SimulationOptions
        The survey.
    exposure : Exposure
        The exposure.

    Returns
    -------
    View
        The view.
    """
    unit = exposure.unit
    wcs = _true_wcs(exposure)
    # Bad tracking smears along right ascension.
    east = np.linalg.inv(wcs.cd) @ np.array([1.0, 0.0])
    trail = exposure.trail * east / np.hypot(*east)
    psf = make_psf(
        unit.optics,
        unit.shape,
        unit.pixel_scale,
        exposure.seeing,
        exposure.defocus,
        (float(trail[0]), float(trail[1])),
    )
    sky = sky_electrons(unit, exposure.sky_mag)
    rng = generator(options.seed, *exposure.key(), "clouds")
    return View(
        exposure=exposure,
        wcs=wcs,
        psf=psf,
        clouds=draw_clouds(rng, unit.shape, exposure.extinction, exposure.cloudy),
        electrons=unit.exposure * 10 ** (0.4 * unit.zero_point),
        sky=sky,
        noise=math.sqrt(sky + unit.detector.dark * unit.exposure + unit.detector.read_noise**2),
    )


def _true_wcs(exposure: Exposure) -> TanSip:
    """Shift the pointing by the dither; the distortion stays with the optics."""
    unit = exposure.unit
    camera = (unit.pixel_scale, unit.rotation + exposure.turn, unit.parity, unit.distortion)
    straight = make_projection(exposure.field.ra, exposure.field.dec, unit.shape, *camera)
    centre = np.array(straight.crpix)
    ra, dec = straight.to_world(centre[:1] + exposure.shift[0], centre[1:] + exposure.shift[1])
    return make_projection(float(ra[0]), float(dec[0]), unit.shape, *camera)
