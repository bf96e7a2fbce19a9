"""Figures of drift: the fleet over nights, the channels of one unit, its scores, what it recovers. SVG text out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nightsift.report.plots import COLOURS, _figure, _style, _svg

BLUE, RED, GREY = COLOURS[0], COLOURS[1], "#9aa3ad"
MOST_NIGHTS = 60
"""Nights drawn, the latest ones."""
TICK_ROOM = 9.0
"""Height of a number beside a panel."""
SNR_EDGES = (5.0, 7.0, 10.0, 15.0, 25.0, 50.0)
Rows = Sequence[Mapping[str, Any]]


def fleet(rows: Rows) -> str:
    """P-value of each unit and night, alarms marked.

    Parameters
    ----------
    rows : sequence of mapping
        Rows of the table of monitoring whose channel is ``all``.

    Returns
    -------
    str
        An SVG element; empty without rows.
    """
    nights = sorted({row["night"] for row in rows})[-MOST_NIGHTS:]
    units = sorted({row["unit"] for row in rows})
    if not nights or not units:
        return ""
    strange = np.full((len(units), len(nights)), np.nan)
    marks: dict[str, list[tuple[int, int]]] = {"drifted": [], "reference": [], "weather": [], "unjudged": []}
    for row in rows:
        if row["night"] not in nights:
            continue
        y, x = units.index(row["unit"]), nights.index(row["night"])
        if row["p_value"] is not None:
            strange[y, x] = min(-np.log10(max(row["p_value"], 1e-8)), 8.0)
        if row["state"] in marks:
            marks[row["state"]].append((x, y))
    with _style():
        figure = _figure(9.2, 1.5 + 0.26 * len(units))
        axis = figure.add_subplot()
        image = axis.imshow(strange, aspect="auto", cmap="Blues", vmin=0, vmax=8, interpolation="nearest")
        looks: dict[str, Any] = {
            "drifted": {"marker": "D", "color": RED, "label": "drifted"},
            "reference": {"marker": ".", "color": GREY, "label": "calibration set"},
            "weather": {"marker": "_", "color": GREY, "label": "clouds all night"},
            "unjudged": {"marker": "x", "color": GREY, "label": "not judged"},
        }
        for state, places in marks.items():
            if places:
                axis.plot(*np.array(places).T, linestyle="none", markersize=5, **looks[state])
        axis.set_yticks(range(len(units)), units)
        _label_nights(axis, nights)
        axis.grid(visible=False)
        figure.colorbar(image, ax=axis, label="strange: −log p", shrink=0.9, pad=0.01)
        if any(marks.values()):
            figure.legend(loc="outside upper left", ncols=4, handletextpad=0.2)
        return _svg(figure)


def unit_channels(rows: Rows, titles: Mapping[str, str]) -> list[dict[str, str]]:
    """Every channel of one unit over the nights, with the band of its calibration nights.

    Parameters
    ----------
    rows : sequence of mapping
        Rows of the table of monitoring of one unit.
    titles : mapping of str to str
        What each channel is, in the order in which they are drawn.

    Returns
    -------
    list of dict
        ``title``, ``state`` of the latest night and ``svg``, one per channel that has values. Drawn by hand: a dozen
        panels a unit and a fleet of units would take minutes otherwise.
    """
    nights = sorted({row["night"] for row in rows if row["value"] is not None})[-MOST_NIGHTS:]
    panels = []
    for name, title in titles.items():
        own = [row for row in rows if row["channel"] == name and row["value"] is not None and row["night"] in nights]
        if own:
            own.sort(key=lambda row: row["night"])
            panels.append({"title": title, "state": own[-1]["state"], "svg": _panel(own, nights)})
    return panels


def scores(tonight: npt.NDArray[np.floating], reference: npt.NDArray[np.floating]) -> str:
    """Distribution of the logits of a night and of the calibration set.

    Parameters
    ----------
    tonight, reference : ndarray
        Logits of scores.

    Returns
    -------
    str
        An SVG element; empty where either has none.
    """
    if not len(tonight) or not len(reference):
        return ""
    edges = np.linspace(-4.5, 4.5, 37)  # log10 of the odds, as on the other pages
    with _style():
        figure = _figure(4.6, 2.4)
        axis = figure.add_subplot()
        for values, colour, label in (
            (reference, GREY, f"calibration set ({len(reference)})"),
            (tonight, RED, f"this night ({len(tonight)})"),
        ):
            heights, _ = np.histogram(np.clip(values / np.log(10.0), -4.49, 4.49), edges)
            filled = colour == GREY
            axis.stairs(
                heights / len(values), edges, color=colour, fill=filled, alpha=0.45 if filled else 1, label=label
            )
        axis.set_xlabel("log odds of the score")
        axis.set_ylabel("part of the candidates")
        axis.legend(loc="upper center")
        axis.margins(y=0.35)
        return _svg(figure)


def recovery(tonight: Rows, reference: Rows) -> str:
    """Part of the injected sources that was accepted, by signal-to-noise ratio, with its binomial error.

    Parameters
    ----------
    tonight, reference : sequence of mapping
        Rows of the table of injections.

    Returns
    -------
    str
        An SVG element; empty where nothing was injected tonight.
    """
    if not tonight:
        return ""
    middles = np.sqrt(np.array(SNR_EDGES[1:]) * np.array(SNR_EDGES[:-1]))
    with _style():
        figure = _figure(4.6, 2.4)
        axis = figure.add_subplot()
        for rows, colour, label in ((reference, GREY, "calibration set"), (tonight, RED, "this night")):
            part, error = _recovered(rows)
            axis.errorbar(
                middles, part, error, color=colour, marker="o", markersize=4, capsize=2, linewidth=1.2,
                label=f"{label} ({sum(bool(row['searched']) for row in rows)})",
            )  # fmt: skip
        axis.set_xscale("log")
        axis.set_xticks(SNR_EDGES, [f"{edge:g}" for edge in SNR_EDGES])
        axis.minorticks_off()
        axis.set_ylim(-0.03, 1.08)
        axis.set_xlabel("signal-to-noise ratio injected")
        axis.set_ylabel("recovered and accepted")
        axis.legend(loc="lower right")
        return _svg(figure)


def _recovered(rows: Rows) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    searched = [row for row in rows if row["searched"]]
    snr = np.array([row["snr"] for row in searched], dtype=np.float64)
    accepted = np.array([row["accepted"] for row in searched], dtype=bool)
    place = np.clip(np.digitize(snr, SNR_EDGES) - 1, 0, len(SNR_EDGES) - 2)
    n = np.bincount(place, minlength=len(SNR_EDGES) - 1).astype(np.float64)
    k = np.bincount(place[accepted], minlength=len(SNR_EDGES) - 1)
    part = np.where(n > 0, k / np.maximum(n, 1), np.nan)
    return part, np.sqrt((part * (1 - part) + 0.25 / np.maximum(n, 1)) / np.maximum(n, 1))


def _panel(rows: Rows, nights: Sequence[str]) -> str:
    """One channel: values over nights, the band of one and three deviations, first and last night."""
    wide, high, left, right, low, top = 250.0, 96.0, 40.0, 6.0, 16.0, 4.0
    values = np.array([row["value"] for row in rows], dtype=np.float64)
    known = [row for row in rows if row["reference_mean"] is not None]
    middle, width = (known[-1]["reference_mean"], known[-1]["reference_std"]) if known else (0.0, np.nan)
    ends = np.concatenate([values, [middle - 3.3 * width, middle + 3.3 * width] if known else []])
    least, most = float(ends.min()), float(ends.max())
    room = 0.06 * (most - least) or 0.5
    least, most = least - room, most + room

    def y(value: float) -> float:
        return round(top + (high - top - low) * (most - float(value)) / (most - least), 1)

    def x(night: str) -> float:
        return round(left + 4 + (wide - left - right - 8) * nights.index(night) / max(len(nights) - 1, 1), 1)

    parts = [
        f'<svg viewBox="0 0 {wide:g} {high:g}" role="img" font-size="8" font-family="Helvetica, Arial, sans-serif">'
    ]
    inner = f'x="{left:g}" width="{wide - left - right:g}"'
    for times, alpha in ((3, 0.08), (1, 0.13)) if known else ():
        above, below = y(middle + times * width), y(middle - times * width)
        parts.append(
            f'<rect {inner} y="{above}" height="{max(below - above, 0.5):.1f}" fill="{BLUE}" opacity="{alpha}"/>'
        )
    ticks = (middle - 3 * width, middle, middle + 3 * width) if known else (values.min(), values.max())
    if abs(y(ticks[0]) - y(ticks[-1])) < 2 * TICK_ROOM:  # the band is thin: something is far from it
        ticks = (middle if known else float(values[-1]), float(values[np.argmax(np.abs(values - middle))]))
    parts += [
        f'<text x="{left - 4:g}" y="{y(tick) + 3:.1f}" text-anchor="end" fill="#5b6671">{tick:.3g}</text>'
        for tick in ticks
    ]
    points = " ".join(f"{x(row['night'])},{y(row['value'])}" for row in rows)
    parts.append(f'<polyline points="{points}" fill="none" stroke="{GREY}" stroke-width="0.7"/>')
    looks = {"reference": (GREY, 1.7), "steady": (BLUE, 2.0), "drifted": (RED, 3.2)}
    for row in rows:
        colour, radius = looks.get(row["state"], (GREY, 2.0))
        tooltip = f"{row['night']}: {row['value']:.4g}"
        place = f'cx="{x(row["night"])}" cy="{y(row["value"])}"'
        parts.append(f'<circle {place} r="{radius}" fill="{colour}"><title>{tooltip}</title></circle>')
    for night, anchor, at in ((nights[0], "start", left), (nights[-1], "end", wide - right)):
        parts.append(f'<text x="{at:g}" y="{high - 4:g}" text-anchor="{anchor}" fill="#5b6671">{night}</text>')
    return "".join(parts) + "</svg>"


def _label_nights(axis: Any, nights: Sequence[str], most: int = 8) -> None:
    places = range((len(nights) - 1) % -(-len(nights) // most), len(nights), -(-len(nights) // most))
    axis.set_xticks(places, [nights[place] for place in places])
