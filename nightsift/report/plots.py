"""Figures of a night, one style all over: quiet, readable in print, safe for colour-blind eyes. SVG text out."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#332288", "#117733")
"""Okabe and Ito's palette without black and yellow, and two of Tol's: distinct for the usual colour deficiencies."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X")

STYLE: Any = {
    "font.family": "sans-serif", "font.sans-serif": ["Helvetica", "Arial", "DejaVu Sans"], "font.size": 9.0,
    "axes.edgecolor": "#9aa3ad", "axes.linewidth": 0.7, "axes.labelcolor": "#3a434d", "axes.titlesize": 9.0,
    "axes.titlelocation": "left", "axes.titlecolor": "#1b222a", "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "grid.color": "#e3e7eb", "grid.linewidth": 0.6, "xtick.color": "#5b6671",
    "ytick.color": "#5b6671", "xtick.labelsize": 8.0, "ytick.labelsize": 8.0, "legend.frameon": False,
    "legend.fontsize": 8.0, "svg.fonttype": "none", "svg.hashsalt": "nightsift", "figure.facecolor": "none",
    "savefig.facecolor": "none", "axes.axisbelow": True,
}  # fmt: skip

TRENDS = (
    ("seeing", "Seeing", "arcsec"),
    ("zero_point", "Zero point", "mag"),
    ("limiting_mag", "5-sigma depth", "mag"),
    ("align_residual", "Alignment residual", "pixel"),
)
"""Ledger columns drawn over time, with title and unit."""


def trends(ledger: pa.Table) -> str:
    """Seeing, zero point, depth and alignment residual of each unit over time.

    Parameters
    ----------
    ledger : pyarrow.Table
        Ledger rows (schema `nightsift.core.tables.LEDGER`).

    Returns
    -------
    str
        An SVG element; empty when no exposure has a time and any of the four values.
    """
    times = _numbers(ledger, "mjd")
    values = {name: _numbers(ledger, name) for name, _, _ in TRENDS}
    shown = np.isfinite(times) & np.any([np.isfinite(column) for column in values.values()], axis=0)
    if not shown.any():
        return ""
    hours, label = _clock(times, shown)
    units = np.array(ledger["unit"].to_pylist())
    names = sorted(set(units[shown]))
    with _style():
        figure = _figure(9.2, 4.6 + 0.2 * ((len(names) - 1) // 6))
        axes = figure.subplots(2, 2, sharex=True)
        for axis, (column, title, unit) in zip(axes.flat, TRENDS, strict=True):
            for i, name in enumerate(names):
                of_unit = shown & (units == name) & np.isfinite(values[column])
                axis.plot(hours[of_unit], values[column][of_unit], linestyle="none", label=name, **_look(i))
            axis.set_title(f"{title} ({unit})")
            axis.ticklabel_format(useOffset=False)
            axis.margins(x=0.04, y=0.15)
        for axis in axes[1]:
            axis.set_xlabel(label)
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=min(len(names), 6), handletextpad=0.2)
        return _svg(figure)


def sky_map(ledger: pa.Table) -> str:
    """Where the exposures lie on the sky, as squares of the area searched.

    Parameters
    ----------
    ledger : pyarrow.Table
        Ledger rows (schema `nightsift.core.tables.LEDGER`).

    Returns
    -------
    str
        An SVG element: the whole sky (Mollweide) for wide coverage, else the part that was seen, east to the left;
        empty when no exposure has a position.
    """
    ra, dec, area = (_numbers(ledger, name) for name in ("ra", "dec", "area"))
    shown = np.isfinite(ra) & np.isfinite(dec)
    if not shown.any():
        return ""
    units = np.array(ledger["unit"].to_pylist())
    side = np.sqrt(np.where(np.isfinite(area), area, 0.0))
    centre = float(np.rad2deg(np.angle(np.exp(1j * np.deg2rad(ra[shown])).mean())) % 360.0)
    offset = (ra - centre + 180.0) % 360.0 - 180.0
    east = offset * np.cos(np.deg2rad(dec))
    wide = np.ptp(east[shown]) > 40.0 or np.ptp(dec[shown]) > 40.0
    with _style():
        figure = _figure(9.2, 4.2)
        if wide:
            axis = figure.add_subplot(projection="mollweide")
            _draw_whole_sky(axis, ra, dec, units=units, shown=shown)
        else:
            axis = figure.add_subplot()
            _draw_part(axis, offset, dec, side=side, units=units, shown=shown, centre=centre)
        handles, labels = axis.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=min(len(labels), 6), handletextpad=0.4)
        return _svg(figure)


