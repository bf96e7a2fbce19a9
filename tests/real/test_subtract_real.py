"""Subtraction of real frames: a known transient of DECam, injected ones on GOTO."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from nightsift.core.flags import HARD, Mask
from nightsift.core.frames import Frame, Meta, Pair
from nightsift.images.artefacts.artefacts import mask_artefacts
from nightsift.images.background.background import subtract_background
from nightsift.images.injection import inject_stars
from nightsift.images.registration.align import node_grid, register
from nightsift.images.resampling.warp import resample
from nightsift.images.stars.stars import find_stars
from nightsift.io.exposures import load_exposure
from nightsift.unit.units import load_unit
from subtraction import subtract_pair
from subtraction.psf.fit import fit_psf

RA, DEC = 318.10822, -66.01571


def decam(path: Path) -> Frame:
    """A sky-subtracted frame with the noise of its own sky and the gain of its header."""
    with fits.open(path) as hdus:
        header = hdus[0].header
        data = np.ascontiguousarray(hdus[0].data, dtype=np.float32)
    sigma = 1.4826 * np.median(np.abs(data - np.median(data)))
    variance = (sigma**2 + np.maximum(data, 0) / header["GAIN"]).astype(np.float32)
    mask = np.where(data > 0.9 * header["SATURATE"], np.uint16(Mask.SATURATED.value), np.uint16(0))
    facts = (header["GAIN"], 11.8, header["SATURATE"], 0.26)
    meta = Meta("decam", "field", "i", "2018-01-01", path.name, 0.0, 330.0, *facts, path=path.name)
    return Frame(data, variance, mask, meta, wcs=WCS(header))


@pytest.fixture(scope="module")
def decam_frames(data_dir):
    folder = data_dir / "images" / "decam_sfft"
    science = [decam(path) for path in sorted(folder.glob("DEC-OBS04?.mini.fits.gz"))]
    references = [decam(path) for path in sorted(folder.glob("DEC-OBS18?.mini.fits.gz"))]
    assert len(science) == len(references) == 5
    mean = np.mean([frame.data for frame in references], axis=0).astype(np.float32)
    variance = (np.sum([frame.variance for frame in references], axis=0) / 25).astype(np.float32)
    return science, references[0].replace(data=mean, variance=variance)


def peak_near(score, x, y, radius=3):
    return float(score[y - radius : y + radius + 1, x - radius : x + radius + 1].max())


def test_decam_transient_stands_out_of_every_frame(decam_frames):
    science, template = decam_frames
    x, y = (round(float(v)) for v in science[0].wcs.all_world2pix(RA, DEC, 0))
    peaks, others = [], []
    for frame in science:
        difference = subtract_pair(Pair(frame, template))
        peaks.append(peak_near(difference.score, x, y))
        apart = difference.score.copy()
        apart[y - 12 : y + 13, x - 12 : x + 13] = 0
        others.append(apart)
        assert difference.metrics["noise_scale"] == pytest.approx(1.0, abs=0.2)
    assert np.median(peaks) >= 8
    assert min(peaks) >= 5
    # Streaks and cosmic rays of single frames fall out of the median over frames; nothing else is left.
    assert np.median(others, axis=0).max() < 0.6 * np.median(peaks)


def test_decam_stack_agrees_with_another_code(decam_frames, data_dir):
    science, template = decam_frames
    x, y = (round(float(v)) for v in science[0].wcs.all_world2pix(RA, DEC, 0))
    stack = np.median([frame.data for frame in science], axis=0).astype(np.float32)
    variance = (1.57 * np.sum([frame.variance for frame in science], axis=0) / 25).astype(np.float32)
    difference = subtract_pair(Pair(science[0].replace(data=stack, variance=variance), template))
    assert peak_near(difference.score, x, y) >= 8
    assert np.unravel_index(np.argmax(difference.score), difference.shape) == pytest.approx((y, x), abs=3)
    with fits.open(data_dir / "images" / "decam_sfft" / "oracle" / "FinalDifference.fits.gz") as hdus:
        other = hdus[0].data.astype(np.float64)
    # Flux of the transient in a circle: the same sign and about the same amount.
    yy, xx = np.mgrid[:256, :256]
    near = np.hypot(xx - x, yy - y) < 6
    assert difference.data[near].sum() == pytest.approx(other[near].sum(), rel=0.35)


@pytest.mark.parametrize(("science", "template"), [("3.fits.gz", "4.fits.gz"), ("4.fits.gz", "3.fits.gz")])
def test_goto_injected_transients_keep_their_flux(data_dir, science, template):
    unit = load_unit("goto_zip")
    folder = data_dir / "images" / "goto_zip"
    raw = (mask_artefacts(load_exposure(folder / name, unit), unit) for name in (science, template))
    sci, ref = (subtract_background(frame, unit.background.mesh) for frame in raw)
    stars, others = find_stars(sci), find_stars(ref)
    psf = fit_psf(sci, stars)
    grid, step = node_grid(register(sci, stars, ref, reference_stars=others, options=unit.alignment).mapping, sci.shape)
    data, variance, mask = resample(ref.data, ref.variance, ref.mask, grid, step, sci.shape)
    rng = np.random.default_rng(20)
    noise = float(np.sqrt(np.median(sci.variance))) * 1.5 * psf.fwhm
    n = 25
    x, y = rng.uniform(60, sci.shape[1] - 60, n), rng.uniform(140, sci.shape[0] - 140, n)
    flux = noise * np.tile([10.0, 20.0, 50.0, 100.0, 200.0], 5)
    injected = inject_stars(sci.replace(psf=psf), x, y, flux, psf, rng)
    difference = subtract_pair(Pair(injected, ref.replace(data=data, variance=variance, mask=mask)))
    assert difference.verdict != "bad", difference.reasons
    whole = [
        ((difference.mask[round(b) - 8 : round(b) + 9, round(a) - 8 : round(a) + 9] & HARD) == 0).all()
        for a, b in zip(x, y, strict=True)
    ]
    assert sum(whole) >= 15
    yy, xx = np.mgrid[-8:9, -8:9]
    inside = np.hypot(xx, yy) <= 8
    ratios = []
    left = difference.score.copy()
    for a, b, f, ok in zip(x, y, flux, whole, strict=True):
        j, i = round(b), round(a)
        left[max(0, j - 25) : j + 26, max(0, i - 25) : i + 26] = 0
        if ok:
            assert difference.score[j, i] > 5
            # The light within 8 pixels, in units of that of the PSF itself.
            image = difference.psf.at(a, b)
            half = image.shape[0] // 2
            share = float(image[half - 8 : half + 9, half - 8 : half + 9][inside].sum())
            ratios.append((f, float(difference.data[j - 8 : j + 9, i - 8 : i + 9][inside].sum()) / share / f))
    bright = np.array([ratio for f, ratio in ratios if f > 80 * noise])
    assert np.mean(bright) == pytest.approx(1.0, abs=0.03)
    # Neither rings nor dipoles: what is not injected stays in the noise.
    assert np.abs(left).max() < 7.5  # 7.4 on the flank of a bright galaxy
