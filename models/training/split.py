"""Splits that leak nothing: what shares a unit, a field or an object never stands on both sides.

Stamps split at random put the same galaxy, the same frame and the same optics on both sides, and the test then
measures memory. Here examples that share any of the named keys are joined into one group (connected components of the
graph of examples and keys), and groups are dealt out whole.

Labels that may be wrong: found by networks that have not seen them, told, and never dropped.

Confident learning (Northcutt, Jiang & Chuang 2021, JAIR 70, 1373): a network scores examples of groups that it was not
trained on; an example that is as much at home in the other class as the members of that class are on average is
doubtful. The networks are trained for this purpose from scratch; no earlier classifier has a say in what is learnt
from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from models.training.examples import TrainingSet
from models.training.labels import BOGUS, REAL
from models.training.train import TrainOptions, train
from nightsift.core.errors import TooFewGroups

SPLITS = ("train", "validation", "test")
Keys = Mapping[str, npt.NDArray[np.object_]]


def groups_of(keys: Keys) -> npt.NDArray[np.int64]:
    """Join examples that share a value of any key.

    Parameters
    ----------
    keys : mapping of str to ndarray of object, shape (n,)
        Values by key; None is shared with nobody.

    Returns
    -------
    ndarray of int64, shape (n,)
        Number of the group of each example, 0 to n_groups - 1.
    """
    n = len(next(iter(keys.values())))
    rows, nodes, used = [], [], n
    for values in keys.values():
        present = np.flatnonzero(np.array([value is not None for value in values], dtype=bool))
        _, code = np.unique(np.asarray(values)[present].astype(str), return_inverse=True)
        rows.append(present)
        nodes.append(code + used)
        used += int(code.max(initial=-1)) + 1
    row, node = np.concatenate(rows), np.concatenate(nodes)
    graph = coo_array((np.ones(len(row), dtype=np.int8), (row, node)), shape=(used, used))
    _, component = connected_components(graph, directed=False)
    _, group = np.unique(component[:n], return_inverse=True)
    return np.asarray(group, dtype=np.int64)


def split(keys: Keys, fractions: Sequence[float] = (0.7, 0.15, 0.15), seed: int = 0) -> npt.NDArray[np.str_]:
    """Deal examples out to training, validation and test without leaks.

    Parameters
    ----------
    keys : mapping of str to ndarray of object, shape (n,)
        What must not be shared, see `groups_of`.
    fractions : sequence of float, optional
        Wished parts of the groups for train, validation and test; each part gets at least one group.
    seed : int, optional
        Seed of the order in which groups are dealt.

    Returns
    -------
    ndarray of str, shape (n,)
        ``"train"``, ``"validation"`` or ``"test"``.

    Raises
    ------
    TooFewGroups
        If there are fewer groups than parts.
    """
    group = groups_of(keys)
    n_groups = int(group.max(initial=-1)) + 1
    if n_groups < len(SPLITS):
        raise TooFewGroups(found=n_groups, keys="/".join(keys), needed=len(SPLITS))
    order = np.random.default_rng(seed).permutation(n_groups)
    held = [max(1, round(fraction * n_groups)) for fraction in fractions[1:]]
    while n_groups - sum(held) < 1:
        held[held.index(max(held))] -= 1
    part = np.full(n_groups, SPLITS[0], dtype="<U10")
    part[order[: held[0]]] = SPLITS[1]
    part[order[held[0] : sum(held)]] = SPLITS[2]
    return part[group]


def split_by(
    keys: Keys, choices: Sequence[Sequence[str]], seed: int = 0, *, wanted: int = 6
) -> tuple[npt.NDArray[np.str_], tuple[str, ...]]:
    """Split by the strictest choice of keys that leaves enough groups.

    Parameters
    ----------
    keys : mapping of str to ndarray of object, shape (n,)
        Values by key.
    choices : sequence of sequences of str
        Choices of keys, the strictest first.
    seed : int, optional
        Seed of the split.
    wanted : int, optional
        Groups that are enough.

    Returns
    -------
    part : ndarray of str, shape (n,)
        See `split`.
    used : tuple of str
        The keys that were used; they belong into the card.

    Raises
    ------
    TooFewGroups
        If no choice leaves at least three groups.
    """
    counts = {
        tuple(names): int(groups_of({name: keys[name] for name in names}).max(initial=-1)) + 1 for names in choices
    }
    enough = [names for names, count in counts.items() if count >= wanted]
    used = enough[0] if enough else max(counts, key=lambda names: counts[names])
    return split({name: keys[name] for name in used}, seed=seed), used


def deal_folds(keys: Keys, choices: Sequence[Sequence[str]], folds: int, *, seed: int = 0) -> npt.NDArray[np.int64]:
    """Deal whole groups to folds of about equal numbers of examples, by the strictest choice of keys that allows it.

    Parameters
    ----------
    keys : mapping of str to ndarray of object, shape (n,)
        Values by key.
    choices : sequence of sequences of str
        Choices of keys, the strictest first.
    folds : int
        Number of folds.
    seed : int, optional
        Seed of the order of equally large groups.

    Returns
    -------
    ndarray of int64, shape (n,)
        Number of the fold of each example.

    Raises
    ------
    TooFewGroups
        If no choice leaves as many groups as folds.
    """
    most = 0
    for names in choices:
        group = groups_of({name: keys[name] for name in names})
        count = np.bincount(group)
        most = max(most, len(count))
        if len(count) < folds:
            continue
        order = np.random.default_rng(seed).permutation(len(count))
        fold, filled = np.empty(len(count), dtype=np.int64), np.zeros(folds, dtype=np.int64)
        for one in order[np.argsort(-count[order], kind="stable")]:  # the largest first, each to the emptiest fold
            fold[one] = np.argmin(filled)
            filled[fold[one]] += count[one]
        return fold[group]
    raise TooFewGroups(found=most, keys="/".join(choices[-1]), needed=folds)


Probabilities = npt.NDArray[np.float64]
Fit = Callable[[TrainingSet], Callable[[TrainingSet], Probabilities]]
DOUBTFUL = 0.5
FOLDS, EPOCHS = 4, 5
KEYS = ("unit", "field", "exposure_id", "object_id", "host_id")
_LOOSER = ("field", "exposure_id", "object_id", "host_id"), ("exposure_id", "object_id", "host_id"), ("exposure_id",)


def class_confidence(real: Probabilities, labels: npt.NDArray[np.int8]) -> tuple[float, float]:
    """Mean probability of their own class over the examples of each label: the thresholds (eq. 2).

    Parameters
    ----------
    real : ndarray of float64, shape (n,)
        Probability to be real, by networks that have not seen the example.
    labels : ndarray of int8, shape (n,)
        1 real, 0 bogus.

    Returns
    -------
    bogus, real : float
        Thresholds.

    Raises
    ------
    ValueError
        If a class is absent.
    """
    if not bool((labels == REAL).any()) or not bool((labels == BOGUS).any()):
        raise ValueError("both classes are needed to doubt a label")
    return float(np.mean(1.0 - real[labels == BOGUS])), float(np.mean(real[labels == REAL]))


def doubt(real: Probabilities, labels: npt.NDArray[np.int8]) -> npt.NDArray[np.float32]:
    """Doubt in each label, 0 to 1.

    ``(q / t_q) / (p / t_p + q / t_q)``, with the probabilities p of the label given and q of the other one and the mean
    confidences t of both classes: above one half where the example is more at home in the other class.

    Parameters
    ----------
    real : ndarray of float64, shape (n,) or (m, n)
        Probability to be real, by networks that have not seen the example; of an ensemble, one row a member, and the
        doubts of the members are averaged.
    labels : ndarray of int8, shape (n,)
        1 real, 0 bogus.

    Returns
    -------
    ndarray of float32, shape (n,)
        Doubt.
    """
    if real.ndim == 2:
        return np.asarray(np.mean([doubt(one, labels) for one in real], axis=0), dtype=np.float32)
    t_bogus, t_real = class_confidence(real, labels)
    at_home = np.stack([(1.0 - real) / t_bogus, real / t_real])
    given = np.where(labels == REAL, at_home[1], at_home[0])
    other = np.where(labels == REAL, at_home[0], at_home[1])
    return np.asarray(other / np.maximum(given + other, 1e-12), dtype=np.float32)


def confident_joint(real: Probabilities, labels: npt.NDArray[np.int8]) -> npt.NDArray[np.float64]:
    """Estimated joint distribution of given and true labels (eq. 1 and 3).

    Parameters
    ----------
    real : ndarray of float64, shape (n,)
        Probability to be real.
    labels : ndarray of int8, shape (n,)
        1 real, 0 bogus.

    Returns
    -------
    ndarray of float64, shape (2, 2)
        Part of all examples with given label i (row) and true label j (column), bogus first; sums to one.
    """
    t_bogus, t_real = class_confidence(real, labels)
    is_bogus, is_real = 1.0 - real >= t_bogus, real >= t_real
    true = np.where(is_real & (~is_bogus | (real >= 0.5)), REAL, BOGUS)
    counted = is_bogus | is_real
    joint = np.zeros((2, 2))
    for given in (BOGUS, REAL):
        mine = labels == given
        counts = np.array([np.sum(mine & counted & (true == one)) for one in (BOGUS, REAL)], dtype=np.float64)
        if counts.sum() == 0:
            counts[given] = 1.0
        joint[given] = counts / counts.sum() * mine.sum()
    return np.asarray(joint / joint.sum())


def out_of_fold(examples: TrainingSet, fit: Fit, folds: int = FOLDS, *, seed: int = 0) -> Probabilities:
    """Probabilities by networks that have not seen the example, its unit, field, object or galaxy.

    Parameters
    ----------
    examples : TrainingSet
        The set; its own split is not looked at.
    fit : callable
        Learns from the parts ``"train"`` and ``"validation"`` of a set and gives what scores another one.
    folds : int, optional
        Number of folds, at least three: one to score, one to stop the training, the others to learn from.
    seed : int, optional
        Seed of the folds.

    Returns
    -------
    ndarray of float64, shape (n,)
        Probability to be real.

    Raises
    ------
    TooFewGroups
        If the examples hang together too much for so many folds.
    """
    number = deal_folds(_keys(examples), (KEYS, *_LOOSER), folds, seed=seed)
    real = np.empty(len(examples))
    for fold in range(folds):
        check = (fold + 1) % folds
        rows = np.flatnonzero(number != fold)
        part = np.where(number[rows] == check, "validation", "train")
        score = fit(_with_column(examples.take(rows), "split", pa.array(part.tolist(), pa.string())))
        real[number == fold] = score(examples.take(np.flatnonzero(number == fold)))
    return real


def measure_doubt(
    examples: TrainingSet, fit: Fit | None = None, folds: int = FOLDS, *, rounds: int = 1, seed: int = 0
) -> TrainingSet:
    """Fill the column ``label_doubt``.

    Parameters
    ----------
    examples : TrainingSet
        The set.
    fit : callable, optional
        See `out_of_fold`; a small network trained for a few epochs by default.
    folds, rounds : int, optional
        Folds, and how often folds are dealt anew: more rounds are an ensemble and cost as much more.
    seed : int, optional
        Seed.

    Returns
    -------
    TrainingSet
        The same examples, all of them; the card tells how many labels are doubtful and how many are estimated wrong.
    """
    fit = fit or network_fit(TrainOptions(epochs=EPOCHS, patience=2, seed=seed))
    real = np.array([out_of_fold(examples, fit, folds, seed=seed + k) for k in range(rounds)])
    found = doubt(real, examples.labels)
    joint = confident_joint(real.mean(axis=0), examples.labels)
    told: dict[str, Any] = {
        "method": "confident learning on scores out of fold", "folds": folds, "rounds": rounds,
        "doubtful": {name: int((found[examples.labels == one] > DOUBTFUL).sum())
                     for name, one in (("real", REAL), ("bogus", BOGUS))},
        "estimated_wrong": {"real": float(joint[REAL, BOGUS] / joint[REAL].sum()),
                            "bogus": float(joint[BOGUS, REAL] / joint[BOGUS].sum())},
    }  # fmt: skip
    told_of = TrainingSet(examples.stamps, examples.table, {**examples.card, "label_noise": told})
    return _with_column(told_of, "label_doubt", pa.array(found, pa.float32()))


def network_fit(options: TrainOptions) -> Fit:
    """A network trained for a few epochs.

    Parameters
    ----------
    options : TrainOptions
        How to train. Few epochs: a network that has learnt the wrong labels by heart does not doubt them.

    Returns
    -------
    callable
        For `out_of_fold`.
    """

    def fit(examples: TrainingSet) -> Callable[[TrainingSet], Probabilities]:
        from models.network.inputs import prepare

        model = train(examples, options).model

        def score(others: TrainingSet, batch: int = 512) -> Probabilities:
            data, mask = prepare(others.stamps, others.sign, options.recipe)
            logits = [
                np.asarray(model.predict_on_batch([data[first : first + batch], mask[first : first + batch]]))[:, 0]
                for first in range(0, len(others), batch)
            ]
            return np.asarray(1.0 / (1.0 + np.exp(-np.concatenate(logits).astype(np.float64))))

        return score

    return fit


def _keys(examples: TrainingSet) -> Keys:
    return {name: np.array(examples.table[name].to_pylist(), dtype=object) for name in KEYS}


def _with_column(examples: TrainingSet, name: str, values: pa.Array) -> TrainingSet:
    place = examples.table.schema.get_field_index(name)
    table = examples.table.set_column(place, examples.table.schema.field(place), values)
    return TrainingSet(examples.stamps, table, examples.card)
