"""Extraction: both signs, positions, fluxes and every flag of a single frame, on fields of known truth."""

from __future__ import annotations

import types

import numpy as np
import pytest
from astropy.wcs import WCS

from nightsift.core import tables
from nightsift.core.flags import Flag, Mask
from nightsift.core.frames import Difference, Frame, Meta, Pair
from nightsift.core.psf import Psf
from nightsift.images.detection.extract import extract
from nightsift.images.injection import inject_stars
from nightsift.images.photometry.difference_photometry import ZeroPoint
from nightsift.unit.units import Image

SIGMA = 5.0


def meta(saturation=60000.0):
    return Meta(
        unit="u", field="f", band="r", night="2026-11-20", exposure_id="u-1", mjd=61000.5, exposure_s=60.0, gain=1.0,
        read_noise=5.0, saturation=saturation, pixel_scale=1.2,
    )  # fmt: skip


def gaussian_psf(fwhm, shape, size=25):
    y, x = np.mgrid[:size, :size] - size // 2
    image = np.exp(-0.5 * (x**2 + y**2) / (fwhm / 2.3548) ** 2)
    return Psf((image / image.sum())[None].astype(np.float32), 0, shape, fwhm)


def make_unit(threshold=5.0, stamp=31):
    return types.SimpleNamespace(
        detection=types.SimpleNamespace(threshold=threshold, min_pixels=1, aperture=1.5),
        stamps=types.SimpleNamespace(size=stamp),
        image=Image(hdu="", bayer="", trim="[11:430,6:405]"),
    )


def matched_filter(data, psf, sigma):
    from scipy.signal import fftconvolve

    p = psf.terms[0]
    return (fftconvolve(data, p[::-1, ::-1], mode="same") / (sigma * np.sqrt((p**2).sum()))).astype(np.float32)


def blank(rng, shape=(400, 420), sigma=SIGMA):
    data = rng.normal(0, sigma, shape).astype(np.float32)
    return Frame(data, np.full(shape, sigma**2, np.float32), np.zeros(shape, np.uint16), meta(), sky=100.0)


def subtracted(frame, psf, mask=None, verdict="good", sigma=SIGMA):
    score = matched_filter(frame.data, psf, sigma)
    mask = frame.mask if mask is None else mask
    score[mask != 0] = 0
    return Difference(frame.data, frame.variance, mask, score, psf, "test", "template", 1.0, verdict=verdict)


def run(frame, psf, wcs=None, **options):
    unit = options.pop("unit", make_unit())
    science = frame.replace(wcs=wcs)
    difference = subtracted(frame, psf, **options)
    return records(
        extract(difference, Pair(science, science), unit, zero_point=ZeroPoint(25.0, 0.01, 20, 0.02), template_id="t-1")
    )


def records(table):
    names = ["x", "y", "ra", "sign", "snr", "n_pixels", "elongation", "fwhm", "flux", "flux_err", "chi2", "mag", "dec"]
    names += ["dipole", "masked_fraction", "flags", "x_file", "y_file"]
    columns = [table[name].to_numpy(zero_copy_only=False) for name in names]
    return np.rec.fromarrays([c if c.dtype != object else c.astype(float) for c in columns], names=names)


def nearest(rows, x, y, radius=3.0):
    d = np.hypot(rows["x"] - x, rows["y"] - y)
    assert d.min() < radius, f"nothing within {radius} px of {x}, {y}"
    return rows[int(np.argmin(d))]


@pytest.mark.parametrize("fwhm", [1.8, 3.0, 6.0])
def test_positions_and_fluxes_of_both_signs_scatter_as_their_errors_say(rng, fwhm):
    shape = (800, 800)
    frame = blank(rng, shape)
    psf = gaussian_psf(fwhm, shape)
    n_eff = 1 / float((psf.terms[0] ** 2).sum())
    flux = 25.0 * SIGMA * np.sqrt(n_eff)
    gx, gy = (a.ravel() for a in np.meshgrid(np.arange(30, 770, 36.0), np.arange(30, 770, 36.0)))
    x, y = gx + rng.uniform(-0.5, 0.5, gx.size), gy + rng.uniform(-0.5, 0.5, gx.size)
    negative = np.arange(gx.size) % 2 == 1
    for sign, some in ((1, ~negative), (-1, negative)):
        stars = inject_stars(
            frame.replace(data=np.zeros_like(frame.data)), x[some], y[some], np.full(some.sum(), flux), psf
        )
        frame = frame.replace(data=frame.data + np.float32(sign) * stars.data)
    rows = run(frame, psf)
    rows = rows[rows["snr"] > 12]
    assert len(rows) == gx.size
    d = np.hypot(rows["x"][:, None] - x, rows["y"][:, None] - y)
    match = d.argmin(axis=1)
    assert (rows["sign"] == np.where(negative[match], -1, 1)).all()
    assert ((rows["flags"] & Flag.NEGATIVE != 0) == negative[match]).all()
    # a background-limited Gaussian source: sigma_x = sqrt(2) sigma_psf / snr
    expected = np.sqrt(2) * (fwhm / 2.3548) / 25.0
    error = np.concatenate([rows["x"] - x[match], rows["y"] - y[match]])
    assert 0.8 < error.std() / expected < 1.35
    assert abs(error.mean()) < 4 * expected / np.sqrt(error.size)
    pull = (np.abs(rows["flux"]) - flux) / rows["flux_err"]
    assert 0.9 < pull.std() < 1.1
    assert abs(pull.mean()) < 0.25
    assert np.nanmedian(rows["fwhm"]) == pytest.approx(fwhm, rel=0.12)
    assert np.median(rows["elongation"]) < 1.25
    clean = rows[(rows["flags"] & ~Flag.NEGATIVE.value & ~Flag.EDGE.value) == 0]
    assert len(clean) > 0.97 * len(rows)


