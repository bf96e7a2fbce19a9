from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from models.network.inputs import PLANES, Recipe, input_layers, prepare
from models.network.normalise import normalise as loops
from models.training.examples import TrainingSet
from nightsift.core.errors import ModelMismatch
from nightsift.core.frames import Stamps


def normalise(data: np.ndarray, mask: np.ndarray, recipe: Recipe) -> np.ndarray:
    import keras

    inputs, planes = input_layers(recipe)
    return np.asarray(keras.Model(inputs, planes)([data.astype(np.float32), mask]))


def reference(planes: np.ndarray, mask: np.ndarray, recipe: Recipe) -> np.ndarray:
    """The formula of the documentation for one stamp, in plain numpy."""
    good = ~mask & np.isfinite(planes).all(axis=-1)
    rim = np.ones(good.shape, dtype=bool)
    rim[recipe.border : -recipe.border, recipe.border : -recipe.border] = False
    scale = 1.4826 * np.median(np.abs(planes[good, 2]))
    out = []
    for place in range(3):
        level = np.median(planes[good & rim, place]) if place < 2 and (good & rim).any() else 0.0
        out.append(np.where(good, np.arcsinh((planes[..., place] - level) / (recipe.softening * scale)) / 3, 0))
    return np.stack([*out, ~good], axis=-1)


def test_layer_follows_the_documented_formula(rng: np.random.Generator) -> None:
    recipe = Recipe()
    data = rng.normal(5, 30, (6, 31, 31, 3)) + 1e4 * (rng.random((6, 31, 31, 1)) > 0.98)
    mask = rng.random((6, 31, 31)) < 0.1
    mask[1, 0] = mask[1, 1] = True
    data[2, 4, 7, 0] = np.nan
    found = normalise(data, mask, recipe)
    with np.errstate(invalid="ignore"):
        expected = np.stack([reference(one, hidden, recipe) for one, hidden in zip(data, mask, strict=True)])
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_normalisation_ignores_gain_and_sky_but_keeps_the_flux_ratio(rng: np.random.Generator) -> None:
    data = rng.normal(0, 10, (4, 31, 31, 3))
    data[:, 15, 15, 0] += 5000
    data[:, 15, 15, 2] += 500
    mask = np.zeros(data.shape[:3], dtype=bool)
    plain = normalise(data, mask, Recipe())
    np.testing.assert_allclose(normalise(data * 7.5, mask, Recipe()), plain, atol=1e-4)
    np.testing.assert_allclose(normalise(data + [300, -40, 0], mask, Recipe()), plain, atol=2e-3)
    ratio = np.sinh(3 * plain[:, 15, 15, 2]) / np.sinh(3 * plain[:, 15, 15, 0])
    np.testing.assert_allclose(ratio, 0.1, atol=0.01)


@pytest.mark.parametrize("fault", ["all masked", "all nan", "difference zero", "huge", "border masked"])
def test_faulty_stamps_stay_finite(rng: np.random.Generator, fault: str) -> None:
    data, mask = rng.normal(0, 10, (2, 31, 31, 3)).astype(np.float32), np.zeros((2, 31, 31), dtype=bool)
    match fault:
        case "all masked":
            mask[:] = True
        case "all nan":
            data[:] = np.nan
        case "difference zero":
            data[..., 2] = 0
        case "huge":
            data[:, 15, 15] = 3e38
        case "border masked":
            mask[:, :5] = mask[:, -5:] = mask[:, :, :5] = mask[:, :, -5:] = True
    planes = normalise(data, mask, Recipe())
    assert np.isfinite(planes).all()
    assert (planes[..., :3][planes[..., 3] == 1] == 0).all()


def test_bigger_stamps_are_cropped_about_their_centre(few: TrainingSet) -> None:
    data, _ = prepare(few.stamps, few.sign, Recipe(size=21))
    assert data.shape == (24, 21, 21, 3)
    rising = few.sign == 1
    np.testing.assert_array_equal(data[rising], few.stamps.data[rising][:, 8:29, 8:29])
    assert prepare(few.stamps, few.sign, Recipe(size=21, version=1))[1][1].all(), "a plane that is not finite"


