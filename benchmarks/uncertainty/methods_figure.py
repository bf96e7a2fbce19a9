"""The figure of `methods`: NLL by fault, risk-coverage, reliability, spread, and the number of dropout samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy.special import expit

from models.calibration.metrics import reliability, risk_coverage
from models.network.store import summarise
from nightsift.report.plots import COLOURS, STYLE

WAYS = ("one head", "dropout", "ensemble", "laplace")
LOOKS = dict(zip(WAYS, ("0.5", COLOURS[0], COLOURS[1], COLOURS[2]), strict=True))


def draw(
    out: Path,
    found: dict[str, Any],
    shown: dict[str, dict[str, np.ndarray]],
    labels: np.ndarray,
    steps: dict[int, float],
) -> None:
    """NLL by fault, risk-coverage, reliability, spread of right and wrong decisions, number of samples."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 6.6), layout="constrained", facecolor="white")
        axes = figure.subplots(2, 3)
        for place, name in enumerate(WAYS):
            x = np.arange(len(found)) + 0.18 * (place - 1.5)
            rows = [found[fault][name] for fault in found]
            value, ranges = np.array([r["nll"] for r in rows]), np.array([r["nll_range"] for r in rows]).T
            axes[0, 0].errorbar(
                x, value, [value - ranges[0], ranges[1] - value], fmt="o", ms=4, color=LOOKS[name], label=name
            )
        axes[0, 0].set_xticks(range(len(found)), [fault.replace(" ", "\n") for fault in found])
        axes[0, 0].set(
            title="new units, as they are and with planted faults", ylabel="negative log-likelihood (nat)", yscale="log"
        )
        axes[0, 0].legend()
        for axis, fault, title in ((axes[0, 1], "none", "new units"), (axes[0, 2], "defocus", "new units, defocused")):
            for name in WAYS:
                coverage, risk = risk_coverage(expit(shown[fault][name].astype(float)).mean(axis=0), labels)
                axis.plot(coverage, 100 * risk, color=LOOKS[name], label=name)
            axis.set(title=title, xlabel="part decided, surest first", ylabel="wrong decisions (%)", xlim=(0.5, 1))
            highest = max(line.get_ydata()[line.get_xdata() >= 0.5].max() for line in axis.lines)
            axis.set_ylim(-0.03 * highest, 1.1 * highest)
        axes[1, 0].plot([0, 1], [0, 1], color="0.8")
        for name in WAYS:
            rows = reliability(expit(shown["none"][name].astype(float)).mean(axis=0), labels, 8)
            axes[1, 0].plot([r["mean_score"] for r in rows], [r["real"] for r in rows], "o-", ms=3, color=LOOKS[name])
        axes[1, 0].set(title="reliability, new units", xlabel="score", ylabel="part that is real")
        for place, name in enumerate(WAYS[1:]):
            summary = summarise(shown["none"][name])
            wrong = (summary["score"] >= 0.5) != (labels == 1)
            for side, rows in ((-0.15, ~wrong), (0.15, wrong)):
                low, first, middle, last, high = np.percentile(summary["score_std"][rows], (5, 25, 50, 75, 95))
                axes[1, 1].plot([place + side] * 2, [low, high], color=LOOKS[name], lw=1)
                axes[1, 1].plot([place + side] * 2, [first, last], color=LOOKS[name], lw=7, solid_capstyle="butt")
                axes[1, 1].plot(place + side, middle, "o", ms=4, color="white", mec=LOOKS[name])
        axes[1, 1].set_xticks(range(3), WAYS[1:])
        axes[1, 1].set(title="spread of right (left) and wrong (right) decisions", ylabel="score_std")
        axes[1, 2].plot(list(steps), list(steps.values()), "o-", ms=4, color=LOOKS["dropout"])
        axes[1, 2].set(
            title="dropout: number of samples", xlabel="samples", ylabel="negative log-likelihood (nat)", xscale="log"
        )
        middle = float(np.median(list(steps.values())))
        axes[1, 2].set_ylim(0.9 * middle, 1.1 * middle)
        figure.savefig(out / "uncertainty.png", dpi=110)
