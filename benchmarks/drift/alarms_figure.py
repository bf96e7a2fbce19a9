"""The figure of `alarms`: which channel sees which fault, and the p-values of clean nights and faulty ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from benchmarks.drift.nights import FAULTS, STRENGTHS
from models.drift.alarm import TOGETHER
from models.drift.night_channels import CHANNELS
from nightsift.report.plots import COLOURS, STYLE


def _middle(values: list[float]) -> float:
    """Median of what is known."""
    known = [value for value in values if np.isfinite(value)]
    return float(np.median(known)) if known else float("nan")


def draw(rows: list[dict[str, Any]], clean: dict[str, Any], path: Path, rate: float) -> None:
    """Median departures by fault and channel, and the distribution of p-values, in two panels."""
    names = [channel.name for channel in (*CHANNELS, TOGETHER)]
    kinds = [(f, s) for f in FAULTS for s in STRENGTHS if any((r["fault"], r["strength"]) == (f, s) for r in rows)]
    strange = np.array(
        [
            [_middle([abs(r["t"][name]) for r in rows if (r["fault"], r["strength"]) == kind]) for kind in kinds]
            for name in names
        ]
    )
    with matplotlib.rc_context({**STYLE, "figure.facecolor": "white", "savefig.facecolor": "white"}):
        figure = Figure(figsize=(11.0, 4.6), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(1.9, 1))
        image = left.imshow(np.minimum(strange, 20), aspect="auto", cmap="Blues", vmin=0, vmax=20)
        left.set_xticks(range(len(kinds)), [f"{fault}\n{strength}" for fault, strength in kinds], fontsize=7.5)
        left.set_yticks(range(len(names)), names)
        for y, x in np.ndindex(strange.shape):
            if np.isfinite(strange[y, x]):
                dark = strange[y, x] > 11
                left.text(
                    x, y, f"{strange[y, x]:.0f}", ha="center", va="center", fontsize=7, color="w" if dark else "k"
                )
        left.grid(visible=False)
        left.set_title("Which channel sees which fault: median departure (deviations)")
        figure.colorbar(image, ax=left, pad=0.01, shrink=0.9)
        p = np.sort([one for one in clean["p"] if np.isfinite(one)])
        right.loglog(p, np.arange(1, len(p) + 1) / len(p), color=COLOURS[0], label="clean nights")
        right.plot([1e-4, 1], [1e-4, 1], color="#9aa3ad", linewidth=1, label="as promised")
        sick = np.sort([max(row["p"][-1], 1e-12) for row in rows if row["strength"] == "strong"])
        if len(sick):
            right.loglog(
                sick, np.arange(1, len(sick) + 1) / len(sick), color=COLOURS[1], label="strong faults, 2nd night"
            )
        right.axvline(rate, color="#9aa3ad", linestyle="--", linewidth=1)
        right.set_xlim(1e-12, 1)
        right.set_ylim(1e-3, 1.1)
        right.set_xlabel("p-value of a night")
        right.set_ylabel("part of the nights with this or less")
        right.set_title(f"{clean['per_100']:.2f} false alarms in 100 unit-nights")
        right.legend(loc="center left")
        figure.savefig(path, dpi=130)
