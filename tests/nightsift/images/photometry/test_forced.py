"""Forced photometry: both signs, honest errors from faint to bright, limits, and what masks and edges do."""

from __future__ import annotations

import numpy as np
import pytest

from nightsift.core import tables
from nightsift.core.flags import Flag, Mask
from nightsift.core.frames import Difference, Frame, Meta
from nightsift.core.psf import Psf
from nightsift.images.detection.extract import areas_of
from nightsift.images.injection import inject_stars
from nightsift.images.photometry.difference_photometry import ZeroPoint
from nightsift.images.photometry.forced import forced_photometry

SHAPE = (640, 660)
SKY, GAIN, READ = 250.0, 1.4, 6.0
META = Meta("u", "f", "r", "2026-11-20", "u-1", 61000.0, 60.0, GAIN, READ, 1e9, 1.2)
ZERO = ZeroPoint(25.0, 0.01, 30, 0.03)


def moffat_psf(fwhm=3.0, half=13):
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    alpha2 = fwhm**2 / (4 * (2 ** (1 / 3) - 1))
    image = 2 / (np.pi * alpha2) * (1 + (x**2 + y**2) / alpha2) ** -3.0
    return Psf(image[None].astype(np.float32), 0, SHAPE, fwhm, wings=float(1 - image.sum()))


def observe(rng, x, y, flux, psf, galaxy=None, from_data=False):
    """A difference with sources of either sign: science less a template without noise."""
    blank = Frame(np.zeros(SHAPE, "f4"), np.ones(SHAPE, "f4"), np.zeros(SHAPE, "u2"), META)
    up, down = (inject_stars(blank, x, y, np.maximum(sign * flux, 0), psf).data.astype(float) for sign in (1, -1))
    base = SKY + (0 if galaxy is None else galaxy) + down
    counts = rng.poisson((base + up - down) * GAIN) + rng.normal(0, READ, SHAPE)
    raw = counts / GAIN
    variance = (np.maximum(raw, 0) if from_data else base + up - down) / GAIN + (READ / GAIN) ** 2
    data = (raw - base).astype("f4")
    p = psf.terms[0]
    score = np.zeros(SHAPE, "f4")
    from scipy.signal import fftconvolve

    noise = np.sqrt(fftconvolve(variance, p[::-1, ::-1] ** 2, mode="same"))
    score[:] = fftconvolve(data, p[::-1, ::-1], mode="same") / noise
    return Difference(data, variance.astype("f4"), np.zeros(SHAPE, "u2"), score, psf, "t", "template", 1.0)


def column(table, name):
    return table[name].to_numpy(zero_copy_only=False).astype(float)


def grid(rng, step=26.0):
    gx, gy = (a.ravel() for a in np.meshgrid(np.arange(20, SHAPE[1] - 20, step), np.arange(20, SHAPE[0] - 20, step)))
    return gx + rng.uniform(-0.5, 0.5, gx.size), gy + rng.uniform(-0.5, 0.5, gx.size)


@pytest.mark.parametrize("snr", [5, 20, 200])
@pytest.mark.parametrize("where", ["sky", "galaxies"])
@pytest.mark.parametrize("from_data", [False, True])
def test_pulls_are_unit_gaussian(rng, snr, where, from_data):
    psf = moffat_psf()
    x, y = grid(rng)
    sigma = np.sqrt((SKY / GAIN + (READ / GAIN) ** 2) / float((psf.terms[0] ** 2).sum()))
    sign = np.where(np.arange(len(x)) % 2 == 0, 1.0, -1.0) if snr < 50 else np.ones(len(x))
    flux = sign * snr * sigma
    galaxy = None
    if where == "galaxies":
        yy, xx = np.mgrid[: SHAPE[0], : SHAPE[1]]
        gx, gy = np.rint(x + 2.0), np.rint(y - 1.0)
        galaxy = np.zeros(SHAPE)
        for cx, cy in zip(gx.astype(int), gy.astype(int), strict=True):
            window = (slice(max(cy - 12, 0), cy + 13), slice(max(cx - 12, 0), cx + 13))
            galaxy[window] += 900.0 * np.exp(-np.hypot(xx[window] - cx, yy[window] - cy) / 2.5)
    difference = observe(rng, x, y, flux, psf, galaxy, from_data)
    table = forced_photometry(difference, x, y)
    pull = (column(table, "flux") - flux) / column(table, "flux_err")
    assert 0.9 < pull.std() < 1.1
    assert abs(pull.mean()) < 0.12
    assert table.schema.equals(tables.FORCED)
    assert (np.sign(column(table, "flux")) == sign).mean() > 0.99


