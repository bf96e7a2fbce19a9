"""Frame, Pair and Difference: the arrays that travel through a reduction, with invariants checked at birth.

Pixel conventions: arrays are indexed ``[y, x]``; the centre of the first pixel is ``(x, y) = (0, 0)``.
Mask sense: a pixel is good where ``mask == 0``; bits are `nightsift.core.flags.Mask`.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nightsift.core.flags import Mask
from nightsift.core.psf import Psf

if TYPE_CHECKING:  # slow to import, and subtraction does without
    from astropy.wcs import WCS


FloatImage = npt.NDArray[np.float32]
MaskImage = npt.NDArray[np.uint16]
StarTable = npt.NDArray[Any]
SourceTable = npt.NDArray[Any]

_BLOCK = 1 << 17  # pixels checked at a time


@dataclass(frozen=True, slots=True)
class Meta:
    """What is known of an exposure apart from its pixels.

    Attributes
    ----------
    unit, field, band, night : str
        Telescope unit, sky field, filter and night (``YYYY-MM-DD``, local date of the evening).
    exposure_id : str
        Identity made from unit and file content; the same file always has the same one.
    mjd : float
        Mid-exposure time, UTC, as modified Julian date (d).
    exposure_s : float
        Exposure time (s).
    gain, read_noise : float
        Gain (electron/ADU) and read noise (electron).
    saturation : float
        Level at which a raw pixel saturates (ADU).
    pixel_scale : float
        Nominal pixel scale (arcsec/pixel).
    ra, dec : float
        Nominal pointing, ICRS (deg); NaN where the header has none.
    path : str
        Where the exposure was found, for people.
    """

    unit: str
    field: str
    band: str
    night: str
    exposure_id: str
    mjd: float
    exposure_s: float
    gain: float
    read_noise: float
    saturation: float
    pixel_scale: float
    ra: float = np.nan
    dec: float = np.nan
    path: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One image with its variance, mask and coordinates.

    Attributes
    ----------
    data : ndarray of float32, shape (ny, nx)
        Pixel values (ADU), native byte order.
    variance : ndarray of float32, shape (ny, nx)
        Variance of `data` (ADU^2); positive where unmasked.
    mask : ndarray of uint16, shape (ny, nx)
        Bit planes of `nightsift.core.flags.Mask`; 0 is good. Non-finite pixels are masked.
    meta : Meta
        What is known of the exposure.
    wcs : astropy.wcs.WCS or None
        Celestial coordinates, None where unknown.
    psf : Psf or None
        Point-spread function, None before it was measured.
    sky : float
        Median sky level that was subtracted (ADU); NaN before.
    """

    data: FloatImage
    variance: FloatImage
    mask: MaskImage
    meta: Meta
    wcs: WCS | None = None
    psf: Psf | None = None
    sky: float = np.nan

    def __post_init__(self) -> None:
        _check_planes(self.data, self.variance, self.mask)

    @property
    def shape(self) -> tuple[int, int]:
        """``(ny, nx)``."""
        return (int(self.data.shape[0]), int(self.data.shape[1]))

    def replace(self, **changes: Any) -> Frame:
        """Return a copy with some attributes changed; planes are shared, and checked again where they are new."""
        if changes.keys() & {"data", "variance", "mask"}:
            return dataclasses.replace(self, **changes)
        unknown = changes.keys() - set(self.__slots__)
        if unknown:
            raise TypeError(f"a Frame has no attribute {', '.join(sorted(unknown))}")
        same = copy.copy(self)
        for name, value in changes.items():
            object.__setattr__(same, name, value)
        return same


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """Science and template on one pixel grid, both background-subtracted.

    Attributes
    ----------
    science, template : Frame
        Equal shapes; the template was resampled to the grid of the science frame.
    coverage : float
        Fraction of the science frame that the template covers.
    """

    science: Frame
    template: Frame
    coverage: float = 1.0

    def __post_init__(self) -> None:
        _require(
            self.science.shape == self.template.shape,
            f"science {self.science.shape} and template {self.template.shape} must have the same shape",
        )


@dataclass(frozen=True, slots=True, eq=False)
class Difference:
    """Science minus matched template: transients are positive, the flux scale is that of the science frame.

    Attributes
    ----------
    data, variance : ndarray of float32, shape (ny, nx)
        Difference (ADU of the science frame) and its variance (ADU^2).
    mask : ndarray of uint16, shape (ny, nx)
        Union of both input masks, grown by the kernel.
    score : ndarray of float32, shape (ny, nx)
        Signal-to-noise ratio of a point source centred on each pixel; 0 where masked.
    psf : Psf
        PSF of a transient in `data`.
    method : str
        Name of the subtraction method.
    convolved : str
        ``"template"``, ``"science"`` or ``"both"``.
    kernel_sum : float
        Flux scale from template to science at the centre of the frame.
    metrics : mapping of str to float
        Figures of merit, by name.
    verdict : str
        ``"good"``, ``"suspect"`` or ``"bad"``.
    reasons : tuple of str
        Why the verdict is not good.
    anchors : ndarray of float64, shape (n, 2), or None
        x, y of the stars that carried the fit (pixel).
    kernel_map : ndarray of float32, shape (rows, columns, size, size), or None
        The matching kernel on an even grid of positions, rows from low y; to look at.
    choice : str
        Why this method was picked; empty where it was named.
    """

    data: FloatImage
    variance: FloatImage
    mask: MaskImage
    score: FloatImage
    psf: Psf
    method: str
    convolved: str
    kernel_sum: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    verdict: str = "good"
    reasons: tuple[str, ...] = ()
    anchors: npt.NDArray[np.float64] | None = None
    kernel_map: npt.NDArray[np.float32] | None = None
    choice: str = ""

    def __post_init__(self) -> None:
        _check_planes(self.data, self.variance, self.mask)
        _require(self.score.shape == self.data.shape, "score and data must have the same shape")
        _require(self.verdict in ("good", "suspect", "bad"), f"unknown verdict {self.verdict!r}")

    @property
    def shape(self) -> tuple[int, int]:
        """``(ny, nx)``."""
        return (int(self.data.shape[0]), int(self.data.shape[1]))