@pytest.mark.parametrize("size", [29, 32])
def test_stamps_that_do_not_fit_are_refused(size: int) -> None:
    stamps = Stamps(np.zeros((1, size, size, 3), np.float32), np.zeros((1, size, size), bool))
    with pytest.raises(ModelMismatch, match=f"{size} px wide"):
        prepare(stamps, [1], Recipe())


@pytest.mark.parametrize("sign", [[1], [1, 0], [1, 1, 1]])
def test_signs_must_fit(sign: list[int]) -> None:
    stamps = Stamps(np.zeros((2, 31, 31, 3), np.float32), np.zeros((2, 31, 31), bool))
    with pytest.raises(ValueError, match="sign must hold 2 values"):
        prepare(stamps, sign, Recipe())


def test_fading_is_seen_as_brightening(few: TrainingSet) -> None:
    fading = few.stamps.data[..., [1, 0, 2]] * np.array([1, 1, -1], np.float32)
    data, _ = prepare(few.stamps, np.ones(24), Recipe())
    turned, _ = prepare(Stamps(fading, few.stamps.mask), -np.ones(24), Recipe())
    np.testing.assert_array_equal(data, turned)


ABSENT = [("template",), ("difference",), ("science",), ("template", "difference"), ("science", "difference")]


@pytest.mark.parametrize("absent", ABSENT)
@pytest.mark.parametrize("channels", [("science", "template", "difference"), ("science", "difference")])
def test_absent_planes_are_zero_and_hide_nothing(
    rng: np.random.Generator, absent: tuple[str, ...], channels: tuple[str, ...]
) -> None:
    recipe = Recipe(channels=channels)
    data = rng.normal(40, 30, (6, 31, 31, 3)).astype(np.float32)
    mask = rng.random((6, 31, 31)) < 0.1
    mask[0] = True
    data[1, 3, 4] = np.nan
    whole = loops(data, mask, recipe)
    data[2:4][..., [PLANES.index(name) for name in absent]] = np.nan
    data[3, mask[3]] = 0.0  # padded pixels of an absent plane may be filled
    found, graph = loops(data, mask, recipe), normalise(data, mask, recipe)
    np.testing.assert_allclose(found, graph, atol=1e-4)
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found[..., -1], mask | ~np.isfinite(whole).all(-1) | (whole[..., -1] == 1))
    for place, name in enumerate(channels):
        assert (found[2:4, ..., place] == 0).all() == (name in absent)
    np.testing.assert_array_equal(found[[0, 1, 4, 5]], whole[[0, 1, 4, 5]])
    if "difference" in absent and "science" not in absent:
        linear = np.sinh(3 * found[2, ..., 0][~mask[2]]) * recipe.softening
        assert np.median(np.abs(linear)) == pytest.approx(1 / 1.4826, rel=0.02), "in units of the noise of science"


@pytest.mark.parametrize("version", [1, 2])
def test_a_plane_that_is_absent_masks_the_stamp_only_under_the_old_recipe(few: TrainingSet, version: int) -> None:
    data = few.stamps.data.copy()
    data[7, ..., 1] = np.nan
    found, mask = prepare(Stamps(data, few.stamps.mask), few.sign, Recipe(version=version))
    assert mask[7].all() == (version == 1)
    assert np.isfinite(found[7, ..., [0, 2]]).all() == (few.sign[7] == 1)
    assert mask[0].sum() > 0


def test_recipe_survives_json() -> None:
    recipe = Recipe(size=25, softening=1.5, channels=("science", "difference"))
    assert Recipe.from_mapping(json.loads(recipe.to_json())) == recipe


@pytest.mark.parametrize(
    "change",
    [{"size": 30}, {"channels": ("science",)}, {"channels": ("difference", "sum")}, {"softening": 0.0}, {"border": 20},
     {"fading": "drop"}, {"version": 3}],
)  # fmt: skip
def test_recipes_that_make_no_sense_are_refused(change: dict) -> None:
    with pytest.raises(ModelMismatch):
        dataclasses.replace(Recipe(), **change)


def test_recipe_with_unknown_or_absent_fields_is_refused() -> None:
    values = json.loads(Recipe().to_json())
    with pytest.raises(ModelMismatch, match="flavour"):
        Recipe.from_mapping({**values, "flavour": 1})
    del values["border"]
    with pytest.raises(ModelMismatch, match="border"):
        Recipe.from_mapping(values)
