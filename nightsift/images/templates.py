"""Templates: the best frames of a field, registered, scaled and averaged without what was there only in one of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from astropy.wcs import WCS, Sip

from nightsift.core import provenance
from nightsift.core.errors import AlignmentFailed, NightsiftError, TooFewStars
from nightsift.core.frames import Frame, StarTable, Template
from nightsift.core.robust import clipped, mad_sigma
from nightsift.images.photometry.growth import aperture_correction
from nightsift.images.registration.align import Registration, inherit_wcs, node_grid, register
from nightsift.images.registration.plate_solve import solve
from nightsift.images.resampling.coadd import Layer, stack
from nightsift.images.stars.stars import clean_stars, find_stars, typical_fwhm
from nightsift.images.template_catalogue import template_catalogue, with_sky_positions
from nightsift.unit.units import Unit

_FEWEST_SCALE_STARS = 3
_WORTH_CHANGING = 1.1  # a frame this much better than the reference takes its place

OPTIONS = ("facts", "image", "calibration", "background", "artefacts", "detection", "alignment", "template")
"""Tables of a unit that change its templates: how frames are read and prepared, aligned and combined."""

_MOST_PADDING = 0.5  # of the width of the best frame, on each side


@dataclass(frozen=True, slots=True)
class Quality:
    """What decides whether a frame is good enough for a template.

    Attributes
    ----------
    exposure_id : str
        Identity of the exposure.
    shape : tuple of int
        ``(ny, nx)``.
    fwhm : float
        Seeing (pixel).
    sky_variance : float
        Median variance of good pixels (ADU^2).
    n_stars : int
        Clean stars.
    """

    exposure_id: str
    shape: tuple[int, int]
    fwhm: float
    sky_variance: float
    n_stars: int


@dataclass(frozen=True, slots=True)
class Member:
    """A frame of a template.

    Attributes
    ----------
    index : int
        Which frame it is.
    registration : Registration or None
        From the pixels of the reference to those of the frame; None for the reference itself.
    scale : float
        Factor from the fluxes of the frame to those of the reference.
    sky_variance : float
        Median variance of its good pixels (ADU^2).
    """

    index: int
    registration: Registration | None
    scale: float
    sky_variance: float


@dataclass(frozen=True, slots=True)
class FluxRatio:
    """Flux on one image over flux on another.

    Attributes
    ----------
    factor : float
        Weighted, clipped mean over stars.
    stars : int
        Stars that it is the mean of.
    scatter : float
        Robust standard deviation of single stars (relative).
    """

    factor: float
    stars: int
    scatter: float


def _quality_of(frame: Frame, stars: StarTable) -> Quality:
    """Measure the quality of a frame."""
    step = max(1, int(np.sqrt(frame.data.size / 1e6)))
    good = frame.mask[::step, ::step] == 0
    spread = frame.variance[::step, ::step][good]
    return Quality(
        exposure_id=frame.meta.exposure_id,
        shape=frame.shape,
        fwhm=typical_fwhm(stars),
        sky_variance=float(np.median(spread)) if spread.size else float("nan"),
        n_stars=int(clean_stars(stars, frame.shape, snr=10.0).sum()),
    )


def _rank(qualities: Sequence[Quality], unit: Unit) -> tuple[list[int], list[tuple[str, str]]]:
    """Sort out usable frames, best first.

    The number of clean stars stands for transparency, which is only known after frames were compared.
    """
    refused: list[tuple[str, str]] = []
    usable = []
    seeing = [q.fwhm for q in qualities if np.isfinite(q.fwhm)]
    limit = unit.template.max_seeing * float(np.median(seeing)) if seeing else float("nan")
    most = max((q.n_stars for q in qualities), default=0)
    for k, q in enumerate(qualities):
        if not (np.isfinite(q.fwhm) and np.isfinite(q.sky_variance)):
            refused.append((q.exposure_id, "no stars or no good pixels"))
        elif q.fwhm > limit:
            refused.append((q.exposure_id, f"FWHM {q.fwhm:.2f} px, at most {limit:.2f} px wanted"))
        else:
            usable.append(k)
    if not usable:
        where = ", ".join(q.exposure_id for q in qualities[:3])
        raise TooFewStars(found=0, needed=unit.alignment.min_stars, where=f"{len(qualities)} frames ({where}, ...)")

    def worth(k: int) -> float:
        q = qualities[k]
        return (max(q.n_stars, 1) / max(most, 1)) ** 2 / (q.sky_variance * q.fwhm**2)

    return sorted(usable, key=worth, reverse=True), refused


def _gather(
    frames: Sequence[Frame], stars: Sequence[StarTable], qualities: Sequence[Quality], *, order: list[int], unit: Unit
) -> tuple[list[Member], list[tuple[str, str]]]:
    """Register the frames to the best one.

    Another one takes its place where fewer than half fit it (it may be of another field), or where the fluxes,
    known only then, show that it was taken through clouds.
    """
    chosen: tuple[list[Member], list[tuple[str, str]]] = ([], [])
    waiting = list(order)
    for _ in range(3):
        if not waiting:
            break
        best = waiting.pop(0)
        members, refused = _register_all(best, frames, stars, qualities=qualities, order=order, unit=unit)
        if len(members) >= len(chosen[0]):
            chosen = members, refused
        if len(members) <= len(order) / 2 and len(members) < unit.template.max_frames:
            continue
        worth = {m.index: 1.0 / (m.scale**2 * m.sky_variance * qualities[m.index].fwhm ** 2) for m in members}
        clearest = max(worth, key=lambda k: worth[k])
        if worth[clearest] < _WORTH_CHANGING * worth[best] or clearest not in waiting:
            break
        waiting.remove(clearest)
        waiting.insert(0, clearest)
    return chosen


def _register_all(
    best: int,
    frames: Sequence[Frame],
    stars: Sequence[StarTable],
    *,
    qualities: Sequence[Quality],
    order: list[int],
    unit: Unit,
) -> tuple[list[Member], list[tuple[str, str]]]:
    reference = frames[best]
    refused: list[tuple[str, str]] = []
    members = [Member(best, None, 1.0, qualities[best].sky_variance)]
    for k in order:
        if k == best:
            continue
        if len(members) == unit.template.max_frames:
            refused.append((qualities[k].exposure_id, f"the {unit.template.max_frames} best frames are enough"))
            continue
        try:
            members.append(
                _member(
                    k,
                    frames[k],
                    stars,
                    reference=reference,
                    best=best,
                    sky_variance=qualities[k].sky_variance,
                    unit=unit,
                )
            )
        except NightsiftError as error:
            refused.append((qualities[k].exposure_id, str(error)))
    return members, refused


def _member(
    k: int, frame: Frame, stars: Sequence[StarTable], *, reference: Frame, best: int, sky_variance: float, unit: Unit
) -> Member:
    found = register(reference, stars[best], frame, reference_stars=stars[k], options=unit.alignment)
    ratio = flux_ratio(reference, stars[best], frame, stars=stars[k], found=found)
    return Member(k, found, ratio.factor, sky_variance)


def flux_ratio(
    reference: Frame, reference_stars: StarTable, frame: Frame, *, stars: StarTable, found: Registration
) -> FluxRatio:
    """Flux on a reference over flux on a frame, of all the light of clean stars in common.

    Parameters
    ----------
    reference : Frame
        The reference, background-subtracted.
    reference_stars : StarTable
        Its stars.
    frame : Frame
        The frame, background-subtracted.
    stars : StarTable
        Its stars.
    found : Registration
        From the reference to the frame.

    Returns
    -------
    FluxRatio
        The ratio.

    Raises
    ------
    AlignmentFailed
        If there are fewer than three stars in common.
    """
    clean = clean_stars(reference_stars, reference.shape, snr=15.0)[found.first]
    clean &= clean_stars(stars, frame.shape, snr=15.0)[found.second]
    if int(clean.sum()) < _FEWEST_SCALE_STARS:
        clean = (reference_stars["flag"][found.first] == 0) & (stars["flag"][found.second] == 0)
    a, b = reference_stars[found.first[clean]], stars[found.second[clean]]
    if len(a) < _FEWEST_SCALE_STARS:
        raise AlignmentFailed(
            where=frame.meta.path or frame.meta.exposure_id,
            what=f"only {len(a)} stars in common to scale the flux with",
            matched=len(found.first),
            residual_px=found.residual,
        )
    ratio = np.log(a["flux"].astype(np.float64) / b["flux"])
    error = np.hypot(a["flux_err"] / a["flux"], b["flux_err"] / b["flux"]).astype(np.float64)
    weight = 1.0 / (error**2 + 0.01**2)
    keep = clipped(ratio, floor=1e-3)
    scale = float(np.exp(np.average(ratio[keep], weights=weight[keep])))
    growth = aperture_correction(reference, reference_stars).value - aperture_correction(frame, stars).value
    factor = scale * (10.0 ** (0.4 * growth) if np.isfinite(growth) else 1.0)
    return FluxRatio(factor, int(keep.sum()), mad_sigma(ratio[keep]))


def build_template(
    frames: Sequence[Frame], stars: Sequence[StarTable], unit: Unit, *, zero_points: Sequence[float] | None = None
) -> Template:
    """Build a template from frames of one field, band and unit.

    The best frame (lowest variance times squared FWHM at equal transparency) gives pixel grid and flux scale, its
    grid padded so that the dithers of the others fit. The others are registered to it by their stars, scaled
    by stars in common, resampled and averaged (see `nightsift.images.resampling.coadd.stack`).

    Memory: frames are asked for one after the other, each a few times, so `frames` may be any sequence that
    loads a frame when it is indexed. At most seven resampled planes and four sums are held at once.

    Parameters
    ----------
    frames : sequence of Frame
        Background-subtracted frames with artefacts masked.
    stars : sequence of StarTable
        Their stars.
    unit : Unit
        The telescope unit; its tables ``[alignment]`` and ``[template]`` apply.
    zero_points : sequence of float, optional
        Magnitude of 1 ADU for each frame; without them the template's own is unknown (NaN).

    Returns
    -------
    Template
        The template, with its sources and the frames refused.

    Raises
    ------
    TooFewStars
        If no frame has the stars to be aligned by.
    ValueError
        If `frames`, `stars` and `zero_points` differ in length or are empty.
    """
    zero_points = [float("nan")] * len(frames) if zero_points is None else zero_points
    if len(frames) == 0 or not len(frames) == len(stars) == len(zero_points):
        raise ValueError(
            f"one star table and zero point a frame are needed, got {len(frames)} frames, {len(stars)} star tables "
            f"and {len(zero_points)} zero points"
        )
    qualities = [_quality_of(frames[k], stars[k]) for k in range(len(frames))]
    order, refused = _rank(qualities, unit)
    members, left_out = _gather(frames, stars, qualities, order=order, unit=unit)
    best = members[0].index
    reference = frames[best]
    origin, shape = _canvas(reference.shape, [(m.registration, qualities[m.index].shape) for m in members])
    layers = [_layer(m, origin, shape) for m in members]
    data, variance, mask, coverage = stack(lambda k: frames[members[k].index], layers, shape)
    frame = Frame(
        data, variance, mask, reference.meta, wcs=shifted_wcs(_first_wcs(frames, members), origin), sky=reference.sky
    )
    sources = tuple(qualities[m.index].exposure_id for m in members)
    found = find_stars(frame, unit.detection.threshold)
    return Template(
        frame=frame,
        stars=found,
        coverage=coverage,
        template_id=template_identity(unit, sources),
        zero_point=float(zero_points[best]),
        sources=sources,
        refused=(*refused, *left_out),
        growth=aperture_correction(frame, found),
        catalogue=template_catalogue(frame, found),
    )


def _canvas(
    shape: tuple[int, int], others: Sequence[tuple[Registration | None, tuple[int, int]]]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Origin (x, y) on the reference and shape of a grid that holds all frames, padding limited."""
    ny, nx = shape
    low, high = np.zeros(2), np.array([nx - 1.0, ny - 1.0])
    limit = _MOST_PADDING * np.array([nx, ny], dtype=np.float64)
    # Reference positions well around the frame: those that fall onto another frame must be on the canvas.
    x = np.linspace(-limit[0], nx - 1 + limit[0], 201)
    y = np.linspace(-limit[1], ny - 1 + limit[1], 201)
    points = np.stack([axis.ravel() for axis in np.meshgrid(x, y)], axis=1)
    for registration, (my, mx) in others:
        if registration is None:
            continue
        there = registration.mapping(points)
        inside = ((there >= -0.5) & (there <= (mx - 0.5, my - 0.5))).all(axis=1)
        if inside.any():
            low = np.minimum(low, points[inside].min(axis=0))
            high = np.maximum(high, points[inside].max(axis=0))
    # A pixel or two are not worth a grid other than that of the best frame.
    low = np.where(low > -2.0, 0.0, low)
    high = np.where(high < (nx + 1.0, ny + 1.0), (nx - 1.0, ny - 1.0), high)
    origin = np.floor(low).astype(int)
    size = np.ceil(high).astype(int) - origin + 1
    return (int(origin[0]), int(origin[1])), (int(size[1]), int(size[0]))


