"""What can be chosen of a simulated telescope unit (optics, detector, site), and units drawn at random."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from nightsift.core.random import generator


@dataclass(frozen=True, slots=True)
class OpticsOptions:
    """Point-spread function of a unit: a Moffat seeing disc blurred by third-order aberrations and tracking.

    Aberrations are transverse ray aberrations at the rim of the pupil, in pixel.

    Attributes
    ----------
    seeing : float
        Median full width at half maximum of the seeing disc (arcsec).
    beta : float
        Moffat exponent of the seeing disc.
    ellipticity, ellipticity_angle : float
        1 - b/a of the seeing disc, and direction of its major axis (deg from +x to +y).
    defocus : float
        Defocus on the axis; several pixels make a donut.
    focus_jitter : float
        Standard deviation of the defocus from exposure to exposure.
    tilt_x, tilt_y : float
        Defocus added at the right and upper edge, taken away at the left and lower edge.
    curvature : float
        Defocus added in the corners (field curvature).
    coma : float
        Coma in the corners, growing linearly with the distance from the axis.
    astigmatism : float
        Astigmatism in the corners, growing with the square of the distance.
    trail : float
        Median length of the tracking trail (pixel); its direction is that of right ascension.
    obstruction : float
        Diameter of the central obstruction over that of the pupil.
    aureole : float
        Flux of the wide aureole around stars over that of the star.
    """

    seeing: float = 2.5
    beta: float = 3.2
    ellipticity: float = 0.04
    ellipticity_angle: float = 20.0
    defocus: float = 0.2
    focus_jitter: float = 0.1
    tilt_x: float = 0.0
    tilt_y: float = 0.0
    curvature: float = 0.3
    coma: float = 0.3
    astigmatism: float = 0.2
    trail: float = 0.0
    obstruction: float = 0.4
    aureole: float = 0.01


@dataclass(frozen=True, slots=True)
class DetectorOptions:
    """Detector of a unit.

    Attributes
    ----------
    gain : float
        Electrons per ADU.
    read_noise : float
        Read noise (electron).
    full_well : float
        Charge at which a pixel saturates (electron).
    pedestal : int
        Bias level that the camera adds (ADU).
    bleed : bool
        Whether excess charge runs along the columns (CCD) or is lost (CMOS).
    dark : float
        Dark current (electron/s/pixel).
    hot_pixels, dead_pixels : float
        Such pixels per million.
    hot_columns, dead_columns : int
        Such columns.
    flat_error : float
        Pixel-to-pixel error of the response that is left after calibration.
    vignetting : float
        Loss of light in the corners that is left after calibration.
    saturation_bits : int
        Bits of the analogue-to-digital converter.
    """

    gain: float = 1.4
    read_noise: float = 6.0
    full_well: float = 80000.0
    pedestal: int = 0
    bleed: bool = True
    dark: float = 0.05
    hot_pixels: float = 60.0
    dead_pixels: float = 20.0
    hot_columns: int = 1
    dead_columns: int = 0
    flat_error: float = 0.003
    vignetting: float = 0.08
    saturation_bits: int = 16


@dataclass(frozen=True, slots=True)
class UnitOptions:
    """One telescope unit.

    Attributes
    ----------
    name : str
        Name of the unit, also of its unit file.
    shape : tuple of int
        Rows and columns of the detector.
    pixel_scale : float
        Pixel scale (arcsec/pixel).
    zero_point : float
        Magnitude that gives one electron per second.
    exposure : float
        Exposure time (s).
    band : str
        Name of the filter.
    rotation : float
        Position angle of the detector's rows (deg).
    parity : {1, -1}
        -1 for the usual orientation (east to the left when north is up), 1 for a mirrored one.
    distortion : float
        Shift of the corners by radial distortion (pixel).
    dither : float
        Largest shift of a pointing (pixel).
    rotation_jitter : float
        Standard deviation of the field rotation between exposures (deg).
    header_wcs : {"sip", "linear", "none"}
        What the header says of the coordinates: TAN-SIP, TAN only, or RA and DEC cards only.
    wcs_error : float
        Shift of the header's WCS against the truth (pixel).
    sky_mag : float
        Brightness of the dark sky (mag/arcsec2).
    longitude, latitude : float
        Site (deg).
    optics : OpticsOptions
        Point-spread function.
    detector : DetectorOptions
        Detector.
    """

    name: str
    shape: tuple[int, int] = (1024, 1024)
    pixel_scale: float = 1.3
    zero_point: float = 21.8
    exposure: float = 60.0
    band: str = "L"
    rotation: float = 0.0
    parity: Literal[1, -1] = -1
    distortion: float = 3.0
    dither: float = 15.0
    rotation_jitter: float = 0.03
    header_wcs: Literal["sip", "linear", "none"] = "sip"
    wcs_error: float = 2.0
    sky_mag: float = 20.8
    longitude: float = -17.88
    latitude: float = 28.76
    optics: OpticsOptions = field(default_factory=OpticsOptions)
    detector: DetectorOptions = field(default_factory=DetectorOptions)


def random_unit(seed: int, index: int = 0, shape: tuple[int, int] = (1024, 1024)) -> UnitOptions:
    """Draw a telescope unit from wide priors on every property.

    Parameters
    ----------
    seed : int
        Seed of the survey.
    index : int, optional
        Number of the unit; it stands in its name.
    shape : tuple of int, optional
        Rows and columns of its detector.

    Returns
    -------
    UnitOptions
        A unit between 0.7 and 2.5 arcsec/pixel and 1.8 and 6 pixel full width at half maximum.
    """
    rng = generator(seed, "unit", index)
    scale = _log_uniform(rng, 0.7, 2.5)
    detector, optics = _random_detector(rng), _random_optics(rng, scale)
    zero_point, sky_mag = float(rng.uniform(20.8, 23.2)), float(rng.uniform(19.0, 21.5))
    # Nobody exposes until the moonlit sky fills a fifth of the well.
    moonlit = scale**2 * 10 ** (-0.4 * (sky_mag - 1.8 - zero_point))
    longest = 0.2 * min(detector.full_well, detector.gain * 2**detector.saturation_bits) / moonlit
    exposure = max(min(_log_uniform(rng, 15.0, 150.0), longest), 2.0)
    return UnitOptions(
        name=f"random-{seed}-{index}",
        shape=shape,
        pixel_scale=scale,
        zero_point=zero_point,
        exposure=float(round(exposure)),
        band=str(rng.choice(["L", "g", "r", "i", "clear"])),
        rotation=float(rng.uniform(0, 360)),
        parity=1 if rng.random() < 0.3 else -1,
        distortion=float(_log_uniform(rng, 0.3, 6.0)),
        dither=float(rng.uniform(2, 30)),
        rotation_jitter=float(_log_uniform(rng, 0.005, 0.3)),
        header_wcs="sip" if rng.random() < 0.5 else "linear",
        wcs_error=float(rng.uniform(0.2, 4.0)),
        sky_mag=sky_mag,
        latitude=float(rng.uniform(-35, 45)),
        longitude=float(rng.uniform(-180, 180)),
        optics=optics,
        detector=detector,
    )


def _random_optics(rng: np.random.Generator, scale: float) -> OpticsOptions:
    fwhm = _log_uniform(rng, 1.5, 5.5)
    blur = float(rng.uniform(0.0, 0.35)) * fwhm
    return OpticsOptions(
        seeing=scale * float(np.sqrt(max(fwhm**2 - blur**2, 1.3**2))),
        beta=float(rng.uniform(2.4, 4.8)),
        ellipticity=float(rng.beta(1.2, 9.0)),
        ellipticity_angle=float(rng.uniform(0, 180)),
        # A donut blurs about as much as a Gaussian of the same rms: the rim is at sqrt(2) of it.
        defocus=0.6 * blur * float(rng.choice([-1.0, 1.0])),
        focus_jitter=float(rng.uniform(0.02, 0.3)),
        tilt_x=float(rng.normal(0, 0.3)),
        tilt_y=float(rng.normal(0, 0.3)),
        curvature=float(rng.normal(0, 0.5)),
        coma=float(rng.exponential(0.5)),
        astigmatism=float(rng.normal(0, 0.4)),
        trail=float(rng.exponential(0.4)),
        obstruction=float(rng.uniform(0.0, 0.5)),
        aureole=float(_log_uniform(rng, 0.003, 0.03)),
    )


def _random_detector(rng: np.random.Generator) -> DetectorOptions:
    cmos = bool(rng.random() < 0.4)
    return DetectorOptions(
        gain=_log_uniform(rng, 0.25, 3.5),
        read_noise=float(_log_uniform(rng, 1.5, 3.5) if cmos else _log_uniform(rng, 4.0, 14.0)),
        full_well=float(_log_uniform(rng, 1.5e4, 6e4) if cmos else _log_uniform(rng, 4e4, 2e5)),
        pedestal=int(rng.integers(0, 1200)) if rng.random() < 0.5 else 0,
        bleed=not cmos,
        dark=float(_log_uniform(rng, 0.01, 0.8)),
        hot_pixels=float(_log_uniform(rng, 10, 600)),
        dead_pixels=float(_log_uniform(rng, 5, 120)),
        hot_columns=int(rng.poisson(1.2)),
        dead_columns=int(rng.poisson(0.5)),
        flat_error=float(_log_uniform(rng, 0.001, 0.01)),
        vignetting=float(rng.uniform(0.0, 0.3)),
    )


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))
