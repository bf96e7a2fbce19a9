"""Splits that leak nothing: what shares a unit, a field or an object never is on both sides.

Stamps split at random put the same galaxy, the same frame and the same optics on both sides, and the test then
measures memory. Here examples that share any of the named keys are joined into one group (connected components of the
graph of examples and keys), and groups are dealt out whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

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
