"""Active learning: the candidates that are worth a person's label, by their information and their novelty.

``bald``     mutual information of label and network, H[E p] - E H[p], in bits (Houlsby et al. 2011, arXiv:1112.5745,
             eq. 2; Gal et al. 2017, ICML 70, 1183). Candidates alike have it alike: its top is full of duplicates.
``batch``    greedy: the next one has the largest BALD x distance to the nearest one already asked for, in the
             embedding of the trunk (k-centre, Sener and Savarese 2018, ICLR, weighted). BatchBALD (Kirsch et al. 2019,
             NeurIPS 32) has the same aim by the joint information of the batch; with 20 samples that saturates at
             log2 20 = 4.3 bits, after about five candidates.
``entropy``  H[E p], bits: what the model is unsure of, for whatever reason.
``random``   a fair draw, the only rule after which the labels still represent the pool.

What is asked for differs from the pool, and a model or a rate measured on it inherits that: `bias_report` says by what.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.stats import chi2_contingency, ks_2samp

from models.calibration.calibrate import mean_probability
from models.network.classifier import pooled, sample_logits, trunk_features
from models.network.store import NO_MODEL, load
from models.network.unit_scoring import calibration_of
from models.training.examples import read_rows
from nightsift.archive.candidates import read_candidates
from nightsift.archive.paths import Archive
from nightsift.core.errors import ConfigurationError
from nightsift.core.frames import Stamps
from nightsift.core.tables import Column, schema, table
from nightsift.unit.units import Unit

Logits = npt.NDArray[np.floating]
RULES = ("bald", "batch", "entropy", "random")
MOST_RANKED = 20
"""The batch rule looks at this many times the wanted number, those of the largest BALD: enough room for spread, and
little enough that nothing is asked for about which the model has no doubt."""
MOST = 20_000
"""Candidates that are looked at; of more, so many are drawn at random."""
_ME = "models.transfer.active"
QUESTIONS = schema(
    (
        Column("candidate_id", pa.string(), "", "candidate to be labelled", _ME),
        Column("label", pa.string(), "", "to be filled in: real or bogus", _ME, True),
        Column("night", pa.string(), "", "local date of the evening", _ME),
        Column("exposure_id", pa.string(), "", "identity of the exposure", _ME),
        Column("x_file", pa.float64(), "pixel", "column in the file, 1 at the first", _ME, True),
        Column("y_file", pa.float64(), "pixel", "row in the file, 1 at the first", _ME, True),
        Column("snr", pa.float32(), "", "peak of the signal-to-noise map", _ME),
        Column("score", pa.float64(), "", "real/bogus score", _ME),
        Column("information", pa.float32(), "", "mutual information of label and network (bit)", _ME),
        Column("rule", pa.string(), "", "rule by which it was chosen; all but random are no fair draw", _ME),
    ),
    "questions",
)


def predictive_entropy(logits: Logits) -> npt.NDArray[np.float64]:
    """Return the entropy (bit), shape (n,), of the mean probability over sampled logits (samples, n)."""
    return _entropy(_probability(logits).mean(axis=0))


def bald(logits: Logits) -> npt.NDArray[np.float64]:
    """Return the mutual information (bit), shape (n,), of a candidate's label and the network.

    0 where all samples agree. `logits` (samples, n): each row one sampled network over all candidates.
    """
    p = _probability(logits)
    return np.asarray(np.maximum(_entropy(p.mean(axis=0)) - _entropy(p).mean(axis=0), 0.0))


def choose(
    rule: str, logits: Logits, embedding: npt.NDArray[np.floating], *, count: int, seed: int = 0,
    known: npt.NDArray[np.int64] | None = None,
) -> npt.NDArray[np.int64]:  # fmt: skip
    """Choose the candidates to be labelled next.

    Parameters
    ----------
    rule : str
        One of `RULES`.
    logits : ndarray, shape (samples, n)
        Sampled logits of the pool.
    embedding : ndarray, shape (n, k)
        Features of the pool (`models.network.classifier.pooled`); only ``"batch"`` looks at them.
    count : int
        Number wanted; the whole rest of the pool where it is smaller.
    seed : int, optional
        Seed of ``"random"`` and of ties.
    known : ndarray of int64, optional
        Rows that have a label already: not chosen again, and avoided by ``"batch"``.

    Returns
    -------
    ndarray of int64, shape (count,)
        Rows of the pool, in the order in which they are worth a label.

    Raises
    ------
    ValueError
        If the rule is unknown or shapes do not fit.
    """
    n = np.shape(logits)[-1]
    if rule not in RULES:
        raise ValueError(f"the rule '{rule}' is unknown; known: {', '.join(RULES)}")
    if len(embedding) != n or np.ndim(logits) != 2:
        raise ValueError(f"logits of shape {np.shape(logits)} and {len(embedding)} embeddings do not belong together")
    taken = np.zeros(n, dtype=bool)
    if known is not None:
        taken[known] = True
    free = np.random.default_rng(seed).permutation(np.flatnonzero(~taken))
    count = min(count, len(free))
    if rule == "random":
        return free[:count]
    worth = predictive_entropy(logits) if rule == "entropy" else bald(logits)
    ranked = free[np.argsort(-worth[free], kind="stable")]
    if rule != "batch":
        return ranked[:count]
    return _spread(
        ranked[: MOST_RANKED * max(count, 1)], worth, _whitened(embedding), count=count, known=np.flatnonzero(taken)
    )


def bias_report(
    pool: Mapping[str, npt.NDArray[Any]], asked: npt.NDArray[np.int64], parts: int = 5
) -> list[dict[str, Any]]:
    """Compare the properties of the candidates asked for with those of the pool.

    Parameters
    ----------
    pool : mapping of str to ndarray, shape (n,)
        Properties of the candidates: magnitude, host offset, S/N (numbers; NaN is left out), unit, sign (text).
    asked : ndarray of int64
        Rows asked for.
    parts : int, optional
        Numbers are compared in this many parts of the pool of equal size.

    Returns
    -------
    list of dict
        For each property: ``name``, ``p`` (probability of such a difference by chance: Kolmogorov-Smirnov for numbers,
        chi squared for text), ``statistic`` (KS distance, or Cramer's V), and ``shares``: rows with ``part``, ``pool``,
        ``asked`` and ``ratio``, the factor by which that part is asked for more often than in a fair draw.
    """
    rows = []
    for name, values in pool.items():
        values = np.asarray(values)
        if np.issubdtype(values.dtype, np.number):
            rows.append({"name": name, **_numbers(values.astype(np.float64), asked, parts)})
        else:
            rows.append({"name": name, **_names(values.astype(str), asked)})
    return rows


def _numbers(values: npt.NDArray[np.float64], asked: npt.NDArray[np.int64], parts: int) -> dict[str, Any]:
    there = values[np.isfinite(values)]
    picked = values[asked][np.isfinite(values[asked])]
    if len(there) < 2 or not len(picked):
        return {"p": float("nan"), "statistic": float("nan"), "shares": []}
    edges = np.unique(np.quantile(there, np.linspace(0, 1, parts + 1)))
    test = ks_2samp(picked, there)
    inner = edges[1:-1]
    counts = [
        np.bincount(np.searchsorted(inner, one, side="right"), minlength=len(inner) + 1) for one in (there, picked)
    ]
    names = [f"{low:.3g} to {high:.3g}" for low, high in pairwise(edges)]
    return {"p": float(test.pvalue), "statistic": float(test.statistic), "shares": _shares(names or ["all"], *counts)}


def _names(values: npt.NDArray[np.str_], asked: npt.NDArray[np.int64]) -> dict[str, Any]:
    names, code = np.unique(values, return_inverse=True)
    everything = np.bincount(code, minlength=len(names))
    picked = np.bincount(code[asked], minlength=len(names))
    if len(names) < 2 or not len(asked) or len(asked) == len(values):
        return {"p": float("nan"), "statistic": float("nan"), "shares": _shares(names.tolist(), everything, picked)}
    test = chi2_contingency(np.stack([picked, everything - picked]))
    size = float(np.sqrt(test.statistic / len(values)))
    return {"p": float(test.pvalue), "statistic": size, "shares": _shares(names.tolist(), everything, picked)}


def _shares(names: list[str], pool: npt.NDArray[Any], asked: npt.NDArray[Any]) -> list[dict[str, Any]]:
    rows = []
    for name, n, k in zip(names, pool, asked, strict=True):
        share, picked = n / max(pool.sum(), 1), k / max(asked.sum(), 1)
        rows.append(
            {"part": name, "pool": float(share), "asked": float(picked), "ratio": float(picked / share) if n else None}
        )
    return rows


def _spread(
    ranked: npt.NDArray[np.int64], worth: npt.NDArray[np.float64], place: npt.NDArray[np.float64], *, count: int,
    known: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:  # fmt: skip
    """Greedy: largest worth times distance to the nearest one that is known or chosen."""
    points, value = place[ranked], np.maximum(worth[ranked], 1e-12)
    nearest = np.full(len(ranked), np.inf)
    for row in known:
        nearest = np.minimum(nearest, np.linalg.norm(points - place[row], axis=1))
    chosen: list[int] = []
    for _ in range(count):
        gain = value if np.isinf(nearest).all() else value * nearest
        gain = np.where(np.isin(np.arange(len(ranked)), chosen), -np.inf, gain)
        best = int(np.argmax(gain))
        chosen.append(best)
        nearest = np.minimum(nearest, np.linalg.norm(points - points[best], axis=1))
    return ranked[chosen]


def _whitened(embedding: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Centred and scaled to unit spread in every direction of the embedding that has any."""
    x = np.asarray(embedding, dtype=np.float64)
    spread = x.std(axis=0)
    return np.asarray((x - x.mean(axis=0)) / np.where(spread > 1e-9, spread, 1.0))


def _probability(logits: Logits) -> npt.NDArray[np.float64]:
    return np.asarray(np.exp(-np.logaddexp(0.0, -np.asarray(logits, dtype=np.float64))))


def _entropy(p: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    p = np.clip(p, 1e-12, 1 - 1e-12)
    return np.asarray(-(p * np.log2(p) + (1 - p) * np.log2(1 - p)))


def questions(
    archive: Archive, unit: Unit, count: int, *, rule: str = "batch", known: Collection[str] = (), seed: int = 0
) -> tuple[pa.Table, list[dict[str, Any]], Stamps]:
    """Choose the candidates of a unit that are worth a label.

    Parameters
    ----------
    archive : Archive
        Where candidates and stamps are stored.
    unit : Unit
        The unit; its model and, if it has one, its calibration decide what is unsure.
    count : int
        How many.
    rule : str, optional
        One of `models.transfer.active.RULES`.
    known : collection of str, optional
        Candidates that have a label already.
    seed : int, optional
        Seed of all draws.

    Returns
    -------
    questions : pyarrow.Table
        Schema `QUESTIONS`, the most wanted first, labels null.
    bias : list of dict
        See `models.transfer.active.bias_report`.
    stamps : Stamps
        What is to be looked at, one per question.

    Raises
    ------
    ConfigurationError
        If the unit has no model or no stored candidates.
    ValueError
        If the rule is unknown.
    """
    if unit.model.name == NO_MODEL:
        raise _wrong(unit, "name", "the unit has no model that could be unsure", advice="name a model")
    candidates = read_candidates(archive, unit=unit.name)
    if not candidates.num_rows:
        raise _wrong(
            unit, "name", f"{archive.root} holds no candidates of {unit.name}", advice="reduce some nights first"
        )
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.permutation(candidates.num_rows)[:MOST])
    pool = candidates.take(pa.array(rows))
    classifier, sign = load(unit.model.name), pool["sign"].to_numpy()
    stamps = read_rows(archive, candidates, rows, size=classifier.recipe.size)
    logits = sample_logits(stamps, sign, classifier, samples=unit.model.samples, seed=0).astype(np.float64)
    calibration = calibration_of(unit)
    logits = logits if calibration is None else calibration(logits)
    labelled = np.flatnonzero(np.isin(np.array(pool["candidate_id"].to_pylist(), dtype=object), list(known)))
    asked = choose(
        rule, logits, pooled(trunk_features(stamps, sign, classifier)), count=count, seed=seed, known=labelled
    )
    chosen = pool.take(pa.array(asked))
    columns: dict[str, Any] = {
        name: chosen[name].to_pylist() for name in ("candidate_id", "night", "exposure_id", "x_file", "y_file", "snr")
    }
    columns |= {
        "score": mean_probability(logits)[asked],
        "information": bald(logits)[asked],
        "rule": [rule] * len(asked),
    }
    properties = {
        "mag": np.array([np.nan if one is None else one for one in pool["mag"].to_pylist()], dtype=np.float64),
        "snr": pool["snr"].to_numpy(),
        "change": np.where(sign < 0, "fading", "brightening"),
        "flags": np.where(pool["flags"].to_numpy() == 0, "clean", "flagged"),
        "field": np.array(pool["field"].to_pylist()),
    }
    shown = Stamps(stamps.data[asked], stamps.mask[asked])
    return table(columns, QUESTIONS), bias_report(properties, asked), shown


def _wrong(unit: Unit, key: str, what: str, *, advice: str) -> ConfigurationError:
    return ConfigurationError(file=unit.file, table="model", key=key, what=what, advice=advice)
