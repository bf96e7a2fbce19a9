"""`subtract` takes what people have in a notebook, and says what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData, InverseVariance, StdDevUncertainty, VarianceUncertainty
from astropy.wcs import WCS

from nightsift.core.errors import AlignmentFailed, BadImage, ConfigurationError
from nightsift.core.flags import Mask
from subtraction import DifferenceImage, subtract
from subtraction.api.inputs import DetectorFacts, frame_of
from tests.nightsift.conftest import render_stars

GAIN, READ_NOISE = 1.5, 8.0
SHAPE = (300, 360)
NEW = ((180.0, 150.0, 6000.0), (90.0, 210.0, 9000.0))
GONE = (280.0, 80.0, 7000.0)
Array = npt.NDArray[Any]


def scene(dx: float = 0.0, dy: float = 0.0) -> tuple[Array, Array]:
    """Science and template in ADU with their sky: two new stars, one gone; the template shifted."""
    rng = np.random.default_rng(11)
    x, y = rng.uniform(4, SHAPE[1] - 5, 150), rng.uniform(4, SHAPE[0] - 5, 150)
    flux = 10 ** rng.uniform(3.2, 4.8, 150)
    images = []
    for extra, sigma, sky, shift in ((NEW, 1.7, 400.0, (0.0, 0.0)), ((GONE,), 1.4, 150.0, (dx, dy))):
        more = np.array(extra).T
        places = np.concatenate([x, more[0]]) + shift[0], np.concatenate([y, more[1]]) + shift[1]
        light = render_stars(*places, np.concatenate([flux, more[2]]), SHAPE, sigma) + sky
        noise = np.sqrt(light / GAIN + (READ_NOISE / GAIN) ** 2)
        images.append(light + rng.normal(size=SHAPE) * noise)
    return images[0], images[1]


@pytest.fixture(scope="module")
def images() -> tuple[Array, Array]:
    return scene()


@pytest.fixture(scope="module")
def plain(images: tuple[Array, Array]) -> DifferenceImage:
    return subtract(*images, gain=GAIN, read_noise=READ_NOISE, method="hotpants")


def sky_wcs(shift: tuple[float, float] = (0.0, 0.0)) -> WCS:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.cdelt = [150.0, 2.0], [-1.0 / 3600, 1.0 / 3600]
    wcs.wcs.crpix = [181.0 + shift[0], 151.0 + shift[1]]
    wcs.wcs.set()
    return wcs


def found_at(table: Any, x: float, y: float) -> Any:
    near = np.hypot(table["x"] - x, table["y"] - y) < 1.0
    assert near.sum() == 1
    return table[near][0]


def test_what_is_new_and_what_is_gone_is_found(plain: DifferenceImage) -> None:
    table = plain.detect()
    assert len(table) == 3
    for x, y, flux in NEW:
        row = found_at(table, x, y)
        assert row["sign"] == 1
        assert row["flags"] == 0
        assert abs(row["flux"] - flux) < 5 * row["flux_err"]
    gone = found_at(table, *GONE[:2])
    assert gone["sign"] == -1
    assert gone["flag_names"] == "negative"
    assert table["flux"].unit == u.adu
    assert table["x"].description
    assert table["mag"].mask.all()
    assert np.isfinite(np.ma.filled(plain.detect(zero_point=25.0)["mag"], np.nan)).all()
    assert len(plain.detect(1e6)) == 0
    assert plain.detect(1e6).colnames == table.colnames


FORMS = {
    "big-endian": lambda a: a.astype(">f4"),
    "float64": lambda a: a.astype(np.float64),
    "uint16": lambda a: a.astype(">u2"),
    "int32": lambda a: a.astype(np.int32),
    "fortran": np.asfortranarray,
    "3d": lambda a: a[None],
    "quantity": lambda a: a * u.adu,
    "masked": np.ma.masked_array,
    "ccddata": lambda a: CCDData(a, unit="adu"),
    "hdu": fits.PrimaryHDU,
    "hdulist": lambda a: fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(a, name="SCI"), fits.ImageHDU(a, name="VAR")]),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_image_gives_the_same_frame(name: str, images: tuple[Array, Array]) -> None:
    whole = images[0].round()
    expected, _ = frame_of(whole, DetectorFacts(GAIN, READ_NOISE))
    given = FORMS[name](whole)
    frame, unit = frame_of(given, DetectorFacts(GAIN, READ_NOISE))
    assert unit == u.adu
    assert frame.data.dtype == np.float32
    assert frame.data.dtype.isnative
    for plane in ("data", "variance", "mask"):
        assert np.array_equal(getattr(frame, plane), getattr(expected, plane))
    assert np.array_equal(whole, images[0].round())


def test_nan_and_masks_are_masked_and_inputs_stay(images: tuple[Array, Array]) -> None:
    science, template = images[0].copy(), np.ma.masked_array(images[1].copy())
    science[40:43, 50] = np.nan
    template[100, 200] = np.ma.masked
    bad = np.zeros(SHAPE, dtype=bool)
    bad[200, 100] = True
    copies = science.copy(), template.copy(), bad.copy()
    difference = subtract(science, template, gain=GAIN, mask=bad)
    assert difference.mask[41, 50] & Mask.NONFINITE.value
    assert difference.mask[200, 100] & Mask.DEFECT.value
    assert difference.mask[100, 200] & Mask.DEFECT.value
    assert np.array_equal(science, copies[0], equal_nan=True)
    assert np.array_equal(template.mask, copies[1].mask)
    assert np.array_equal(bad, copies[2])


@pytest.mark.parametrize("kind", [StdDevUncertainty, VarianceUncertainty, InverseVariance])
def test_uncertainty_of_any_kind_is_the_variance(kind: type, images: tuple[Array, Array]) -> None:
    variance = images[0] / GAIN + (READ_NOISE / GAIN) ** 2
    variance[5, 5] = np.nan
    values = {StdDevUncertainty: np.sqrt(variance), VarianceUncertainty: variance, InverseVariance: 1 / variance}[kind]
    frame, _ = frame_of(CCDData(images[0], unit="adu", uncertainty=kind(values)))
    good = np.isfinite(variance)
    assert np.allclose(frame.variance[good], variance[good], rtol=1e-5)
    assert (frame.mask != 0).sum() == 1
    assert frame.mask[5, 5] == Mask.NONFINITE.value


def test_ccddata_brings_its_noise_mask_unit_and_coordinates(images: tuple[Array, Array]) -> None:
    variance = images[0] / GAIN + (READ_NOISE / GAIN) ** 2
    mask = np.zeros(SHAPE, dtype=bool)
    mask[20, 30] = True
    science = CCDData(
        images[0], unit="adu", uncertainty=VarianceUncertainty(variance * u.adu**2), mask=mask, wcs=sky_wcs()
    )
    difference = subtract(science, images[1], template_gain=GAIN)
    assert difference.metrics["noise_scale"] == pytest.approx(1.0, abs=0.08)
    given = difference.to_ccddata()
    assert given.unit == u.adu
    assert isinstance(given.uncertainty, VarianceUncertainty)
    assert given.mask[20, 30]
    assert given.flags[20, 30] & Mask.DEFECT.value
    assert given.wcs.wcs.crval.tolist() == [150.0, 2.0]
    assert given.meta["VERDICT"] == difference.verdict
    row = found_at(difference.detect(), *NEW[0][:2])
    assert np.hypot((row["ra"] - 150.0) * 3600, (row["dec"] - 2.0) * 3600) < 1.5


def test_electrons_need_no_gain(images: tuple[Array, Array], plain: DifferenceImage) -> None:
    science = CCDData(images[0] * GAIN, unit="electron")
    difference = subtract(science, images[1], template_gain=GAIN, method="hotpants")
    assert difference.unit == u.electron
    first, second = (found_at(one.detect(), *NEW[1][:2])["flux"] for one in (difference, plain))
    assert first == pytest.approx(GAIN * second, rel=0.02)
    with pytest.raises(BadImage, match=r"pixels are electrons, and gain=2"):
        subtract(science, images[1], gain=2.0)


def test_header_cards_count_and_keywords_count_more(images: tuple[Array, Array], tmp_path: Path) -> None:
    hdu = fits.CompImageHDU(images[0].astype(np.float32), quantize_level=0, name="SCI")
    hdu.header["GAIN"], hdu.header["RDNOISE"], hdu.header["SATURATE"] = GAIN, READ_NOISE, 2500.0
    hdu.header.update(sky_wcs().to_header())
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(tmp_path / "a.fits")
    template = fits.ImageHDU(images[1].astype(np.float32))
    template.header["GAIN"] = GAIN
    brightest = np.unravel_index(np.argmax(images[0]), SHAPE)
    by_path = subtract(tmp_path / "a.fits", template)
    assert by_path.pair.science.meta.gain == GAIN
    assert by_path.pair.science.meta.read_noise == READ_NOISE
    assert by_path.mask[brightest] & Mask.SATURATED.value
    assert by_path.pair.science.wcs is not None
    by_keyword = subtract(hdu, template, saturation=1e6, gain=2.0, template_gain=GAIN)
    assert by_keyword.pair.science.meta.gain == 2.0
    assert not by_keyword.mask[brightest] & Mask.SATURATED.value
    hdu.header["GAIN"] = 0
    with pytest.raises(BadImage, match=r"card GAIN reads 0\. give gain="):
        subtract(hdu, template)


def test_shifted_images_are_aligned_and_others_left_alone(plain: DifferenceImage) -> None:
    assert plain.registration.startswith("as given: ")
    science, template = scene(6.3, -4.6)
    difference = subtract(science, template, gain=GAIN)
    assert difference.registration.startswith("template aligned by ")
    for x, y, _ in NEW:
        found_at(difference.detect(), x, y)
    cut = subtract(science, template[20:, 10:], gain=GAIN)
    found_at(cut.detect(), *NEW[0][:2])
    with_wcs = subtract(
        CCDData(science, unit="adu", wcs=sky_wcs()), CCDData(template, unit="adu", wcs=sky_wcs((6.3, -4.6))), gain=GAIN
    )
    assert "(wcs)" in with_wcs.registration
    as_given = subtract(science, template, gain=GAIN, align=False)
    assert as_given.registration == "as given, not checked"
    with pytest.raises(BadImage, match="shape"):
        subtract(science, template[20:], gain=GAIN, align=False)


def test_frames_of_different_places_are_refused(images: tuple[Array, Array]) -> None:
    science = CCDData(images[0], unit="adu", wcs=sky_wcs())
    elsewhere = CCDData(images[1][::-1, ::-1] * 0 + 100.0, unit="adu", wcs=sky_wcs((1000.0, 0.0)))
    rng = np.random.default_rng(2)
    x, y = rng.uniform(5, 290, (2, 80))
    elsewhere.data = render_stars(x, y, np.full(80, 20000.0), SHAPE, 1.5) + rng.normal(100, 8, SHAPE)
    with pytest.raises(AlignmentFailed):
        subtract(science, elsewhere, gain=GAIN)


TWO = fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.ones((9, 9))), fits.ImageHDU(np.ones((9, 9)))])


@pytest.mark.parametrize(
    ("science", "changes", "message"),
    [
        (None, {}, r"the science image cannot be used: its noise is not known.*give gain= \(electrons per adu; about"),
        (None, {"gain": -1.0}, r"gain is -1"),
        (None, {"gain": 1.0, "mask": np.zeros((3, 3))}, r"its mask has the shape \(3, 3\), its pixels \(300, 360\)"),
        (None, {"variance": np.zeros((3, 3))}, r"its variance has the shape"),
        (None, {"variance": np.zeros(SHAPE)}, r"no good pixel has a positive variance"),
        (np.zeros(10), {"gain": 1.0}, r"shape \(10,\)"),
        (np.zeros((4, 5, 6)), {"gain": 1.0}, r"shape \(4, 5, 6\)"),
        (np.array([["a", "b"]]), {"gain": 1.0}, r"of the type"),
        (fits.PrimaryHDU(), {"gain": 1.0}, r"no pixels"),
(TWO, {"gain": 1.0}, r"2 images"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(science: Any, changes: Any, message: str, images: tuple[Array, Array]) -> None:
    with pytest.raises(BadImage, match=message):
        subtract(images[0] if science is None else science, images[1], **changes)


def test_a_wrong_method_is_refused_before_anything_is_done() -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'zogy'"):
        subtract(None, None, method="zogi")


def test_figure_and_summary(plain: DifferenceImage) -> None:
    figure = plain.plot()
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["Science", "Template", "Difference (±5σ)"]
    labels = [text.get_text() for text in figure.axes[2].get_legend().get_texts()]
    assert labels == ["2 brighter", "1 fainter", "0 flagged"]
    assert figure._repr_png_()[:4] == b"\x89PNG"
    assert "hotpants" in repr(plain)
    assert "<th>Registration</th><td>as given" in plain._repr_html_()


@pytest.mark.parametrize("pedestal", [0.0, 2000.0])
def test_without_read_noise_the_noise_of_the_sky_counts(pedestal: float, images: tuple[Array, Array]) -> None:
    frame, _ = frame_of(images[0] + pedestal, DetectorFacts(GAIN))
    expected = 400.0 / GAIN + (READ_NOISE / GAIN) ** 2
    assert np.median(frame.variance) == pytest.approx(expected, rel=0.2)  # stars everywhere
    star = np.unravel_index(np.argmax(images[0]), SHAPE)
    excess = frame.variance[star] - np.median(frame.variance)
    assert excess == pytest.approx((images[0][star] - 400.0) / GAIN, rel=0.02)


def test_background_may_be_gone_already(images: tuple[Array, Array]) -> None:
    science, template = images[0] - 400.0, images[1] - 150.0
    difference = subtract(science, template, gain=GAIN, mesh=0)
    assert len(difference.detect()) == 3
    assert difference.metrics["noise_scale"] == pytest.approx(1.0, abs=0.1)
