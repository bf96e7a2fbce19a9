"""What the pages share: stylesheet, template, and how numbers and times are written."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Template


def stylesheet() -> str:
    """Return the stylesheet of the pages, to stand in a ``<style>`` element."""
    return (files("nightsift.report") / "page.css").read_text(encoding="utf-8")


def page_template(name: str, package: str = "nightsift.report", **filters: Callable[..., str]) -> Template:
    """Read the template of a page, in which values are escaped and none may be missing.

    Parameters
    ----------
    name : str
        File of the template.
    package : str, optional
        Package that it lies in.
    **filters : callable
        Its filters by name.

    Returns
    -------
    jinja2.Template
        To be rendered.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= filters
    return environment.from_string((files(package) / name).read_text(encoding="utf-8"))


def utc_minute(moment: dt.datetime | None) -> str:
    """When a page was made.

    Parameters
    ----------
    moment : datetime or None
        The moment; now when None.

    Returns
    -------
    str
        Date and time to the minute.
    """
    return (moment or dt.datetime.now(dt.UTC)).strftime("%Y-%m-%d %H:%M UTC")


def number(value: float | None, form: str) -> str:
    """Number for a table cell, a dash where there is none.

    Parameters
    ----------
    value : float or None
        The number.
    form : str
        How it is written, as `format` understands it.

    Returns
    -------
    str
        The text, with a minus sign of the width of a plus.
    """
    return "–" if value is None or not math.isfinite(value) else format(value, form).replace("-", "−")