@dataclass(frozen=True, slots=True, eq=False)
class Stamps:
    """Square cut-outs around candidates, always centred, padded and masked at edges.

    Attributes
    ----------
    data : ndarray of float32, shape (n, size, size, 3)
        Science, template and difference, in this order; 0 where padded.
    mask : ndarray of bool, shape (n, size, size)
        True where a pixel is bad or outside the frame.
    """

    data: npt.NDArray[np.float32]
    mask: npt.NDArray[np.bool_]

    def __post_init__(self) -> None:
        _require(
            self.data.ndim == 4 and self.data.shape[1] == self.data.shape[2],
            f"stamps must have the shape (n, size, size, channels), got {self.data.shape}",
        )
        _require(self.mask.shape == self.data.shape[:3], "stamps and their masks must have equal shapes")

    def __len__(self) -> int:
        return int(self.data.shape[0])

    @property
    def science(self) -> npt.NDArray[np.float32]:
        """Science stamps, shape (n, size, size)."""
        return self.data[..., 0]

    @property
    def template(self) -> npt.NDArray[np.float32]:
        """Template stamps, shape (n, size, size)."""
        return self.data[..., 1]

    @property
    def difference(self) -> npt.NDArray[np.float32]:
        """Difference stamps, shape (n, size, size)."""
        return self.data[..., 2]


def _check_planes(data: FloatImage, variance: FloatImage, mask: MaskImage) -> None:
    _require(data.ndim == 2, f"an image has two axes, got {data.ndim}")
    _require(
        data.shape == variance.shape == mask.shape,
        f"data {data.shape}, variance {variance.shape} and mask {mask.shape} must have equal shapes",
    )
    _require(data.dtype == np.float32 and data.dtype.isnative, f"data must be native float32, got {data.dtype}")
    _require(variance.dtype == np.float32, f"variance must be float32, got {variance.dtype}")
    _require(mask.dtype == np.uint16, f"mask must be uint16, got {mask.dtype}")
    rows = max(1, _BLOCK // max(1, data.shape[1]))
    for start in range(0, data.shape[0], rows):  # in pieces that fit the caches
        part = slice(start, start + rows)
        bad = mask[part] != 0
        _require(bool((bad | np.isfinite(data[part])).all()), "non-finite pixels must be masked")
        _require(bool((bad | (variance[part] > 0)).all()), "variance must be positive (and not NaN) where unmasked")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def with_bit(mask: MaskImage, bit: Mask, where: npt.NDArray[np.bool_]) -> MaskImage:
    """Return a copy of a mask (uint16) with one bit set where a boolean image of the same shape is true."""
    return np.where(where, mask | np.uint16(bit.value), mask)


@dataclass(frozen=True, slots=True)
class ApertureCorrection:
    """How much light the stars of a frame have beyond the aperture of their fluxes.

    Attributes
    ----------
    value : float
        Total flux over that in a star table (mag, positive); NaN where it could not be measured.
    error : float
        Its standard error (mag).
    n_stars : int
        Stars that it was measured on.
    reason : str
        Why there is none, empty otherwise.
    """

    value: float = float("nan")
    error: float = float("nan")
    n_stars: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Template:
    """A deep image of a field to compare new frames with.

    Attributes
    ----------
    frame : Frame
        Background-subtracted mean image, its variance and mask (`Mask.NO_DATA` where no frame reaches); psf may be
        None.
    stars : StarTable
        Its stars.
    coverage : ndarray of float32 or int16, shape (ny, nx)
        Number of frames that each pixel is made of.
    template_id : str
        Identity, made from sources, options and code version.
    zero_point : float
        Magnitude of 1 ADU on the flux scale of the template; NaN where unknown.
    sources : tuple of str
        Exposure ids of the frames, best first; names and checksums of images from elsewhere.
    refused : tuple of (str, str)
        Exposure ids of the frames left out, and why.
    growth : ApertureCorrection or None
        That of its stars; None in files of earlier versions.
    imported : str
        Of a template made of images from elsewhere, how its flux scale was found; empty for one of the unit's frames.
    catalogue : SourceTable or None
        Kron ellipses and half-light radii of its stars and galaxies, a row each
        (`nightsift.images.template_catalogue`); None in files of earlier versions.
    """

    frame: Frame
    stars: StarTable
    coverage: npt.NDArray[np.float32] | npt.NDArray[np.int16]
    template_id: str
    zero_point: float
    sources: tuple[str, ...] = ()
    refused: tuple[tuple[str, str], ...] = field(default=())
    growth: ApertureCorrection | None = None
    imported: str = ""
    catalogue: SourceTable | None = None

    def __post_init__(self) -> None:
        if self.catalogue is not None and len(self.catalogue) != len(self.stars):
            raise ValueError(f"one row of the catalogue a star wanted, got {len(self.catalogue)} and {len(self.stars)}")
        if self.coverage.shape != self.frame.shape:
            raise ValueError(f"coverage {self.coverage.shape} and frame {self.frame.shape} must have the same shape")

    @property
    def depth(self) -> FloatImage:
        """Standard deviation of each pixel (ADU), NaN where there is no data; shape (ny, nx)."""
        sigma = np.full(self.frame.shape, np.nan, dtype=np.float32)
        np.sqrt(self.frame.variance, out=sigma, where=self.coverage > 0)
        return sigma
