"""Peaks of both signs: the scan against plain numpy, blends, crowds, wrecks, and threads beside each other."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import sep
from scipy.ndimage import gaussian_filter

from nightsift.core.errors import DetectionFailed, FrameError
from nightsift.core.flags import Mask
from nightsift.core.frames import Difference
from nightsift.core.psf import Psf
from nightsift.images.detection.peaks import Significant, find_peaks, floor_of, significant
from nightsift.images.detection.segmentation import LARGEST_AREA, segment

THRESHOLD = 5.0
SIGMA = 1.8  # of a peak in the score


def noise(rng, shape):
    smooth = gaussian_filter(rng.standard_normal(shape), SIGMA / np.sqrt(2))
    return smooth / smooth.std()


def add(score, x, y, snr):
    half = round(6 * SIGMA)
    for cx, cy, height in zip(x, y, np.broadcast_to(snr, np.shape(x)), strict=True):
        box = slice(max(0, cy - half), cy + half + 1), slice(max(0, cx - half), cx + half + 1)
        rows, columns = (np.arange(part.start, min(part.stop, n)) for part, n in zip(box, score.shape, strict=True))
        score[box] += height * np.exp(-0.5 * ((columns - cx) ** 2 + (rows[:, None] - cy) ** 2) / SIGMA**2)


def peaks_of(score, min_pixels=1):
    score = score.astype(np.float32)
    return find_peaks(Significant(score, np.flatnonzero(np.abs(score) > floor_of(THRESHOLD))), THRESHOLD, min_pixels)


def places(peaks, sign=1):
    return set(zip(peaks.column[peaks.sign == sign].tolist(), peaks.row[peaks.sign == sign].tolist(), strict=True))


def test_scan_equals_plain_numpy_to_the_last_bit(rng):
    shape = (150, 203)
    data = rng.normal(0, 5, shape).astype("f4")
    variance = np.full(shape, 25.0, "f4")
    score = rng.normal(0, 2, shape).astype("f4")
    score[3, 5], score[4, 6], score[140, 200:], score[8, 9] = np.nan, np.inf, -np.inf, -0.0
    mask = np.zeros(shape, "u2")
    mask[60:70, 30:50] = Mask.SATURATED
    mask[90:95, 190:] = Mask.NO_DATA
    score[60:70, 30:45] = 0
    score[90:95, 190:] = 0
    y, x = np.mgrid[:13, :13] - 6
    psf = Psf((np.exp(-0.5 * (x**2 + y**2) / 1.5) / (3 * np.pi)).astype("f4")[None], 0, shape, 3.0)
    got = significant(Difference(data, variance, mask, score, psf, "t", "template", 1.0), 1.2, 3.5, threads=2)
    replaced = (mask != 0) & (score == 0) & (mask & Mask.NO_DATA.value == 0)
    expected = np.where(np.isfinite(score), score, np.float32(0))
    assert (got.score.view("u4")[~replaced] == expected.view("u4")[~replaced]).all()
    core = psf.at(100, 75)[3:10, 3:10].astype(float)
    for row, column in ((60, 30), (64, 37)):
        box = data[row - 3 : row + 4, column - 3 : column + 4]
        assert got.score[row, column] == pytest.approx(
            (core * box).sum() / 25 / (np.sqrt((core**2).sum() / 25) * 1.2), rel=1e-3
        )
    assert (got.score[60:70, 30:45] != 0).all()
    assert got.indices.tolist() == np.flatnonzero(np.abs(got.score) > np.float32(3.5)).tolist()


def test_peaks_do_not_join_over_the_edge_of_the_frame():
    score = np.zeros((40, 40), "f4")
    score[10, 39], score[11, 0], score[20:23, 20] = 9.0, -8.0, (6.0, 7.0, 6.5)
    score[30, 5:8], score[20, 30] = (3.6, 5.5, 4.0), 4.9
    peaks = peaks_of(score)
    found = zip(peaks.column, peaks.row, peaks.sign, peaks.n_pixels, strict=True)
    assert list(found) == [(39, 10, 1, 1), (0, 11, -1, 1), (20, 21, 1, 3), (6, 30, 1, 1)]
    assert places(peaks_of(score, min_pixels=3)) == {(20, 21), (6, 30)}


def test_noise_splits_no_source_and_neighbours_are_divided(rng):
    score = noise(rng, (800, 800))
    gx, gy = (a.ravel() for a in np.meshgrid(np.arange(30, 770, 40), np.arange(30, 770, 40)))
    add(score, gx, gy, 30.0)
    found = peaks_of(score, 3)
    assert len(places(found)) == pytest.approx(gx.size, abs=2)
    add(score, gx + 8, gy, 12.0)
    found = places(peaks_of(score, 3))
    beside = [
        any((x + 8 + i, y + j) in found for i in (-2, -1, 0, 1, 2) for j in (-2, -1, 0, 1, 2))
        for x, y in zip(gx, gy, strict=True)
    ]
    assert np.mean(beside) > 0.97
    assert len(found) == pytest.approx(2 * gx.size, abs=8)


def test_more_sources_in_one_area_than_sep_takes_at_first():
    score = np.zeros((1024, 1024), "f4")
    gx, gy = (a.ravel() for a in np.meshgrid(np.arange(400, 532, 4), np.arange(400, 536, 4)))
    score[398:536, 398:532] = 4.0
    score[gy, gx], score[100, 100] = 40.0, 9.0
    n_above = np.count_nonzero(score > 3.5)
    assert gx.size > 1024
    assert n_above < LARGEST_AREA
    sources, labels = segment(score, 3.5, n_above=n_above, where="it", contrast=1e-5)
    found = set(zip(sources["xcpeak"].tolist(), sources["ycpeak"].tolist(), strict=True))
    assert found == {*zip(gx.tolist(), gy.tolist(), strict=True), (100, 100)}
    assert sorted(labels[gy, gx]) == sorted(set(range(1, gx.size + 2)) - {labels[100, 100]})


def test_a_sky_that_is_off_ends_soon_and_hides_nothing_elsewhere(rng):
    score = noise(rng, (1024, 1024))
    score[:, :500] -= 20
    add(score, [700, 800], [300, 305], 15.0)
    peaks = peaks_of(score, 3)
    assert len(places(peaks, -1)) == 1
    assert peaks.n_pixels[peaks.sign == -1] == (score <= -THRESHOLD).sum()
    assert (score[:, :500] <= -THRESHOLD).all()
    assert any((700 + i, 300 + j) in places(peaks) for i in (-1, 0, 1) for j in (-1, 0, 1))
    assert len(places(peaks)) <= 4
    assert (np.diff(peaks.value) <= 0).all()


def test_threads_and_foreign_settings_do_not_disturb_each_other(rng):
    scores = [noise(rng, (300, 300)) for _ in range(8)]
    for k, score in enumerate(scores):
        gx, gy = (a.ravel() for a in np.meshgrid(np.arange(20, 280, 30 - 2 * k), np.arange(20, 280, 30 - 2 * k)))
        add(score, gx, gy, 20.0)
    before = sep.get_extract_pixstack(), sep.get_sub_object_limit()
    expected = [places(peaks_of(score, 3)) for score in scores]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            assert [places(peaks) for peaks in pool.map(lambda s: peaks_of(s, 3), scores)] == expected
    assert (sep.get_extract_pixstack(), sep.get_sub_object_limit()) == before


def test_any_byte_order_and_layout_and_too_low_an_estimate(rng):
    score = noise(rng, (400, 500)).astype("f4")
    add(score, [100, 300], [200, 50], 30.0)
    right, labels = segment(score, 1.0, n_above=300_000, where="it", contrast=0.001)
    for other in (score.astype(">f4"), np.asfortranarray(score), np.repeat(score, 2, axis=1)[:, ::2]):
        again, same = segment(other, 1.0, n_above=1, where="it", contrast=0.001)
        assert (again == right).all()
        assert (same == labels).all()


def test_failure_names_the_image(monkeypatch):
    def fail(*_, **__):
        raise Exception("internal pixel buffer full: so many")

    monkeypatch.setattr(sep, "extract", fail)
    with pytest.raises(DetectionFailed, match=r"frame 7 .*pixel buffer full") as caught:
        segment(np.zeros((9, 9), "f4"), 1.0, n_above=0, where="frame 7", contrast=0.1)
    assert isinstance(caught.value, FrameError)
