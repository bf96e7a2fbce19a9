"""Labelled stamps of one exposure: synthetic transients put in before the subtraction, everything found labelled.

Each exposure is reduced as it should be, and badly on purpose (`ReductionGuards`): a good pipeline leaves too few false
candidates to learn from.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy.spatial import cKDTree

from models.synthesis.placement import FADED, INJECTED, PlacementOptions
from models.synthesis.synthetic import (
    SAMPLE,
    add_transients,
    exposure_key,
    places,
    point_source_noise,
    quiet_galaxies,
    residual_rows,
)
from models.synthesis.template_light import as_built
from models.training.example_rows import Surroundings, rows_of
from models.training.examples import TrainingSet
from models.training.labels import AMBIGUOUS, BOGUS, REAL, LabelOptions, label
from nightsift.archive.paths import Archive
from nightsift.archive.templates import find_template
from nightsift.context.galaxies import Galaxies, galaxies_of_catalogue, galaxies_of_template
from nightsift.context.known_objects import on_frame, predicted_truth
from nightsift.context.orbits import Orbits
from nightsift.context.template_sources import TemplateSources, sources_on_frame
from nightsift.core.errors import TooFewStars
from nightsift.core.frames import Difference, Frame, Pair
from nightsift.core.random import generator
from nightsift.core.tables import CANDIDATES, TRUTH
from nightsift.images.artefacts.artefacts import mask_artefacts
from nightsift.images.background.background import subtract_background
from nightsift.images.detection.extract import extract
from nightsift.images.photometry.difference_photometry import ZeroPoint, zero_point
from nightsift.images.photometry.growth import aperture_correction
from nightsift.images.registration.align import Alignment, align
from nightsift.images.resampling.warp import make_pair
from nightsift.images.stamps import cut
from nightsift.images.stars.stars import find_stars
from nightsift.unit.units import Unit
from subtraction.api.pairs import subtract_pair
from tasks.steps import with_psf

THRESHOLD = 4.0
LEAST_SHIFT, MOST_SHIFT = 0.1, 1.0  # px by which template and frame are put beside each other, log-uniform
Values = npt.NDArray[np.float64]
EXCLUDED = 3.0  # px from a known variable, active galaxy or star within which a detection says nothing
LIMIT = 5.0  # signal-to-noise ratio at the limiting magnitude
BEYOND = 0.5  # mag below that limit at which a galaxy still counts: its light is there, if not seen by itself
_SAMPLE = pa.schema([CANDIDATES.field(name) for name in SAMPLE])


@dataclass(frozen=True, slots=True)
class ReductionGuards:
    """The guards of a reduction that are up.

    Attributes
    ----------
    name : str
        ``"standard"`` with all of them, ``"careless"`` otherwise.
    cosmic_rays : bool
        Cosmic rays are masked.
    artefacts : bool
        Streaks, bleed trails, the surroundings of saturated pixels and halos of bright stars are masked.
    kernel : bool
        The matching kernel may vary over the frame.
    shift : tuple of float
        Template moved by x, y (pixel), as one wave over the frame: an alignment that missed the distortion. A constant
        shift would be taken up by the kernel.
    """

    name: str = "standard"
    cosmic_rays: bool = True
    artefacts: bool = True
    kernel: bool = True
    shift: tuple[float, float] = (0.0, 0.0)


CAREFUL = ReductionGuards()


def draw_guards(seed: int, *key: str) -> ReductionGuards:
    """Draw which guards are lowered: each exposure shows other faults, so that none of them fills the set.

    Cosmic rays stay unmasked in every second exposure; artefacts unmasked, a stiff kernel, a shift in two of three.
    """
    rng = generator(seed, "careless", *key)
    size, angle = np.exp(rng.uniform(np.log(LEAST_SHIFT), np.log(MOST_SHIFT))), rng.uniform(0.0, 2.0 * np.pi)
    up = rng.random(4) < (1 / 2, 1 / 3, 1 / 3, 1 / 3)
    shift = (0.0, 0.0) if up[3] else (float(size * np.cos(angle)), float(size * np.sin(angle)))
    return ReductionGuards("careless", bool(up[0]), bool(up[1]), bool(up[2]), shift)


def _misaligned(alignment: Alignment, shift: tuple[float, float]) -> Alignment:
    """Return an alignment that misses a wave over the frame.

    The shift is its amplitude in x and y (pixel); it runs along the same direction, one period over the frame.
    """
    size = float(np.hypot(*shift))
    if size == 0.0:
        return alignment
    rows, columns = np.mgrid[: alignment.grid.shape[1], : alignment.grid.shape[2]] * float(alignment.step)
    along = (columns * shift[0] / alignment.shape[1] + rows * shift[1] / alignment.shape[0]) / size
    wave = np.sin(2.0 * np.pi * along)
    return dataclasses.replace(alignment, grid=alignment.grid + np.reshape(shift, (2, 1, 1)) * wave)


def lowered(unit: Unit, care: ReductionGuards) -> Unit:
    """Return the unit with its guards lowered, and a lower threshold.

    Parameters
    ----------
    unit : Unit
        A unit.
    care : ReductionGuards
        Which guards stay up.

    Returns
    -------
    Unit
        The same telescope, reduced badly on purpose; the unit itself where all guards are up.
    """
    if care.name == CAREFUL.name:
        return unit
    sections: dict[str, dict[str, Any]] = {
        "artefacts": {"cosmic_rays": unit.artefacts.cosmic_rays and care.cosmic_rays},
        "alignment": {"order": 1, "max_residual": 3.0},
        "detection": {"threshold": min(THRESHOLD, unit.detection.threshold)},
    }
    if not care.artefacts:
        sections["artefacts"] |= {"streaks": False, "bleed": False, "saturation_grow": 0, "bright_star_radius": 0.0}
    if not care.kernel and unit.subtraction.method == "hotpants":
        sections["subtraction"] = {"options": {**unit.subtraction.options, "kernel_order": 0, "flux_order": 0}}
    return changed(unit, **sections)


def changed(unit: Unit, **sections: dict[str, Any]) -> Unit:
    """Return a unit with some keys of some sections replaced, checked as if they had been read."""
    values = unit.model_dump()
    for section, changes in sections.items():
        values[section] |= changes
    return Unit.model_validate(values)


@dataclass(frozen=True, slots=True)
class FactoryOptions:
    """How the examples of an exposure are made.

    Attributes
    ----------
    placement : PlacementOptions
        Synthetic transients.
    labels : LabelOptions
        What counts as a match.
    size : int
        Width of a stamp (pixel).
    max_bogus : int
        Most false detections kept of one reduction of one exposure, drawn at random: one bad frame must not fill
        the set. What is left out is counted.
    galaxies : float
        Galaxies where nothing changes whose residual is taken as bogus, for each million pixels. They are drawn by the
        prior of the hosts: a galaxy under a stamp must not give the label away.
    seed : int
        Everything random depends on it.
    """

    placement: PlacementOptions = field(default_factory=PlacementOptions)
    labels: LabelOptions = field(default_factory=LabelOptions)
    size: int = 31
    max_bogus: int = 400
    galaxies: float = 60.0
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """What is known of the sky of one exposure.

    Attributes
    ----------
    truth : pyarrow.Table
        Objects that change or move, with their pixels; schema `nightsift.core.tables.TRUTH`.
    orbits : Orbits or None
        Orbits of minor planets, where the truth does not hold them.
    excluded : ndarray of float64, shape (n, 2)
        RA, Dec (deg) of what may vary without a truth saying so: variables, active galaxies, and stars where wanted.
        A detection within `EXCLUDED` pixels of one is neither real nor bogus.
    galaxies : pyarrow.Table or None
        Catalogue of galaxies, see `nightsift.context.galaxies.galaxies_of_catalogue`; None to take those that the
        template shows.
    """

    truth: pa.Table
    orbits: Orbits | None = None
    excluded: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 2)))
    galaxies: pa.Table | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """One exposure on the grid of its template, before the subtraction.

    Attributes
    ----------
    pair : Pair
        Science and template.
    zero : ZeroPoint
        Zero point.
    sources : TemplateSources
        Sources of the template on this grid.
    template_id : str
        Identity of the template.
    """

    pair: Pair
    zero: ZeroPoint
    sources: TemplateSources
    template_id: str


def examples_of(
    frame: Frame,
    unit: Unit,
    archive: Archive,
    *,
    known: Known,
    survey: str,
    care: ReductionGuards,
    options: FactoryOptions,
) -> TrainingSet:
    """Make labelled stamps of one reduction of one exposure.

    Parameters
    ----------
    frame : Frame
        As read, with its sky.
    unit : Unit
        Its unit.
    archive : Archive
        Where its template lies.
    known : Known
        What is known of its sky.
    survey : str
        Name of the survey.
    care : ReductionGuards
        How it is reduced.
    options : FactoryOptions
        How examples are made.

    Returns
    -------
    TrainingSet
        The examples; its card counts what was injected, found and left out.

    Raises
    ------
    FrameError
        If the frame is no good for the stage reached.
    NoTemplate
        If it has no template.
    """
    unit, reduction = lowered(unit, care), care.name
    prepared = _prepare_pair(frame, unit, archive, shift=care.shift)
    pair = prepared.pair
    noise = point_source_noise(pair)
    limit = prepared.zero.value - 2.5 * np.log10(LIMIT * float(np.nanmedian(noise)))
    galaxies = _visible(_galaxies(known, prepared), limit)
    changing = pa.concat_tables([known.truth, _predicted(known, pair.science, unit, limit=limit)])
    lit = _with_template_psf(pair, unit, options.placement)
    steady = prepared.sources.take(~_near_excluded(prepared.sources.x, prepared.sources.y, known, frame=pair.science))
    lit, synthetic, asked = add_transients(
        lit, noise, galaxies, known=changing, zero=prepared.zero, reduction=reduction, seed=options.seed,
        options=options.placement, stars=steady,
    )  # fmt: skip
    pair, sources = as_built(lit, synthetic, prepared.sources)
    assert pair.science.psf is not None
    around = Surroundings(galaxies, sources, 0.75 * pair.science.psf.fwhm + 1.5)
    difference = subtract_pair(pair, unit.subtraction.method, unit.subtraction.options)
    candidates = extract(difference, pair, unit, zero_point=prepared.zero, template_id=prepared.template_id)
    truth = pa.concat_tables([changing, synthetic])
    files = {frame.meta.exposure_id: Path(frame.meta.path).name}
    labels, matches = label(candidates, files, truth, options.labels)
    at_x, at_y = (np.asarray(candidates[name], dtype=np.float64) for name in ("x", "y"))
    excluded = _near_excluded(at_x, at_y, known, frame=pair.science) & (labels == BOGUS)
    labels[excluded] = AMBIGUOUS
    keep, counts = _chosen(labels, options, (reduction, *exposure_key(frame)))
    residuals = _still_galaxies(
        difference, pair, prepared.zero, galaxies=galaxies, truth=truth, candidates=candidates, reduction=reduction,
        options=options,
    )  # fmt: skip
    chosen = pa.concat_tables([candidates.take(pa.array(keep)).select(list(SAMPLE)), residuals.cast(_SAMPLE)])
    labels = np.concatenate([labels[keep], np.full(len(residuals), BOGUS, np.int8)])
    matches = np.concatenate([matches[keep], np.full(len(residuals), -1, np.int64)])
    x, y = chosen["x"].to_numpy(), chosen["y"].to_numpy()
    stamps = cut(pair, difference, x, y=y, size=options.size, orientation=unit.stamps.orientation)
    rows = rows_of(chosen, labels, matches, truth=truth, survey=survey, reduction=reduction, around=around)
    left_out = counts | {"at_known_objects": int(excluded.sum())}
    card = _card(options, left_out, asked, kinds=np.asarray(rows["kind"]), synthetic=synthetic)
    return TrainingSet(stamps, rows, card)


def _card(
    options: FactoryOptions,
    left_out: dict[str, int],
    asked: Mapping[str, int],
    *,
    kinds: npt.NDArray[Any],
    synthetic: pa.Table,
) -> dict[str, Any]:
    """Return the card of the examples of one reduction: options, what was injected, found and left out."""
    found = {f"{one}_found": int((kinds == one).sum()) for one in asked}
    more = {"injected_on_galaxies": _on_galaxies(synthetic), "reductions_where_nothing_fades": int(asked[FADED] == 0)}
    return {
        "surveys": 1,
        "left_out": left_out,
        "labels": dataclasses.asdict(options.labels),
        "placement": dataclasses.asdict(options.placement),
        "synthetic": {**asked, **found, **more},
    }


def _prepare_pair(frame: Frame, unit: Unit, archive: Archive, *, shift: tuple[float, float] = (0.0, 0.0)) -> Prepared:
    """Take a frame, as read, to the grid of its template, moved there by a wave of amplitude `shift` (pixel)."""
    frame = subtract_background(mask_artefacts(frame, unit), unit.background.mesh)
    stars = find_stars(frame)
    frame = with_psf(frame, stars, unit)
    template = find_template(archive, frame.meta)
    alignment = align(frame, stars, template, options=unit.alignment)
    pair = make_pair(frame, template, _misaligned(alignment, shift))
    zero = zero_point(stars, template, alignment, growth=aperture_correction(frame, stars))
    return Prepared(pair, zero, sources_on_frame(template, alignment), template.template_id)


def _on_galaxies(synthetic: pa.Table) -> int:
    """Count the injected stars that got a host: fewer than asked for where few galaxies are known."""
    hosted = synthetic.filter(pc.equal(synthetic["kind"], INJECTED))["host_id"]
    return len(hosted) - hosted.null_count


def _chosen(
    labels: npt.NDArray[np.int8], options: FactoryOptions, key: tuple[str, ...]
) -> tuple[npt.NDArray[np.int64], dict[str, int]]:
    """Candidates that become examples: all real ones, false ones thinned."""
    bogus = np.flatnonzero(labels == BOGUS)
    chosen = generator(options.seed, "bogus", *key).permutation(bogus)[: options.max_bogus]
    counts = {"ambiguous": int((labels == AMBIGUOUS).sum()), "bogus_thinned": len(bogus) - len(chosen)}
    return np.sort(np.concatenate([np.flatnonzero(labels == REAL), chosen])), counts


def _predicted(known: Known, frame: Frame, unit: Unit, *, limit: float) -> pa.Table:
    """Minor planets by their ephemerides, where there are orbits and coordinates."""
    if known.orbits is None or frame.wcs is None:
        return TRUTH.empty_table()
    faintest = limit + BEYOND if np.isfinite(limit) else 99.0
    return predicted_truth(frame, frame.wcs, known.orbits, site=unit.site, faintest=faintest)


def _near_excluded(x: Values, y: Values, known: Known, *, frame: Frame) -> npt.NDArray[np.bool_]:
    """Positions at objects that may vary."""
    if not len(known.excluded) or frame.wcs is None or not len(x):
        return np.zeros(len(x), dtype=np.bool_)
    there = on_frame(frame.wcs, frame.shape, known.excluded[:, 0], dec=known.excluded[:, 1])
    if not len(there):
        return np.zeros(len(x), dtype=np.bool_)
    return np.asarray(cKDTree(there).query(np.column_stack([x, y]))[0] <= EXCLUDED)


def _with_template_psf(pair: Pair, unit: Unit, options: PlacementOptions) -> Pair:
    """Return the pair with the PSF of its template on this grid, where something is to fade and stars suffice."""
    if options.fading <= 0 and options.varied <= 0:
        return pair
    try:
        template = with_psf(pair.template, find_stars(pair.template), unit)
    except TooFewStars:
        return pair
    return Pair(pair.science, template, pair.coverage)


def _galaxies(known: Known, prepared: Prepared) -> Galaxies:
    wcs = prepared.pair.science.wcs
    if known.galaxies is None or wcs is None:
        return galaxies_of_template(prepared.sources)
    return galaxies_of_catalogue(known.galaxies, wcs, prepared.pair.science.shape)


def _visible(galaxies: Galaxies, limit: float) -> Galaxies:
    """Galaxies whose light matters: down to a little below the limit of the frame, or of unknown magnitude."""
    return galaxies.take(~(galaxies.mag > limit + BEYOND)) if np.isfinite(limit) else galaxies


def _still_galaxies(
    difference: Difference,
    pair: Pair,
    zero: ZeroPoint,
    *,
    galaxies: Galaxies,
    truth: pa.Table,
    candidates: pa.Table,
    reduction: str,
    options: FactoryOptions,
) -> pa.Table:
    """Residuals of galaxies in which nothing changes."""
    rng = generator(options.seed, "galaxies", reduction, *exposure_key(pair.science))
    n = int(rng.poisson(options.galaxies * difference.data.size / 1e6))
    clear = options.labels.clear_radius
    still = quiet_galaxies(
        galaxies, places(truth), places(candidates), n=n, clear=clear, options=options.placement, rng=rng
    )
    return residual_rows(difference, pair, zero, galaxies=still)
