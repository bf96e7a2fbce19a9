"""A small residual network: shortcuts around pairs of 3x3 convolutions (He et al. 2016, CVPR 29, 770).

Without normalisation over the batch, so that a stamp's score depends on no other stamp in training either and few
labels can be tuned on: the second convolution of each pair starts at zero, and a fresh block is its shortcut (Zhang,
Dauphin and Ma 2019, ICLR 7). The full width of the stamp, which costs most, gets one convolution only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.network.blocks import convolution, staged
from models.network.inputs import Recipe

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True, slots=True)
class Options:
    """Shape of the network.

    Attributes
    ----------
    stem : int
        Filters of the first convolution, at full width.
    filters : tuple of int
        Filters of each stage; a pooling that halves the width stands before each.
    blocks : tuple of int
        Residual blocks of each stage.
    dense : int
        Units of the dense layer.
    spatial_dropout : float
        Probability to drop a whole feature map of the last stage.
    dropout : float
        Probability to drop a unit of the dense layer.
    """

    stem: int = 24
    filters: tuple[int, ...] = (32, 48)
    blocks: tuple[int, ...] = (1, 2)
    dense: int = 80
    spatial_dropout: float = 0.15
    dropout: float = 0.4


def build(options: Options, recipe: Recipe) -> keras.Model:
    """Build the network with fresh weights: raw stamps and mask to logits, see `models.network.contract`."""
    return staged(options, recipe, lambda x, filters, stage: x, block=_block)


def _block(x: keras.KerasTensor, filters: int, name: str) -> keras.KerasTensor:
    """Two convolutions and their shortcut, a product with a matrix where the number of maps changes."""
    from keras import layers

    shortcut = x
    if int(x.shape[-1]) != filters:
        shortcut = layers.Conv2D(filters, 1, use_bias=False, kernel_initializer="he_normal", name=f"match{name}")(x)
    y = convolution(x, filters, f"first{name}")
    y = layers.Conv2D(filters, 3, padding="same", kernel_initializer="zeros", name=f"second{name}")(y)
    return layers.ReLU(name=f"relu{name}")(layers.Add(name=f"add{name}")([shortcut, y]))
