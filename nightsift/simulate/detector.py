"""From photons to integers and their header: response, defects, noise, saturation and bleeding, conversion."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from astropy.io import fits
from astropy.time import Time
from numba import njit

from nightsift.simulate.options import SimulationOptions
from nightsift.simulate.plan import Exposure
from nightsift.simulate.projection import TanSip
from nightsift.simulate.unit_options import DetectorOptions
from nightsift.sky.sphere import offset_position

Image = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Detector:
    """Fixed properties of one detector.

    Attributes
    ----------
    options : DetectorOptions
        What it was made from.
    response : ndarray of float32, shape (ny, nx)
        Relative response of each pixel: vignetting, pixel-to-pixel errors, dead pixels and columns.
    hot : ndarray of float32, shape (ny, nx)
        Charge that hot pixels and columns add (electron/s).
    defect : ndarray of bool, shape (ny, nx)
        Hot and dead pixels and columns.
    axis : tuple of float
        Centre ``(x, y)`` of the vignetting (pixel).
    """

    options: DetectorOptions
    response: Image
    hot: Image
    defect: npt.NDArray[np.bool_]
    axis: tuple[float, float]

    def shade(self, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the vignetting at positions (pixel), which broadcast: 1 on the axis."""
        ny, nx = self.response.shape
        return _shade(x, y, self.axis, shape=(ny, nx), vignetting=self.options.vignetting)


def make_detector(rng: np.random.Generator, shape: tuple[int, int], options: DetectorOptions) -> Detector:
    """Draw a detector.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness, always the same for one unit.
    shape : tuple of int
        ``(ny, nx)``.
    options : DetectorOptions
        Properties.

    Returns
    -------
    Detector
        The detector.
    """
    ny, nx = shape
    cx, cy = rng.normal((nx - 1) / 2, 0.03 * nx), rng.normal((ny - 1) / 2, 0.03 * ny)
    v, u = np.ogrid[:ny, :nx]
    response = _shade(u, v, (cx, cy), shape=shape, vignetting=options.vignetting).astype(np.float32)
    response += np.float32(options.flat_error) * rng.standard_normal(shape, dtype=np.float32)
    defect, hot = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=np.float32)
    _plant_pixels(rng, response, hot, defect=defect, options=options)
    for _ in range(options.hot_columns):
        column, start = int(rng.integers(nx)), int(rng.integers(ny) * (rng.random() < 0.6))
        hot[start:, column] += np.float32(np.exp(rng.uniform(np.log(1.0), np.log(40.0))))
        defect[start:, column] = True
    for _ in range(options.dead_columns):
        column = int(rng.integers(nx))
        response[:, column] *= np.float32(rng.uniform(0.0, 0.6))
        defect[:, column] = True
    return Detector(options, np.clip(response, 0.0, None), hot, defect, (cx, cy))


def _shade(
    x: npt.NDArray[np.floating] | npt.NDArray[np.integer],
    y: npt.NDArray[np.floating] | npt.NDArray[np.integer],
    axis: tuple[float, float],
    *,
    shape: tuple[int, int],
    vignetting: float,
) -> npt.NDArray[np.float64]:
    corner2 = ((shape[1] - 1) / 2) ** 2 + ((shape[0] - 1) / 2) ** 2
    r2 = ((x - axis[0]) ** 2 + (y - axis[1]) ** 2) / corner2
    # Far outside the frame there is no light to speak of.
    return np.asarray(np.maximum(1.0 - vignetting * r2**1.3, 0.0), dtype=np.float64)


def _plant_pixels(
    rng: np.random.Generator, response: Image, hot: Image, *, defect: npt.NDArray[np.bool_], options: DetectorOptions
) -> None:
    """Hot pixels with a wide range of rates, dead ones with little response."""
    for density, kind in ((options.hot_pixels, "hot"), (options.dead_pixels, "dead")):
        n = rng.poisson(density * 1e-6 * response.size)
        rows, columns = rng.integers(response.shape[0], size=n), rng.integers(response.shape[1], size=n)
        defect[rows, columns] = True
        if kind == "hot":
            hot[rows, columns] = np.exp(rng.uniform(np.log(2.0), np.log(1500.0), n))
        else:
            response[rows, columns] *= rng.uniform(0.0, 0.5, n).astype(np.float32)