def _draw_whole_sky(axis: Axes, ra: Any, dec: Any, *, units: Any, shown: npt.NDArray[np.bool_]) -> None:
    for i, name in enumerate(sorted(set(units[shown]))):
        some = shown & (units == name)
        longitude = -np.deg2rad((ra[some] + 180.0) % 360.0 - 180.0)
        axis.plot(longitude, np.deg2rad(dec[some]), linestyle="none", label=name, **_look(i))
    axis.set_xticks(np.deg2rad(np.arange(-120, 121, 60)), [f"{-lon % 360}°" for lon in range(-120, 121, 60)])
    axis.set_title("Right ascension grows to the left, declination upwards (ICRS)", pad=12)


def _draw_part(
    axis: Axes, offset: Any, dec: Any, *, side: Any, units: Any, shown: npt.NDArray[np.bool_], centre: float
) -> None:
    from matplotlib.patches import Rectangle

    stretch = float(np.cos(np.deg2rad(np.median(dec[shown]))))
    for i, name in enumerate(sorted(set(units[shown]))):
        colour = COLOURS[i % len(COLOURS)]
        some = shown & (units == name)
        # One square a pointing: repeated exposures of a field would only darken it.
        seen = {(round(float(x), 2), round(float(y), 2)): float(s) for x, y, s in zip(
            offset[some], dec[some], side[some], strict=True)}  # fmt: skip
        for (x, y), size in seen.items():
            wide = size / stretch
            axis.add_patch(
                Rectangle((x - wide / 2, y - size / 2), wide, size, facecolor=colour, edgecolor=colour, alpha=0.25)
            )
        axis.plot([x for x, _ in seen], [y for _, y in seen], linestyle="none", label=name, **_look(i))
    axis.set_aspect(1.0 / stretch)
    axis.invert_xaxis()
    axis.margins(0.15)
    axis.xaxis.set_major_formatter(lambda x, _: f"{(x + centre) % 360.0:.5g}°")
    axis.yaxis.set_major_formatter(lambda y, _: f"{y:.5g}°")
    axis.set_xlabel("Right ascension (ICRS)")
    axis.set_ylabel("Declination (ICRS)")


def _numbers(ledger: pa.Table, name: str) -> npt.NDArray[np.float64]:
    values = [np.nan if value is None else float(value) for value in ledger[name].to_pylist()]
    return np.array(values, dtype=np.float64)


def _clock(times: npt.NDArray[np.float64], shown: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.float64], str]:
    first = float(np.floor(times[shown].min()))
    if np.ptp(times[shown]) > 3.0:
        return times, "Modified Julian date (UTC)"
    return (times - first) * 24.0, f"Hours after 0 h UTC of MJD {first:.0f}"


def _look(i: int) -> dict[str, Any]:
    return {"marker": MARKERS[i // len(COLOURS) % len(MARKERS) if i >= len(COLOURS) else i % len(MARKERS)],
            "color": COLOURS[i % len(COLOURS)], "markersize": 4.2, "markeredgewidth": 0.0, "alpha": 0.85}  # fmt: skip


def _style() -> Any:
    import matplotlib

    return matplotlib.rc_context(STYLE)


def _figure(width: float, height: float) -> Figure:
    # A Figure without pyplot: no global state, no windows, nothing to close.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
