"""From stamps to tensors: one recipe for training and service, stored inside the saved model.

The recipe has two halves. Outside the graph, in numpy: the cut-out is cropped about its centre, and a fading
candidate is turned into a brightening one (`prepare`). Inside the graph, as the first layer of every network
(`models.normalisation`): masked pixels are set to zero and told to the network in a channel of their own, the
local background goes, and all planes are divided by one common scale and compressed.

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
it by losing planes in training (`models.augment`). Recipes of version 1 knew no absent planes: they mask the stamp.

**Pixel scale and seeing.** Units differ by a factor of three in FWHM (1.8-6 px). Stamps are *not* rescaled to a
common FWHM: interpolation correlates the noise, blurs the sharpness that gives cosmic rays and hot pixels away,
and would need a PSF for a stamp of which only the pixels are left. The network is instead trained on
many random units over the whole range of FWHM and learns what sources look like from the science plane itself.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nightsift.errors import ModelMismatch
from nightsift.frames import Stamps

if TYPE_CHECKING:
    import keras

PLANES = ("science", "template", "difference")
VERSIONS = (1, 2)
FloatStamps = npt.NDArray[np.float32]
BoolStamps = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How stamps become tensors.

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
        """Read a recipe from the content of its JSON.

        Parameters
        ----------
        values : dict
            All fields by name.

        Returns
        -------
        Recipe
            The checked recipe.

        Raises
        ------
        ModelMismatch
            If a field is unknown or absent, or its value makes no sense.
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
    """The mask with what is not finite added; planes that are wholly absent count only where they may not be."""
    finite = np.isfinite(data)
    if finite.all():
        return mask.copy()
    if recipe.planes_may_be_absent:
        there = (finite & ~mask[..., None]).any(axis=(1, 2), keepdims=True)
        finite |= ~there & there.any(axis=-1, keepdims=True)
    return mask | ~finite.all(axis=-1)


def entry(recipe: Recipe) -> tuple[list[keras.KerasTensor], keras.KerasTensor]:
    """First layers of every network: the inputs and the normalised planes.

    Parameters
    ----------
    recipe : Recipe
        How to normalise.

    Returns
    -------
    inputs : list of keras.KerasTensor
        ``stamps`` (n, size, size, 3) float32, raw, and ``mask`` (n, size, size) bool.
    planes : keras.KerasTensor
        Shape (n, size, size, channels + 1), the mask last.
    """
    import keras

    from models.normalisation import layer_class

    stamps = keras.Input((recipe.size, recipe.size, len(PLANES)), dtype="float32", name="stamps")
    mask = keras.Input((recipe.size, recipe.size), dtype="bool", name="mask")
    return [stamps, mask], layer_class()(**dataclasses.asdict(recipe), name="normalisation")([stamps, mask])
