"""Islands of pixels: found as a labelling of the image finds them, and none minds the others."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from nightsift.images.stars.star_peaks import deblend


def listed(image, threshold):
    place = np.flatnonzero(image.ravel() > threshold).astype(np.int64)
    return place, image.ravel()[place].astype(np.float32)


def blobs(rng, shape=(90, 130), count=60):
    y, x = np.mgrid[: shape[0], : shape[1]]
    image = np.zeros(shape)
    x0, y0, flux = rng.uniform(0, shape[1], count), rng.uniform(0, shape[0], count), 50 * rng.pareto(1, count) + 30
    for a, b, f in zip(x0, y0, flux, strict=True):
        image += f * np.exp(-((x - a) ** 2 + (y - b) ** 2) / 8)
    return image


@pytest.mark.parametrize("threshold", [5.0, 20.0])
def test_smooth_islands_have_their_light_and_their_highest_pixel(rng, threshold):
    image = blobs(rng, count=12)
    place, value = listed(image, threshold)
    peak, total = deblend(place, value, image.shape[1])
    labels, count = ndimage.label(image > threshold, np.ones((3, 3)))
    wide = [n for n in range(1, count + 1) if (labels == n).sum() >= 3]
    brightest = {
        int(np.flatnonzero(image.ravel() == image[labels == n].max())[0]): image[labels == n].sum() for n in wide
    }
    found = dict(zip(place[peak].tolist(), total.tolist(), strict=True))
    assert set(brightest) <= set(found)
    for at, light in brightest.items():
        assert found[at] == pytest.approx(light, rel=1e-5)


def test_an_island_minds_no_other(rng):
    image = blobs(rng)
    nx = image.shape[1]
    place, value = listed(image, 20.0)
    together = {(int(place[p]), round(float(t), 3)) for p, t in zip(*deblend(place, value, nx), strict=True)}
    labels, count = ndimage.label(image > 20.0, np.ones((3, 3)))
    alone = set()
    for n in range(1, count + 1):
        part, heights = listed(np.where(labels == n, image, 0), 20.0)
        alone |= {(int(part[p]), round(float(t), 3)) for p, t in zip(*deblend(part, heights, nx), strict=True)}
    assert together == alone
    assert len(together) > count / 2


def test_rows_do_not_run_on_at_the_edge():
    image = np.zeros((6, 10), dtype=np.float32)
    image[1:4, 8:] = 9.0
    image[2:5, :2] = 8.0
    _, total = deblend(*listed(image, 5.0), 10)
    assert sorted(total) == [48.0, 54.0]


def test_nothing_is_nothing():
    peak, total = deblend(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32), 10)
    assert len(peak) == len(total) == 0
