"""The exposures of a campaign dealt into chunks: each lies in one, and a chunk is of one unit and one night."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from nightsift.io.paths import WITHOUT_NIGHT

Order = Literal["oldest", "newest", "unit"]
ORDERS: tuple[Order, ...] = ("oldest", "newest", "unit")


@dataclass(frozen=True, slots=True, order=True)
class Planned:
    """An exposure of a plan.

    Attributes
    ----------
    night, unit : str
        Night label and telescope unit.
    url : str
        Where it lies.
    label : str
        How it is called in logs.
    """

    night: str
    unit: str
    url: str
    label: str = ""


def deal(exposures: Iterable[Planned], batch: int, order: Order = "oldest") -> list[tuple[Planned, ...]]:
    """Deal exposures into chunks.

    Parameters
    ----------
    exposures : iterable of Planned
        The exposures, in any order; one that is given twice counts once.
    batch : int
        Most exposures in a chunk.
    order : str, optional
        What comes first: ``"oldest"`` or ``"newest"`` nights, or all nights of one ``"unit"``.

    Returns
    -------
    list of tuple of Planned
        Chunks in the order in which they are to be begun; the same for every order of the exposures. Those of one
        night and unit are about as long as each other.

    Raises
    ------
    ValueError
        If a chunk may hold less than one exposure.
    """
    if batch < 1:
        raise ValueError(f"a chunk holds one exposure or more, got {batch}")
    once = sorted({(one.unit, one.url): one for one in sorted(exposures)}.values())
    groups: dict[tuple[str, str], list[Planned]] = {}
    for one in once:
        groups.setdefault((one.night, one.unit), []).append(one)
    return [chunk for key in _ordered(list(groups), order) for chunk in _pieces(groups[key], batch)]


def _ordered(keys: Sequence[tuple[str, str]], order: Order) -> list[tuple[str, str]]:
    by: dict[str, Callable[[tuple[str, str]], tuple[str, str]]] = {
        "oldest": lambda key: key,
        "newest": lambda key: key,
        "unit": lambda key: (key[1], key[0]),
    }
    units_in_order = sorted(keys, key=by[order])
    # stable passes turn the nights round and leave the units of a night as they are; no exposure without a night is new
    if order == "newest":
        units_in_order = sorted(units_in_order, key=lambda key: key[0], reverse=True)
        return sorted(units_in_order, key=lambda key: key[0] == WITHOUT_NIGHT)
    return units_in_order


def _pieces(group: Sequence[Planned], batch: int) -> list[tuple[Planned, ...]]:
    """Cut a group into as few pieces as possible, about equally long: no last piece of one exposure."""
    number = -(-len(group) // batch)
    edges = [len(group) * i // number for i in range(number + 1)]
    return [tuple(group[a:b]) for a, b in pairwise(edges)]
