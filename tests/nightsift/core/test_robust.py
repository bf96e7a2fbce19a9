"""Robust scatter: bit by bit what its formula says, in the precision of the sample."""

from __future__ import annotations

import ast
import warnings
from pathlib import Path

import numpy as np
import pytest

from nightsift.core.robust import MAD_TO_SIGMA, clipped, mad, mad_sigma, nan_mad_sigma

ROOT = Path(__file__).parents[3]


def sample(dtype: type, size: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = rng.normal(300.0, 17.0, size)
    values[rng.random(size) < 0.1] = 6e4
    return values.astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1, 2, 5, 100, 1001])
def test_scatter_is_bit_by_bit_what_its_formula_gives(dtype: type, size: int) -> None:
    for seed in range(20):
        values = sample(dtype, size, seed)
        centre = float(np.median(values))
        plain = 1.4826 * float(np.median(np.abs(values - np.median(values))))
        assert mad_sigma(values) == plain
        assert mad_sigma(values, centre) == 1.4826 * float(np.median(np.abs(values - centre)))
        assert mad_sigma(values, 0.0) == 1.4826 * float(np.median(np.abs(values)))
        assert 5.0 * MAD_TO_SIGMA * mad(values) == 5.0 * 1.4826 * float(np.median(np.abs(values - np.median(values))))
        model = values[::-1].copy()
        assert mad_sigma(values, model) == 1.4826 * float(np.median(np.abs(values - model)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scatter_without_nan_is_bit_by_bit_what_its_formula_gives(dtype: type) -> None:
    values = sample(dtype, 600, 3).reshape(6, 100)
    values[:, ::7] = np.nan
    centre = float(np.nanmedian(values))
    assert nan_mad_sigma(values, centre) == 1.4826 * float(np.nanmedian(np.abs(values - centre)))
    level = np.nanmedian(values, axis=1, keepdims=True)
    found = nan_mad_sigma(values, axis=1)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, 1.4826 * np.nanmedian(np.abs(values - level), axis=1))
    np.testing.assert_array_equal(nan_mad_sigma(values, level, axis=1), found)


@pytest.mark.parametrize("size", [1, 5, 30, 1000])
def test_clipping_is_bit_by_bit_that_of_zero_points_and_of_template_scales(size: int) -> None:
    for seed in range(50):
        values = 1e-4 * sample(np.float64, size, seed)
        zero_point = scale = np.ones(size, dtype=bool)
        for _ in range(5):
            centre = float(np.median(values[zero_point]))
            scatter = 1.4826 * float(np.median(np.abs(values[zero_point] - centre)))
            new = np.abs(values - centre) <= 3.0 * max(scatter, 1e-4)
            if new.sum() < 5 or bool((new == zero_point).all()):
                break
            zero_point = new
        for _ in range(5):
            centre = float(np.median(values[scale]))
            scale = np.abs(values - centre) <= max(
                3.0 * 1.4826 * float(np.median(np.abs(values[scale] - centre))), 1e-3
            )
        np.testing.assert_array_equal(clipped(values, floor=3.0 * 1e-4, fewest=5), zero_point)
        np.testing.assert_array_equal(clipped(values, floor=1e-3), scale)


def test_outliers_are_clipped_and_what_is_within_the_floor_stays() -> None:
    values = np.array([0.0, 0.0, 0.0, 0.0, 1e-4, 5.0])
    assert clipped(values, floor=1e-3).tolist() == [True] * 5 + [False]
    assert clipped(values, floor=1e-5).tolist() == [True] * 4 + [False] * 2
    assert clipped(values, floor=1e-3, fewest=6).all(), "too few would be left"


def test_gaussian_noise_has_its_standard_deviation_in_spite_of_outliers() -> None:
    values = sample(np.float64, 100_000, 5)
    assert mad_sigma(values) == pytest.approx(17.0, rel=0.2)
    assert values.std() > 1e4
    assert mad_sigma(values[values < 1e4]) == pytest.approx(17.0, rel=0.02)


def test_nan_and_an_empty_sample_give_nan() -> None:
    assert np.isnan(mad_sigma(np.array([1.0, np.nan, 3.0])))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert np.isnan(mad_sigma(np.empty(0)))
        assert np.isnan(nan_mad_sigma(np.array([np.nan])))


def test_the_factor_stands_in_one_place() -> None:
    """A copy of the formula is a copy of its factor."""
    copies = []
    for folder in ("flows", "tasks", "subtraction", "models", "nightsift"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                value = node.value if isinstance(node, ast.Constant) else None
                if isinstance(value, float) and (1.48 < value < 1.49 or 0.674 < value < 0.675):
                    copies.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert [one.partition(":")[0] for one in copies] == 2 * ["nightsift/core/robust.py"], copies
