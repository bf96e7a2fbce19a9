"""Which frames go into a template: the best of them, registered and scaled to the very best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nightsift.core.robust import clipped
from nightsift.errors import AlignmentFailed, NightsiftError, TooFewStars
from nightsift.frames import Frame
from nightsift.images.align import Registration, register
from nightsift.images.stars import StarTable, clean_stars, typical_fwhm
from nightsift.units import Unit

_FEWEST_SCALE_STARS = 3
_WORTH_CHANGING = 1.1  # a frame this much better than the reference takes its place


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


def quality_of(frame: Frame, stars: StarTable) -> Quality:
    """Measure the quality of a frame.

    Parameters
    ----------
    frame : Frame
        Background-subtracted frame.
    stars : StarTable
        Its stars.

    Returns
    -------
    Quality
        Its quality.
    """
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


def rank(qualities: Sequence[Quality], unit: Unit) -> tuple[list[int], list[tuple[str, str]]]:
    """Sort out usable frames, best first.

    The number of clean stars stands for transparency, which is only known after frames were compared.

    Parameters
    ----------
    qualities : sequence of Quality
        Quality of each frame.
    unit : Unit
        The telescope unit.

    Returns
    -------
    order : list of int
        Indices of usable frames, best first.
    refused : list of (str, str)
        Exposure ids of the others, and why.

    Raises
    ------
    TooFewStars
        If no frame is usable.
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


def gather(
    frames: Sequence[Frame], stars: Sequence[StarTable], qualities: Sequence[Quality], order: list[int], unit: Unit
) -> tuple[list[Member], list[tuple[str, str]]]:
    """Register the frames to the best one.

    Another one takes its place where fewer than half fit it (it may be of another field), or where the fluxes,
    known only then, show that it was taken through clouds.

    Parameters
    ----------
    frames : sequence of Frame
        The frames.
    stars : sequence of StarTable
        Their stars.
    qualities : sequence of Quality
        Their quality.
    order : list of int
        Usable frames, best first.
    unit : Unit
        The telescope unit.

    Returns
    -------
    members : list of Member
        The frames to average, the reference first.
    refused : list of (str, str)
        Exposure ids of those that do not fit, and why.
    """
    chosen: tuple[list[Member], list[tuple[str, str]]] = ([], [])
    waiting = list(order)
    for _ in range(3):
        if not waiting:
            break
        best = waiting.pop(0)
        members, refused = _register_all(best, frames, stars, qualities, order, unit)
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
            members.append(_member(k, frames[k], stars, reference, best, qualities[k].sky_variance, unit))
        except NightsiftError as error:
            refused.append((qualities[k].exposure_id, str(error)))
    return members, refused


def _member(
    k: int, frame: Frame, stars: Sequence[StarTable], reference: Frame, best: int, sky_variance: float, unit: Unit
) -> Member:
    found = register(reference, stars[best], frame, stars[k], unit.alignment)
    return Member(k, found, _flux_scale(reference, stars[best], frame, stars[k], found), sky_variance)


def _flux_scale(
    reference: Frame, reference_stars: StarTable, frame: Frame, stars: StarTable, found: Registration
) -> float:
    """Flux on the reference over flux on the frame: weighted, clipped mean over clean stars in common."""
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
    return float(np.exp(np.average(ratio[keep], weights=weight[keep])))
