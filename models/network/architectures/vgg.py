"""A small VGG-like network: blocks of two 3x3 convolutions and a pooling, then two dense layers with dropout.

The family of braai (Duev et al. 2019, MNRAS 489, 3582) and gotorb (Killestein et al. 2021, MNRAS 503, 4838), made
smaller (121,000 parameters with the defaults) and with all dropout in the head, so that sampling it costs little.
A spatial dropout on the last feature maps is part of the head: it carries half of the spread of the samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.network.blocks import convolution, headed
from models.network.inputs import Recipe, input_layers

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True, slots=True)
class Options:
    """Shape of the network.

    Attributes
    ----------
    filters : tuple of int
        Filters of each block; a block halves the width.
    dense : int
        Units of the dense layer.
    spatial_dropout : float
        Probability to drop a whole feature map of the last block.
    dropout : float
        Probability to drop a unit of the dense layer.
    """

    filters: tuple[int, ...] = (16, 32, 64)
    dense: int = 80
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
        Raw stamps and mask to logits, see `models.network.contract`.
    """
    from keras import layers

    inputs, x = input_layers(recipe)
    for block, filters in enumerate(options.filters):
        for half in "ab":
            x = convolution(x, filters, f"conv{block}{half}")
        x = layers.MaxPooling2D(2, name=f"pool{block}")(x)
    return headed(inputs, x, options)
