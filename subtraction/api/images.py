"""The front door for people: two images in, their difference out; no unit, no archive, no files needed."""

from __future__ import annotations

import dataclasses
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from nightsift.core.errors import AlignmentFailed, BadImage, TooFewStars
from nightsift.core.flags import Mask
from nightsift.core.frames import Frame, Pair, StarTable, Template
from nightsift.images.artefacts.artefacts import mask_artefacts
from nightsift.images.background.background import subtract_background
from nightsift.images.registration.align import Registration, register
from nightsift.images.registration.align import align as align_template
from nightsift.images.resampling.warp import make_pair
from nightsift.images.stars.stars import find_stars
from nightsift.unit.units import default_unit
from subtraction.api.inputs import DetectorFacts, frame_of
from subtraction.api.pairs import AUTO, make_options, subtract_pair
from subtraction.api.result import DifferenceImage

SAME_GRID = 0.15
"""Shift between stars of both images (pixel) up to which a template is left on its grid: a kernel takes the rest."""

PATIENCE = 3.0
"""Seconds after which a line says what is being done."""


def subtract(
    science: Any,
    template: Any,
    *,
    method: str = AUTO,
    gain: float | None = None,
    read_noise: float | None = None,
    saturation: float | None = None,
    mask: npt.ArrayLike | None = None,
    variance: npt.ArrayLike | None = None,
    template_gain: float | None = None,
    template_read_noise: float | None = None,
    template_saturation: float | None = None,
    template_mask: npt.ArrayLike | None = None,
    template_variance: npt.ArrayLike | None = None,
    align: bool | None = None,
    mesh: int = 64,
    artefacts: bool = True,
    options: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> DifferenceImage:
    """Subtract a template from a science image.

    Parameters
    ----------
    science, template : array, masked array, Quantity, CCDData, HDU, HDUList, str or Path
        The images, two dimensions ``[y, x]``, never changed. What they bring (uncertainty, mask, WCS, unit, and the
        cards GAIN, RDNOISE and SATURATE or their usual other names) is used. NaN is masked.
    method : str, optional
        ``"hotpants"``, ``"zogy"``, ``"sfft"``, or ``"auto"`` for the one that fits the pair best.
    gain : float, optional
        Electrons per unit of the image; 1 for images in electrons. Needed where an image brings neither gain nor
        uncertainty.
    read_noise : float, optional
        Read noise (electron). By default the noise of the sky is taken as it is seen: what its photons do not explain
        is read noise, and where they would make more of it, part of the level is a pedestal and no light.
    saturation : float, optional
        Level at which pixels saturate, in the unit of the image; without one, saturated stars go unmasked.
    mask : array_like, shape (ny, nx), optional
        True where a pixel is bad.
    variance : array_like, shape (ny, nx), optional
        Variance of the pixels, in place of gain and read noise.
    template_gain, template_read_noise, template_saturation : float, optional
        Those of the template, where they differ from those of the science image.
    template_mask, template_variance : array_like, optional
        Those of the template; by default what it brings.
    align : bool, optional
        True to align the template by stars, False to trust the grids as they are. By default the stars decide:
        images of one shape whose stars agree to 0.15 pixel, or that have too few stars to tell, are subtracted as they
        are; all others are aligned, by their WCS first and else by the pattern of the stars.
    mesh : int, optional
        Cell of the mesh by which the sky is subtracted (pixel); 0 where that has been done.
    artefacts : bool, optional
        Whether to mask saturated stars with their trails and halos, cosmic rays, streaks and bad lines.
    options : mapping, optional
        Options of the method, see docs/algorithms.md.
    progress : bool, optional
        Whether a line on standard error says what is done when it takes long, as at the first call on a machine.

    Returns
    -------
    DifferenceImage
        Science minus matched template, on the grid and the flux scale of the science image, with variance, mask,
        score and verdict; see its methods `detect`, `plot` and `to_ccddata`.

    Raises
    ------
    BadImage
        If an image cannot be used or a fact is missing.
    AlignmentFailed, TooFewStars
        If images on different grids cannot be aligned, or there are too few stars to match their PSFs.
    SubtractionFailed
        If the fit fails.
    ConfigurationError
        If the method or an option is unknown.

    Examples
    --------
    >>> difference = subtract("new.fits", "old.fits", gain=1.4, saturation=60000)  # doctest: +SKIP
    >>> difference.detect(threshold=5)["x", "y", "sign", "snr"]  # doctest: +SKIP
    """
    if method != AUTO:
        make_options(method, options)
    line = _ProgressLine(progress)
    first = DetectorFacts(gain, read_noise, saturation)
    second = DetectorFacts(template_gain, template_read_noise, template_saturation)
    with line.says("reading"):
        science_frame, unit = frame_of(science, first, mask=mask, variance=variance)
        template_frame, _ = frame_of(
            template, second, "template", mask=template_mask, variance=template_variance, otherwise=first
        )
    frames = []
    for frame in (science_frame, template_frame):
        with line.says(f"preparing {frame.meta.path}"):
            frames.append(_prepared(frame, mesh=mesh, artefacts=artefacts))
    with line.says("aligning the template"):
        pair, registration = _paired(frames[0], frames[1], align)
    with line.says("subtracting"):
        difference = subtract_pair(pair, method, options)
    return DifferenceImage.of(difference, pair, unit, registration=registration)


def _prepared(frame: Frame, *, mesh: int, artefacts: bool) -> Frame:
    if artefacts:
        frame = mask_artefacts(frame, default_unit())
    return subtract_background(frame, mesh) if mesh else frame.replace(sky=0.0)


def _paired(science: Frame, template: Frame, wanted: bool | None) -> tuple[Pair, str]:
    """Both images on the grid of the science image, and how they came there."""
    alike = science.shape == template.shape
    if wanted is False:
        if not alike:
            what = f"its shape {template.shape} is not that of the science image {science.shape}"
            raise BadImage(which="template", what=what, advice="leave align=False away to align it by stars")
        return _as_they_are(science, template), "as given, not checked"
    options = default_unit().alignment
    try:
        stars, reference = find_stars(science), find_stars(template)
        found = register(science, stars, template, reference_stars=reference, options=options)
    except (TooFewStars, AlignmentFailed) as error:
        if wanted or not alike or _apart_by_wcs(science, template):
            raise
        return _as_they_are(science, template), f"as given: could not be checked by stars ({error.reason})"
    shift = _largest_shift(found, stars)
    if alike and not wanted and shift <= SAME_GRID:
        return _as_they_are(science, template), f"as given: {len(found.first)} stars agree to {shift:.2f} pixel"
    deep = Template(template, reference, np.ones(template.shape, np.int16), "template", float("nan"))
    alignment = align_template(science, stars, deep, options=options)
    pair = make_pair(science, deep, alignment)
    note = (
        f"template aligned by {alignment.matched} stars ({alignment.method}), residual {alignment.residual:.3f} pixel"
    )
    if science.wcs is None:
        return pair, note
    return dataclasses.replace(pair, science=pair.science.replace(wcs=science.wcs)), note


def _as_they_are(science: Frame, template: Frame) -> Pair:
    if science.wcs is None and template.wcs is not None:
        science = science.replace(wcs=template.wcs)
    lacking = np.count_nonzero(template.mask & np.uint16(Mask.NO_DATA.value | Mask.NONFINITE.value))
    return Pair(science, template, coverage=1.0 - lacking / template.mask.size)


def _largest_shift(found: Registration, stars: StarTable) -> float:
    """Largest distance between a star's place on both images, by the mapping that all of them make (pixel)."""
    places = np.stack([stars["x"][found.first], stars["y"][found.first]], axis=1).astype(np.float64)
    return float(np.hypot(*(found.mapping(places) - places).T).max())


def _apart_by_wcs(science: Frame, template: Frame) -> bool:
    """Whether the coordinates of both say that their pixels lie on different places of the sky."""
    if science.wcs is None or template.wcs is None:
        return False
    ny, nx = science.shape
    corners = np.array([[0, 0], [nx - 1, 0], [0, ny - 1], [nx - 1, ny - 1], [nx / 2, ny / 2]], dtype=np.float64)
    there = template.wcs.all_world2pix(science.wcs.all_pix2world(corners, 0), 0, quiet=True)
    return not bool(np.all(np.hypot(*(there - corners).T) <= 1.0))


class _ProgressLine:
    """One line on standard error, written only where a step takes longer than `PATIENCE`."""

    def __init__(self, shown: bool) -> None:
        self._shown, self._width = shown, 0

    @contextmanager
    def says(self, what: str) -> Iterator[None]:
        text = f"nightsift: {what} (at the first call on a machine loops are compiled, for some minutes)"
        timer = threading.Timer(PATIENCE, self._write, (text,))
        timer.daemon = True
        if self._shown:
            timer.start()
        try:
            yield
        finally:
            timer.cancel()
            if self._width:
                self._write("")

    def _write(self, text: str) -> None:
        sys.stderr.write("\r" + text.ljust(self._width) + ("" if text else "\r"))
        sys.stderr.flush()
        self._width = len(text)
