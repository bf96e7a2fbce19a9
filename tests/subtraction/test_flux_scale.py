"""The flux scale of a difference is judged by its stars, part of the frame by part."""

from __future__ import annotations

import numpy as np
import pytest

from subtraction.fields import ImageField
from subtraction.quality.residuals import flux_scale_error, flux_scale_metrics
from subtraction.quality.star_faults import StarFaults

SHAPE = (800, 1000)


@pytest.fixture
def places(rng):
    return rng.uniform(0, SHAPE[1], 300), rng.uniform(0, SHAPE[0], 300)


def faults_of(rng, left, error=0.01):
    noise, zero = np.full(len(left), error), np.zeros(len(left))
    return StarFaults(zero + 1e4, left + rng.normal(0, noise), noise, zero, zero, noise)


def test_stars_that_leave_nothing_prove_the_scale(rng, places):
    assert flux_scale_error(*places, faults_of(rng, np.zeros(300)), shape=SHAPE) < 0.005
    # Scatter from star to star is no error of a part.
    assert flux_scale_error(*places, faults_of(rng, rng.normal(0, 0.1, 300)), shape=SHAPE) < 0.06


@pytest.mark.parametrize("offset", [-0.1, 0.1])
def test_an_error_in_one_corner_is_told(rng, places, offset):
    x, y = places
    corner = (x > 0.75 * SHAPE[1]) & (y > 0.75 * SHAPE[0])
    left = np.where(corner, offset, 0.0)
    assert flux_scale_error(x, y, faults_of(rng, left), shape=SHAPE) == pytest.approx(0.09, abs=0.015)
    # A median over all stars would hardly see it.
    assert abs(np.median(left)) == 0.0


def test_variable_stars_are_no_error(rng, places):
    left = np.zeros(300)
    left[::8] = rng.uniform(-0.5, 0.5, len(left[::8]))
    assert flux_scale_error(*places, faults_of(rng, left), shape=SHAPE) < 0.01


def test_few_stars_tell_nothing(rng):
    x, y = np.array([100.0, 500.0, 900.0]), np.array([100.0, 400.0, 700.0])
    assert np.isnan(flux_scale_error(x, y, faults_of(rng, np.zeros(3)), shape=SHAPE))


def test_change_of_the_scale_beyond_the_stars_is_unproven(places):
    terms = np.zeros((3, 5, 5), np.float32)
    terms[0, 2, 2], terms[1, 2, 2] = 1.0, 0.25
    plane = ImageField(terms, 1, SHAPE)
    x, y = places
    proven = flux_scale_metrics(plane, x, y)
    assert proven["kernel_sum_variation"] == pytest.approx(0.5, rel=0.05)
    assert proven["kernel_sum_unproven"] < 0.1
    left_side = x < 0.4 * SHAPE[1]
    assert flux_scale_metrics(plane, x[left_side], y[left_side])["kernel_sum_unproven"] == pytest.approx(0.29, abs=0.03)
