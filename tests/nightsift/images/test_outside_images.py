"""Templates of images from elsewhere: flux scale, places, noise, mosaics, masks, and what is refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from astropy.wcs import WCS

from nightsift.core.errors import AlignmentFailed, PoorCoverage
from nightsift.core.flags import Mask
from nightsift.images.outside_images import OutsideImage, Reference, import_template, noise_correlation
from nightsift.images.stars.stars import find_stars
from nightsift.simulate.options import SimulationOptions
from nightsift.simulate.survey import unit_toml
from nightsift.unit.units import load_unit
from tests.nightsift.conftest import render_stars

SHAPE = (420, 440)
GAIN, LEVEL = 5.0, 40.0  # of the images from elsewhere, whose fluxes are three times those of the unit


def tangent(scale, angle, shape, projection="TAN", ra=150.0, dec=30.0):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = [f"RA---{projection}", f"DEC--{projection}"]
    wcs.wcs.crval = [ra, dec]
    wcs.wcs.crpix = [(shape[1] + 1) / 2, (shape[0] + 1) / 2]
    cosine, sine = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    wcs.wcs.cd = scale / 3600 * np.array([[-cosine, sine], [sine, cosine]])
    wcs.wcs.set()
    return wcs


GRID = tangent(1.0, 2.0, SHAPE)


@pytest.fixture(scope="module")
def unit(tmp_path_factory):
    options = SimulationOptions.preset("tiny")
    path = tmp_path_factory.mktemp("units") / "tiny-1.toml"
    path.write_text(unit_toml(options, options.units[0]))
    return load_unit(path)


@pytest.fixture
def field(star_list):
    return star_list(90, SHAPE, faint=3.6, bright=5.0, apart=22.0)


@pytest.fixture
def reference(make_frame, field):
    frame = make_frame(*field, SHAPE, sigma=1.6, wcs=GRID)
    return Reference(frame.meta, GRID, SHAPE, frame, find_stars(frame), 25.0)


@pytest.fixture
def elsewhere(rng, field):
    """Return a function that takes an image of the field with another camera."""

    def take(scale, angle=35.0, projection="STG", side=1.5, shift=(0.0, 0.0), error=0.0, sky=LEVEL, **given):
        shape = (round(side * SHAPE[0] / scale), round(side * SHAPE[1] / scale))
        wcs = tangent(scale, angle, shape, projection, 150.0 + shift[0], 30.0 + shift[1])
        x, y = wcs.world_to_pixel(GRID.pixel_to_world(field[0], field[1]))
        clean = render_stars(x, y, 3.0 * field[2], shape, 1.4 / min(scale, 1.0)) + LEVEL
        variance = clean / GAIN + 2.0
        data = clean - LEVEL + sky + rng.normal(size=shape) * np.sqrt(variance)
        if error:
            wcs.wcs.crval = wcs.wcs.crval + error / 3600
            wcs.wcs.set()
        return OutsideImage("elsewhere", data.astype(np.float32), wcs, gain=GAIN, **given), variance.astype(np.float32)

    return take


def robust(values):
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))


def compared(template, field):
    """Relative error of flux, and error of place (pixel), of the brighter stars."""
    rows = []
    for x, y, flux in zip(*field, strict=True):
        distance = np.hypot(template.stars["x"] - x, template.stars["y"] - y)
        if flux > 2e4 and distance.min() < 1.0:
            rows.append((template.stars["flux"][distance.argmin()] / flux - 1.0, distance.min()))
    return np.array(rows)


def sky_pulls(template, field):
    bright = render_stars(*field, SHAPE, 3.5) > 0.5
    free = (template.frame.mask == 0) & ~bright
    return (template.frame.data / np.sqrt(template.frame.variance))[free]


@pytest.mark.parametrize("scale", [0.4, 0.8, 1.0, 1.6])
@pytest.mark.parametrize("noise", ["estimated", "given", "relative"])
def test_flux_place_and_noise(scale, noise, elsewhere, field, reference, unit):
    image, variance = elsewhere(scale)
    if noise != "estimated":
        image = dataclasses.replace(image, variance=variance * np.float32(1.0 if noise == "given" else 7.0))
    template, found = import_template([image], reference, unit, template_id="t")
    assert found.factor == pytest.approx(1 / 3, rel=0.005)
    assert found.stars > 30
    assert found.residual < 0.05
    flux, place = compared(template, field).T
    assert len(flux) > 25
    assert abs(np.median(flux)) < 0.005
    assert np.median(place) < 0.05
    pulls = sky_pulls(template, field)
    assert robust(pulls) == pytest.approx(1.0, abs=0.03)
    assert abs(np.median(pulls)) < 0.1
    assert 1.0 < noise_correlation(template.frame) < 1.9
    assert (template.frame.mask == 0).mean() > 0.99
    assert template.zero_point == 25.0
    assert template.frame.meta.gain == pytest.approx(3 * GAIN, rel=0.01)


def test_coordinates_that_are_off_by_arcseconds_are_measured(elsewhere, reference, unit):
    image, _ = elsewhere(0.6, error=4.0)
    template, found = import_template([image], reference, unit, template_id="t")
    assert found.offset == pytest.approx(4.0 * np.hypot(1.0, np.cos(np.radians(30.0))), rel=0.05)
    assert found.residual < 0.1
    assert "arcsec off" in template.imported


def test_tiles_become_one_mosaic(elsewhere, field, reference, unit):
    """Two tiles of other angles, zero points, and sky levels, and one that lies apart."""
    left, _ = elsewhere(0.6, 20.0, side=0.9, shift=(0.035, 0.0), sky=900.0, zero_point=27.0)
    right, _ = elsewhere(0.7, -60.0, "TAN", side=0.95, shift=(-0.035, 0.005), sky=-50.0, zero_point=28.0)
    right = dataclasses.replace(right, data=right.data * np.float32(10**0.4), gain=np.nan, name="right")
    far, _ = elsewhere(0.7, shift=(3.0, 0.0))
    template, _ = import_template([left, right, dataclasses.replace(far, name="far")], reference, unit, template_id="t")
    assert template.sources == ("elsewhere", "right")
    ((name, why),) = template.refused
    assert name == "far"
    assert "2.6 deg apart" in why
    assert set(np.unique(template.coverage)) == {0, 1, 2}
    for covered in (template.coverage == 1, template.coverage == 2):
        values = template.frame.data[covered & (render_stars(*field, SHAPE, 3.5) < 0.5)]
        assert abs(np.median(values)) < 0.25 * robust(values), "no step where the tiles meet"
    flux, _ = compared(template, field).T
    assert abs(np.median(flux)) < 0.006
    assert robust(flux) < 0.02
    assert bool((template.frame.mask[template.coverage == 0] & Mask.NO_DATA.value).all())


def test_bad_pixels_spoil_only_what_is_made_of_them(elsewhere, field, reference, unit):
    image, variance = elsewhere(0.5)
    data, mask = image.data.copy(), np.zeros(image.data.shape, np.uint16)
    data[300:304, 100:900] = np.nan
    data[600:640, 600:640] = 1e7
    mask[600:640, 600:640] = Mask.SATURATED.value
    variance[700:702, :] = np.inf
    marked = dataclasses.replace(image, data=data, mask=mask, variance=variance)
    template, _ = import_template([marked], reference, unit, template_id="t")
    bad = template.frame.mask != 0
    assert 0.003 < bad.mean() < 0.04
    assert (template.frame.mask & Mask.SATURATED.value).any()
    assert np.abs(template.frame.data[~bad]).max() < 1.5e5, "the rim of what is saturated does not shine through"
    flux, _ = compared(template, field).T
    assert abs(np.median(flux)) < 0.005


def test_saturation_of_the_other_camera(elsewhere, reference, unit):
    image, _ = elsewhere(0.7, saturation=3000.0)
    template, _ = import_template([image], reference, unit, template_id="t")
    assert (template.frame.mask & Mask.SATURATED.value).any()


def test_zero_points_where_there_is_no_star_in_common(elsewhere, reference, unit):
    image, _ = elsewhere(0.7, zero_point=26.2)
    grid_only = dataclasses.replace(reference, frame=None, stars=None)
    template, found = import_template([image], grid_only, unit, template_id="t")
    assert found.factor == pytest.approx(10 ** (0.4 * (25.0 - 26.2)))
    assert "zero points of both headers" in template.imported


def test_nothing_to_scale_the_flux_with(elsewhere, reference, unit):
    image, _ = elsewhere(0.7)
    grid_only = dataclasses.replace(reference, frame=None, stars=None)
    with pytest.raises(AlignmentFailed, match=r"no zero points.*--like"):
        import_template([image], grid_only, unit, template_id="t")


def test_a_field_that_no_image_reaches(elsewhere, reference, unit):
    image, _ = elsewhere(0.7, shift=(0.0, 5.0))
    with pytest.raises(PoorCoverage, match=r"5 deg apart") as error:
        import_template([image], reference, unit, template_id="t")
    assert "blank" not in str(error.value)
    image, _ = elsewhere(0.7)
    empty = dataclasses.replace(image, data=np.full_like(image.data, np.nan))
    with pytest.raises(PoorCoverage, match=r"0 of its \d+ pixels near the field are good"):
        import_template([empty], reference, unit, template_id="t")
