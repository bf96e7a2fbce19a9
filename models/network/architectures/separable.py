"""A small network of depthwise convolutions and products over the maps, after ConvNeXt (Liu et al. 2022, CVPR 35).

A block looks around with one 5x5 filter a map, then mixes the maps in a layer that is wider inside, then adds what it
found to what came in. As there, there is one activation a block; unlike there, it is a ReLU (a GELU costs more than the
convolutions at this size) and nothing is normalised: the last product of each block starts at zero instead. It needs
half the operations of `vgg`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from models.network.blocks import staged
from models.network.inputs import Recipe

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True, slots=True)
class Options:
    """Shape of the network.

    Attributes
    ----------
    stem : int
        Filters of the first convolution, 3x3 at full width.
    filters : tuple of int
        Maps of each stage; a pooling that halves the width stands before each.
    blocks : tuple of int
        Blocks of each stage.
    reach : int
        Width of the depthwise filters (pixel).
    widening : int
        How many times as many maps there are inside a block.
    dense : int
        Units of the dense layer.
    spatial_dropout : float
        Probability to drop a whole feature map of the last stage.
    dropout : float
        Probability to drop a unit of the dense layer.
    """

    stem: int = 24
    filters: tuple[int, ...] = (32, 64)
    blocks: tuple[int, ...] = (2, 2)
    reach: int = 5
    widening: int = 2
    dense: int = 64
    spatial_dropout: float = 0.15
    dropout: float = 0.4


def build(options: Options, recipe: Recipe) -> keras.Model:
    """Build the network with fresh weights: raw stamps and mask to logits, see `models.network.contract`."""
    return staged(options, recipe, _widened, block=partial(_block, options))


def _widened(x: keras.KerasTensor, filters: int, stage: str) -> keras.KerasTensor:
    """As many maps as the stage has."""
    from keras import layers

    return layers.Conv2D(filters, 1, kernel_initializer="he_normal", name=f"widen{stage}")(x)


def _block(options: Options, x: keras.KerasTensor, maps: int, name: str) -> keras.KerasTensor:
    """Look around in each map, mix the maps, add what was found."""
    from keras import layers

    inside, start = maps * options.widening, "he_normal"
    y = layers.DepthwiseConv2D(options.reach, padding="same", name=f"look{name}")(x)
    y = layers.Conv2D(inside, 1, activation="relu", kernel_initializer=start, name=f"mix{name}")(y)
    y = layers.Conv2D(maps, 1, kernel_initializer="zeros", name=f"tell{name}")(y)
    return layers.Add(name=f"add{name}")([x, y])