def test_noise_alone_gives_the_expected_few(rng):
    frame = blank(rng, (1000, 1000))
    rows = run(frame, gaussian_psf(3.0, frame.shape))
    assert len(rows) <= 3


def test_empty_is_typed(rng):
    frame = blank(rng, (100, 100))
    difference = subtracted(frame, gaussian_psf(3.0, frame.shape))
    table = extract(
        difference, Pair(frame, frame), make_unit(9.0), zero_point=ZeroPoint(25.0, 0.01, 20, 0.02), template_id="t"
    )
    assert table.num_rows == 0
    assert table.schema.equals(tables.CANDIDATES)


def test_sky_positions_and_magnitudes(rng):
    frame = blank(rng)
    psf = gaussian_psf(3.0, frame.shape)
    frame = inject_stars(frame, [200.3], [150.8], [4000.0], psf)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix, wcs.wcs.cdelt = (
        ["RA---TAN", "DEC--TAN"],
        [0.02, 30],
        [210, 200],
        [-3e-4, 3e-4],
    )
    row = nearest(run(frame, psf, wcs), 200.3, 150.8)
    back = wcs.all_world2pix(row["ra"], row["dec"], 0)
    assert np.allclose(back, (row["x"], row["y"]), atol=1e-6)
    assert 0 <= row["ra"] < 360
    assert row["mag"] == pytest.approx(25 - 2.5 * np.log10(4000), abs=0.05)
    assert np.isnan(nearest(run(frame, psf), 200.3, 150.8)["ra"])


def test_neighbours_are_separated(rng):
    frame = blank(rng)
    psf = gaussian_psf(3.0, frame.shape)
    frame = inject_stars(frame, [200.0, 207.0], [200.0, 200.0], [6000.0, 1200.0], psf)
    rows = run(frame, psf)
    assert nearest(rows, 200, 200, 1)["flux"] > 3 * nearest(rows, 207, 200, 1)["flux"]
    assert len(rows) <= 3


def test_every_mask_bit_becomes_its_flag_and_no_source_is_lost(rng):
    cases = {
        Mask.SATURATED: Flag.SATURATED, Mask.BLEED: Flag.BLEED, Mask.BRIGHT_STAR: Flag.NEAR_BRIGHT_STAR,
        Mask.STREAK: Flag.STREAK, Mask.COSMIC_RAY: Flag.COSMIC_RAY, Mask.DEFECT: Flag.DEFECT,
    }  # fmt: skip
    frame = blank(rng)
    psf = gaussian_psf(3.0, frame.shape)
    x = 50.0 + 50.0 * np.arange(len(cases))
    frame = inject_stars(frame, x, np.full(x.size, 200.0), np.full(x.size, 3000.0), psf)
    mask = frame.mask.copy()
    for at, bit in zip(x.astype(int), cases, strict=True):
        mask[196:205, at - 4 : at + 5] |= np.uint16(bit)
    rows = run(frame, psf, mask=mask)
    for at, (bit, flag) in zip(x, cases.items(), strict=True):
        row = nearest(rows, at, 200)
        assert row["flags"] & flag, f"{bit!r} not passed on"
        assert bool(row["flags"] & Flag.MASKED) == (bit is not Mask.BRIGHT_STAR)
        assert row["flux"] == pytest.approx(3000, rel=0.1)
        assert not row["flags"] & sum(f for f in cases.values() if f is not flag)


def test_source_beside_a_mask_is_flagged(rng):
    frame = blank(rng)
    psf = gaussian_psf(4.0, frame.shape)
    frame = inject_stars(frame, [200.0], [200.0], [4000.0], psf)
    mask = frame.mask.copy()
    mask[:, 202:206] = Mask.BLEED
    assert nearest(run(frame, psf, mask=mask), 200, 200)["flags"] & Flag.BLEED
    mask = frame.mask.copy()
    mask[:, 212:216] = Mask.BLEED
    assert not nearest(run(frame, psf, mask=mask), 200, 200)["flags"]