def _layer(member: Member, origin: tuple[int, int], shape: tuple[int, int]) -> Layer:
    scale = member.scale
    weight = 1.0 / (scale**2 * member.sky_variance)
    if member.registration is None:
        return Layer(grid=None, step=1, offset=origin, scale=scale, weight=weight)
    grid, step = node_grid(member.registration.mapping, shape, origin)
    return Layer(grid=grid, step=step, offset=origin, scale=scale, weight=weight)


def _first_wcs(frames: Sequence[Frame], members: Sequence[Member]) -> WCS | None:
    """WCS of the reference; where it has none, that of the best frame that has one, through their mapping."""
    reference = frames[members[0].index]
    for member in members:
        wcs = frames[member.index].wcs
        if wcs is not None:
            registration = member.registration
            return wcs if registration is None else inherit_wcs(registration.mapping, reference.shape, wcs)
    return None


def shifted_wcs(wcs: WCS | None, origin: tuple[int, int]) -> WCS | None:
    """Coordinates on a grid that starts elsewhere.

    Parameters
    ----------
    wcs : astropy.wcs.WCS or None
        The coordinates.
    origin : tuple of int
        x and y of the first pixel of the new grid on the old one.

    Returns
    -------
    astropy.wcs.WCS or None
        The same on the new grid; None where there are none.
    """
    if wcs is None:
        return None
    shift = np.array(origin, dtype=np.float64)
    moved = wcs.deepcopy()
    moved.wcs.crpix = wcs.wcs.crpix - shift
    if wcs.sip is not None:
        moved.sip = Sip(wcs.sip.a, wcs.sip.b, wcs.sip.ap, wcs.sip.bp, wcs.sip.crpix - shift)
    return moved


