"""The figure of `ablation`: recovery by offset from the host, by signal-to-noise ratio, and by kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from nightsift.report.plots import COLOURS, MARKERS, STYLE

NUCLEUS = -0.45  # where what stands on the nucleus is drawn (half-light radii)
FALSE = "false detections"
FAINT = 5.0  # S/N of the limit
SHOWN = (("snr simulated", "-", None, "transients on hosts"), ("snr asteroid", ":", "white", "minor planets"))
"""What is drawn by brightness: cells, line, filling of the markers (None for their colour), name."""


def draw(results: dict[str, Any], file: Path) -> None:
    """Three panels, all at the same number of false alerts."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11.5, 4.2), facecolor="white", layout="constrained")
        grid = figure.subplots(1, 3, width_ratios=(1, 1, 0.85))
        _offsets(grid[0], results)
        _snr(grid[1], results)
        _kinds(grid[2], results)
        figure.legend(*grid[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(results["arms"]))
        figure.savefig(file, dpi=130)


def _cells(results: dict[str, Any], what: str) -> list[int]:
    return [place for place, (shown, _) in enumerate(results["cells"]) if shown == what]


def _named(arm: str) -> str:
    return {"with": "with synthetic", "without": "without synthetic"}.get(arm, arm)


def _points(results: dict[str, Any], arm: str, places: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where, accepted part in percent, and how far the range goes below and above."""
    values = 100 * np.array([results["parts"]["fpr"][arm][place] for place in places]).reshape(-1, 3)
    around = np.abs(values[:, 1:] - values[:, :1]).T
    return np.array([results["middle"][place] for place in places]), values[:, 0], around


def _looks(place: int) -> dict[str, Any]:
    return {"color": COLOURS[place], "marker": MARKERS[place], "ms": 4.5, "capsize": 0, "elinewidth": 1.2, "lw": 1.4}


def _offsets(axes: Any, results: dict[str, Any]) -> None:
    nuclear = [place for place in _cells(results, "kind") if "on the nucleus" in results["cells"][place][1]]
    for number, arm in enumerate(results["arms"]):
        x, y, around = _points(results, arm, _cells(results, "offset supernova"))
        shift = 0.03 * (number - (len(results["arms"]) - 1) / 2)
        axes.errorbar(x + shift, y, around, label=_named(arm), **_looks(number))
        if nuclear:
            _, y, around = _points(results, arm, nuclear)
            axes.errorbar([NUCLEUS + 4 * shift], y, around, **{**_looks(number), "lw": 0})
    axes.axvline(0.5 * NUCLEUS, color="0.8", lw=0.8)
    axes.set_xticks([NUCLEUS, 0, 1, 2, 3, 4], ["nucleus", "0", "1", "2", "3", "4"])
    axes.set(xlabel="offset from the host (half-light radii)", ylabel="recovered at FPR 1 % (%)")
    axes.set_title("simulated transients, by host offset")


def _snr(axes: Any, results: dict[str, Any]) -> None:
    for number, arm in enumerate(results["arms"]):
        for what, line, fill, _ in SHOWN:
            places = _cells(results, what)
            if places:
                x, y, around = _points(results, arm, places)
                axes.errorbar(x * (1 + 0.015 * number), y, around, ls=line, mfc=fill, **_looks(number))
    axes.set_xscale("log")
    ticks = [4, 5, 7, 10, 15, 20, 30, 40]
    axes.set_xticks(ticks, [f"{one}" for one in ticks])
    axes.minorticks_off()
    axes.set(xlabel="signal-to-noise ratio")
    axes.set_title("by brightness", pad=22)
    top = axes.secondary_xaxis(
        "top", functions=(lambda snr: 2.5 * np.log10(np.maximum(snr, 1e-3) / FAINT), lambda m: FAINT * 10 ** (0.4 * m))
    )
    top.set_xticks([0, 0.5, 1, 1.5, 2], ["limit", "0.5", "1", "1.5", "2 mag above"])
    top.minorticks_off()
    lines = [axes.plot([], [], color="0.4", marker="o", ms=4.5, ls=line, mfc=fill)[0] for _, line, fill, _ in SHOWN]
    axes.legend(lines, [label for *_, label in SHOWN], loc="lower right")


def _kinds(axes: Any, results: dict[str, Any]) -> None:
    places = [place for place in _cells(results, "kind") if FALSE not in results["cells"][place][1]]
    rows = np.arange(len(places))[::-1]
    for number, arm in enumerate(results["arms"]):
        _, y, around = _points(results, arm, places)
        looks = {**_looks(number), "lw": 0}
        axes.errorbar(y, rows + 0.12 * (0.5 * (len(results["arms"]) - 1) - number), xerr=around, **looks)
    names = [results["cells"][place][1].replace("simulated transients", "transients") for place in places]
    axes.set_yticks(rows, [name.replace("simulated ", "") for name in names])
    axes.grid(axis="y", visible=False)
    axes.set(xlabel="recovered at FPR 1 % (%)", ylim=(-0.6, len(places) - 0.4))
    axes.set_title("by kind")
