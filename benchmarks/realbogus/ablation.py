"""What synthetic transients are worth.

    python benchmarks/realbogus/ablation.py --with MODELS --without MODELS --sets FOLDERS --out FOLDER

The ablation of Killestein et al. (2021): networks that learnt with synthetic transients beside networks that did not,
several of either kind (folders of `learning_curves`, or released models), on units that none of them saw: which part of
each kind of real detection is recovered, by distance from the host and by signal-to-noise ratio.

They are judged on *simulated transients*, which are part of the simulated sky itself: made by other code than the
synthetic ones, with other priors of offset and brightness. The judgement is fair only between networks that learnt from
none of these: train both with ``--leave-out detected`` or ``--leave-out real-but-minor-planets``.

Two operating points. *FPR 1 %*, on the detections of these sets: the same number of false alerts for both, which is
what a survey pays with; figure and first table. *1 % of minor planets missed*: what a survey without any labels would
choose, as minor planets are the real examples that it has. Ranges are 95 % with fields and networks drawn again, fields
for all networks at once, and thresholds chosen anew in each draw.
"""

from __future__ import annotations

import argparse
import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from benchmarks.realbogus import ablation_figure, base_models, trained_networks
from models.training.examples import TrainingSet, detected

DRAWS = 200
RATE = 0.01  # of false alerts, or of minor planets missed
OFFSETS = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0)  # half-light radii
SNRS = (4.0, 5.0, 6.3, 8.0, 10.0, 12.5, 16.0, 25.0, 50.0)  # quarter magnitudes at first
KINDS = {
    "asteroid": "minor planets", "supernova": "simulated transients off the nucleus",
    "nuclear": "simulated transients on the nucleus", "hostless": "simulated transients without a host",
    "variable": "simulated variables", "injected": "injected stars", "transplanted": "transplanted minor planets",
    "faded": "injected stars that fade", "varied_star": "stars made to vary",
}  # fmt: skip
BOGUS = {"random": "random false detections", "galaxy_residual": "false detections in galaxies"}
POINTS = {"fpr": "FPR 1 %", "minor_planets": "1 % of minor planets missed"}
LEAST = 10  # examples in a cell, for it to be shown


@dataclass(frozen=True, eq=False)
class Cells:
    """Groups of examples whose accepted part is measured."""

    names: list[tuple[str, str]]
    """What it shows, and which: ("kind", "nuclear"), ("offset supernova", "0.5 to 1")."""
    middle: list[float]
    members: csr_array
    """One row a cell, one column an example."""

    def rows(self, what: str) -> list[int]:
        """Numbers of the cells that show something."""
        return [place for place, name in enumerate(self.names) if name[0] == what]


def cells_of(found: TrainingSet) -> Cells:
    """All groups: by kind, by offset from the host, and by signal-to-noise ratio."""
    text = {name: np.asarray(found.table[name].to_pylist(), dtype=object).astype(str) for name in ("kind", "source")}
    kind, source = text["kind"], text["source"]
    offset, snr = (
        np.array([np.nan if one is None else one for one in found.table[name].to_pylist()], float)
        for name in ("host_offset", "snr")
    )
    made: list[tuple[tuple[str, str], float, np.ndarray]] = []
    made += [(("kind", title), np.nan, (kind == name) & (found.labels == 1)) for name, title in KINDS.items()]
    made += [(("kind", title), np.nan, (source == name) & (found.labels == 0)) for name, title in BOGUS.items()]
    for group in ("supernova", "injected", "transplanted"):
        made += _binned(f"offset {group}", offset, OFFSETS, (kind == group), np.mean)
    on_hosts = np.isin(kind, ("supernova", "nuclear"))
    for group, rows in (("simulated", on_hosts), ("asteroid", kind == "asteroid"), ("nuclear", kind == "nuclear")):
        made += _binned(f"snr {group}", snr, SNRS, rows, lambda ends: float(np.sqrt(np.prod(ends))))
    made = [one for one in made if int(one[2].sum()) >= LEAST]
    return Cells(
        [one[0] for one in made], [one[1] for one in made], csr_array(np.array([one[2] for one in made], dtype=float))
    )


def _binned(what: str, values: np.ndarray, edges: tuple[float, ...], rows: np.ndarray, middle: Any) -> list[Any]:
    return [
        ((what, f"{low:g} to {high:g}"), float(middle([low, high])), rows & (values >= low) & (values < high))
        for low, high in itertools.pairwise(edges)
    ]