def expose(
    rng: np.random.Generator, light: Image, exposure: float, *, detector: Detector, rays: Image | None = None
) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Turn light into the integers that the camera writes.

    Poisson noise (the normal distribution above 60 electrons), saturation at the full well, charge running
    up and down the column when the detector bleeds, read noise, gain, conversion.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness of this exposure.
    light : ndarray of float32, shape (ny, nx)
        Expected electrons from the sky before the detector's response; overwritten.
    exposure : float
        Exposure time (s).
    detector : Detector
        The detector.
    rays : ndarray of float32, shape (ny, nx), optional
        Charge left by cosmic rays (electron).

    Returns
    -------
    adu : ndarray of uint16, shape (ny, nx)
        Pixel values.
    saturated : ndarray of bool, shape (ny, nx)
        Pixels at or above the saturation level.
    bled : ndarray of bool, shape (ny, nx)
        Pixels filled by charge of others.
    """
    options = detector.options
    light *= detector.response
    light += detector.hot * np.float32(exposure) + np.float32(options.dark * exposure)
    few = light < 60.0
    counts = rng.standard_normal(light.shape, dtype=np.float32)
    counts *= np.sqrt(np.maximum(light, 0.0))
    counts += light
    if few.any():
        counts[few] = rng.poisson(np.maximum(light[few], 0.0))
    if rays is not None:
        counts += rays
    bled = np.zeros(light.shape, dtype=bool)
    if options.bleed and counts.max() > options.full_well:
        _bleed(counts, np.float32(options.full_well), bled)
    np.minimum(counts, np.float32(options.full_well), out=counts)
    counts += np.float32(options.read_noise) * rng.standard_normal(light.shape, dtype=np.float32)
    counts /= np.float32(options.gain)
    counts += np.float32(options.pedestal)
    adu = np.clip(np.rint(counts, out=counts), 0, 2**options.saturation_bits - 1).astype(np.uint16)
    return adu, adu >= saturation_level(options), bled


def saturation_level(options: DetectorOptions) -> float:
    """Return the level (ADU) that counts as saturated: 3 per cent below the full well, or the end of the converter."""
    well = 0.97 * options.full_well / options.gain + options.pedestal
    return float(round(min(well, 2**options.saturation_bits - 1.0)))


@njit(cache=True, nogil=True)
def _bleed(counts, full_well, bled):  # type: ignore[no-untyped-def]
    """Hand the charge above the full well up and down the column, half each way."""
    ny, nx = counts.shape
    up = np.zeros(nx, dtype=np.float32)
    excess = np.zeros((ny, nx), dtype=np.float32)
    for j in range(ny):
        for i in range(nx):
            if counts[j, i] > full_well:
                excess[j, i] = np.float32(0.5) * (counts[j, i] - full_well)
                counts[j, i] = full_well
    for sweep in range(2):
        up[:] = 0
        for step in range(ny):
            j = step if sweep == 0 else ny - 1 - step
            for i in range(nx):
                charge = up[i]
                if charge > 0:
                    room = full_well - counts[j, i]
                    taken = min(room, charge)
                    if taken > 0:
                        counts[j, i] += taken
                        charge -= taken
                        bled[j, i] = True
                up[i] = charge + excess[j, i]


def make_header(
    options: SimulationOptions, exposure: Exposure, wcs: TanSip, *, rng: np.random.Generator, name: str
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
    ra, dec = offset_position(np.array([wcs.ra]), np.array([wcs.dec]), np.array([east]), north=np.array([north]))
    header["RA"], header["DEC"] = (
        (round(float(ra[0]), 6), "[deg] pointing"),
        (round(float(dec[0]), 6), "[deg] pointing"),
    )
    angle = rng.normal(0.0, unit.wcs_error / (0.5 * max(unit.shape)) / 4.0)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if unit.header_wcs != "none":
        written = TanSip(float(ra[0]), float(dec[0]), wcs.crpix, turn @ wcs.cd, wcs.a, wcs.b)
        header.update(written.header(distortion=unit.header_wcs == "sip"))
    return header
