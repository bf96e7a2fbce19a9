"""Coordinates from headers: what is there is used, nonsense is said and left out."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from nightsift.io.fits import read_header
from nightsift.io.headers import celestial_wcs


def header(ctype: str = "TAN", **cards: float | str) -> fits.Header:
    made = fits.Header()
    made.update({"NAXIS": 2, "NAXIS1": 100, "NAXIS2": 80, "CTYPE1": f"RA---{ctype}", "CTYPE2": f"DEC--{ctype}"})
    made.update({"CRVAL1": 30.0, "CRVAL2": -40.0, "CRPIX1": 50.0, "CRPIX2": 40.0})
    made.update({"CD1_1": -0.001, "CD1_2": 0.0002, "CD2_1": 0.0002, "CD2_2": 0.001})
    made.update(cards)
    return made


SIP = {"A_ORDER": 2, "B_ORDER": 2, "A_2_0": 2e-4, "A_0_2": -1e-4, "B_1_1": 1.5e-4, "A_1_0": 1e-3, "B_0_1": -1e-3}
PV = {"PV1_0": 0.002, "PV1_1": 1.01, "PV2_1": 1.0, "PV1_4": 0.01}


def positions(one: fits.Header) -> np.ndarray:
    wcs = celestial_wcs(one, (80, 100)).wcs
    assert wcs is not None
    return np.array(wcs.all_pix2world([[0, 0], [50, 40], [99, 79]], 0))


def test_a_plain_wcs_is_what_astropy_makes_of_it() -> None:
    expected = WCS(header()).all_pix2world([[0, 0], [50, 40], [99, 79]], 0)
    np.testing.assert_allclose(positions(header()), expected, atol=1e-12)


@pytest.mark.parametrize("ctype", ["LINEAR", ""])
def test_no_celestial_coordinates(ctype: str) -> None:
    one = header()
    for axis in (1, 2):
        one[f"CTYPE{axis}"] = ctype
    found = celestial_wcs(one, (80, 100), 3.6)
    assert found.wcs is None
    assert "no celestial" in found.note


@pytest.mark.parametrize("binning", [1, 2])
@pytest.mark.parametrize("corner", [(0, 0), (7, 3)])
@pytest.mark.parametrize("terms", [{}, SIP], ids=["tan", "sip"])
@pytest.mark.parametrize("matrix", ["CD", "PC"])
def test_trimmed_and_binned_pixels_keep_their_place(
    binning: int, corner: tuple[int, int], terms: dict[str, float], matrix: str
) -> None:
    one = header("TAN-SIP" if terms else "TAN", **terms)
    if matrix == "PC":
        for i in (1, 2):
            one[f"CDELT{i}"] = -0.001 if i == 1 else 0.001
            for j in (1, 2):
                one[f"PC{i}_{j}"] = one.pop(f"CD{i}_{j}") / one[f"CDELT{i}"] if f"CD{i}_{j}" in one else 0.0
    whole = celestial_wcs(one, (80, 100)).wcs
    part = celestial_wcs(one, (30, 40), binning=binning, corner=corner).wcs
    assert whole is not None
    assert part is not None
    x, y = np.array([0.0, 12.0, 30.0]), np.array([0.0, 20.0, 5.0])
    raw = (binning * x + (binning - 1) / 2 + corner[0], binning * y + (binning - 1) / 2 + corner[1])
    np.testing.assert_allclose(part.all_pix2world(x, y, 0), whole.all_pix2world(*raw, 0), atol=1e-10)


def test_sip_leftovers_beside_tpv_are_ignored() -> None:
    clean, spoiled = header("TPV", **PV), header("TPV", **PV, **SIP)
    np.testing.assert_allclose(positions(spoiled), positions(clean), atol=1e-12)
    assert "SIP terms ignored" in celestial_wcs(spoiled, (80, 100)).note


def test_pv_leftovers_beside_sip_are_ignored() -> None:
    clean, spoiled = header("TAN-SIP", **SIP), header("TAN-SIP", **PV, **SIP)
    np.testing.assert_allclose(positions(spoiled), positions(clean), atol=1e-12)


def test_pc_beside_cd_is_ignored() -> None:
    both = header(PC1_1=1.0, PC2_2=1.0, CDELT1=1.0, CDELT2=1.0)
    np.testing.assert_allclose(positions(both), positions(header()), atol=1e-12)


def test_third_axes_do_not_matter() -> None:
    cube = header(CTYPE3="FREQ", CRVAL3=1e9, CDELT3=1.0, CRPIX3=1.0, WCSAXES=3, NAXIS3=1)
    np.testing.assert_allclose(positions(cube), positions(header()), atol=1e-12)


@pytest.mark.parametrize(
    ("cards", "told"),
    [
        ({"CD1_1": 0.0, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 0.0}, ""),
        ({"CTYPE1": "RA---XYZ", "CTYPE2": "DEC--XYZ"}, "cannot be used"),
        ({"CTYPE2": "DEC--SIN"}, "cannot be used"),
        ({"CUNIT1": "furlong"}, "cannot be used"),
        ({"CRPIX1": 1e9}, "no sense"),
        ({"CTYPE1": "DEC--TAN", "CTYPE2": "RA---TAN"}, "not right ascension"),
        ({"CTYPE1": "GLON-TAN", "CTYPE2": "GLAT-TAN"}, "not right ascension"),
        ({"RADESYS": "FK4"}, "FK4"),
    ],
)
def test_nonsense_is_left_out(cards: dict[str, float | str], told: str) -> None:
    found = celestial_wcs(header(**cards), (80, 100), 3.67)
    assert found.wcs is None
    assert told in found.note
    assert found.note


@pytest.mark.parametrize(("scale", "kept"), [(3.67, True), (4.2, True), (3.2, True), (5.0, False), (1.8, False)])
def test_a_wcs_of_another_scale_is_left_out(scale: float, kept: bool) -> None:
    found = celestial_wcs(header(), (80, 100), scale)
    assert (found.wcs is not None) == kept
    if not kept:
        assert "3.671 arcsec/pixel where the unit has" in found.note


def test_the_header_is_not_changed() -> None:
    one = header("TPV", **PV, **SIP)
    before = one.tostring()
    celestial_wcs(one, (40, 50), binning=2)
    assert one.tostring() == before


@pytest.mark.parametrize(
    ("file", "scale"),
    [
        ("decam_sfft/DEC-OBS04b.mini.fits.gz", 0.2637),
        ("panoptes/solved.fits.fz", 10.3),
        ("huntsman/science_0.fits.gz", 1.26),
    ],
)
def test_real_coordinates(data_dir: Path, file: str, scale: float) -> None:
    one = read_header(data_dir / "images" / file)
    found = celestial_wcs(one, (one["NAXIS2"], one["NAXIS1"]), scale)
    assert found.wcs is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = WCS(fits.Header(one)).all_pix2world(100, 200, 0)
    np.testing.assert_allclose(found.wcs.all_pix2world(100, 200, 0), expected, atol=scale / 3600)


@pytest.mark.parametrize(
    "file",
    [
        "goto_zip/3.fits.gz",
        "microobs_hatp32/HATP-32171220013343.FITS.gz",
        "panoptes/unsolved.fits.gz",
        "huntsman/flat_0.fits.gz",
    ],
)
def test_real_headers_without_coordinates(data_dir: Path, file: str) -> None:
    assert celestial_wcs(read_header(data_dir / "images" / file), (100, 100)).wcs is None