def threshold(score: np.ndarray, weight: np.ndarray, order: np.ndarray, part: float, above: bool) -> float:
    """Threshold above (or below) which stands at most a part of the weight; ``order`` sorts the scores upwards."""
    ordered = order[::-1] if above else order
    passed = np.cumsum(weight[ordered])
    if passed[-1] == 0:
        return float("nan")
    first = int(np.searchsorted(passed, part * passed[-1] * (1 + 1e-12), side="right"))  # the first that is too many
    edge = score[ordered[min(first, len(ordered) - 1)]]
    return float(np.nextafter(edge, np.inf) if above else edge)


def accepted_parts(
    scores: list[np.ndarray], found: TrainingSet, cells: Cells, draws: int = DRAWS, seed: int = 0
) -> dict[str, np.ndarray]:
    """Part of each cell that is accepted, by operating point: (1 + draws, networks, cells), the first undrawn."""
    labels, fields = found.labels.astype(int), np.asarray(found.table["field"]).astype(str)
    planet = np.asarray(found.table["kind"].to_pylist(), dtype=object).astype(str) == "asteroid"
    judged = {"fpr": np.flatnonzero(labels == 0), "minor_planets": np.flatnonzero(planet)}
    orders = [{point: np.argsort(score[rows]) for point, rows in judged.items()} for score in scores]
    _, field = np.unique(fields, return_inverse=True)
    count, rng = int(field.max()) + 1, np.random.default_rng(seed)
    out = {point: np.full((1 + draws, len(scores), len(cells.names)), np.nan) for point in judged}
    for one in range(1 + draws):
        times = np.bincount(rng.integers(count, size=count), minlength=count) if one else np.ones(count)
        weight = times[field].astype(float)
        whole = cells.members @ weight
        for place, score in enumerate(scores):
            for point, rows in judged.items():
                cut = threshold(score[rows], weight[rows], orders[place][point], RATE, above=point == "fpr")
                with np.errstate(invalid="ignore"):
                    out[point][one, place] = (cells.members @ (weight * (score >= cut))) / whole
    return out


def arms_of(parts: np.ndarray, arms: dict[str, list[int]], seed: int = 1) -> dict[str, np.ndarray]:
    """Mean over the networks of each arm, which are drawn again with the fields: (1 + draws, cells)."""
    rng = np.random.default_rng(seed)
    found = {}
    for arm, places in arms.items():
        which = np.array([places, *(rng.choice(places, len(places)) for _ in range(len(parts) - 1))])
        found[arm] = np.stack([parts[one, rows].mean(axis=0) for one, rows in enumerate(which)])
    return found


def with_range(drawn: np.ndarray) -> list[list[float]]:
    """Value, lowest and highest of each cell: the first row, and the middle 95 % of the others."""
    with np.errstate(all="ignore"):
        low, high = np.nanpercentile(drawn[1:], [2.5, 97.5], axis=0)
    return np.stack([drawn[0], low, high], axis=1).tolist()


def table(results: dict[str, Any], point: str, what: str) -> str:
    """Markdown: the accepted part of each cell by arm, and each arm less the one without."""
    arms = list(results["arms"])
    others = [arm for arm in arms if arm != "without"]
    head = ["", "n", *arms, *(f"{arm} less without, points" for arm in others)]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for place, (shown, name) in enumerate(results["cells"]):
        if shown != what:
            continue
        values = [results["parts"][point][arm][place] for arm in arms] + [
            results["less"][point][a][place] for a in others
        ]
        texts = [f"{100 * v:.1f} % ({100 * low:.1f} to {100 * high:.1f})" for v, low, high in values[: len(arms)]]
        texts += [f"{100 * v:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})" for v, low, high in values[len(arms) :]]
        lines.append(f"| {name} | {results['n'][place]:,} | {' | '.join(texts)} |")
    return "\n".join(lines)


TITLES = {
    "kind": "By kind: accepted part", "offset supernova": "Simulated transients by offset (half-light radii)",
    "offset injected": "Injected stars by offset", "offset transplanted": "Transplanted minor planets by offset",
    "snr simulated": "Simulated transients on hosts by S/N",
    "snr nuclear": "Simulated transients on the nucleus by S/N",
    "snr asteroid": "Minor planets by S/N",
}  # fmt: skip
SHORT = {"fpr": ("kind", "offset supernova", "snr simulated"), "minor_planets": ("kind",)}


