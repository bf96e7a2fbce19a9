"""The figure of `classes`: learning curve, the two confusions, and the reliability of the most probable class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.transfer.class_head import BOGUS, CLASSES
from nightsift.report.plots import COLOURS, STYLE

ALL = (*CLASSES, BOGUS)


def draw(
    file: Path,
    curve: dict[str, Any],
    three: dict[str, Any],
    four: dict[str, Any],
    class_labels: np.ndarray,
    ways: dict[str, np.ndarray],
) -> None:
    """Draw all of it into one file."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 3.7), layout="constrained", facecolor="white")
        axes = figure.subplots(1, 4, width_ratios=(1.25, 1, 1.1, 1.1))
        _curve(axes[0], curve)
        _confusion(axes[1], three, CLASSES, "3 classes, held out")
        _confusion(axes[2], four["hierarchical"], ALL, "3 + bogus, held out")
        _reliability(axes[3], class_labels, ways)
        figure.savefig(file, dpi=110)


def _curve(axes: Any, curve: dict[str, Any]) -> None:
    each = np.array(curve["each"])
    for shift, name, colour in ((0.97, "from_nothing", "0.45"), (1.03, "by_transfer", COLOURS[0])):
        mean, spread = np.array(curve[name]).T
        label = name.replace("_", " ")
        axes.errorbar(each * shift, mean, spread, fmt="o-", ms=4, capsize=2, color=colour, label=label)
    alone = curve["source_alone"]["balanced_accuracy"]
    axes.axhline(alone, ls="--", lw=1, color=COLOURS[1], label="simulated head alone")
    axes.set(title="three classes, ZTF", xlabel="examples a class", ylabel="balanced accuracy", xscale="log")
    axes.set(ylim=(min(0.6, alone - 0.03), 0.95))
    axes.set_xticks(each, each)
    axes.minorticks_off()
    axes.legend(loc="upper left")


def _confusion(axes: Any, rows: dict[str, Any], names: tuple[str, ...], title: str) -> None:
    table = np.array(rows["confusion"], float)
    part = table / table.sum(axis=1, keepdims=True)
    axes.imshow(part, cmap="Blues", vmin=0, vmax=1)
    for i, j in np.ndindex(table.shape):
        colour = "white" if part[i, j] > 0.55 else "black"
        axes.text(j, i, int(table[i, j]), ha="center", va="center", fontsize=8, color=colour)
    axes.set_xticks(range(len(names)), names, rotation=35, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.grid(visible=False)
    axes.set(title=f"{title}: {rows['balanced_accuracy']:.1%}", xlabel="predicted")


def _reliability(axes: Any, class_labels: np.ndarray, ways: dict[str, np.ndarray]) -> None:
    known = np.isin(class_labels, ALL)
    axes.plot([0, 1], [0, 1], color="0.8")
    for name, colour in (("hierarchical", COLOURS[0]), ("flat", "0.45")):
        p = ways[name][known]
        right = np.array(ALL, dtype=object)[p.argmax(axis=1)] == class_labels[known]
        top = p.max(axis=1)
        parts = np.array_split(np.argsort(top), 7)
        mean, found = [top[k].mean() for k in parts], [right[k].mean() for k in parts]
        axes.plot(mean, found, "o-", ms=4, color=colour, label=name)
    axes.set(title="reliability of the most probable class", xlabel="its probability", ylabel="part that is right")
    axes.set(xlim=(0.3, 1.02), ylim=(0.3, 1.02))
    axes.legend(loc="lower right")