def test_saturated_area_is_one_row_of_each_sign(rng):
    frame = blank(rng)
    psf = gaussian_psf(3.0, frame.shape)
    data, mask = frame.data.copy(), frame.mask.copy()
    y, x = np.mgrid[: frame.shape[0], : frame.shape[1]]
    core = np.hypot(x - 200, y - 200) < 30
    data[core] += rng.normal(0, 900, core.sum()).astype(np.float32)
    mask[core] |= np.uint16(Mask.SATURATED)
    rows = run(frame.replace(data=data), psf, mask=mask)
    inside = rows[np.hypot(rows["x"] - 200, rows["y"] - 200) < 29]
    assert sorted(inside["sign"]) == [-1, 1]
    assert (inside["flags"] & Flag.SATURATED != 0).all()


def test_dipole_edge_and_verdict(rng):
    frame = blank(rng)
    psf = gaussian_psf(3.5, frame.shape)
    kw = {"x": [200.0, 6.0], "y": [200.0, 300.0], "flux": [60000.0, 3000.0]}
    stars = inject_stars(frame.replace(data=np.zeros_like(frame.data)), kw["x"], kw["y"], kw["flux"], psf).data
    moved = inject_stars(frame.replace(data=np.zeros_like(frame.data)), [200.35], [200.1], [60000.0], psf).data
    rows = run(frame.replace(data=frame.data + stars - moved), psf, verdict="suspect")
    lobes = rows[np.hypot(rows["x"] - 200, rows["y"] - 200) < 5]
    assert set(lobes["sign"]) == {1, -1}
    assert (lobes["flags"] & Flag.DIPOLE != 0).all()
    assert (lobes["dipole"] > 0.5).all()
    edge = nearest(rows, 6, 300)
    assert edge["flags"] & Flag.EDGE
    assert not edge["flags"] & Flag.DIPOLE
    assert (rows["flags"] & Flag.SUSPECT_FRAME != 0).all()


@pytest.mark.parametrize("fwhm", [1.8, 2.5, 4.0])
def test_sharper_than_the_psf_is_a_cosmic_ray_and_stars_are_not(rng, fwhm):
    frame = blank(rng, (600, 600))
    psf = gaussian_psf(fwhm, frame.shape)
    gx, gy = (a.ravel() for a in np.meshgrid(np.arange(30, 570, 30.0), np.arange(30, 570, 30.0)))
    x, y = gx + rng.uniform(-0.5, 0.5, gx.size), gy + rng.uniform(-0.5, 0.5, gx.size)
    star = np.arange(gx.size) % 2 == 0
    frame = inject_stars(frame, x[star], y[star], np.full(star.sum(), 2000.0), psf)
    data = frame.data.copy()
    data[gy[~star].astype(int), gx[~star].astype(int)] += 40 * SIGMA
    rows = run(frame.replace(data=data), psf)
    hit = rows["flags"] & Flag.COSMIC_RAY != 0
    d = np.hypot(rows["x"][:, None] - gx, rows["y"][:, None] - gy)
    is_star = star[d.argmin(axis=1)]
    assert hit[is_star].mean() < 0.01
    assert hit[~is_star].mean() > 0.95


def test_nan_and_missing_data_do_not_spread(rng):
    frame = blank(rng)
    psf = gaussian_psf(3.0, frame.shape)
    frame = inject_stars(frame, [200.0], [200.0], [4000.0], psf)
    data, variance, mask = frame.data.copy(), frame.variance.copy(), frame.mask.copy()
    data[100:120, 100:120], variance[100:120, 100:120], mask[100:120, 100:120] = np.nan, np.nan, Mask.NO_DATA
    score = matched_filter(frame.data, psf, SIGMA)
    score[100:120, 100:120] = np.nan
    difference = Difference(data, variance, mask, score, psf, "test", "template", 1.0)
    table = extract(
        difference, Pair(frame, frame), make_unit(), zero_point=ZeroPoint(np.nan, np.nan, 0, np.nan), template_id="t"
    )
    assert table.num_rows == 1
    assert table["mag"].null_count == 1
    assert table["flags"][0].as_py() == 0


def test_candidates_are_found_in_the_file_of_a_trimmed_unit(rng):
    """The reduced image of this unit begins at column 11 and row 6 of the file."""
    frame, psf = blank(rng), gaussian_psf(3.0, (400, 420))
    found = run(inject_stars(frame, [200.0], [100.0], [5000.0], psf), psf)[0]
    assert (found["x"], found["y"]) == (pytest.approx(200.0, abs=0.3), pytest.approx(100.0, abs=0.3))
    assert (found["x_file"] - found["x"], found["y_file"] - found["y"]) == (11.0, 6.0)
