"""Pairs of frames: a Pair in, a Difference out, as the pipeline calls it.

Methods are the modules of `subtraction.methods`; their file names are their names. What each of them promises stands
in `subtraction.contract`. The choice that ``method = "auto"`` makes follows the rules in `choose`, in their order; see
docs/algorithms.md, section 15.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import pkgutil
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from nightsift.core.errors import ConfigurationError, TooFewStars
from nightsift.core.frames import Difference, Frame, Pair
from nightsift.images.stars.stars import clean_stars, find_stars, typical_fwhm
from subtraction import methods as _methods
from subtraction.contract import check

AUTO = "auto"
"""The name that stands for the choice."""

WINDOW = 3000
"""Side of the middle part of the frames that is looked at (pixel); the choice must cost little."""

FEW_STARS = 20
"""Clean stars on a frame below which its PSF is not to be trusted; the kernel needs none."""

SHARPEST = 1.9
"""FWHM below which a PSF is undersampled (pixel)."""

CROWDED = 0.05
"""Part of the sky within one FWHM of a star above which a field is crowded."""

ELONGATED = 1.15
"""Median axis ratio of the stars above which a PSF is elongated."""

SHARPER = 1.03
"""Ratio of the seeings, template to science, above which the science frame is the sharper one."""

__all__ = ["check_options", "make_options", "method_names", "subtract_pair"]


@dataclass(frozen=True, slots=True)
class Traits:
    """What a frame is like, as far as it matters for the choice.

    Attributes
    ----------
    clean : float
        Isolated, unsaturated stars, on the whole frame.
    fwhm : float
        Usual FWHM of the stars (pixel).
    elongation : float
        Median axis ratio of the clean stars.
    crowding : float
        Part of the sky within one FWHM of a star.
    """

    clean: float
    fwhm: float
    elongation: float
    crowding: float


@dataclass(frozen=True, slots=True)
class Choice:
    """A method and the reason.

    Attributes
    ----------
    method : str
        Name of a module of `subtraction.methods`.
    why : str
        One clause for people.
    """

    method: str
    why: str


def traits(frame: Frame) -> Traits:
    """Look at the stars in the middle of a frame.

    Parameters
    ----------
    frame : Frame
        Background-subtracted frame.

    Returns
    -------
    Traits
        What it is like; without stars all but the FWHM are zero.
    """
    ny, nx = frame.shape
    y, x = max(0, (ny - WINDOW) // 2), max(0, (nx - WINDOW) // 2)
    part = (slice(y, y + WINDOW), slice(x, x + WINDOW))
    middle = frame.replace(
        data=np.ascontiguousarray(frame.data[part]),
        variance=np.ascontiguousarray(frame.variance[part]),
        mask=np.ascontiguousarray(frame.mask[part]),
    )
    try:
        stars = find_stars(middle, minimum=1)
    except TooFewStars:
        return Traits(0.0, float("nan"), 0.0, 0.0)
    fwhm = typical_fwhm(stars)
    clean = stars[clean_stars(stars, middle.shape, isolation=4.0, snr=20.0)]
    share = frame.data.size / middle.data.size
    covered = 1.0 - np.exp(-len(stars) * np.pi * fwhm**2 / middle.data.size)
    ratio = float(np.median(clean["a"] / clean["b"])) if len(clean) else 1.0
    return Traits(len(clean) * share, float(fwhm), ratio, float(covered))


def choose(pair: Pair) -> Choice:
    """Choose a method for a pair.

    Parameters
    ----------
    pair : Pair
        Science and template on one grid.

    Returns
    -------
    Choice
        The method and the reason.
    """
    science, template = traits(pair.science), traits(pair.template)
    fewest = min(science.clean, template.clean)
    sharpest = np.fmin(science.fwhm, template.fwhm)
    if sharpest < SHARPEST:
        return Choice("hotpants", f"the PSF is undersampled (FWHM {sharpest:.1f} px): only a kernel is fitted to it")
    if max(science.crowding, template.crowding) > CROWDED and fewest < 5 * FEW_STARS:
        crowding = max(science.crowding, template.crowding)
        return Choice("sfft", f"stars cover {crowding:.0%} of the sky and few stand alone: every lit pixel is used")
    if fewest < FEW_STARS:
        return Choice("hotpants", f"only {fewest:.0f} stars stand alone, too few for a PSF of each frame")
    if max(science.elongation, template.elongation) > ELONGATED:
        ratio = max(science.elongation, template.elongation)
        return Choice("zogy", f"stars are elongated (axis ratio {ratio:.2f}), which both PSFs follow")
    if template.fwhm > SHARPER * science.fwhm:
        return Choice("zogy", f"the science frame is sharper ({science.fwhm:.1f} against {template.fwhm:.1f} px)")
    if max(science.crowding, template.crowding) > CROWDED:
        crowding = max(science.crowding, template.crowding)
        return Choice("zogy", f"stars cover {crowding:.0%} of the sky")
    return Choice("hotpants", "nothing speaks against the quickest method")


def method_names() -> tuple[str, ...]:
    """Return the names of all methods, sorted."""
    return tuple(sorted(found.name for found in pkgutil.iter_modules(_methods.__path__) if found.name[0] != "_"))


def subtract_pair(pair: Pair, method: str = "hotpants", options: Mapping[str, Any] | None = None) -> Difference:
    """Subtract the template from the science frame.

    Parameters
    ----------
    pair : Pair
        Science and template on one grid, both background-subtracted. The science frame's PSF is fitted here when it
        has none.
    method : str, optional
        Name of a module of `subtraction.methods`, or ``"auto"`` for the one that `choose` picks.
    options : mapping, optional
        Options of the method by name; the others have their defaults. None where the method is picked.

    Returns
    -------
    Difference
        The difference, checked by `subtraction.contract.check`.

    Raises
    ------
    ConfigurationError
        If the method or an option is unknown, or an option has the wrong type.
    TooFewStars
        If there are too few stars to fit PSF or kernel.
    SubtractionFailed
        If the fit fails, or the difference breaks a promise of the contract.
    """
    # All matrices here are small: threads of BLAS would only wait for each other, and for those of the pixel loops.
    with threadpool_limits(limits=1, user_api="blas"):
        if method != AUTO:
            return check(_find(method).subtract(pair, make_options(method, options)), pair)
        check_options(method, options)
        choice = choose(pair)
        difference = subtract_pair(pair, choice.method)
        return dataclasses.replace(difference, choice=choice.why)


def check_options(method: str, options: Mapping[str, Any] | None = None, file: str = "unit") -> None:
    """Check the name of a method, ``"auto"`` among them, and its options, before there is a pair.

    Parameters
    ----------
    method : str
        Name of the method.
    options : mapping, optional
        Options by name.
    file : str, optional
        Where they stand, for the error.

    Raises
    ------
    ConfigurationError
        If the method or an option is unknown, or an option has a value that it cannot have.
    """
    try:
        if method != AUTO:
            make_options(method, options)
        elif options:
            what = "are given, although the method is picked for each pair"
            raise _wrong(AUTO, ", ".join(options), what, advice="name a method, or leave the options away")
    except ConfigurationError as error:
        raise ConfigurationError(**{**error.facts, "file": file}) from None


def make_options(method: str, options: Mapping[str, Any] | None = None) -> Any:
    """Make and check the options of a method.

    Parameters
    ----------
    method : str
        Name of the method.
    options : mapping, optional
        Options by name.

    Returns
    -------
    Options
        The frozen dataclass of the method.

    Raises
    ------
    ConfigurationError
        If the method or an option is unknown, or an option has the wrong type.
    """
    kind = _find(method).Options
    given = dict(options or {})
    types_by_name = {f.name: get_type_hints(kind)[f.name] for f in dataclasses.fields(kind)}
    for key, value in given.items():
        if key not in types_by_name:
            raise _wrong(method, key, "is no option of this method", advice=_advice(key, tuple(types_by_name)))
        wanted = types_by_name[key]
        fits = isinstance(value, wanted) or (wanted is float and isinstance(value, int))
        if not fits or (isinstance(value, bool) and wanted is not bool):
            raise _wrong(method, key, f"is {value!r}", advice=f"give a value of type {wanted.__name__}")
    try:
        return kind(**given)
    except ValueError as error:
        what, where = str(error), "section 20 of docs/algorithms.md lists options and their values"
        raise _wrong(method, what.partition(" ")[0], what, advice=where) from error


def _find(method: str) -> types.ModuleType:
    if method not in method_names():
        raise ConfigurationError(
            file="unit",
            table="subtraction",
            key="method",
            what=f"there is no method '{method}'",
            advice=_advice(method, (*method_names(), AUTO)),
        )
    return importlib.import_module(f"subtraction.methods.{method}")


def _wrong(method: str, key: str, what: str, *, advice: str) -> ConfigurationError:
    return ConfigurationError(file="unit", table=f"subtraction.options ({method})", key=key, what=what, advice=advice)


def _advice(name: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known)}"