def template_identity(unit: Unit, sources: Sequence[str]) -> str:
    """Return the identity of the template that frames (exposure ids, best first) make with the options of a unit.

    It changes with frames, options and code.
    """
    options = {name: getattr(unit, name) for name in OPTIONS}
    return f"{unit.name}-{provenance.key({'sources': list(sources)}, options, provenance.code_of('template'))[:16]}"


def solved(template: Template, catalogue: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]) -> Template:
    """Give a template without coordinates a WCS, from its nominal pointing and a catalogue of positions.

    Parameters
    ----------
    template : Template
        The template; its facts must hold a pointing.
    catalogue : tuple of ndarray of float64, shape (n,)
        Right ascension and declination (deg, ICRS) of sources, at least around the pointing.

    Returns
    -------
    Template
        The same with a WCS.

    Raises
    ------
    AlignmentFailed
        If the stars do not fit the catalogue beyond chance.
    """
    meta, stars = template.frame.meta, template.stars
    found = solve(
        stars["x"],
        stars["y"],
        catalogue,
        pointing=(meta.ra, meta.dec),
        pixel_scale=meta.pixel_scale,
        shape=template.frame.shape,
    )
    known = template.catalogue
    known = None if known is None else with_sky_positions(known, found.wcs)
    return replace(template, frame=template.frame.replace(wcs=found.wcs), catalogue=known)