def compare(arms: dict[str, list[str]], found: TrainingSet, draws: int = DRAWS) -> dict[str, Any]:
    """All numbers of the comparison, as plain values."""
    names = [name for models in arms.values() for name in models]
    for name in names:
        shared = trained_networks.shared_with(name, found)
        if shared:
            raise SystemExit(f"{name} learnt from units of the test sets: {', '.join(shared)}")
    cells = cells_of(found)
    parts = accepted_parts([trained_networks.scores_of(name, found) for name in names], found, cells, draws)
    ends = np.cumsum([0, *map(len, arms.values())])
    places = {arm: list(range(ends[k], ends[k + 1])) for k, arm in enumerate(arms)}
    drawn = {point: arms_of(one, places) for point, one in parts.items()}
    return {
        "arms": {arm: [learnt(name) for name in models] for arm, models in arms.items()},
        "cells": cells.names, "middle": cells.middle, "n": np.asarray(cells.members.sum(axis=1)).astype(int).tolist(),
        "parts": {point: {arm: with_range(one) for arm, one in by.items()} for point, by in drawn.items()},
        "less": {
            point: {arm: with_range(one - by["without"]) for arm, one in by.items() if arm != "without"}
            for point, by in drawn.items()
        },
    }  # fmt: skip


def learnt(name: str) -> dict[str, Any]:
    """What a network learnt from, by its own account."""
    if trained_networks.is_plain(name):
        facts = trained_networks.training_of(Path(name))
        return {"name": Path(name).name, **{key: facts[key] for key in ("left_out", "examples", "real")}}
    card = trained_networks.load(name).card
    part = next((one for one in card["data"].get("parts", ()) if one["part"] == "train"), {"real": 0, "bogus": 0})
    out = [one for one in card["made"].get("not learnt from", "").split(", ") if one and one != "-"]
    return {"name": name, "left_out": out, "examples": part["real"] + part["bogus"], "real": part["real"]}


def as_markdown(results: dict[str, Any], found: TrainingSet, everything: bool = False) -> str:
    """The comparison in Markdown: the main tables, or all."""
    fields = len(set(found.table["field"].to_pylist()))
    lines = [f"{int(found.labels.sum())} real, {int((found.labels == 0).sum())} bogus detections, {fields} fields\n"]
    for arm, models in results["arms"].items():
        counts = [f"{np.mean([one[key] for one in models]):,.0f}" for key in ("examples", "real")]
        left = " / ".join(sorted({", ".join(one["left_out"]) or "nothing" for one in models}))
        lines.append(f"- {arm}: {len(models)} networks, left out: {left}; {counts[0]} examples, {counts[1]} real")
    for arm, models in results["arms"].items():
        if any("detected" not in _sources(one["left_out"]) for one in models):
            lines.append(f"- **{arm} may have learnt from simulated transients: on them the comparison is not fair**")
    for point, title in POINTS.items():
        lines += ["", f"## At {title}"]
        for what, about in TITLES.items():
            if what in SHORT[point] or everything:
                lines += ["", f"{about}:", "", table(results, point, what)]
    return "\n".join(lines)


def _sources(names: list[str] | None) -> set[str]:
    from models.training.dataset import GROUPS

    return {source for name in names or () for source in GROUPS.get(name, (name,))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--with", dest="learnt_with", nargs="+", required=True, help="learnt from synthetic transients")
    parser.add_argument("--without", nargs="+", required=True, help="learnt without them")
    parser.add_argument("--also", nargs="+", action="append", default=[], help="NAME MODELS: one more kind of network")
    parser.add_argument("--sets", type=Path, nargs="+", required=True, help="of units that none of them saw")
    parser.add_argument("--sound", action="store_true", help="sound reductions alone, without the careless ones")
    parser.add_argument("--everything", action="store_true", help="print all tables")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    found = base_models.read_sets(arguments.sets)
    rows = detected(found.table)
    if arguments.sound:
        rows &= np.asarray(found.table["reduction"]).astype(str) == "standard"
    found = found.take(np.flatnonzero(rows))
    arms = {"with": arguments.learnt_with, "without": arguments.without}
    for name, *models in arguments.also:
        if name in arms or not models:
            parser.error(f"--also {name}: give a name of its own, and models after it")
        arms[name] = models
    results = compare(arms, found)
    arguments.out.mkdir(parents=True, exist_ok=True)
    print(as_markdown(results, found, arguments.everything))
    ablation_figure.draw(results, arguments.out / "ablation.png")
    (arguments.out / "ablation.json").write_text(json.dumps(results, indent=1, default=float))


if __name__ == "__main__":
    main()
