"""A labelled set of stamps from reduced nights: collected by truth or by people's labels, and split without leaks.

The set is what the pipeline itself detected: real examples are its detections of things that changed, bogus ones its
detections of nothing, with all the faults of its own subtraction. Nothing is pasted into stamps.

For ablations, examples of some sources are left out of training and validation, never of the test: networks that learn
with and without them are compared on the same examples.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from models.training.example_rows import rows_of
from models.training.examples import EXAMPLES, SYNTHETIC, TrainingSet, join, read_rows
from models.training.labels import AMBIGUOUS, BOGUS, REAL, LabelOptions, label
from models.training.split import SPLITS, split_by
from nightsift.archive import ledger
from nightsift.archive.candidates import read_candidates
from nightsift.archive.paths import Archive
from nightsift.core.errors import ConfigurationError, NothingLeft, OneClassOnly, SharedWithTest, UnknownSource
from nightsift.core.tables import table

MATCH = LabelOptions()
# Whole units on one side if there are enough of them, else whole fields in whole nights, else less.
SPLIT_CHOICES = (
    ("unit", "field"), ("field", "night_of_unit"), ("field",), ("unit",), ("night_of_unit",), ("exposure_id",),
)  # fmt: skip
DEALS = 25  # of the groups that are tried until every part has both classes
# What must never stand on two sides, whatever the choice.
NEVER_SHARED = ("exposure_id", "object_id", "host_id")
ASIDE = "aside"
GROUPS = {"synthetic": SYNTHETIC, "real-but-minor-planets": ("detected", *SYNTHETIC)}
"""Names for several sources.

