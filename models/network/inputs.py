"""From stamps to tensors: one recipe for training and service, stored inside the saved model.

The recipe has two halves. Outside the graph, in numpy: the cut-out is cropped about its centre, and a fading
candidate is turned into a brightening one (`prepare`). Inside the graph, as the first layer of every network
(`normalisation_layer`): masked pixels are set to zero and given to the network in a channel of their own, the local
background goes, and all planes are divided by one common scale and compressed. The layer is saved with the weights as
``nightsift>StampNormalisation``, so that the two can never be parted.

**The formula.** For the planes X_c (science, template, difference) of one stamp, with good pixels G::

    s    = 1.4826 median_G |D|                      robust noise of the difference D
    b_c  = median over the good border pixels of X_c;  b_D = 0
    y_c  = asinh((X_c - b_c) / (a s)) / 3           a: `softening`;  y_c = 0 where masked

One scale for all planes keeps the ratio of the fluxes of difference and science, which tells a subtraction residual
(a small part of its star) from a transient (as bright in the difference as in the science frame). A norm of each
channel by itself, as in other classifiers, erases it. The scale is a noise, so that the network sees S/N and needs to
know neither gain nor zero point of a unit. asinh keeps noise linear and lets a star of 10^4 sigma in.

**Absent planes.** A survey may deliver no template or no difference. A plane without one good finite pixel is absent:
it becomes zero everywhere, hides no pixel of the other planes, and where the difference is the absent one, s is the
noise of the science plane about its local background (of the template, where that is all there is). Networks learn
it by losing planes in training (`models.training.augment`). Recipes of version 1 knew no absent planes: they mask the
stamp.

**Pixel scale and seeing.** Units differ by a factor of three in FWHM (1.8-6 px). Stamps are *not* rescaled to a
common FWHM: interpolation correlates the noise, blurs the sharpness that gives cosmic rays and hot pixels away,
and would need a PSF for a stamp of which only the pixels are left. The network is instead trained on
many random units over the whole range of FWHM and learns what sources look like from the science plane itself.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nightsift.core.errors import ModelMismatch
from nightsift.core.frames import Stamps
from nightsift.core.robust import MAD_TO_SIGMA

if TYPE_CHECKING:
    import keras

PLANES = ("science", "template", "difference")
VERSIONS = (1, 2)
FloatStamps = npt.NDArray[np.float32]
BoolStamps = npt.NDArray[np.bool_]
COMPRESSION = 3.0  # brings asinh of 10^4 sigma to about 3, where networks learn well
NOISE_FROM = ("difference", "science", "template")  # where the noise is measured: the first plane that is there


@dataclass(frozen=True, slots=True)
class Recipe:
    """Recipe from stamps to tensors.

    Attributes
    ----------
    size : int
        Width of the cut-out that the network sees (pixel, odd); bigger stamps are cropped about their centre.
    channels : tuple of str
        Planes that the network sees, in its order; the mask always follows as the last channel.
    softening : float
        Scale ``a`` of the asinh in units of the noise of the difference.
    border : int
        Width of the border that gives the local background of science and template (pixel).
    fading : str
        ``"swap"``: of a candidate with sign -1 science and template are swapped and the difference negated, so
        that the network always sees a brightening.
    version : int
        Version of the formula; raised when its meaning changes. 1: a stamp that lacks a plane is wholly masked;
        2: a plane may be absent.
    """

    size: int = 31
    channels: tuple[str, ...] = PLANES
    softening: float = 2.0
    border: int = 2
    fading: str = "swap"
    version: int = 2

    def __post_init__(self) -> None:
        wrong = [
            text
            for text, bad in (
                (f"size {self.size} is not an odd number of at least 9", self.size < 9 or self.size % 2 == 0),
                (f"channels {self.channels} are not among {PLANES}", not set(self.channels) <= set(PLANES)),
                ("the channel 'difference' is needed", "difference" not in self.channels),
                (f"softening {self.softening} is not positive", not self.softening > 0),
                (f"border {self.border} does not fit size {self.size}", not 0 < self.border < self.size // 2),
                (f"fading '{self.fading}' is unknown", self.fading != "swap"),
                (
                    f"version {self.version} is unknown to this code, which knows {VERSIONS}",
                    self.version not in VERSIONS,
                ),
            )
            if bad
        ]
        if wrong:
            raise ModelMismatch(model="recipe", what="; ".join(wrong))

    @property
    def planes_may_be_absent(self) -> bool:
        """Whether a stamp may lack a plane."""
        return self.version >= 2

    def to_json(self) -> str:
        """The recipe as JSON text."""
        return json.dumps(dataclasses.asdict(self), indent=2, sort_keys=True)

    @classmethod
    def from_mapping(cls, values: dict[str, Any]) -> Recipe:
        """Read a recipe from the content of its JSON, all fields by name.

        Raises `ModelMismatch` if a field is unknown or absent, or its value makes no sense.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if set(values) != known:
            raise ModelMismatch(model="recipe", what=f"its fields are {sorted(values)}, expected {sorted(known)}")
        return cls(**{**values, "channels": tuple(values["channels"])})


