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
    """The network without its normalisation; the layers and weights are those of the network itself.

    Parameters
    ----------
    model : keras.Model
        A network that keeps `models.network.contract`.

    Returns
    -------
    keras.Model
        Normalised planes (n, size, size, channels + 1) to logits (n, 1).
    """
    import keras

    trunk, head = model.get_layer(TRUNK), model.get_layer(HEAD)
    return keras.Model(trunk.get_layer("normalisation").output, head(trunk.output))


def planes_of(data: FloatStamps, mask: BoolStamps, recipe: Recipe, batch: int = 1024) -> Planes:
    """Normalise prepared stamps, a batch at a time.

    Parameters
    ----------
    data : ndarray of float32, shape (n, size, size, 3)
        Science, template, difference.
    mask : ndarray of bool, shape (n, size, size)
        True where bad.
    recipe : Recipe
        The formula's numbers.
    batch : int, optional
        Stamps at a time.

    Returns
    -------
    ndarray of float32, shape (n, size, size, channels + 1)
        Planes and mask.
    """
    out = np.empty((*mask.shape, len(recipe.channels) + 1), dtype=np.float32)
    for start in range(0, len(mask), batch):
        part = slice(start, start + batch)
        out[part] = normalise(data[part], mask[part], recipe)
    return out


def ahead(make: Callable[[int], T], count: int) -> Iterator[T]:
    """Make things in order, the next one in a thread while the present one is used.

    Parameters
    ----------
    make : callable
        Makes the thing of a number; called for one number after the other.
    count : int
        How many.

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
