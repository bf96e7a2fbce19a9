"""The figure of `braai`: recall, scores by kind, reliability, other surveys, and where the two disagree most."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.transfer.real_stamps import RealSet
from models.calibration.metrics import reliability
from nightsift.report.plots import COLOURS, STYLE

LOOKS = {"zero-shot": COLOURS[3], "corrected": COLOURS[1], "fine-tuned": COLOURS[0], "braai": "black"}


def recall_at(score: np.ndarray, real: np.ndarray, bogus: np.ndarray, accepted: int) -> float:
    """Part of the real above the threshold that lets so many bogus through; ties count as let through."""
    ordered = np.sort(score[bogus])[::-1]
    return float((score[real] > ordered[accepted]).mean()) if accepted < len(ordered) else 1.0


def draw(
    out: Path, ztf: RealSet, scores: dict[str, np.ndarray], rows: list[dict[str, Any]], other: list[dict[str, Any]]
) -> None:
    """Recall against accepted bogus, scores by kind, reliability, other surveys, and where the two disagree most."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 9.6), facecolor="white")
        grid = figure.add_gridspec(
            3, 12, height_ratios=(1.1, 1, 1.5), left=0.055, right=0.99, top=0.965, bottom=0.01, hspace=0.42, wspace=1.1
        )
        for place, (title, kind) in enumerate((("minor planets", "ephemeris"), ("variables", "catalogue"))):
            axes = figure.add_subplot(grid[0, 4 * place : 4 * place + 4])
            _recall(axes, ztf, scores, title, kind)
            if not place:
                axes.legend(loc="lower right")
        _reliability(figure.add_subplot(grid[0, 8:]), ztf, scores)
        _kinds(figure.add_subplot(grid[1, :7]), ztf, scores)
        _others(figure.add_subplot(grid[1, 8:]), other)
        _disagreements(figure, grid, ztf, scores)
        figure.savefig(out / "braai.png", dpi=110)


def _recall(axes: Any, ztf: RealSet, scores: dict[str, np.ndarray], title: str, kind: str) -> None:
    bogus, real = np.flatnonzero(ztf.column("label") == 0), np.flatnonzero(ztf.column("evidence") == kind)
    steps = np.arange(0, 41)
    for name, score in scores.items():
        found = [recall_at(score, real, bogus, k) for k in steps]
        axes.plot(steps, found, color=LOOKS[name], label=name, drawstyle="steps-mid")
    accepted = f"accepted of {len(bogus)} bogus"
    axes.set(title=f"{len(real)} {title}", xlabel=accepted, ylabel="recall", ylim=(0.3, 1.01), xlim=(-0.5, 40))


def _reliability(axes: Any, ztf: RealSet, scores: dict[str, np.ndarray]) -> None:
    label = ztf.column("label")
    known = np.flatnonzero(np.isfinite(label))
    axes.plot([0, 1], [0, 1], color="0.8")
    for name, score in scores.items():
        bins = reliability(score[known], label[known], 8)
        axes.plot([b["mean_score"] for b in bins], [b["real"] for b in bins], "o-", ms=3, color=LOOKS[name])
    axes.set(title="reliability, all labels", xlabel="score", ylabel="part labelled real")


def _kinds(axes: Any, ztf: RealSet, scores: dict[str, np.ndarray]) -> None:
    evidence, label = ztf.column("evidence"), ztf.column("label")
    kinds = {
        "minor\nplanets": evidence == "ephemeris", "spectra": evidence == "spectrum",
        "variables": evidence == "catalogue", "pseudo\nreal": (evidence == "models") & (label == 1),
        "uncertain": ~np.isfinite(label), "pseudo\nbogus": (evidence == "models") & (label == 0),
        "impossible": evidence == "physics",
    }  # fmt: skip
    for place, rows in enumerate(kinds.values()):
        for shift, name in ((-0.2, "fine-tuned"), (0.2, "braai")):
            low, first, middle, last, high = np.percentile(scores[name][rows], (5, 25, 50, 75, 95))
            axes.plot([place + shift] * 2, [low, high], color=LOOKS[name], lw=1)
            axes.plot([place + shift] * 2, [first, last], color=LOOKS[name], lw=6, solid_capstyle="butt")
            axes.plot(place + shift, middle, "o", ms=4, color="white", mec=LOOKS[name])
    axes.set_xticks(range(len(kinds)), [f"{name}\n({int(rows.sum())})" for name, rows in kinds.items()])
    axes.set(title="scores by kind: fine-tuned (left) and braai (right); 5, 25, 50, 75, 95 %", ylabel="score")


def _others(axes: Any, other: list[dict[str, Any]]) -> None:
    some = [row for row in other if row["auc_rest_before"]]
    for shift, key, colour, legend in (
        (-0.15, "auc_rest_before", COLOURS[3], "zero-shot"),
        (0.15, "auc_rest_after", COLOURS[1], "after 10 labels"),
    ):
        values = np.array([row[key] for row in some]).reshape(-1, 2)
        axes.errorbar(
            np.arange(len(some)) + shift, values[:, 0], values[:, 1], fmt="o", color=colour, capsize=3, label=legend
        )
    axes.axhline(0.5, color="0.8")
    axes.set_xticks(range(len(some)), [f"{row['set']}\n{row['real']} real, {row['bogus']} bogus" for row in some])
    axes.set(
        title="other surveys: the stamps not labelled", ylabel="AUC", ylim=(0.2, 1.05), xlim=(-0.5, len(some) - 0.5)
    )
    axes.legend(loc="lower left")


def _disagreements(figure: Figure, grid: Any, ztf: RealSet, scores: dict[str, np.ndarray]) -> None:
    gap = scores["fine-tuned"] - scores["braai"]
    rows = np.concatenate([np.argsort(-gap)[:6], np.argsort(gap)[:6]])
    evidence = ztf.column("evidence")
    lower = grid[2, :].subgridspec(1, len(rows), wspace=0.06)
    for place, row in enumerate(rows):
        axes = figure.add_subplot(lower[0, place])
        planes = np.where(ztf.stamps.mask[row][..., None], np.nan, ztf.stamps.data[row])[16:47, 16:47]
        shown = []
        for k in range(3):
            plane = planes[..., k]
            low, high = np.nanpercentile(plane, (3, 99.5)) if np.isfinite(plane).any() else (0, 1)
            shown.append((plane - low) / max(high - low, 1e-9))
        axes.imshow(np.concatenate(shown), cmap="gray_r", vmin=0, vmax=1, origin="upper")
        axes.set_axis_off()
        axes.set_title(
            f"{scores['fine-tuned'][row]:.2f} / {scores['braai'][row]:.2f}\n{evidence[row] or 'uncertain'}", fontsize=7
        )
    caption = "largest disagreements: fine-tuned / braai, label from; science, template, difference from top to bottom"
    figure.text(0.055, 0.345, caption, fontsize=9)