def prepare(stamps: Stamps, sign: npt.ArrayLike, recipe: Recipe) -> tuple[FloatStamps, BoolStamps]:
    """Crop stamps and turn fading candidates into brightening ones.

    Parameters
    ----------
    stamps : Stamps
        Raw stamps: background-subtracted flux (ADU), mask True where bad.
    sign : array_like of int, shape (n,)
        +1 for candidates brighter than in the template, -1 for fainter ones.
    recipe : Recipe
        Gives the size, and whether planes may be absent.

    Returns
    -------
    data : ndarray of float32, shape (n, size, size, 3)
        Science, template, difference; not yet normalised; absent planes hold no finite good pixel.
    mask : ndarray of bool, shape (n, size, size)
        True where bad, including pixels that are not finite in a plane that is there.

    Raises
    ------
    ModelMismatch
        If the stamps are smaller than the cut-out, have no common centre with it, or lack a plane.
    ValueError
        If `sign` does not fit the stamps.
    """
    have, size = stamps.data.shape[1], recipe.size
    if stamps.data.shape[3] != len(PLANES):
        raise ModelMismatch(model="recipe", what=f"stamps have {stamps.data.shape[3]} planes, {PLANES} needed")
    if have < size or have % 2 == 0:
        raise ModelMismatch(
            model="recipe",
            what=f"stamps are {have} px wide; an odd width of at least {size} px is needed ([stamps] size)",
        )
    signs = np.asarray(sign, dtype=np.int8).reshape(-1)
    if len(signs) != len(stamps) or not np.isin(signs, (-1, 1)).all():
        raise ValueError(f"sign must hold {len(stamps)} values of +1 or -1, got {signs!r}")
    low = (have - size) // 2
    inner = slice(low, low + size)
    data = np.array(stamps.data[:, inner, inner], dtype=np.float32)
    fading = signs < 0
    data[fading] = data[fading][..., [1, 0, 2]] * np.array([1, 1, -1], dtype=np.float32)
    return data, _bad_pixels(data, stamps.mask[:, inner, inner], recipe)


def _bad_pixels(data: FloatStamps, mask: BoolStamps, recipe: Recipe) -> BoolStamps:
    """Add to the mask what is not finite; planes that are wholly absent count only where they may not be."""
    finite = np.isfinite(data)
    if finite.all():
        return mask.copy()
    if recipe.planes_may_be_absent:
        there = (finite & ~mask[..., None]).any(axis=(1, 2), keepdims=True)
        finite |= ~there & there.any(axis=-1, keepdims=True)
    return mask | ~finite.all(axis=-1)


def input_layers(recipe: Recipe) -> tuple[list[keras.KerasTensor], keras.KerasTensor]:
    """Return the first layers of every network: its inputs and the normalised planes.

    The inputs are ``stamps`` (n, size, size, 3) float32, raw, and ``mask`` (n, size, size) bool; the planes have the
    shape (n, size, size, channels + 1), the mask last.
    """
    import keras

    stamps = keras.Input((recipe.size, recipe.size, len(PLANES)), dtype="float32", name="stamps")
    mask = keras.Input((recipe.size, recipe.size), dtype="bool", name="mask")
    return [stamps, mask], normalisation_layer()(**dataclasses.asdict(recipe), name="normalisation")([stamps, mask])


@functools.cache
def normalisation_layer() -> type[keras.Layer]:
    """Return the layer class ``StampNormalisation``, registered with Keras when first asked for.

    Made inside a function, because Keras is imported on use only.

    Returns
    -------
    type
        Its arguments are the fields of `Recipe`. Called with
        ``[stamps (n, size, size, 3) float32, mask (n, size, size) bool]`` it gives (n, size, size, channels + 1)
        float32: normalised planes in the order of the recipe, then the mask (1 where bad).
    """
    import keras
    from keras import ops

    @keras.saving.register_keras_serializable(package="nightsift")
    class StampNormalisation(keras.Layer):
        def __init__(
            self, name: str | None = None, dtype: Any = "float32", trainable: bool = True, **recipe: Any
        ) -> None:
            super().__init__(name=name, dtype=dtype, trainable=trainable)
            self.recipe = Recipe.from_mapping(recipe)

        def get_config(self) -> dict[str, Any]:
            values = dataclasses.asdict(self.recipe)
            return {**super().get_config(), **values, "channels": list(values["channels"])}

        def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
            return (*input_shape[1], len(self.recipe.channels) + 1)

        def call(self, inputs: Any) -> Any:
            stamps, mask = inputs
            good, there = _good(stamps, mask, self.recipe)
            planes = {}
            for name in self.recipe.channels:
                plane = stamps[..., PLANES.index(name)]
                plane = ops.where(ops.logical_and(good, ops.isfinite(plane)), plane, 0.0)
                if name != "difference":
                    plane = plane - _border_level(plane, good, self.recipe.border)[:, None, None]
                planes[name] = ops.where(good, plane, 0.0)
            scale = self.recipe.softening * _scale(planes, good, there)[:, None, None]
            channels = [ops.arcsinh(plane / scale) / COMPRESSION for plane in planes.values()]
            return ops.stack([*channels, 1.0 - ops.cast(good, "float32")], axis=-1)

    return StampNormalisation


