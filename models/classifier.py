"""A model that is ready to score, with or without Keras."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from models.inputs import Recipe
from models.sampling import GateShape, Sampler, Trunk, gate_shapes, make_sampler, make_trunk
from nightsift.errors import ModelMismatch

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True, slots=True, eq=False)
class Classifier:
    """A model that is ready to score.

    Attributes
    ----------
    name : str
        Name of its folder.
    model_id : str
        Name and the first 12 hexadecimal digits of the SHA-256 of its network.
    recipe : Recipe
        How stamps become tensors.
    sample : callable
        Its sampler, see `models.sampling.make_sampler`.
    gates : tuple
        What its dropout layers draw, see `models.sampling.gate_shapes`.
    card : dict
        How it was made and what it reaches.
    trunk : callable
        Its deterministic part, see `models.sampling.make_trunk` and `models.features.trunk_features`.
    model : keras.Model or None
        The network, see `models.contract`; None where it is scored without Keras.
    """

    name: str
    model_id: str
    recipe: Recipe
    sample: Sampler
    gates: tuple[GateShape, ...]
    card: dict[str, Any]
    trunk: Trunk
    model: keras.Model | None = None

    @property
    def network(self) -> keras.Model:
        """The network, of a model that was loaded with Keras.

        Returns
        -------
        keras.Model
            The network.

        Raises
        ------
        ModelMismatch
            If the model was loaded for scoring only.
        """
        if self.model is None:
            raise ModelMismatch(model=self.name, what="it was loaded for scoring only; load it with engine='keras'")
        return self.model


def of_network(
    model: keras.Model, recipe: Recipe, name: str = "", identity: str = "", card: dict[str, Any] | None = None
) -> Classifier:
    """Make a network ready to score.

    Parameters
    ----------
    model : keras.Model
        The network.
    recipe : Recipe
        Its recipe.
    name, identity : str, optional
        What it is called.
    card : dict, optional
        Its card.

    Returns
    -------
    Classifier
        The network, its sampler and its trunk.
    """
    return Classifier(
        name, identity, recipe, make_sampler(model), gate_shapes(model), card or {}, make_trunk(model), model
    )
