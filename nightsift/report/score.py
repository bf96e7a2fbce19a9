"""Candidates of a night against the truth of a simulated survey: recovered objects and false candidates."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy.spatial import cKDTree

from nightsift.core.flags import Flag

STAGES = ("detected", "unflagged", "accepted")
ALL = "all"
Bools = npt.NDArray[np.bool_]
SNR_EDGES = (3.0, 4.0, 5.0, 6.0, 8.0, 12.0, 20.0, 40.0, np.inf)
OFFSET_EDGES = (0.0, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, np.inf)


@dataclass(frozen=True, slots=True)
class Recovery:
    """How many true objects of one group were recovered.

    Attributes
    ----------
    unit : str
        Telescope unit, ``"all"`` for the whole night.
    group : {"snr", "kind", "host offset", "obstructed"}
        What the objects are grouped by. Objects that are obstructed (saturated, bled, hit, streaked,
        defective or cut off at their place) stand in the group of that name and in no other.
    label : str
        Which group.
    expected : int
        True objects.
    detected : int
        With a candidate of the right sign at their place, whatever its flags.
    unflagged : int
        With a candidate without flags that speak against it.
    accepted : int
        With an unflagged candidate whose score reaches the unit's threshold.
    """

    unit: str
    group: str
    label: str
    expected: int
    detected: int
    unflagged: int
    accepted: int


@dataclass(frozen=True, slots=True)
class FalseRate:
    """Candidates that are no true object.

    Attributes
    ----------
    unit : str
        Telescope unit, ``"all"`` for the whole night.
    exposures : int
        Exposures searched.
    area : float
        Area searched, summed over exposures (deg2).
    detected, unflagged, accepted : int
        False candidates before flags, after flags, and after the classifier.
    """

    unit: str
    exposures: int
    area: float
    detected: int
    unflagged: int
    accepted: int

    def per_deg2(self, stage: str) -> float:
        """Return the false candidates per square degree after a stage, NaN when no area was searched."""
        return float(getattr(self, stage) / self.area) if self.area > 0 else float("nan")


@dataclass(frozen=True, slots=True)
class Scorecard:
    """Result of `score_night`.

    Attributes
    ----------
    recoveries : tuple of Recovery
        Recovered objects by group, for the whole night first, then by unit.
    false_rates : tuple of FalseRate
        False candidates, for the whole night first, then by unit.
    not_searched : int
        True objects on exposures that were not reduced.
    classified : bool
        Whether the candidates have scores; without, nothing is accepted.
    secure_snr : float
        Objects counted by kind and host offset have at least this signal-to-noise ratio.
    """

    recoveries: tuple[Recovery, ...]
    false_rates: tuple[FalseRate, ...]
    not_searched: int
    classified: bool
    secure_snr: float

    def fraction(self, group: str, label: str, stage: str = "detected", *, unit: str = ALL) -> float:
        """Return the recovered fraction of a group after a stage, NaN when nothing was expected."""
        for row in self.recoveries:
            if (row.unit, row.group, row.label) == (unit, group, label) and row.expected:
                return float(getattr(row, stage) / row.expected)
        return float("nan")

    def table(self, unit: str = ALL) -> list[tuple[str, ...]]:
        """Rows for printing, the first with the headings.

        Parameters
        ----------
        unit : str, optional
            Telescope unit.

        Returns
        -------
        list of tuple of str
            Group, label, number expected, and what each stage keeps.
        """
        rows: list[tuple[str, ...]] = [("group", "", "expected", *STAGES)]
        for one in self.recoveries:
            if one.unit == unit and one.expected:
                parts = (f"{getattr(one, stage)} ({getattr(one, stage) / one.expected:.0%})" for stage in STAGES)
                rows.append((one.group, one.label, str(one.expected), *parts))
        for rate in self.false_rates:
            if rate.unit in (unit, ALL) or unit == ALL:
                parts = (f"{rate.per_deg2(stage):.1f}" for stage in STAGES)
                rows.append(("false / deg2", rate.unit, f"{rate.area:.3f} deg2", *parts))
        return rows

    def to_json(self) -> str:
        """Return the scorecard as JSON text, rates per area included."""
        content: dict[str, Any] = dataclasses.asdict(self)
        for row, rate in zip(content["false_rates"], self.false_rates, strict=True):
            row["per_deg2"] = {stage: rate.per_deg2(stage) for stage in STAGES} if rate.area > 0 else None
        return json.dumps(content, indent=1)


def score_night(
    candidates: pa.Table,
    ledger: pa.Table,
    truth: pa.Table,
    *,
    thresholds: Mapping[str, float],
    radius: float = 2.0,
    secure_snr: float = 8.0,
    harmless: Flag = Flag.NEGATIVE,
) -> Scorecard:
    """Compare the candidates of one or several nights with the truth.

    A true object is recovered by a candidate of the same exposure and sign within `radius`. A candidate is
    false when no true object of any kind and strength is that near with that sign: variable stars and
    asteroids are real.

    Parameters
    ----------
    candidates : pyarrow.Table
        Schema `nightsift.core.tables.CANDIDATES`.
    ledger : pyarrow.Table
        Schema `nightsift.core.tables.LEDGER`; only exposures in state ``done`` count as searched.
    truth : pyarrow.Table
        Schema `nightsift.core.tables.TRUTH`.
    thresholds : mapping of str to float
        Score threshold of each unit.
    radius : float, optional
        Matching radius (pixel).
    secure_snr : float, optional
        Smallest expected signal-to-noise ratio of objects counted by kind and host offset.
    harmless : Flag, optional
        Flags that do not speak against a candidate.

    Returns
    -------
    Scorecard
        Recovered fractions and false candidates, for the whole night and by unit.

    Raises
    ------
    ValueError
        If a unit of the ledger has no threshold.
    """
    done = ledger.filter(pc.equal(ledger["state"], "done"))
    units = sorted(set(done["unit"].to_pylist()))
    missing = [unit for unit in units if unit not in thresholds]
    if missing:
        raise ValueError(f"no score threshold given for units {missing}")
    files = {
        e: url.rsplit("/", 1)[-1]
        for e, url in zip(done["exposure_id"].to_pylist(), done["url"].to_pylist(), strict=True)
    }
    searched = truth.filter(pc.is_in(truth["exposure_file"], pa.array(sorted(set(files.values())), pa.string())))
    candidates = candidates.filter(pc.is_in(candidates["exposure_id"], pa.array(sorted(files), pa.string())))
    stages = _candidate_stages(candidates, thresholds, harmless)
    recovered, real = _match(candidates, searched, files, stages=stages, radius=radius)
    rows, rates = [], []
    truth_unit = np.array(searched["unit"].to_pylist(), dtype=str)
    candidate_unit = np.array(candidates["unit"].to_pylist(), dtype=str)
    area = np.array([a if a is not None else 0.0 for a in done["area"].to_pylist()])
    ledger_unit = np.array(done["unit"].to_pylist(), dtype=str)
    for unit in (ALL, *units):
        rows += _recoveries(
            unit, searched, recovered, of_unit=(truth_unit == unit) | (unit == ALL), secure_snr=secure_snr
        )
        false = ~real & ((candidate_unit == unit) | (unit == ALL))
        of_unit = (ledger_unit == unit) | (unit == ALL)
        counts = [int((false & stage).sum()) for stage in stages]
        rates.append(FalseRate(unit, int(of_unit.sum()), float(area[of_unit].sum()), *counts))
    classified = bool(len(candidates) > candidates["score"].null_count)
    return Scorecard(tuple(rows), tuple(rates), len(truth) - len(searched), classified, secure_snr)


def _candidate_stages(
    candidates: pa.Table, thresholds: Mapping[str, float], harmless: Flag
) -> tuple[Bools, Bools, Bools]:
    """Which candidates pass detection (all), flags, and the classifier."""
    clean = (candidates["flags"].to_numpy() & ~int(harmless)) == 0
    threshold = np.array([thresholds[unit] for unit in candidates["unit"].to_pylist()], dtype=float)
    score = pc.fill_null(candidates["score"], float("nan")).to_numpy()
    return np.ones(len(clean), dtype=bool), clean, clean & (score >= threshold)


def _match(
    candidates: pa.Table,
    truth: pa.Table,
    files: Mapping[str, str],
    *,
    stages: tuple[Bools, Bools, Bools],
    radius: float,
) -> tuple[npt.NDArray[np.bool_], Bools]:
    """Recovered true objects by stage, shape (3, n_truth), and candidates that are real."""
    recovered, real = np.zeros((3, len(truth)), dtype=bool), np.zeros(len(candidates), dtype=bool)
    of_candidate = np.array([files[e] for e in candidates["exposure_id"].to_pylist()], dtype=str)
    of_truth = np.array(truth["exposure_file"].to_pylist(), dtype=str)
    place = np.stack([candidates["x"].to_numpy(), candidates["y"].to_numpy()], axis=1)
    true_place = np.stack([truth["x"].to_numpy(), truth["y"].to_numpy()], axis=1)
    sign = candidates["sign"].to_numpy()
    true_sign = np.where(truth["flux"].to_numpy() >= truth["reference_flux"].to_numpy(), 1, -1)
    for file in np.unique(of_truth):
        for side in (1, -1):
            some = np.flatnonzero((of_candidate == file) & (sign == side))
            wanted = np.flatnonzero((of_truth == file) & (true_sign == side))
            if not len(some) or not len(wanted):
                continue
            near = cKDTree(place[some]).query_ball_point(true_place[wanted], radius)
            for row, found in zip(wanted, near, strict=True):
                hits = some[found]
                real[hits] = True
                recovered[:, row] = [bool(stage[hits].any()) for stage in stages]
    return recovered, real


def _recoveries(unit: str, truth: pa.Table, recovered: Bools, *, of_unit: Bools, secure_snr: float) -> list[Recovery]:
    snr = truth["snr"].to_numpy()
    obstructed = truth["obstructed"].to_numpy(zero_copy_only=False)
    kinds = np.array(truth["kind"].to_pylist(), dtype=str)
    offset = pc.fill_null(truth["host_offset"], float("nan")).to_numpy()
    clear = of_unit & ~obstructed
    secure = clear & (snr >= secure_snr)

    def row(group: str, label: str, where: Bools) -> Recovery:
        return Recovery(unit, group, label, int(where.sum()), *(int((stage & where).sum()) for stage in recovered))

    rows = [row("snr", f"below {SNR_EDGES[0]:g}", clear & (snr < SNR_EDGES[0]))]
    rows += [row("snr", _label(a, b), clear & (snr >= a) & (snr < b)) for a, b in _pairs(SNR_EDGES)]
    rows += [row("kind", str(kind), secure & (kinds == kind)) for kind in np.unique(kinds)]
    hosted = secure & (kinds == "supernova")
    rows += [row("host offset", _label(a, b), hosted & (offset >= a) & (offset < b)) for a, b in _pairs(OFFSET_EDGES)]
    rows.append(row("obstructed", f"snr over {secure_snr:g}", of_unit & obstructed & (snr >= secure_snr)))
    return rows


def _pairs(edges: tuple[float, ...]) -> list[tuple[float, float]]:
    return list(itertools.pairwise(edges))


def _label(low: float, high: float) -> str:
    return f"over {low:g}" if np.isinf(high) else f"{low:g} to {high:g}"
