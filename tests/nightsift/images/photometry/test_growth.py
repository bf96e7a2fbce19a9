"""Aperture corrections by curves of growth, on stars with Moffat wings whose light is known."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from nightsift.core.flags import Mask
from nightsift.core.frames import ApertureCorrection, Frame, Meta, Template
from nightsift.core.robust import weighted_median
from nightsift.images.photometry.difference_photometry import zero_point
from nightsift.images.photometry.growth import aperture_correction
from nightsift.images.registration.align import Alignment
from nightsift.images.stars.stars import find_stars
from nightsift.images.templates import flux_ratio

SHAPE = (420, 440)
META = Meta("made-up", "f", "r", "2026-11-20", "e-1", 61000.0, 60.0, 2.0, 5.0, 60000.0, 1.0)


def field(rng, n=49, faint=4.3):
    """Places on a grid, shaken, and fluxes."""
    side = int(np.sqrt(n))
    y, x = np.mgrid[:side, :side].reshape(2, -1) * (SHAPE[0] - 60) / (side - 1) + 30.0
    return x + rng.uniform(-4, 4, n), y + rng.uniform(-4, 4, n), 10 ** rng.uniform(faint, 5.4, n)


def moffat_frame(rng, places, fwhm, *, beta, sky=0.0):
    """Moffat stars, averaged over 5 x 5 points a pixel, on noise of 5 ADU."""
    width = 0.5 * fwhm / np.sqrt(2.0 ** (1.0 / beta) - 1.0)
    light = np.zeros(SHAPE)
    for x, y, flux in zip(*places, strict=True):
        part = tuple(slice(max(0, int(at) - 60), int(at) + 61) for at in (y, x))
        rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]][:, *part]
        for b in (np.arange(5) - 2) / 5:
            for a in (np.arange(5) - 2) / 5:
                r2 = (columns + a - x) ** 2 + (rows + b - y) ** 2
                light[part] += flux / 25 * (beta - 1) / (np.pi * width**2) * (1 + r2 / width**2) ** -beta
    variance = 25.0 + light / META.gain
    data = light + rng.normal(size=SHAPE) * np.sqrt(variance) + sky
    return Frame(data.astype(np.float32), variance.astype(np.float32), np.zeros(SHAPE, np.uint16), META, sky=0.0)


def true_correction(stars, places):
    """Median of total over measured flux of the brighter stars (mag)."""
    order = np.array([np.argmin(np.hypot(stars["x"] - x, stars["y"] - y)) for x, y, _ in zip(*places, strict=True)])
    bright = places[2] > 3e4
    return float(np.median(2.5 * np.log10(places[2][bright] / stars["flux"][order[bright]])))


@pytest.mark.parametrize(("fwhm", "beta", "sky"), [(2.2, 3.0, 0.0), (3.4, 2.6, 0.5), (4.5, 4.5, -0.5)])
def test_light_beyond_the_aperture(rng, fwhm, beta, sky):
    places = field(rng)
    frame = moffat_frame(rng, places, fwhm, beta=beta, sky=sky)
    stars = find_stars(frame)
    found = aperture_correction(frame, stars)
    assert found.reason == ""
    assert found.n_stars == 40
    assert 0 < found.error < 0.004
    assert found.value == pytest.approx(true_correction(stars, places), abs=0.004 + 3 * found.error)


def test_neighbours_and_masks_do_no_harm(rng):
    places = field(rng)
    clean = moffat_frame(rng, places, 3.0, beta=3.0)
    expected = aperture_correction(clean, find_stars(clean))
    x, y, flux = places
    beside = (np.append(x, x[::2] + 11.0), np.append(y, y[::2] + 5.0), np.append(flux, 0.08 * flux[::2]))
    frame = moffat_frame(rng, beside, 3.0, beta=3.0)
    data, mask = frame.data.copy(), frame.mask.copy()
    for column in (x[1::3] + 8).astype(int):
        mask[:, column] = Mask.DEFECT.value
        data[:, column] = 1e5
    frame = frame.replace(data=data, mask=mask)
    found = aperture_correction(frame, find_stars(frame))
    assert found.value == pytest.approx(expected.value, abs=0.01)


def test_few_or_faint_stars_are_a_reason_and_no_error(rng):
    places = field(rng, 4)
    frame = moffat_frame(rng, places, 3.0, beta=3.0)
    stars = find_stars(frame)
    for some in (stars, stars[:0]):
        found = aperture_correction(frame, some)
        assert np.isnan(found.value)
        assert "5 needed" in found.reason
    hidden = frame.replace(mask=np.full(SHAPE, Mask.NO_DATA.value, np.uint16))
    clean = moffat_frame(rng, field(rng), 3.0, beta=3.0)
    found = aperture_correction(hidden, find_stars(clean))
    assert (found.n_stars, np.isnan(found.value)) == (0, True)
    noise = clean.replace(data=rng.normal(0, 5.0, SHAPE).astype(np.float32))
    assert aperture_correction(noise, find_stars(clean)).reason


def same_grid():
    nodes = np.arange(0, 513, 64.0)
    return Alignment(np.array(np.meshgrid(nodes, nodes)), 64, SHAPE, 0.1, 40, "wcs", None)


def test_zero_point_of_frames_with_unlike_wings(rng):
    x, y, flux = field(rng)
    science = moffat_frame(rng, (x, y, 0.7 * flux), 3.6, beta=2.6)
    reference = moffat_frame(rng, (x, y, flux), 2.6, beta=4.5)
    stars, theirs = find_stars(science), find_stars(reference)
    growth = aperture_correction(reference, theirs)
    template = Template(reference, theirs, np.ones(SHAPE, np.float32), "t-1", 25.0, growth=growth)
    true = 25.0 + 2.5 * np.log10(0.7)
    plain = zero_point(stars, template, same_grid())
    assert np.isnan(plain.correction)
    assert plain.value < true - 0.04
    zero = zero_point(stars, template, same_grid(), growth=aperture_correction(science, stars))
    assert zero.value == pytest.approx(true, abs=0.008)
    assert zero.value - zero.correction == pytest.approx(plain.value)
    assert zero.error > plain.error
    # the file of an earlier version has none: it is measured
    older = dataclasses.replace(template, growth=None)
    assert zero_point(stars, older, same_grid(), growth=aperture_correction(science, stars)) == zero
    # one side unknown: both stay as they are
    unknown = dataclasses.replace(template, growth=ApertureCorrection(reason="3 bright isolated stars, 5 needed"))
    same = zero_point(stars, unknown, same_grid(), growth=aperture_correction(science, stars))
    assert same.value == plain.value


def test_frames_of_a_template_are_scaled_by_all_their_light(rng):
    x, y, flux = field(rng)
    one, other = moffat_frame(rng, (x, y, flux), 2.6, beta=4.5), moffat_frame(rng, (x, y, 0.8 * flux), 3.6, beta=2.6)
    stars, theirs = find_stars(one), find_stars(other)
    rows = [int(np.argmin(np.hypot(theirs["x"] - a["x"], theirs["y"] - a["y"]))) for a in stars[:40]]
    common = SimpleNamespace(first=np.arange(40), second=np.array(rows), residual=0.1)
    assert flux_ratio(one, stars, other, stars=theirs, found=common).factor == pytest.approx(1.25, rel=0.008)


def test_weighted_median():
    values = np.array([3.0, 1.0, 2.0, 10.0, 4.0])
    assert weighted_median(values, np.ones(5)) == 3.0
    assert weighted_median(values, np.array([1e-6, 1e-6, 1e-6, 1.0, 1e-6])) == pytest.approx(10.0, abs=0.1)
