"""Networks from normalised planes on, for training: the normalisation is done outside the graph, by compiled loops.

The medians of the normalisation cost as much in the graph as all convolutions together, and no gradient goes through
them. The loops (`models.network.normalise`) give the same planes to 1e-4, which every export checks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

from models.network.contract import HEAD, TRUNK
from models.network.inputs import BoolStamps, FloatStamps, Recipe
from models.network.normalise import normalise

if TYPE_CHECKING:
    import keras

Planes = npt.NDArray[np.float32]
T = TypeVar("T")


def from_planes(model: keras.Model) -> keras.Model:
    """Return the network without its normalisation, planes (n, size, size, channels + 1) to logits; shared weights."""
    import keras

    trunk, head = model.get_layer(TRUNK), model.get_layer(HEAD)
    return keras.Model(trunk.get_layer("normalisation").output, head(trunk.output))


def planes_of(data: FloatStamps, mask: BoolStamps, recipe: Recipe, *, batch: int = 1024) -> Planes:
    """Normalise prepared stamps (n, size, size, 3) and mask (True where bad), `batch` stamps at a time.

    Returns planes and mask, float32, shape (n, size, size, channels + 1).
    """
    out = np.empty((*mask.shape, len(recipe.channels) + 1), dtype=np.float32)
    for start in range(0, len(mask), batch):
        part = slice(start, start + batch)
        out[part] = normalise(data[part], mask[part], recipe)
    return out


def prefetch(make: Callable[[int], T], count: int) -> Iterator[T]:
    """Make things in order, the next one in a thread while the present one is used.

    Parameters
    ----------
    make : callable
        Makes the thing of a number; called for one number after the other.
    count : int
        Number of things.

    Yields
    ------
    object
        What `make` gave for 0, 1, ..., count - 1.
    """
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(make, 0) if count else None
        for number in range(count):
            assert waiting is not None
            made = waiting.result()
            waiting = thread.submit(make, number + 1) if number + 1 < count else None
            yield made
