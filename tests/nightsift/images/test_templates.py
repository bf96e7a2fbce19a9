"""Templates are deeper than their frames, cover their dithers, and hold nothing that was there only once."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.wcs import WCS

from nightsift.core.errors import TooFewStars
from nightsift.core.flags import Mask
from nightsift.core.frames import Template
from nightsift.images.registration.align import align
from nightsift.images.stars.stars import find_stars
from nightsift.images.templates import build_template
from nightsift.unit.units import load_unit

SHAPE = (240, 260)


def robust(values):
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))


@pytest.fixture(scope="module")
def unit(tmp_path_factory):
    """A unit of no telescope, the defaults for everything that is not a fact."""
    path = tmp_path_factory.mktemp("units") / "made-up.toml"
    facts = {
        "gain": "constant = 1.5",
        "read_noise": "constant = 8.0",
        "saturation": "constant = 60000.0",
        "pixel_scale": "constant = 1.0",
        "band": 'constant = "r"',
        "exposure": "constant = 60.0",
        "time": 'card = "DATE-OBS"\nposition = "start"',
        "field": 'card = "OBJECT"',
    }
    text = 'description = "of no telescope"\n[site]\nlongitude = -17.9\nlatitude = 28.8\n'
    path.write_text(text + "".join(f"[facts.{name}]\n{value}\n" for name, value in facts.items()))
    return load_unit(path)


@pytest.fixture
def field(star_list):
    return star_list(60, SHAPE, faint=3.8, bright=5.0, apart=16.0)


@pytest.fixture
def exposures(make_frame, field):
    """Return a function that takes dithered frames of one field, with their star tables."""

    def take(n, dither=0.5, sigma=1.6, scale=None, planted=None, step=(0.0, 0.0), wcs=None, **facts):
        x, y, flux = field
        frames = []
        for k in range(n):
            dx, dy = dither * np.sin(3 * k) + k * step[0], dither * np.cos(5 * k) + k * step[1]
            width = sigma[k] if isinstance(sigma, list) else sigma
            factor = 1.0 if scale is None else scale[k]
            here = None
            if wcs is not None:
                here = wcs.deepcopy()
                here.wcs.crpix = wcs.wcs.crpix + (dx, dy)
            frame = make_frame(
                x + dx, y + dy, flux * factor, SHAPE, sigma=width, wcs=here, exposure_id=f"made-up-{k}", **facts
            )
            if planted is not None and k in planted:
                i, j, light = planted[k]
                extra = make_frame(i + dx, j + dy, light, SHAPE, sigma=width, sky=0.0, read_noise=1e-6)
                frame = frame.replace(data=frame.data + extra.data)
            frames.append(frame)
        return frames, [find_stars(frame) for frame in frames]

    return take


def test_noise_falls_with_the_root_of_n(exposures, unit):
    frames, stars = exposures(9)
    template = build_template(frames, stars, unit, zero_points=[25.0] * 9)
    full = template.coverage == 9
    assert len(template.sources) == 9
    assert full.mean() > 0.85
    blank = full & (np.abs(template.frame.data) < 40)
    one = robust(frames[0].data[np.abs(frames[0].data) < 120])
    # Interpolation smooths all frames but one, so the noise is below a third.
    assert 0.6 * one / 3 < robust(template.frame.data[blank]) < 1.02 * one / 3
    expected = np.sqrt(np.median(template.frame.variance[blank]))
    assert robust(template.frame.data[blank]) == pytest.approx(expected, rel=0.06)
    assert template.zero_point == 25.0
    assert len(template.catalogue) == len(template.stars)
    assert np.isfinite(template.catalogue["radius"]).mean() > 0.9
    assert template.growth is not None
    assert template.template_id.startswith("made-up-")
    np.testing.assert_allclose(template.depth[full] ** 2, template.frame.variance[full], rtol=1e-5)


def test_stars_keep_flux_and_place(exposures, unit, field):
    """Also when seeing differs by half: clipping must not eat the cores."""
    sigma = [1.5, 1.5, 1.6, 1.7, 1.8, 2.0, 2.2]
    frames, stars = exposures(7, sigma=sigma)
    template = build_template(frames, stars, unit)
    assert template.frame.shape == SHAPE
    x, y, flux = field
    found = find_stars(template.frame)
    reference = next(k for k in range(7) if frames[k].meta.exposure_id == template.sources[0])
    for a, b, f in list(zip(x, y, flux, strict=True))[:30]:
        if f < 2e4 or not (20 < a < 240 and 20 < b < 220):
            continue
        dx, dy = 0.5 * np.sin(3 * reference), 0.5 * np.cos(5 * reference)
        distance = np.hypot(found["x"] - (a + dx), found["y"] - (b + dy))
        star = found[distance.argmin()]
        assert distance.min() < 0.1
        assert star["flux"] == pytest.approx(f, rel=0.04)
        core = template.coverage[round(star["y"]), round(star["x"])]
        assert core == len(template.sources)


def test_what_was_there_once_is_left_out(exposures, unit):
    """An asteroid in one frame, a cosmic ray in another."""
    frames, stars = exposures(5, dither=0.0, planted={2: (120.0, 100.0, 2e4)})
    ray = frames[4].data.copy()
    ray[50, 60:66] += 5000.0
    frames[4] = frames[4].replace(data=ray)
    clean, _ = exposures(5, dither=0.0)
    template = build_template(frames, stars, unit)
    spot = (slice(97, 104), slice(117, 124))
    noise = np.sqrt(template.frame.variance[spot])
    assert np.abs(template.frame.data[spot] / noise).max() < 6.0
    assert template.coverage[100, 120] == 4
    assert template.coverage[50, 62] == 4
    assert abs(template.frame.data[50, 62]) < 6 * np.sqrt(template.frame.variance[50, 62])
    assert len(clean) == 5


def test_two_frames_still_reject(exposures, unit):
    frames, stars = exposures(2, dither=0.0, planted={1: (120.0, 100.0, 3e4)})
    template = build_template(frames, stars, unit)
    assert abs(template.frame.data[100, 120]) < 6 * np.sqrt(template.frame.variance[100, 120])
    assert template.coverage[100, 120] == 1
    assert np.median(template.coverage) == 2


def test_fluxes_are_scaled_to_the_best_frame(exposures, unit):
    scale = [1.0, 0.5, 0.8, 1.0, 0.65]
    frames, stars = exposures(5, scale=scale)
    template = build_template(frames, stars, unit, zero_points=[25.0, 24.25, 24.76, 25.0, 24.53])
    best = next(k for k in range(5) if frames[k].meta.exposure_id == template.sources[0])
    assert scale[best] == 1.0
    alone = build_template(frames[best : best + 1], stars[best : best + 1], unit)
    alignment = align(alone.frame, alone.stars, template, options=unit.alignment)
    x, y = alignment.to_template(alone.stars["x"][:20], alone.stars["y"][:20])
    ratios = []
    for i, j, star in zip(x, y, alone.stars[:20], strict=True):
        distance = np.hypot(template.stars["x"] - i, template.stars["y"] - j)
        ratios.append(template.stars["flux"][distance.argmin()] / star["flux"])
    assert np.median(ratios) == pytest.approx(1.0, abs=0.01)


def test_coverage_of_dithers(exposures, unit):
    frames, stars = exposures(4, dither=0.0, step=(20.0, 10.0))
    template = build_template(frames, stars, unit)
    ny, nx = template.frame.shape
    assert (ny, nx) == pytest.approx((SHAPE[0] + 30, SHAPE[1] + 60), abs=3)
    assert template.coverage.max() == 4
    empty = template.coverage == 0
    assert empty.any()
    assert (template.frame.mask[empty] == Mask.NO_DATA.value).all()
    assert (template.frame.data[empty] == 0).all()
    assert (template.frame.mask[~empty] == 0).all()


def test_saturated_in_all_stays_saturated(exposures, unit):
    frames, stars = exposures(3, dither=0.0)
    masked = []
    for k, frame in enumerate(frames):
        mask = frame.mask.copy()
        mask[100:105, 100:105] = Mask.SATURATED.value
        mask[30, 40 + 10 * k] = Mask.DEFECT.value
        masked.append(frame.replace(mask=mask))
    template = build_template(masked, stars, unit)
    assert template.frame.mask[102, 102] == Mask.SATURATED.value
    assert np.isfinite(template.frame.data).all()
    assert (template.frame.mask[30, [40, 50, 60]] == 0).all()


def test_wcs_stays_on_the_sky(exposures, unit):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], (10.0, 20.0), (130.0, 120.0)
    wcs.wcs.cd = np.array([[-1.0, 0.0], [0.0, 1.0]]) / 3600
    frames, stars = exposures(3, dither=0.0, step=(-15.0, 12.0), wcs=wcs)
    template = build_template(frames, stars, unit)
    best = next(k for k in range(3) if frames[k].meta.exposure_id == template.sources[0])
    # Where the best frame has no coordinates, those of another one serve.
    others = [frame.replace(wcs=None) if k == best else frame for k, frame in enumerate(frames)]
    inherited = build_template(others, stars, unit).frame.wcs
    corners = np.array([[0.0, 0.0], [250.0, 230.0]])
    error = inherited.all_pix2world(corners, 0) - template.frame.wcs.all_pix2world(corners, 0)
    assert np.abs(error).max() * 3600 < 0.1
    bright = stars[best][0]
    sky = frames[best].wcs.all_pix2world([[bright["x"], bright["y"]]], 0)
    x, y = template.frame.wcs.all_world2pix(sky, 0)[0]
    assert np.hypot(template.stars["x"] - x, template.stars["y"] - y).min() < 0.1


def test_a_frame_of_another_field_is_left_out_with_its_reason(exposures, unit, make_frame, star_list):
    frames, stars = exposures(4)
    strange = make_frame(*star_list(80, SHAPE, faint=4.2), SHAPE, exposure_id="stranger")
    template = build_template([strange, *frames], [find_stars(strange), *stars], unit)
    assert "stranger" not in template.sources
    assert len(template.sources) == 4
    reasons = dict(template.refused)
    assert "does not match" in reasons["stranger"]


def test_bad_seeing_and_surplus_frames_are_left_out(exposures, unit):
    frames, stars = exposures(5, sigma=[1.5, 1.5, 1.5, 4.0, 1.5])
    limited = unit.model_copy(update={"template": unit.template.model_copy(update={"max_frames": 3})})
    template = build_template(frames, stars, limited)
    assert len(template.sources) == 3
    reasons = dict(template.refused)
    assert "FWHM" in reasons["made-up-3"]
    assert sum("are enough" in why for why in reasons.values()) == 1


def test_frames_may_be_loaded_on_demand(exposures, unit):
    frames, stars = exposures(3)

    class Folder:
        asked = 0

        def __len__(self):
            return len(frames)

        def __getitem__(self, k):
            Folder.asked += 1
            return frames[k]

    template = build_template(Folder(), stars, unit)
    assert isinstance(template, Template)
    assert Folder.asked <= 8 * 3


def test_identity_follows_sources_and_options(exposures, unit):
    frames, stars = exposures(3)
    one = build_template(frames, stars, unit).template_id
    assert build_template(frames, stars, unit).template_id == one
    assert build_template(frames[:2], stars[:2], unit).template_id != one
    other = unit.model_copy(update={"alignment": unit.alignment.model_copy(update={"order": 1})})
    assert build_template(frames, stars, other).template_id != one


def test_nothing_usable(exposures, unit):
    frames, stars = exposures(2)
    with pytest.raises(TooFewStars):
        build_template(frames, [stars[0][:0], stars[1][:0]], unit)
    with pytest.raises(ValueError, match="got 2 frames, 1 star tables"):
        build_template(frames, stars[:1], unit)
