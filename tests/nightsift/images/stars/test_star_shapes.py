"""Shapes of stars tell defocus, trails and tilt apart from seeing."""

from __future__ import annotations

import numpy as np
import pytest

from nightsift.images.stars.shapes import star_shapes
from nightsift.images.stars.stars import find_stars, typical_fwhm

SHAPE = (420, 420)


def seen(make_frame, star_list, sigma, spots=((0.0, 0.0),)):
    """Shapes of stars that are each a sum of Gaussians at `spots`."""
    x, y, flux = star_list(60, SHAPE, faint=4.2, apart=40.0)
    dx, dy = np.array(spots).T
    frame = make_frame(
        (x[:, None] + dx).ravel(), (y[:, None] + dy).ravel(), np.repeat(flux, len(dx)) / len(dx), SHAPE, sigma=sigma
    )
    stars = find_stars(frame)
    return star_shapes(frame, stars), typical_fwhm(stars)


def ring(radius: float) -> np.ndarray:
    angle = np.arange(16) * np.pi / 8
    return radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)


@pytest.mark.parametrize("sigma", [1.4, 2.6])
def test_a_flat_core_is_told_and_seeing_is_not(make_frame, star_list, sigma):
    sharp, _ = seen(make_frame, star_list, sigma)
    wide, width = seen(make_frame, star_list, 1.25 * sigma)
    defocused, as_wide = seen(make_frame, star_list, sigma, ring(1.1 * sigma))
    assert as_wide == pytest.approx(width, rel=0.1)
    assert abs(wide.core_width - sharp.core_width) < 0.01
    assert defocused.core_width - wide.core_width > 0.02


def test_a_trail_makes_stars_elliptic_and_round_ones_stay_round(make_frame, star_list):
    step = np.linspace(-2.0, 2.0, 9)
    trailed, _ = seen(make_frame, star_list, 1.6, np.stack([0.8 * step, 0.6 * step], axis=1))
    still, _ = seen(make_frame, star_list, 1.6)
    assert still.ellipticity < 0.01
    assert trailed.ellipticity > 0.1


def test_a_width_that_grows_across_the_field_is_told(make_frame, star_list):
    x, y, flux = star_list(60, SHAPE, faint=4.2, apart=40.0)
    step = np.array([-1.0, 1.0])[:, None] * 1.6 * (0.3 + 0.7 * x / SHAPE[1])  # each star as four spots, further apart
    zero = np.zeros_like(step)
    frame = make_frame(
        np.concatenate([x + step, x + zero]).ravel(), np.concatenate([y + zero, y + step]).ravel(),
        np.tile(flux / 4, 4), SHAPE, sigma=1.6,
    )  # fmt: skip
    tilted = star_shapes(frame, find_stars(frame))
    plain, _ = seen(make_frame, star_list, 1.6)
    assert plain.width_gradient < 0.01
    assert tilted.width_gradient > 0.05


def test_few_stars_tell_nothing(make_frame, star_list):
    x, y, flux = star_list(5, SHAPE, faint=4.2, apart=40.0)
    frame = make_frame(x, y, flux, SHAPE)
    told = star_shapes(frame, find_stars(frame))
    assert all(np.isnan(one) for one in (told.core_width, told.ellipticity, told.width_gradient))
