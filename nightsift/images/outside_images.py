"""Images from elsewhere made into a template of a unit: background, noise, mosaic and flux scale."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from astropy.wcs import WCS
from scipy import ndimage

from nightsift.core.errors import AlignmentFailed, BlankFrame, NightsiftError, PoorCoverage
from nightsift.core.flags import HARD, Mask
from nightsift.core.frames import FloatImage, Frame, MaskImage, Meta, StarTable, Template
from nightsift.core.robust import mad_sigma
from nightsift.images.background.background import find_sources, subtract_background
from nightsift.images.photometry.growth import aperture_correction
from nightsift.images.registration.align import Registration, register
from nightsift.images.resampling.coadd import Layer, stack
from nightsift.images.resampling.reprojection import Overlap, circle, overlap, pixel_area, reproject_planes, sky_scale
from nightsift.images.stars.stars import find_stars
from nightsift.images.template_catalogue import template_catalogue
from nightsift.images.templates import flux_ratio
from nightsift.sky.sphere import separation
from nightsift.unit.units import Unit

_SPOILED = 0.1  # of the weight of a pixel on bad ones, beyond which it is masked
_FEWEST_FREE = 256  # pixels of free sky to measure noise on


@dataclass(frozen=True, slots=True, eq=False)
class OutsideImage:
    """An image that no unit of the survey took.

    Attributes
    ----------
    name : str
        File, extension and checksum, for people and for the identity of what is made of it.
    data : ndarray of float32, shape (my, mx)
        Pixels; NaN where there are none.
    wcs : astropy.wcs.WCS
        Coordinates in any projection.
    variance : ndarray of float32, shape (my, mx), or None
        Variance, or anything proportional to it; not finite or not positive where a pixel is worth nothing.
    mask : ndarray of uint16, shape (my, mx), or None
        Bits of `nightsift.core.flags.Mask`.
    gain : float
        Electrons in one unit of `data`; NaN where unknown.
    saturation : float
        Level of `data` at which pixels are saturated; infinite where unknown.
    zero_point : float
        Magnitude of one unit of `data`; NaN where unknown.
    """

    name: str
    data: FloatImage
    wcs: WCS
    variance: FloatImage | None = None
    mask: MaskImage | None = None
    gain: float = np.nan
    saturation: float = np.inf
    zero_point: float = np.nan


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """What gives an imported template its grid and flux scale: an exposure or a template of the unit.

    Attributes
    ----------
    meta : Meta
        Unit, field, band and detector.
    wcs : astropy.wcs.WCS
        Coordinates of the grid.
    shape : tuple of int
        ``(ny, nx)`` of the grid.
    frame : Frame or None
        Background-subtracted frame of the same band; None where only the grid is known.
    stars : StarTable or None
        Its stars.
    zero_point : float
        Magnitude of 1 ADU; NaN where unknown.
    """

    meta: Meta
    wcs: WCS
    shape: tuple[int, int]
    frame: Frame | None = None
    stars: StarTable | None = None
    zero_point: float = np.nan


@dataclass(frozen=True, slots=True)
class FluxScale:
    """How the fluxes of an imported template were brought to those of its unit.

    Attributes
    ----------
    factor : float
        ADU of the unit in one unit of the images.
    stars : int
        Stars in common; 0 where the zero points of both headers were taken.
    scatter : float
        Robust standard deviation of the ratios of single stars (relative), colours included.
    offset : float
        Median distance of the stars before they are aligned (arcsec).
    residual : float
        Median distance of the brighter half after it (pixel).
    """

    factor: float
    stars: int = 0
    scatter: float = np.nan
    offset: float = np.nan
    residual: float = np.nan

    def __str__(self) -> str:
        if not self.stars:
            return f"flux scale {self.factor:.4g} from the zero points of both headers"
        return (
            f"flux scale {self.factor:.4g} from {self.stars} stars (scatter {self.scatter:.1%}), "
            f"{self.offset:.2f} arcsec off before they are aligned, {self.residual:.2f} px after"
        )


def import_template(
    images: Sequence[OutsideImage], reference: Reference, unit: Unit, *, template_id: str
) -> tuple[Template, FluxScale]:
    """Make a template of images from elsewhere.

    Each loses its background, is brought to the grid of the reference, and all are averaged (see
    `nightsift.images.resampling.coadd.stack`). Fluxes are brought to those of the reference by stars in common, or else
    by the zero points of both.

    The variance of an image, or the one estimated from its sky and its gain, is resampled like the image and scaled so
    that pixels of free sky scatter by it: this counts what resampling takes away, what is correlated between pixels
    already, and weights that only say which pixel is better.

    Parameters
    ----------
    images : sequence of OutsideImage
        Tiles, the one to trust first before the others.
    reference : Reference
        Grid and flux scale.
    unit : Unit
        The telescope unit; its mesh of the background, detection and alignment apply.
    template_id : str
        Identity of the template.

    Returns
    -------
    template : Template
        The template; tiles that do not reach the field are under `refused`.
    scale : FluxScale
        How its fluxes were found.

    Raises
    ------
    PoorCoverage
        If no image reaches the field.
    AlignmentFailed
        If there is neither a star in common nor a pair of zero points.
    """
    layers, used, refused = _layers(images, reference, unit)
    if not used:
        reasons = "; ".join(f"{name}: {why}" for name, why in refused[:3])
        where = f"the field {reference.meta.field!r} ({reasons})"
        raise PoorCoverage(coverage=0.0, where=where, needed=unit.template.min_coverage)
    frames = [frame for frame, _ in layers]
    data, variance, mask, coverage = stack(lambda k: frames[k], [layer for _, layer in layers], reference.shape)
    meta = dataclasses.replace(reference.meta, exposure_id=template_id, path=used[0].name)
    mosaic = _with_true_noise(Frame(data, variance, mask, meta, wcs=reference.wcs, sky=0.0))
    stars = find_stars(mosaic, unit.detection.threshold)
    scale = _flux_scale(mosaic, stars, reference, zero_point=used[0].zero_point, unit=unit)
    frame, scaled = _scaled(mosaic, scale.factor, used[0].gain), _scaled_stars(stars, scale.factor)
    template = Template(
        frame=frame,
        stars=scaled,
        coverage=coverage,
        template_id=template_id,
        zero_point=reference.zero_point,
        sources=tuple(one.name for one in used),
        refused=tuple(refused),
        growth=aperture_correction(frame, scaled),
        catalogue=template_catalogue(frame, scaled),
        imported=str(scale),
    )
    return template, scale


def _layers(
    images: Sequence[OutsideImage], reference: Reference, unit: Unit
) -> tuple[list[tuple[Frame, Layer]], list[OutsideImage], list[tuple[str, str]]]:
    """All images on the grid, each on the part that it reaches, and why others are left out."""
    layers: list[tuple[Frame, Layer]] = []
    used: list[OutsideImage] = []
    refused: list[tuple[str, str]] = []
    for image in images:
        found = overlap(image.wcs, _shape(image.data), reference.wcs, target_shape=reference.shape)
        if found is None:
            refused.append((image.name, _apart(image, reference)))
            continue
        try:
            frame, corner = _placed(image, reference, unit, found=found)
        except NightsiftError as error:
            refused.append((image.name, str(error)))
            continue
        good = (frame.mask & HARD) == 0
        scale = 10.0 ** (0.4 * (used[0].zero_point - image.zero_point)) if used else 1.0
        scale = scale if math.isfinite(scale) else 1.0
        weight = 1.0 / (scale**2 * float(np.median(frame.variance[good])))
        layers.append((frame, Layer(grid=None, step=1, offset=(-corner[0], -corner[1]), scale=scale, weight=weight)))
        used.append(image)
    return layers, used, refused


def _placed(image: OutsideImage, reference: Reference, unit: Unit, *, found: Overlap) -> tuple[Frame, tuple[int, int]]:
    """An image without background on the part of the grid that it reaches, and the corner (x, y) of that."""
    ratio = sky_scale(reference.wcs, reference.shape) / sky_scale(image.wcs, _shape(image.data))
    mesh = max(8, round(unit.background.mesh * ratio))
    part = tuple(
        slice(max(0, one.start - 2 * mesh), min(size, one.stop + 2 * mesh))
        for one, size in zip(found.source, image.data.shape, strict=True)
    )
    flat = _flattened(image, part, reference.meta, mesh=mesh)
    wcs, target = image.wcs[part], reference.wcs[found.target]
    shape = (found.target[0].stop - found.target[0].start, found.target[1].stop - found.target[1].start)
    bad = (flat.mask & HARD) != 0
    given = [flat.data, flat.variance, *([bad.astype(np.float32)] if bad.any() else [])]
    planes = reproject_planes(np.stack(given), wcs, target, shape=shape)
    bits = _nearest_bits(flat.mask, wcs, target, shape=shape) if flat.mask.any() else np.zeros(shape, np.uint16)
    outside = ~np.isfinite(planes).all(axis=0)
    area = pixel_area(wcs, target, shape=shape)
    usable = flat.variance[flat.mask == 0]
    least = float(usable.min()) if usable.size else 1.0
    data = np.where(outside, np.float32(0), planes[0] * area)
    variance = np.where(outside, np.float32(1), np.maximum(planes[1], least) * area**2)
    spoiled = ~outside & (planes[2] > _SPOILED) & ((bits & HARD) == 0) if bad.any() else np.zeros(shape, np.bool_)
    mask = np.where(outside, np.uint16(Mask.NO_DATA.value), bits | np.where(spoiled, Mask.DEFECT.value, 0))
    meta = dataclasses.replace(flat.meta, path=image.name)
    frame = Frame(data, variance.astype(np.float32), mask.astype(np.uint16), meta, wcs=target)
    if int((frame.mask == 0).sum()) < _FEWEST_FREE:
        what = f"only {int((frame.mask == 0).sum())} of its good pixels lie on the field"
        raise BlankFrame(where=image.name, what=what)
    return _with_true_noise(frame), (found.target[1].start, found.target[0].start)


def _flattened(image: OutsideImage, part: tuple[slice, ...], meta: Meta, *, mesh: int) -> Frame:
    """A part of an image without background, holes filled from beside, with a variance and a mask."""
    data = image.data[part]
    mask = np.zeros(data.shape, np.uint16) if image.mask is None else image.mask[part].copy()
    mask[~np.isfinite(data)] |= Mask.NONFINITE.value
    mask[data >= image.saturation] |= Mask.SATURATED.value
    given = None
    if image.variance is not None:
        given = image.variance[part]
        worthless = ~(np.isfinite(given) & (given > 0))
        mask[worthless & (mask & HARD == 0)] |= Mask.DEFECT.value
    good = (mask & HARD) == 0
    if int(good.sum()) < _FEWEST_FREE:
        raise BlankFrame(where=image.name, what=f"{int(good.sum())} of its {good.size} pixels near the field are good")
    planes = [np.where(good, data, np.float32(0)), np.ones(data.shape, np.float32) if given is None else given]
    if not good.all():
        nearest = ndimage.distance_transform_edt(~good, return_distances=False, return_indices=True)
        planes = [one[tuple(nearest)] for one in planes]
    filled, variance = (np.ascontiguousarray(one, dtype=np.float32) for one in planes)
    facts = dataclasses.replace(meta, path=image.name, exposure_id=image.name)
    flat = subtract_background(Frame(filled, np.full_like(filled, 1e-30), mask, facts, wcs=None), mesh)
    if given is None:
        variance = np.full(data.shape, _sky_sigma(flat.data, mask) ** 2, np.float32)
        if math.isfinite(image.gain) and image.gain > 0:
            variance += np.maximum(flat.data, 0) / np.float32(image.gain)
    return flat.replace(variance=variance)


def _nearest_bits(mask: MaskImage, wcs: WCS, target: WCS, *, shape: tuple[int, int]) -> MaskImage:
    """Mask bits of the pixels that the centres of the new ones fall on."""
    from reproject import reproject_interp

    bits = reproject_interp(
        (mask.astype(np.float64), wcs), target, shape_out=shape, order="nearest-neighbor", return_footprint=False,
        roundtrip_coords=False,
    )  # fmt: skip
    return np.asarray(np.nan_to_num(bits), dtype=np.uint16)


def _sky_sigma(data: FloatImage, mask: MaskImage) -> float:
    """Standard deviation of pixels of free sky; sources too faint to be masked widen the bright side only."""
    bad = (mask & HARD) != 0
    free = ~bad & ~find_sources(data, bad)
    if int(free.sum()) < _FEWEST_FREE:
        free = ~bad
    values = data[free]
    centre, low = (float(one) for one in np.percentile(values, (50.0, 15.8655)))
    sigma = min(mad_sigma(values, centre), centre - low)
    if not sigma > 0.0:
        raise BlankFrame(where="the image", what="its sky has no noise to be measured")
    return sigma


def _with_true_noise(frame: Frame) -> Frame:
    """Scale the variance so that pixels of free sky scatter by it."""
    known = frame.mask & Mask.NO_DATA.value == 0
    pulls = np.where(known, frame.data / np.sqrt(np.where(known, frame.variance, np.float32(1))), np.float32(0))
    factor = _sky_sigma(pulls, frame.mask) ** 2
    return frame.replace(variance=frame.variance * np.float32(factor))


def noise_correlation(frame: Frame) -> float:
    """Noise of means over 4 x 4 pixels of free sky, in units of what independent pixels would give.

    Where it is above 1, as after resampling, a sum over a star is noisier than the variance of its pixels says.

    Parameters
    ----------
    frame : Frame
        Background-subtracted frame.

    Returns
    -------
    float
        The ratio; NaN with too little free sky.
    """
    ny, nx = (size // 4 for size in frame.shape)

    def blocks(plane: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return np.asarray(plane[: 4 * ny, : 4 * nx].reshape(ny, 4, nx, 4).mean(axis=(1, 3), dtype=np.float32))

    hard = (frame.mask & HARD) != 0
    pulls = np.where(hard, np.float32(0), frame.data / np.sqrt(np.where(hard, np.float32(1), frame.variance)))
    hidden = blocks((hard | find_sources(pulls, hard)).astype(np.float32)) > 0
    means = 4.0 * blocks(pulls)
    return mad_sigma(means[~hidden]) if int((~hidden).sum()) >= _FEWEST_FREE else math.nan


def _flux_scale(mosaic: Frame, stars: StarTable, reference: Reference, *, zero_point: float, unit: Unit) -> FluxScale:
    """Factor from the fluxes of the mosaic to those of the reference."""
    what = "there is no exposure or template of this band to compare it with"
    matched, residual = 0, math.nan
    if reference.frame is not None and reference.stars is not None:
        try:
            found = register(reference.frame, reference.stars, mosaic, reference_stars=stars, options=unit.alignment)
            ratio = flux_ratio(reference.frame, reference.stars, mosaic, stars=stars, found=found)
        except AlignmentFailed as error:
            what = str(error.facts["what"])
            matched, residual = int(error.facts["matched"]), float(error.facts["residual_px"])
        else:
            offset = _offset(reference, stars, found) if reference.frame.wcs is not None else math.nan
            return FluxScale(ratio.factor, ratio.stars, ratio.scatter, offset, found.residual)
    factor = 10.0 ** (0.4 * (reference.zero_point - zero_point))
    if math.isfinite(factor):
        return FluxScale(factor)
    raise AlignmentFailed(
        where=mosaic.meta.path,
        what=f"{what}, and there are no zero points to scale its flux with (unit {reference.zero_point:g}, image "
        f"{zero_point:g}): "
        "name an exposure of this field and band by --like, or give --zero-point where the unit has one",
        matched=matched,
        residual_px=residual,
    )


def _offset(reference: Reference, stars: StarTable, found: Registration) -> float:
    """Median distance on the sky of stars in common (arcsec), each by the coordinates of its own image."""
    assert reference.frame is not None
    assert reference.frame.wcs is not None
    assert reference.stars is not None
    own = reference.stars[found.first]
    ra, dec = reference.frame.wcs.all_pix2world(own["x"], own["y"], 0)
    other = stars[found.second]
    ra2, dec2 = reference.wcs.all_pix2world(other["x"], other["y"], 0)
    return 3600.0 * float(np.median(separation(ra, dec, ra2, dec2)))


def _scaled(frame: Frame, factor: float, gain: float) -> Frame:
    """A mosaic on the flux scale of the unit; `gain` is in electrons a unit of the images, NaN for that of the unit."""
    meta = dataclasses.replace(frame.meta, gain=gain / factor) if math.isfinite(gain) else frame.meta
    data, variance = frame.data * np.float32(factor), frame.variance * np.float32(factor) ** 2
    return frame.replace(data=data, variance=variance, meta=meta)


def _scaled_stars(stars: StarTable, factor: float) -> StarTable:
    scaled = stars.copy()
    for name in ("flux", "flux_err", "peak"):
        scaled[name] *= np.float32(factor)
    return scaled


def _apart(image: OutsideImage, reference: Reference) -> str:
    a, b = circle(image.wcs, _shape(image.data)), circle(reference.wcs, reference.shape)
    distance = separation(a[0], a[1], b[0], b[1])
    return (
        f"it does not reach the field: the centres ({a[0]:.4f}, {a[1]:+.4f}) and ({b[0]:.4f}, {b[1]:+.4f}) are "
        f"{distance:.3g} deg apart, and they reach {a[2]:.3g} and {b[2]:.3g} deg"
    )


def _shape(data: npt.NDArray[np.float32]) -> tuple[int, int]:
    return (int(data.shape[0]), int(data.shape[1]))
