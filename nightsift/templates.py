"""Templates: the best frames of a field, aligned, scaled and averaged without what was there only once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from astropy.wcs import WCS, Sip

from nightsift import provenance
from nightsift.frames import FloatImage, Frame
from nightsift.images.align import Registration, inherit_wcs, node_grid
from nightsift.images.solve import solve
from nightsift.images.stack import Layer, stack
from nightsift.images.stars import StarTable, find_stars
from nightsift.template_frames import Member, gather, quality_of, rank
from nightsift.units import Unit

OPTIONS = ("facts", "image", "calibration", "background", "artefacts", "detection", "alignment", "template")
"""Tables of a unit that change its templates: how frames are read and prepared, aligned and combined."""
_MOST_PADDING = 0.5  # of the width of the best frame, on each side


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
        Exposure ids of the frames, best first.
    refused : tuple of (str, str)
        Exposure ids of the frames left out, and why.
    """

    frame: Frame
    stars: StarTable
    coverage: npt.NDArray[np.float32] | npt.NDArray[np.int16]
    template_id: str
    zero_point: float
    sources: tuple[str, ...] = ()
    refused: tuple[tuple[str, str], ...] = field(default=())

    def __post_init__(self) -> None:
        if self.coverage.shape != self.frame.shape:
            raise ValueError(f"coverage {self.coverage.shape} and frame {self.frame.shape} must have the same shape")

    @property
    def depth(self) -> FloatImage:
        """Standard deviation of each pixel (ADU), NaN where there is no data; shape (ny, nx)."""
        sigma = np.full(self.frame.shape, np.nan, dtype=np.float32)
        np.sqrt(self.frame.variance, out=sigma, where=self.coverage > 0)
        return sigma


def build_template(
    frames: Sequence[Frame], stars: Sequence[StarTable], unit: Unit, zero_points: Sequence[float] | None = None
) -> Template:
    """Build a template from frames of one field, band and unit.

    The best frame (lowest variance times squared FWHM at equal transparency) gives pixel grid and flux scale, its
    grid padded so that the dithers of the others fit. The others are registered to it by their stars, scaled
    by stars in common, resampled and averaged (see `nightsift.images.stack.stack`).

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
    qualities = [quality_of(frames[k], stars[k]) for k in range(len(frames))]
    order, refused = rank(qualities, unit)
    members, left_out = gather(frames, stars, qualities, order, unit)
    best = members[0].index
    reference = frames[best]
    origin, shape = _canvas(reference.shape, [(m.registration, qualities[m.index].shape) for m in members])
    layers = [_layer(m, origin, shape) for m in members]
    data, variance, mask, coverage = stack(lambda k: frames[members[k].index], layers, shape)
    frame = Frame(
        data, variance, mask, reference.meta, wcs=_shifted(_first_wcs(frames, members), origin), sky=reference.sky
    )
    sources = tuple(qualities[m.index].exposure_id for m in members)
    return Template(
        frame=frame,
        stars=find_stars(frame, unit.detection.threshold),
        coverage=coverage,
        template_id=template_identity(unit, sources),
        zero_point=float(zero_points[best]),
        sources=sources,
        refused=(*refused, *left_out),
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


def _shifted(wcs: WCS | None, origin: tuple[int, int]) -> WCS | None:
    """The same coordinates on a grid that starts at `origin`."""
    if wcs is None:
        return None
    shift = np.array(origin, dtype=np.float64)
    moved = wcs.deepcopy()
    moved.wcs.crpix = wcs.wcs.crpix - shift
    if wcs.sip is not None:
        moved.sip = Sip(wcs.sip.a, wcs.sip.b, wcs.sip.ap, wcs.sip.bp, wcs.sip.crpix - shift)
    return moved


def template_identity(unit: Unit, sources: Sequence[str]) -> str:
    """Identity of the template that these frames make with the options of a unit.

    Parameters
    ----------
    unit : Unit
        The telescope unit.
    sources : sequence of str
        Exposure ids of the frames, best first.

    Returns
    -------
    str
        The identity; it changes with frames, options and code.
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
    found = solve(stars["x"], stars["y"], catalogue, (meta.ra, meta.dec), meta.pixel_scale, template.frame.shape)
    return replace(template, frame=template.frame.replace(wcs=found.wcs))
