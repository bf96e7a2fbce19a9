"""Header of a simulated exposure, as a camera writes it."""

from __future__ import annotations

import math

import numpy as np
from astropy.io import fits
from astropy.time import Time

from nightsift.simulate.detector import saturation_level
from nightsift.simulate.options import SimulationOptions
from nightsift.simulate.plan import Exposure
from nightsift.simulate.projection import TanSip
from nightsift.sky.sphere import offset_position


def make_header(
    options: SimulationOptions, exposure: Exposure, wcs: TanSip, rng: np.random.Generator, name: str
) -> fits.Header:
    """Cards of an exposure, its coordinates a little off.

    Parameters
    ----------
    options : SimulationOptions
        The survey.
    exposure : Exposure
        The exposure.
    wcs : TanSip
        True coordinates.
    rng : numpy.random.Generator
        Source of randomness for the errors of the coordinates.
    name : str
        Name of the file.

    Returns
    -------
    astropy.io.fits.Header
        The cards; RA and DEC are the nominal pointing, a WCS is there when the unit writes one.
    """
    unit, detector = exposure.unit, exposure.unit.detector
    header = fits.Header()
    header["OBJECT"] = (exposure.field.name, "field")
    header["TELESCOP"] = (unit.name, "telescope unit")
    header["FILTER"] = (unit.band, "filter")
    header["DATE-OBS"] = (Time(exposure.mjd, format="mjd").isot, "start of the exposure, UTC")
    header["EXPTIME"] = (unit.exposure, "[s] exposure time")
    header["GAIN"] = (detector.gain, "[electron/adu]")
    header["RDNOISE"] = (detector.read_noise, "[electron]")
    header["SATURATE"] = (saturation_level(detector), "[adu]")
    header["PEDESTAL"] = (detector.pedestal, "[adu] bias level")
    header["PIXSCALE"] = (unit.pixel_scale, "[arcsec/pixel]")
    nominal = unit.zero_point + 2.5 * math.log10(unit.exposure / detector.gain)
    header["MAGZP"] = (round(nominal, 3), "[mag] nominal magnitude of 1 adu")
    header["FILENAME"] = name
    header["SIMSEED"] = (options.seed, "simulated: seed of the survey")
    scale = unit.pixel_scale / 3600.0
    east, north = rng.normal(0.0, unit.wcs_error * scale / np.sqrt(2.0), 2)
    ra, dec = offset_position(np.array([wcs.ra]), np.array([wcs.dec]), np.array([east]), np.array([north]))
    header["RA"], header["DEC"] = (
        (round(float(ra[0]), 6), "[deg] pointing"),
        (round(float(dec[0]), 6), "[deg] pointing"),
    )
    angle = rng.normal(0.0, unit.wcs_error / (0.5 * max(unit.shape)) / 4.0)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if unit.header_wcs != "none":
        told = TanSip(float(ra[0]), float(dec[0]), wcs.crpix, turn @ wcs.cd, wcs.a, wcs.b)
        header.update(told.header(distortion=unit.header_wcs == "sip"))
    return header
