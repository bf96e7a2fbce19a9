"""The score on real sky: a unit Gaussian after a rescale by its own robust width."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage, stats

from nightsift.core.frames import Template
from nightsift.images.artefacts.artefacts import mask_artefacts
from nightsift.images.background.background import subtract_background
from nightsift.images.registration.align import align
from nightsift.images.resampling.warp import make_pair
from nightsift.images.stars.stars import find_stars
from nightsift.images.templates import build_template
from nightsift.io.exposures import load_exposure
from nightsift.unit.units import load_unit
from subtraction import subtract_pair
from subtraction.psf.fit import fit_psf


def prepared(path, unit):
    frame = subtract_background(mask_artefacts(load_exposure(path, unit), unit), unit.background.mesh)
    stars = find_stars(frame, unit.detection.threshold)
    return frame.replace(psf=fit_psf(frame, stars)), stars


def pair_of(frame, stars, template, unit):
    return make_pair(frame, template, align(frame, stars, template, options=unit.alignment))


def two_frames(data_dir, unit_name, template, science):
    unit = load_unit(unit_name)
    reference, stars = prepared(data_dir / "images" / template, unit)
    single = Template(reference, stars, np.ones(reference.shape, np.float32), "single", 25.0)
    return [pair_of(*prepared(data_dir / "images" / science, unit), single, unit)]


def stacked(data_dir, unit_name, templates, night):
    unit = load_unit(unit_name)
    old = [prepared(path, unit) for path in templates]
    template = build_template([frame for frame, _ in old], [stars for _, stars in old], unit)
    return [pair_of(*prepared(path, unit), template, unit) for path in night]


@pytest.fixture
def pairs(request, data_dir):
    name = request.param
    if name == "goto_zip":
        return two_frames(data_dir, name, "goto_zip/3.fits.gz", "goto_zip/4.fits.gz")
    if name == "panoptes":
        return two_frames(data_dir, name, "panoptes/solved.fits.fz", "panoptes/unsolved.fits.gz")
    if name == "microobservatory":
        files = sorted((data_dir / "images/microobs_hatp32").glob("*.gz"))
        return stacked(data_dir, name, files[:5], files[10:14:2])
    folder = data_dir / "images/decam_sfft"
    old, new = (sorted(folder.glob(f"DEC-OBS{epoch}?.mini.fits.gz")) for epoch in ("18", "04"))
    return stacked(data_dir, name, old, new[:3])


def source_free(difference, template):
    """Good pixels away from what shows in the smoothed template."""
    good = template.mask == 0
    seen = np.where(good, template.data / np.sqrt(np.where(good, template.variance, 1.0)), 0.0)
    smooth = ndimage.gaussian_filter(seen, 1.5)
    sigma = 1.4826 * np.median(np.abs(smooth[good] - np.median(smooth[good])))
    sources = ndimage.binary_dilation(smooth > 4.0 * sigma, iterations=round(1.5 * difference.psf.fwhm))
    return (difference.mask == 0) & ~sources


@pytest.mark.real
@pytest.mark.parametrize(
    "pairs",
    ["goto_zip", "decam", *(pytest.param(name, marks=pytest.mark.slow) for name in ("panoptes", "microobservatory"))],
    indirect=True,
)
def test_the_score_on_real_sky_is_gaussian(pairs):
    values, sparse = [], []
    for pair in pairs:
        difference = subtract_pair(pair)
        sky = source_free(difference, pair.template)
        assert sky.mean() > 0.1
        low, middle, high = np.percentile(difference.score[sky], (15.8655, 50.0, 84.1345))
        assert (high - low) / 2 == pytest.approx(1.0, abs=0.05)
        assert abs(middle) < 0.1
        scaled = (difference.score - middle) / ((high - low) / 2)
        values.append(scaled[sky])
        # Pixels apart by more than the filter reaches are independent.
        step = int(np.ceil(3.0 * difference.psf.fwhm))
        sparse.append(scaled[::step, ::step][sky[::step, ::step]])
    values, sparse = np.concatenate(values), np.concatenate(sparse)
    assert len(sparse) > 100
    assert stats.kstest(sparse, "norm").pvalue > 0.001
    # Wings: rare beyond 4 sigma, where a Gaussian has 6e-5.
    assert (np.abs(values) > 4.0).mean() < 2e-3
