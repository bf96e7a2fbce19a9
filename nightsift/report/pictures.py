"""What pages share: stamps as PNG, stylesheet, templates and formats; and the page on which people label candidates."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nightsift import __version__
from nightsift.core.frames import Stamps
from nightsift.core.robust import mad_sigma

if TYPE_CHECKING:
    from jinja2 import Template

GAP = 1
"""Pixels between the planes of a picture."""

MASKED = np.array([214, 120, 92], dtype=np.uint8)
"""Colour of masked pixels."""

TEMPLATE = "labelling.html.j2"


def strip(stamps: Stamps) -> str:
    """Draw science, template and difference of the first stamp side by side, y upwards.

    Science and template are stretched by asinh from just below their sky to their peak; the difference is linear and
    symmetric about zero, mid-grey, so that a real source and its negative look alike but for the sign.

    Parameters
    ----------
    stamps : Stamps
        At least one stamp.

    Returns
    -------
    str
        A data URI of a PNG of ``(3 size + 2) x size`` pixels.
    """
    data, mask = stamps.data[0], stamps.mask[0]
    grey = [stretched(data[..., 0], mask), stretched(data[..., 1], mask), _symmetric(data[..., 2], mask)]
    planes = [np.repeat(plane[..., None], 3, axis=2) for plane in grey]
    for plane in planes:
        plane[mask] = (plane[mask] // 3 + MASKED // 3 * 2).astype(np.uint8)
    gap = np.full((data.shape[0], GAP, 3), 255, dtype=np.uint8)
    joined = np.concatenate([planes[0], gap, planes[1], gap, planes[2]], axis=1)
    return png(joined[::-1])


def png(pixels: npt.NDArray[np.uint8]) -> str:
    """Return pixels (uint8, shape (ny, nx, 3), first row on top) as a data URI of a PNG."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def stretched(image: npt.NDArray[np.float32], mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """Grey levels from just below the sky to the peak of the good pixels, by asinh; mid-grey without any.

    Parameters
    ----------
    image : ndarray of float32
        The pixels.
    mask : ndarray of bool, of the same shape
        True where they are bad.

    Returns
    -------
    ndarray of uint8
        The levels.
    """
    good = image[~mask & np.isfinite(image)]
    if good.size < 2:
        return np.full(image.shape, 128, dtype=np.uint8)
    sky, noise = _level(good)
    high = max(float(np.quantile(good, 0.997)), sky + 6.0 * noise)
    scaled = np.arcsinh(np.maximum(image - (sky - 2.0 * noise), 0.0) / (3.0 * noise))
    top = np.arcsinh((high - sky + 2.0 * noise) / (3.0 * noise))
    return _bytes(scaled / top)


def _symmetric(image: npt.NDArray[np.float32], mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    good = image[~mask & np.isfinite(image)]
    if good.size < 2:
        return np.full(image.shape, 128, dtype=np.uint8)
    _, noise = _level(good)
    limit = max(5.0 * noise, 0.8 * float(np.abs(good).max()))
    return _bytes(0.5 + 0.5 * image / limit)


def _level(good: npt.NDArray[np.float32]) -> tuple[float, float]:
    """Median and robust noise; never zero, so that a constant stamp can be drawn too."""
    sky = float(np.median(good))
    noise = mad_sigma(good, sky)
    return sky, max(noise, 1e-6 * abs(sky), 1e-9)


def _bytes(values: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
    return np.asarray(np.clip(np.nan_to_num(values), 0.0, 1.0) * 255.0 + 0.5, dtype=np.uint8)


def stylesheet() -> str:
    """Return the stylesheet of the pages, to stand in a ``<style>`` element."""
    return (files("nightsift.report") / "page.css").read_text(encoding="utf-8")


def page_template(name: str, package: str = "nightsift.report", **filters: Callable[..., str]) -> Template:
    """Read the template of a page from a package, with filters by name; values are escaped, and none may be missing."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= filters
    return environment.from_string((files(package) / name).read_text(encoding="utf-8"))


def utc_minute(moment: dt.datetime | None) -> str:
    """Return a moment, now where it is None, as date and time to the minute."""
    return (moment or dt.datetime.now(dt.UTC)).strftime("%Y-%m-%d %H:%M UTC")


def number(value: float | None, form: str) -> str:
    """Return a number as `format` writes it, with a minus sign of the width of a plus; a dash where there is none."""
    return "–" if value is None or not math.isfinite(value) else format(value, form).replace("-", "−")


def render_labelling(
    unit: str, rows: Sequence[Mapping[str, Any]], stamps: Stamps, *, table: str, next_step: str
) -> str:
    """Write the page.

    The scores are not shown: who sees them agrees with them, and the labels then teach nothing.

    Parameters
    ----------
    unit : str
        The unit.
    rows : sequence of mapping
        Rows of `models.transfer.active.QUESTIONS`.
    stamps : Stamps
        Their stamps.
    table : str
        Name of the table that the page saves.
    next_step : str
        Command that reads it.

    Returns
    -------
    str
        A complete HTML document that needs no other file.

    Raises
    ------
    ValueError
        If stamps and rows differ in number.
    """
    if len(rows) != len(stamps):
        raise ValueError(f"a stamp is needed for each of {len(rows)} rows, got {len(stamps)}")
    page = page_template(TEMPLATE)
    names = [row["candidate_id"] for row in rows]
    cards = [
        {
            **row,
            "rule": row["rule"] or "",
            "picture": strip(Stamps(stamps.data[place : place + 1], stamps.mask[place : place + 1])),
        }
        for place, row in enumerate(rows)
    ]
    return page.render(
        unit=unit, cards=cards, table=table, next_step=next_step, style=stylesheet(), version=__version__,
        width=3 * stamps.data.shape[1] + 2, height=stamps.data.shape[1],
        key="nightsift-" + hashlib.sha256(json.dumps(names).encode()).hexdigest()[:16],
    )  # fmt: skip
