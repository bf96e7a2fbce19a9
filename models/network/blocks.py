"""Parts of architectures: a convolution, stages of blocks, and the usual head on top."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from models.network.contract import HEAD, TRUNK, join
from models.network.inputs import Recipe, input_layers

if TYPE_CHECKING:
    import keras

    Block = Callable[[keras.KerasTensor, int, str], keras.KerasTensor]


class HeadShape(Protocol):
    """Options of an architecture that shape its head."""

    @property
    def dense(self) -> int:
        """Units of the dense layer."""

    @property
    def spatial_dropout(self) -> float:
        """Probability to drop a whole feature map."""

    @property
    def dropout(self) -> float:
        """Probability to drop a unit of the dense layer."""


class StageShape(HeadShape, Protocol):
    """Options of an architecture of stages."""

    @property
    def stem(self) -> int:
        """Filters of the first convolution, at full width."""

    @property
    def filters(self) -> tuple[int, ...]:
        """Maps of each stage; a pooling that halves the width stands before each."""

    @property
    def blocks(self) -> tuple[int, ...]:
        """Blocks of each stage."""


def convolution(x: keras.KerasTensor, filters: int, name: str) -> keras.KerasTensor:
    """Apply a 3x3 convolution of `filters` maps with a ReLU to maps (n, height, width, channels), keeping the width."""
    from keras import layers

    start = "he_normal"
    return layers.Conv2D(filters, 3, padding="same", activation="relu", kernel_initializer=start, name=name)(x)


def staged(options: StageShape, recipe: Recipe, begin: Block, *, block: Block) -> keras.Model:
    """Build a network of a stem and stages of like blocks, each stage at half the width of the one before.

    Parameters
    ----------
    options : StageShape
        Shape of the network.
    recipe : Recipe
        How stamps become tensors.
    begin : callable
        Makes the maps that a stage works on from those that come in: maps, their new number and the number of the
        stage as text.
    block : callable
        One block: maps, their number and a name.

    Returns
    -------
    keras.Model
        Raw stamps and mask to logits, see `models.network.contract`.
    """
    from keras import layers

    inputs, x = input_layers(recipe)
    x = convolution(x, options.stem, "stem")
    for stage, (filters, blocks) in enumerate(zip(options.filters, options.blocks, strict=True)):
        x = begin(layers.MaxPooling2D(2, name=f"pool{stage}")(x), filters, str(stage))
        for place in range(blocks):
            x = block(x, filters, f"{stage}{'abcdefgh'[place]}")
    return headed(inputs, layers.MaxPooling2D(2, name="pool")(x), options)


def headed(inputs: list[keras.KerasTensor], maps: keras.KerasTensor, options: HeadShape) -> keras.Model:
    """Make a network of a trunk's feature maps and the usual head: maps dropped as a whole, a dense layer, one logit.

    Parameters
    ----------
    inputs : list of KerasTensor
        As `models.network.inputs.input_layers` gives them.
    maps : KerasTensor
        Feature maps of the trunk (n, height, width, channels).
    options : HeadShape
        Shape of the head.

    Returns
    -------
    keras.Model
        Raw stamps and mask to logits, see `models.network.contract`.
    """
    import keras
    from keras import layers

    trunk = keras.Model(inputs, maps, name=TRUNK)
    head = keras.Sequential(
        [
            keras.Input(trunk.output.shape[1:]),
            layers.SpatialDropout2D(options.spatial_dropout, name="drop_maps"),
            layers.Flatten(name="flat"),
            layers.Dense(options.dense, activation="relu", kernel_initializer="he_normal", name="dense"),
            layers.Dropout(options.dropout, name="drop_units"),
            layers.Dense(1, dtype="float32", name="logit"),
        ],
        name=HEAD,
    )
    return join(trunk, head)
