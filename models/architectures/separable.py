"""A small network of depthwise convolutions and products over the maps, after ConvNeXt (Liu et al. 2022, CVPR 35).

A block looks around with one 5x5 filter a map, then mixes the maps in a layer that is wider inside, then adds what it
found to what came in. As there, there is one activation a block; unlike there, it is a ReLU (a GELU costs more than the
convolutions at this size) and nothing is normalised: the last product of each block starts at zero instead. It needs
half the operations of `vgg`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.contract import TRUNK, dense_head, join
from models.inputs import Recipe, entry

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
    """Build the network with fresh weights.

    Parameters
    ----------
    options : Options
        Shape of the network.
    recipe : Recipe
        How stamps become tensors.

    Returns
    -------
    keras.Model
        Raw stamps and mask to logits, see `models.contract`.
    """
    import keras
    from keras import layers

    inputs, x = entry(recipe)
    x = layers.Conv2D(options.stem, 3, padding="same", activation="relu", kernel_initializer="he_normal", name="stem")(
        x
    )
    for stage, (filters, blocks) in enumerate(zip(options.filters, options.blocks, strict=True)):
        x = layers.MaxPooling2D(2, name=f"pool{stage}")(x)
        x = layers.Conv2D(filters, 1, kernel_initializer="he_normal", name=f"widen{stage}")(x)
        for block in range(blocks):
            x = _block(x, options, f"{stage}{'abcdefgh'[block]}")
    x = layers.MaxPooling2D(2, name="pool")(x)
    trunk = keras.Model(inputs, x, name=TRUNK)
    head = dense_head(trunk, options.dense, options.spatial_dropout, options.dropout)
    return join(trunk, head)


def _block(x: keras.KerasTensor, options: Options, name: str) -> keras.KerasTensor:
    from keras import layers

    maps = int(x.shape[-1])
    y = layers.DepthwiseConv2D(options.reach, padding="same", name=f"look{name}")(x)
    y = layers.Conv2D(maps * options.widening, 1, activation="relu", kernel_initializer="he_normal", name=f"mix{name}")(
        y
    )
    y = layers.Conv2D(maps, 1, kernel_initializer="zeros", name=f"tell{name}")(y)
    return layers.Add(name=f"add{name}")([x, y])
