"""Difference imaging: a Pair in, a Difference out.

Methods are the modules of `subtraction.methods`; their file names are their names. What each of them promises stands
in `subtraction.contract`.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import pkgutil
import types
from collections.abc import Mapping
from typing import Any, get_type_hints

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from nightsift.errors import ConfigurationError
from nightsift.frames import Difference, Pair
from subtraction import methods as _methods
from subtraction.choice import AUTO, choose
from subtraction.contract import check

__all__ = ["make_options", "method_names", "subtract"]


def method_names() -> tuple[str, ...]:
    """Names of all methods found.

    Returns
    -------
    tuple of str
        Sorted names.
    """
    return tuple(sorted(found.name for found in pkgutil.iter_modules(_methods.__path__) if found.name[0] != "_"))


def subtract(pair: Pair, method: str = "hotpants", options: Mapping[str, Any] | None = None) -> Difference:
    """Subtract the template from the science frame.

    Parameters
    ----------
    pair : Pair
        Science and template on one grid, both background-subtracted. The science frame's PSF is fitted here when it
        has none.
    method : str, optional
        Name of a module of `subtraction.methods`, or ``"auto"`` for the one that `subtraction.choice` picks.
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
        if options:
            what = "are given, although the method is picked for each pair"
            raise _wrong(AUTO, ", ".join(options), what, "name a method, or leave the options away")
        choice = choose(pair)
        difference = subtract(pair, choice.method)
        return dataclasses.replace(difference, choice=choice.why)


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
            raise _wrong(method, key, "is no option of this method", _advice(key, tuple(types_by_name)))
        wanted = types_by_name[key]
        fits = isinstance(value, wanted) or (wanted is float and isinstance(value, int))
        if not fits or (isinstance(value, bool) and wanted is not bool):
            raise _wrong(method, key, f"is {value!r}", f"give a value of type {wanted.__name__}")
    try:
        return kind(**given)
    except ValueError as error:
        raise _wrong(method, ", ".join(given), str(error), "see the options in docs/algorithms.md") from error


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


def _wrong(method: str, key: str, what: str, advice: str) -> ConfigurationError:
    return ConfigurationError(file="unit", table=f"subtraction.options ({method})", key=key, what=what, advice=advice)


def _advice(name: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known)}"
