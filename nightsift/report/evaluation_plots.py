"""Figures of a model's evaluation, as PNG inside HTML. One colour a model, one line style a subset."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nightsift.core.probabilities import probability_text
from nightsift.report.plots import COLOURS, MARKERS, _figure, _style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLES = ("-", "--", "-.", ":")
DPI = 130
GREY = "#9aa3ad"
Series = Mapping[str, Any]


def threshold_curves(models: Mapping[str, Series], thresholds: Mapping[str, float]) -> str:
    """FNR of each kind of real example and FPR against the threshold.

    Parameters
    ----------
    models : mapping of str to mapping
        By model, what `models.training.evaluation.threshold_curves` gives.
    thresholds : mapping of str to float
        Threshold of each model.

    Returns
    -------
    str
        Data URI of a PNG.
    """
    with _style():
        figure = _figure(9.4, 3.9)
        axes = figure.subplots(1, len(models), squeeze=False, sharey=True)[0]
        for axis, (name, curves) in zip(axes, models.items(), strict=True):
            axis.plot(curves["logit"], _shown(curves["fpr"]), color="#1b222a", label=f"FPR ({curves['bogus']} bogus)")
            for place, (subset, missed) in enumerate(curves["missed"].items()):
                axis.plot(
                    curves["logit"], _shown(missed), color=COLOURS[place], linestyle=STYLES[place % 4],
                    label=f"missed: {subset}",
                )  # fmt: skip
            edge = float(np.max(np.abs(curves["logit"])))  # thresholds of 0 and 1 stand there
            with np.errstate(divide="ignore"):
                at = float(np.clip(np.log(thresholds[name]) - np.log1p(-thresholds[name]), -edge, edge))
            axis.axvline(at, color=GREY, linewidth=1)
            axis.annotate(
                f"threshold {probability_text(thresholds[name])}",
                (at, 1.15),
                fontsize=7.5,
                ha="center",
                annotation_clip=False,
            )
            axis.set_yscale("log")
            axis.set_ylim(5e-5, 1.1)
            _probability_axis(axis)
            axis.set_title(name, pad=14)
            axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3 if len(models) == 1 else 1)
        axes[0].set_ylabel("part")
        return _png(figure)


def recovery(models: Mapping[str, Mapping[str, Series]], label: str, log: bool = False) -> str:
    """Part recovered by magnitude, host offset or signal-to-noise ratio.

    Parameters
    ----------
    models : mapping of str to mapping
        By model, what `models.training.evaluation.recovery` gives.
    label : str
        What stands on the axis.
    log : bool, optional
        Logarithmic axis.

    Returns
    -------
    str
        Data URI of a PNG; empty where no model has bins.
    """
    if not any(len(bins["part"]) for subsets in models.values() for bins in subsets.values()):
        return ""
    with _style():
        figure = _figure(4.6, 3.1)
        axis = figure.add_subplot()
        for place, (name, subsets) in enumerate(models.items()):
            for number, (subset, bins) in enumerate(subsets.items()):
                curve = subset if len(models) == 1 else f"{name}: {subset}"
                axis.errorbar(
                    bins["middle"], bins["part"], bins["error"], color=COLOURS[(place + 2 * number) % len(COLOURS)],
                    linestyle=STYLES[number], marker=MARKERS[number], markersize=4, capsize=2, linewidth=1.2,
                    label=f"{curve} ({int(sum(bins['n']))})",
                )  # fmt: skip
        if log:
            axis.set_xscale("log")
            ticks = [tick for tick in (3, 5, 10, 20, 50, 100) if axis.get_xlim()[0] <= tick <= axis.get_xlim()[1]]
            axis.set_xticks(ticks, [str(tick) for tick in ticks])
            axis.minorticks_off()
        least = min((min(b["part"], default=1.0) for s in models.values() for b in s.values()), default=0.0)
        axis.set_ylim(max(0.0, min(0.88, least - 0.08)), 1.01)
        axis.set_xlabel(label)
        axis.set_ylabel("real examples accepted")
        axis.legend(loc="lower left" if "mag" in label else "lower right")
        return _png(figure)


def reliability(models: Mapping[str, tuple[Series, Series]]) -> str:
    """Part that is real against the score, before and after calibration.

    Parameters
    ----------
    models : mapping of str to (mapping, mapping)
        By model, bins before and after (`models.training.evaluation.reliability_bins`).

    Returns
    -------
    str
        Data URI of a PNG.
    """
    with _style():
        figure = _figure(4.6, 3.6)
        axis = figure.add_subplot()
        axis.plot([-7, 7], [-7, 7], color=GREY, linewidth=0.9)
        for place, (name, pair) in enumerate(models.items()):
            for which, (bins, style) in enumerate(zip(pair, ("--", "-"), strict=True)):
                low, high = (_logit(np.clip(bins["real"] + sign * bins["error"], 0, 1)) for sign in (-1, 1))
                middle = _logit(bins["real"])
                stage = ("before", "after calibration")[which]
                axis.errorbar(
                    _logit(bins["score"]), middle, [np.maximum(middle - low, 0), np.maximum(high - middle, 0)],
                    color=COLOURS[2 * place + which], linestyle=style, marker=MARKERS[which], markersize=4, capsize=2,
                    linewidth=1.1, label=stage if len(models) == 1 else f"{name}, {stage}",
                )  # fmt: skip
        ticks = np.array([0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999])
        axis.set_xticks(_logit(ticks), [f"{tick:g}" for tick in ticks])
        axis.set_yticks(_logit(ticks), [f"{tick:g}" for tick in ticks])
        axis.set_xlim(-7.6, 7.6)
        axis.set_ylim(-7.6, 7.6)
        axis.set_xlabel("mean score")
        axis.set_ylabel("part that is real")
        axis.legend(loc="upper left")
        return _png(figure)


def risk(models: Mapping[str, Mapping[str, Series]]) -> str:
    """Part of wrong decisions against the part decided.

    Parameters
    ----------
    models : mapping of str to mapping
        By model, what `models.training.evaluation.risk_curves` gives.

    Returns
    -------
    str
        Data URI of a PNG.
    """
    with _style():
        figure = _figure(4.6, 3.6)
        axis = figure.add_subplot()
        for place, (name, orders) in enumerate(models.items()):
            for number, (order, curve) in enumerate(orders.items()):
                rows = np.unique(np.linspace(0, len(curve["risk"]) - 1, 400).astype(int))
                axis.plot(
                    curve["coverage"][rows], curve["risk"][rows], color=COLOURS[(place + 2 * number) % len(COLOURS)],
                    linestyle=STYLES[number], label=order if len(models) == 1 else f"{name}: {order}",
                )  # fmt: skip
        axis.set_xlabel("part decided, the surest first")
        axis.set_ylabel("part of wrong decisions")
        axis.set_xlim(0, 1)
        axis.set_ylim(0, None)
        axis.legend(loc="best")
        return _png(figure)


def units(rows: Sequence[Mapping[str, Any]]) -> str:
    """Missed and FPR of each unit at the threshold.

    Parameters
    ----------
    rows : sequence of mapping
        What `models.training.evaluation.by_unit` gives.

    Returns
    -------
    str
        Data URI of a PNG.
    """
    with _style():
        figure = _figure(4.6, 3.1)
        axis = figure.add_subplot()
        missed, fpr = (np.array([row[name] for row in rows], dtype=np.float64) for name in ("missed", "fpr"))
        size = np.array([np.sqrt(row["real"] + row["bogus"]) for row in rows])
        axis.scatter(fpr, missed, s=2.0 * size, color=COLOURS[0], alpha=0.6, edgecolor="none")
        for place in np.argsort(-(np.nan_to_num(fpr) + np.nan_to_num(missed)))[:3]:
            left = fpr[place] > 0.5 * np.nanmax(fpr)  # so that no name leaves the picture
            axis.annotate(
                rows[place]["unit"], (fpr[place], missed[place]), (-5 if left else 5, 5), textcoords="offset points",
                ha="right" if left else "left", fontsize=7,
            )  # fmt: skip
        axis.set_xlabel("FPR at the threshold")
        axis.set_ylabel("missed at the threshold")
        axis.margins(0.15)
        axis.set_xlim(0, None)
        axis.set_ylim(0, None)
        return _png(figure)


def learning_curve(points: Sequence[Mapping[str, Any]]) -> str:
    """What more data bring: FPR at 1 % missed and AUC against the number of examples.

    Parameters
    ----------
    points : sequence of mapping
        ``examples``, ``fpr_1`` and ``one_minus_auc`` of each model.

    Returns
    -------
    str
        Data URI of a PNG; empty for fewer than two points.
    """
    if len(points) < 2:
        return ""
    with _style():
        figure = _figure(4.6, 3.1)
        axis = figure.add_subplot()
        n = [point["examples"] for point in points]
        for place, (name, label) in enumerate((("fpr_1", "FPR at 1 % missed"), ("one_minus_auc", "1 − AUC"))):
            axis.plot(n, [point[name] for point in points], marker=MARKERS[place], color=COLOURS[place], label=label)
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xticks(n, [f"{one:,}" for one in n])
        axis.minorticks_off()
        axis.set_xlabel("examples trained on")
        axis.legend()
        return _png(figure)


def _shown(part: Any) -> Any:
    return np.where(np.asarray(part) > 0, part, np.nan)


def _logit(p: Any) -> Any:
    inside = np.clip(p, 1e-3 / 1.5, 1 - 1e-3 / 1.5)
    return np.log(inside / (1 - inside))


def _probability_axis(axis: Any) -> None:
    ticks = np.array([0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999])
    axis.set_xticks(np.log(ticks / (1 - ticks)), [f"{tick:g}" for tick in ticks])
    axis.set_xlabel("threshold on the score")


def _png(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, facecolor="white")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