def recipe_inside(model: keras.Model) -> Recipe:
    """Return the recipe of the normalisation layer inside a network or trunk.

    Parameters
    ----------
    model : keras.Model
        A network built by an architecture, or its trunk.

    Returns
    -------
    Recipe
        The recipe.

    Raises
    ------
    ModelMismatch
        If the network has no normalisation layer, or more than one.
    """
    kind = normalisation_layer()
    layers = [inner for layer in model.layers for inner in getattr(layer, "layers", [layer])]
    recipes = [layer.recipe for layer in layers if isinstance(layer, kind)]
    if len(recipes) != 1:
        raise ModelMismatch(
            model=model.name, what=f"it holds {len(recipes)} normalisation layers, exactly one is needed"
        )
    return recipes[0]


def _good(stamps: Any, mask: Any, recipe: Recipe) -> tuple[Any, Any]:
    """Good pixels (n, size, size), and which planes are there (n, 3), None where all must be."""
    from keras import ops

    finite, seen = ops.isfinite(stamps), ops.logical_not(mask)
    if not recipe.planes_may_be_absent:
        return ops.logical_and(seen, ops.all(finite, axis=-1)), None
    there = ops.any(ops.logical_and(finite, seen[..., None]), axis=(1, 2))
    # No plane at all: nothing is absent, everything is bad.
    absent = ops.logical_and(ops.logical_not(there), ops.any(there, axis=-1, keepdims=True))
    return ops.logical_and(seen, ops.all(ops.logical_or(finite, absent[:, None, None, :]), axis=-1)), there


def _scale(planes: dict[str, Any], good: Any, there: Any) -> Any:
    """Noise (n,) of the difference, or of the first plane that is there."""
    from keras import ops

    scale = _noise(planes["difference"], good)
    if there is None:
        return scale
    waiting = ops.logical_not(there[:, PLANES.index("difference")])
    for name in NOISE_FROM[1:]:
        if name in planes:
            present = there[:, PLANES.index(name)]
            scale = ops.where(ops.logical_and(waiting, present), _noise(planes[name], good), scale)
            waiting = ops.logical_and(waiting, ops.logical_not(present))
    return scale


def _noise(plane: Any, good: Any) -> Any:
    """Robust noise of each levelled plane (n,); 1 where nothing is left to measure it on."""
    from keras import ops

    pixels = int(plane.shape[1]) * int(plane.shape[2])
    values, usable = ops.reshape(ops.abs(plane), (-1, pixels)), ops.reshape(good, (-1, pixels))
    robust = MAD_TO_SIGMA * _median(values, usable)
    # more than half of the pixels exactly zero (a filled template): fall back to the mean
    mean = ops.sum(values, axis=1) / ops.maximum(ops.sum(ops.cast(usable, "float32"), axis=1), 1.0)
    scale = ops.where(robust > 0, robust, mean)
    return ops.where(scale > 0, scale, 1.0)


def _border_level(plane: Any, good: Any, border: int) -> Any:
    """Median of the good pixels of the border of each plane (n,); 0 where there are none."""
    from keras import ops

    size = int(plane.shape[1])
    rim = np.ones((size, size), dtype=bool)
    rim[border:-border, border:-border] = False
    index = np.flatnonzero(rim)
    flat = (-1, size * size)
    return _median(ops.take(ops.reshape(plane, flat), index, axis=1), ops.take(ops.reshape(good, flat), index, axis=1))


def _median(values: Any, usable: Any) -> Any:
    """Median of the usable values of each row (n, m) -> (n,); 0 where a row has none."""
    from keras import ops

    huge = 3.0e38
    ordered = ops.sort(ops.where(usable, values, huge), axis=1)
    count = ops.sum(ops.cast(usable, "int32"), axis=1)
    low = ops.maximum((count - 1) // 2, 0)
    high = ops.minimum(count // 2, int(values.shape[1]) - 1)
    pair = ops.take_along_axis(ordered, ops.stack([low, high], axis=1), axis=1)
    return ops.where(count > 0, 0.5 * pair[:, 0] + 0.5 * pair[:, 1], 0.0)
