"""What is not learnt from: examples of some sources taken out of training and validation, never of the test.

For ablations: what is a kind of example worth? The network that learns without it must be judged on the same test.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np

from models.dataset import ASIDE, in_parts
from models.errors import NothingLeft, UnknownSource
from models.examples import SYNTHETIC, TrainingSet
from models.labels import BOGUS, REAL

GROUPS = {"synthetic": SYNTHETIC, "real-but-minor-planets": ("detected", *SYNTHETIC)}
"""Names for several sources.

``synthetic`` is what the factory puts in. ``real-but-minor-planets`` leaves minor planets as the only real examples, as
in the set without synthetic transients of Killestein et al. (2021): the transients of a simulated sky go as well,
because they have labels that no survey has before somebody labels them.
"""
LEARNT = ("train", "validation")


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
        All examples; those left out are in the part ``"aside"``. The card tells how many, by source.

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
    kept = in_parts(examples, np.where(left, ASIDE, part))
    for one in LEARNT:
        labels = examples.labels[(part == one) & ~left]
        absent = [told for told, label in (("real", REAL), ("bogus", BOGUS)) if not np.any(labels == label)]
        if absent and np.any(part == one):
            raise NothingLeft(names=", ".join(asked), part=one, absent=" and ".join(absent))
    kept.card["not_learnt_from"] = dict(sorted(Counter(source[left].tolist()).items()))
    return kept