``synthetic`` is what the factory puts in. ``real-but-minor-planets`` leaves minor planets as the only real examples, as
in the set without synthetic transients of Killestein et al. (2021): the transients of a simulated sky go as well,
because they have labels that no survey has before somebody labels them.
"""
LEARNT = ("train", "validation")


def collect(
    archive: Archive,
    truth: pa.Table,
    survey: str,
    *,
    reduction: str = "standard",
    options: LabelOptions = MATCH,
    size: int = 31,
    max_real: int = 40,
    max_bogus: int = 100,
    seed: int = 0,
) -> TrainingSet:
    """Label the candidates of one reduced survey.

    Parameters
    ----------
    archive : Archive
        The reduced nights.
    truth : pyarrow.Table
        Schema `nightsift.core.tables.TRUTH`.
    survey : str
        Name that keeps its units, fields and objects apart from those of other surveys.
    reduction : str, optional
        How the nights were reduced: ``"standard"``, or ``"careless"`` with the guards of the pipeline lowered.
    options : LabelOptions, optional
        What counts as a match.
    size : int, optional
        Width to which stamps are cropped (pixel).
    max_real, max_bogus : int, optional
        Most examples of one exposure, drawn at random, so that one rich or bad frame does not fill the set.
    seed : int, optional
        Seed of that draw.

    Returns
    -------
    TrainingSet
        Its examples, all of the split ``"train"`` until `assign_splits` deals them out.

    Raises
    ------
    ValueError
        If the ledger names no file for an exposure.
    """
    done = ledger.read(archive)
    names = [url.rstrip("/").rpartition("/")[2] for url in done["url"].to_pylist()]
    exposure_files = dict(zip(done["exposure_id"].to_pylist(), names, strict=True))
    candidates = read_candidates(archive)
    labels, matches = label(candidates, exposure_files, truth, options)
    exposures = np.asarray(candidates["exposure_id"])
    most = {REAL: max_real, BOGUS: max_bogus}
    keep = np.sort(np.concatenate([_thin(labels == one, exposures, most[one], seed=seed) for one in most]))
    counts = {"ambiguous": int((labels == AMBIGUOUS).sum())}
    for name, one in (("real_thinned", REAL), ("bogus_thinned", BOGUS)):
        counts[name] = int((labels == one).sum() - (labels[keep] == one).sum())
    stamps = read_rows(archive, candidates, keep, size=size)
    chosen = candidates.take(pa.array(keep))
    rows = rows_of(chosen, labels[keep], matches[keep], truth=truth, survey=survey, reduction=reduction)
    card = {
        "surveys": 1,
        "left_out": counts,
        "labels": asdict(options),
        "most_an_exposure": {"real": max_real, "bogus": max_bogus},
    }
    return TrainingSet(stamps, rows, card)


def assign_splits(examples: TrainingSet, seed: int = 0) -> TrainingSet:
    """Deal examples out to training, validation and test, so that nothing stands on two sides.

    Exposures, objects and host galaxies join their groups wherever enough groups are left. Where they do not (a survey
    whose nights all show one field), groups are dealt out by the looser choice, and examples of an object or galaxy
    that would stand on two sides keep the side that has most of them; the others are set aside: they stay in the
    table and are in no part.

    Parameters
    ----------
    examples : TrainingSet
        Examples of one survey or more.
    seed : int, optional
        Seed.

    Returns
    -------
    TrainingSet
        The same examples with their split; the card names the keys they were split by and what each part holds.

    Raises
    ------
    TooFewGroups
        If they cannot be split without leaks.
    OneClassOnly
        If no deal leaves real and bogus examples in every part.
    """
    columns = {"unit", "field", "night", *NEVER_SHARED}
    keys = {name: np.array(examples.table[name].to_pylist(), dtype=object) for name in columns}
    keys["night_of_unit"] = np.array(
        [f"{u}/{n}" for u, n in zip(keys["unit"], keys["night"], strict=True)], dtype=object
    )
    strict = tuple((*choice, *(one for one in NEVER_SHARED if one not in choice)) for choice in SPLIT_CHOICES)
    never = {name: keys[name] for name in NEVER_SHARED}
    for attempt in range(DEALS):
        part, used = split_by(keys, (*strict[:3], *SPLIT_CHOICES[3:]), seed + 1000 * attempt)
        part = set_aside(part, never)
        if all(len(np.unique(examples.labels[part == name])) == len((REAL, BOGUS)) for name in SPLITS):
            break
    else:
        counts = {name: np.bincount(examples.labels[part == name], minlength=2) for name in SPLITS}
        counted = ", ".join(f"{name} {real} real and {bogus} bogus" for name, (bogus, real) in counts.items())
        raise OneClassOnly(deals=DEALS, keys="/".join(used), parts=counted)
    card = {**examples.card, "split_by": list(used), "split_seed": seed}
    return _with_parts(TrainingSet(examples.stamps, examples.table, card), part)


def split_without_test(examples: TrainingSet, seed: int = 0) -> TrainingSet:
    """Split a set into training and validation alone, as `assign_splits` does: what it is tested on is elsewhere.

    Examples of what would be the test part are learnt from. Raises `TooFewGroups` and `OneClassOnly`.
    """
    dealt = assign_splits(examples, seed)
    part = np.asarray(dealt.table["split"]).astype(str)
    return _with_parts(dealt, np.where(part == "test", "train", part))


def with_test_set(examples: TrainingSet, test: TrainingSet, seed: int = 0) -> TrainingSet:
    """Deal a set out to training and validation, and take another one, of other units, as the test part.

    Parameters
    ----------
    examples : TrainingSet
        Set to learn from and to stop the training by.
    test : TrainingSet
        Set of units that are not in it.
    seed : int, optional
        Seed of the deal.

    Returns
    -------
    TrainingSet
        Both sets with their split.

    Raises
    ------
    SharedWithTest
        If a unit, exposure, object or host galaxy is in both.
    TooFewGroups, OneClassOnly
        As `assign_splits`.
    """
    for name in ("unit", *NEVER_SHARED):
        both = set(examples.table[name].to_pylist()) & set(test.table[name].to_pylist()) - {None}
        if both:
            raise SharedWithTest(what=name, count=len(both), example=str(sorted(both)[0]))
    dealt = split_without_test(examples, seed)
    part = np.concatenate([np.asarray(dealt.table["split"]).astype(str), np.full(len(test), "test")])
    whole = join([dealt, test])
    return _with_parts(TrainingSet(whole.stamps, whole.table, {**dealt.card, **whole.card}), part)


def _with_parts(examples: TrainingSet, part: npt.NDArray[np.str_]) -> TrainingSet:
    """Give each example its part, of `models.training.split.SPLITS` or ``aside``; the card counts what each holds."""
    place = examples.table.schema.get_field_index("split")
    field = examples.table.schema.field(place)
    labelled = examples.table.set_column(place, field, pa.array(part.tolist(), pa.string()))
    unit, exposure = (np.asarray(examples.table[name]).astype(str) for name in ("unit", "exposure_id"))
    parts = [
        {
            "part": name,
            "units": len(np.unique(unit[part == name])),
            "exposures": len(np.unique(exposure[part == name])),
            "real": int((examples.labels[part == name] == REAL).sum()),
            "bogus": int((examples.labels[part == name] == BOGUS).sum()),
        }
        for name in (*SPLITS, ASIDE)
        if name in SPLITS or bool((part == name).any())
    ]
    return TrainingSet(examples.stamps, labelled, {**examples.card, "parts": parts})


def set_aside(part: npt.NDArray[np.str_], shared: Mapping[str, npt.NDArray[np.object_]]) -> npt.NDArray[np.str_]:
    """Take out of their parts what would stand on two sides.

    Parameters
    ----------
    part : ndarray of str, shape (n,)
        Part of each example.
    shared : mapping of str to ndarray of object, shape (n,)
        What must not be shared, by key; None is shared with nobody.

    Returns
    -------
    ndarray of str, shape (n,)
        ``"aside"`` for examples of a value that has more examples in another part.
    """
    out = part.copy()
    for values in shared.values():
        sides: dict[str, Counter[str]] = {}
        for value, side in zip(values, out, strict=True):
            if value is not None and side != ASIDE:
                sides.setdefault(value, Counter())[str(side)] += 1
        home = {value: count.most_common(1)[0][0] for value, count in sides.items() if len(count) > 1}
        for row, value in enumerate(values):
            if value in home and out[row] != home[value]:
                out[row] = ASIDE
    return out


def _thin(wanted: npt.NDArray[np.bool_], exposures: npt.NDArray[Any], most: int, *, seed: int) -> npt.NDArray[np.int64]:
    """Return the wanted rows, at most `most` per exposure, drawn at random."""
    order = np.random.default_rng(seed).permutation(len(wanted))
    order = order[wanted[order]]
    _, code = np.unique(exposures[order], return_inverse=True)
    by_exposure = np.argsort(code, kind="stable")
    rank = np.arange(len(order)) - np.searchsorted(code[by_exposure], code[by_exposure])
    return order[by_exposure][rank < most]


def leave_out(examples: TrainingSet, names: Iterable[str]) -> TrainingSet:
    """Set examples of some sources aside wherever they would be learnt from or stop the training.

    Parameters
    ----------
    examples : TrainingSet
        With its parts.
    names : iterable of str
        Values of the column ``source``, or names of `GROUPS`; none for nothing.

    Returns
    -------
    TrainingSet
        All examples; those left out are in the part ``"aside"``. The card counts them by source.

    Raises
    ------
    UnknownSource
        If a name is none of a source or group that the parts to learn from hold.
    NothingLeft
        If a class is then absent from one of these parts.
    """
    asked = tuple(dict.fromkeys(names))
    if not asked:
        return examples
    source = np.array([one or "" for one in examples.table["source"].to_pylist()], dtype=np.str_)
    part = np.asarray(examples.table["split"]).astype(str)
    learnt = np.isin(part, LEARNT)
    present = set(source[learnt].tolist()) - {""}
    out: set[str] = set()
    for name in asked:
        meant = set(GROUPS.get(name, (name,))) & present
        if not meant:
            groups = (group for group, members in GROUPS.items() if present & set(members))
            raise UnknownSource(name=name, sources=", ".join(sorted(present)) or "no sources", groups=", ".join(groups))
        out |= meant
    left = learnt & np.isin(source, sorted(out))
    dealt = _with_parts(examples, np.where(left, ASIDE, part))
    for one in LEARNT:
        labels = examples.labels[(part == one) & ~left]
        absent = [kind for kind, label in (("real", REAL), ("bogus", BOGUS)) if not np.any(labels == label)]
        if absent and np.any(part == one):
            raise NothingLeft(names=", ".join(asked), part=one, absent=" and ".join(absent))
    dealt.card["not_learnt_from"] = dict(sorted(Counter(source[left].tolist()).items()))
    return dealt


def labelled_candidates(
    archive: Archive, labels: Mapping[str, int], size: int, *, unit: str | None = None, survey: str = ""
) -> TrainingSet:
    """Read the stamps of labelled candidates.

    Parameters
    ----------
    archive : Archive
        Where candidates and stamps are stored.
    labels : mapping of str to int
        1 real or 0 bogus by candidate_id; the card counts those that are not in the archive or of another unit.
    size : int
        Width to which stamps are cropped (pixel, odd).
    unit : str, optional
        Only candidates of this unit.
    survey : str, optional
        Name of the survey.

    Returns
    -------
    TrainingSet
        One example per label, all of the part ``"train"``; the object of a candidate is not known and stays null.

    Raises
    ------
    ConfigurationError
        If no label belongs to a stored candidate.
    """
    candidates = read_candidates(archive, unit=unit) if unit else read_candidates(archive)
    wanted = pa.array(list(labels), pa.string())
    rows = np.flatnonzero(np.asarray(pc.is_in(candidates["candidate_id"], wanted)))
    if not len(rows):
        raise ConfigurationError(
            file="labels", table="labels", key="candidate_id",
            what=f"none of the {len(labels)} labels belongs to a candidate of {unit or 'any unit'} in {archive.root}",
            advice="give labels of candidates of this archive",
        )  # fmt: skip
    chosen = candidates.take(pa.array(rows))
    n, label = len(rows), np.array([labels[one] for one in chosen["candidate_id"].to_pylist()], dtype=np.int8)
    columns = {
        "example_id": chosen["candidate_id"].to_pylist(),
        "reduction": ["standard"] * n,
        "survey": [survey] * n,
        "unit": chosen["unit"].to_pylist(),
        "night": chosen["night"].to_pylist(),
        "field": chosen["field"].to_pylist(),
        "exposure_id": chosen["exposure_id"].to_pylist(),
        "kind": np.where(label == 1, "real", "bogus").tolist(),
        "label": label,
        "sign": np.asarray(chosen["sign"]),
        "snr": np.asarray(chosen["snr"]),
        "flags": np.asarray(chosen["flags"]),
        "split": ["train"] * n,
    }
    absent = {field.name: [None] * n for field in EXAMPLES if field.name not in columns and field.nullable}
    card = {"surveys": 1, "left_out": {"labels_without_candidate": len(labels) - n}}
    return TrainingSet(read_rows(archive, candidates, rows, size=size), table({**columns, **absent}, EXAMPLES), card)
