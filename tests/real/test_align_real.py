"""Alignment and templates on real frames: no WCS, strong drift, elongated stars, raw colour pixels."""

from __future__ import annotations

import numpy as np
import pytest

from nightsift.core.errors import AlignmentFailed
from nightsift.core.frames import Template
from nightsift.images.background.background import subtract_background
from nightsift.images.registration.align import align
from nightsift.images.resampling.warp import make_pair
from nightsift.images.stars.stars import find_stars, typical_fwhm
from nightsift.images.templates import build_template
from nightsift.io.exposures import load_exposure
from nightsift.unit.units import load_unit


def prepared(paths, unit_name):
    unit = load_unit(unit_name)
    frames = [subtract_background(load_exposure(path, unit), unit.background.mesh) for path in paths]
    return unit, frames, [find_stars(frame, unit.detection.threshold) for frame in frames]


def single(frame, stars):
    return Template(frame, stars, np.ones(frame.shape, dtype=np.float32), "single", float("nan"))


def robust(values):
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))


@pytest.fixture(scope="module")
def drifting(data_dir):
    return prepared(sorted((data_dir / "images/microobs_hatp32").glob("*.gz")), "microobservatory")


def test_twenty_drifting_frames(drifting):
    unit, frames, stars = drifting
    assert len(frames) == 20
    template = single(frames[0], stars[0])
    found = [align(frame, table, template, options=unit.alignment) for frame, table in zip(frames, stars, strict=True)]
    assert max(one.residual for one in found) < 0.3
    assert np.median([one.residual for one in found]) < 0.1
    assert min(one.matched for one in found) > 100
    # They drift on by tens of pixels.
    assert np.hypot(*found[-1].to_template(0.0, 0.0)) > 50


def test_template_of_drifting_frames(drifting):
    unit, frames, stars = drifting
    template = build_template(frames[:10], stars[:10], unit)
    assert len(template.sources) + len(template.refused) == 10
    assert len(template.sources) >= 8
    full = (template.coverage == template.coverage.max()) & (template.frame.mask == 0)
    assert full.mean() > 0.5
    assert robust(template.frame.data[full]) < 0.6 * robust(frames[0].data[frames[0].mask == 0])
    for frame, table in zip(frames[10:], stars[10:], strict=True):
        alignment = align(frame, table, template, options=unit.alignment)
        assert alignment.residual < 0.3
        assert make_pair(frame, template, alignment).coverage > 0.8


@pytest.mark.parametrize(
    ("unit_name", "names", "shift", "limit"),
    [
        ("goto_zip", ("goto_zip/3.fits.gz", "goto_zip/4.fits.gz"), (0.3, 81.7), 1.0),
        ("panoptes", ("panoptes/solved.fits.fz", "panoptes/unsolved.fits.gz"), (0.25, 0.85), 0.3),
    ],
)
def test_pairs(data_dir, unit_name, names, shift, limit):
    unit, frames, stars = prepared([data_dir / "images" / name for name in names], unit_name)
    template = single(frames[0], stars[0])
    alignment = align(frames[1], stars[1], template, options=unit.alignment)
    assert alignment.residual < 0.3
    x, y = alignment.to_template(300.0, 150.0)
    moved = np.abs([float(x) - 300.0, float(y) - 150.0])
    np.testing.assert_allclose(moved, shift, atol=limit)
    pair = make_pair(frames[1], template, alignment)
    good = (pair.science.mask == 0) & (pair.template.mask == 0)
    # What is left is no more than noise. It may be less: one frame of the first pair looks resampled and shares noise.
    score = (pair.science.data - pair.template.data) / np.sqrt(pair.science.variance + pair.template.variance)
    assert robust(score[good]) < 1.4


def test_frames_with_a_wcs(data_dir):
    paths = sorted((data_dir / "images/decam_sfft").glob("DEC-OBS??[a-e].mini.fits.gz"))
    unit, frames, stars = prepared(paths, "decam")
    old = [k for k, frame in enumerate(frames) if "OBS18" in frame.meta.path]
    template = build_template([frames[k] for k in old], [stars[k] for k in old], unit)
    assert len(template.sources) == 5
    assert template.frame.wcs is not None
    assert 3.0 < typical_fwhm(template.stars) < 6.0
    for k, frame in enumerate(frames):
        alignment = align(frame, stars[k], template, options=unit.alignment)
        assert alignment.residual < 0.3
        sky, refined = (wcs.all_pix2world([[128.0, 128.0]], 0)[0] for wcs in (frame.wcs, alignment.wcs))
        assert np.hypot(*(3600 * (sky - refined))) < 1.0


def test_wrong_fields_are_refused(data_dir, drifting):
    unit, frames, stars = drifting
    _, others, other_stars = prepared([data_dir / "images/panoptes/unsolved.fits.gz"], "panoptes")
    with pytest.raises(AlignmentFailed):
        align(frames[0], stars[0], single(others[0], other_stars[0]), options=unit.alignment)
    with pytest.raises(AlignmentFailed):
        align(others[0], other_stars[0], single(frames[0], stars[0]), options=unit.alignment)