def test_empty_sky_has_no_bias_and_limits_hold(rng):
    psf = moffat_psf()
    x, y = grid(rng, 16.0)
    difference = observe(rng, x[:0], y[:0], x[:0], psf, from_data=True)
    table = forced_photometry(difference, x, y, zero_point=ZERO)
    snr, error = column(table, "snr"), column(table, "flux_err")
    assert abs(snr.mean()) < 4.5 / np.sqrt(len(snr))
    assert np.median(column(table, "limit_5") / error) > 5
    assert (column(table, "limit_3") >= 3 * error * (1 - 1e-6)).all()
    faint = np.abs(snr) < 3
    assert np.isnan(column(table, "mag")[faint]).all()
    limits = 25 - 2.5 * np.log10(column(table, "limit_3"))
    assert column(table, "mag_limit_3") == pytest.approx(limits, abs=1e-4)
    # a source as bright as its limit is seen under that value with the frequency of a fluctuation of 3 sigma
    flux = np.full(len(x), 3.0 * np.median(error))
    again = forced_photometry(observe(rng, x, y, flux, psf), x, y)
    assert (column(again, "limit_3") < flux).mean() < 0.01


def test_magnitudes_of_both_signs(rng):
    psf = moffat_psf()
    x, y, flux = np.array([100.0, 200.3]), np.array([100.0, 150.7]), np.array([6000.0, -6000.0])
    table = forced_photometry(observe(rng, x, y, flux, psf), x, y, zero_point=ZERO)
    assert column(table, "mag") == pytest.approx([25 - 2.5 * np.log10(6000)] * 2, abs=0.08)
    flags = table["flags"].to_pylist()
    assert not flags[0]
    assert flags[1] == Flag.NEGATIVE


def test_masks_edges_and_places_outside(rng):
    psf = moffat_psf()
    x, y = np.array([100.0, 200.0, 5.0, -40.0, np.nan, 300.0]), np.array([100.0, 200.0, 300.0, 5.0, 8.0, 300.0])
    difference = observe(rng, x[:3], y[:3], np.full(3, 5000.0), psf)
    difference.mask[195:206, 195:206] = Mask.SATURATED
    difference.mask[270:331, 270:331] = Mask.NO_DATA
    table = forced_photometry(difference, x, y, zero_point=ZERO)
    flags = table["flags"].to_pylist()
    assert flags[0] == 0
    assert flags[1] & Flag.SATURATED
    assert flags[1] & Flag.MASKED
    assert flags[2] & Flag.EDGE
    assert column(table, "flux")[:3] == pytest.approx([5000] * 3, rel=0.08)
    for row in table.to_pylist()[3:]:
        assert row["flux"] is None
        assert row["limit_3"] is None
        assert row["mag_limit_5"] is None
        assert row["flags"] & Flag.MASKED
    assert flags[3] & Flag.EDGE
    assert table["x"].to_pylist()[4] is None


def test_no_positions_and_wrong_ones(rng):
    difference = observe(rng, np.empty(0), np.empty(0), np.empty(0), moffat_psf())
    assert forced_photometry(difference, [], []).num_rows == 0
    with pytest.raises(ValueError, match="equal length"):
        forced_photometry(difference, [1.0, 2.0], [1.0])


def test_connected_areas():
    mask = np.zeros((30, 40), "u2")
    mask[2:5, 3:20] = Mask.SATURATED
    mask[5:9, 20:22] = Mask.BLEED  # touches the first by a corner
    mask[20:25, 10:12] = Mask.SATURATED
    columns, rows = np.array([4, 21, 10, 30, 39, 0]), np.array([3, 8, 24, 15, 29, 0])
    labels = areas_of(mask, Mask.SATURATED | Mask.BLEED, columns, rows=rows)
    assert labels[0] == labels[1] > 0
    assert labels[2] > 0
    assert labels[2] != labels[0]
    assert (labels[3:] == 0).all()
