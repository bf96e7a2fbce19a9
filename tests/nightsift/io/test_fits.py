"""The door for FITS: every form in, one form out, and a clear error for what is no image."""

from __future__ import annotations

import gzip
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.io.fits.verify import VerifyWarning
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from nightsift.core.errors import NightsiftError, UnreadableFits
from nightsift.io.fits import open_fits, read_header, read_image

RAMP = np.arange(48, dtype=np.float64).reshape(6, 8)


def gzipped(path: Path) -> Path:
    target = path.with_name(path.name + ".gz")
    target.write_bytes(gzip.compress(path.read_bytes()))
    return target


def check(data: np.ndarray, expected: np.ndarray) -> None:
    assert data.dtype == np.float32
    assert data.dtype.isnative
    assert data.flags.c_contiguous
    assert data.flags.writeable
    np.testing.assert_array_equal(data, expected.astype(np.float32))


@pytest.mark.parametrize("kind", ["u1", "i2", "u2", "i4", "u4", "i8", "f4", "f8"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("form", ["plain", "gz", "fz", "extension"])
def test_every_type_order_and_form(tmp_path: Path, kind: str, order: str, form: str) -> None:
    if form == "fz" and kind in ("i8",):
        pytest.skip("tile compression has no 64-bit integers")
    pixels = RAMP.astype(order + kind)
    path = tmp_path / "image.fits"
    if form == "extension":
        fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(pixels, name="SCI")]).writeto(path)
    elif form == "fz":
        compressed = fits.CompImageHDU(
            pixels, compression_type="GZIP_2" if kind.startswith("f") else "RICE_1", quantize_level=0
        )
        fits.HDUList([fits.PrimaryHDU(), compressed]).writeto(path)
    else:
        fits.PrimaryHDU(pixels).writeto(path)
    check(read_image(gzipped(path) if form == "gz" else path).data, RAMP)


def test_large_unsigned_values_keep_their_size(tmp_path: Path) -> None:
    pixels = np.array([[0, 32767, 32768, 65535]] * 2, dtype=np.uint16)
    fits.PrimaryHDU(pixels).writeto(tmp_path / "u2.fits")
    check(read_image(tmp_path / "u2.fits").data, pixels)
    wide = np.array([[0, 2**31, 2**32 - 256, 7]] * 2, dtype=np.uint32)
    fits.PrimaryHDU(wide).writeto(tmp_path / "u4.fits")
    check(read_image(tmp_path / "u4.fits").data, wide)


@pytest.mark.parametrize("form", ["plain", "fz"])
def test_scale_zero_and_blank(tmp_path: Path, form: str) -> None:
    raw = np.array([[1, 2, -99], [4, 5, 6]], dtype=np.int16)
    hdu = fits.PrimaryHDU(raw) if form == "plain" else fits.CompImageHDU(raw, compression_type="RICE_1")
    hdu.header["BSCALE"], hdu.header["BZERO"], hdu.header["BLANK"] = 0.5, 10.0, -99
    path = tmp_path / "scaled.fits"
    if form == "plain":
        # written by hand: astropy would apply the scaling before writing
        header = fits.Header([("SIMPLE", True), ("BITPIX", 16), ("NAXIS", 2), ("NAXIS1", 3), ("NAXIS2", 2)])
        header.update(BSCALE=0.5, BZERO=10.0, BLANK=-99)
        path.write_bytes(header.tostring().encode() + raw.astype(">i2").tobytes().ljust(2880, b"\0"))
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", VerifyWarning)
            fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path)
        with fits.open(path) as truth:
            expected = truth[1].data
        if not np.isnan(expected).any() or expected[0, 0] != 10.5:
            pytest.skip("this astropy does not write scaled integers compressed")
    data = read_image(path).data
    np.testing.assert_array_equal(data, np.array([[10.5, 11.0, np.nan], [12.0, 12.5, 13.0]], dtype=np.float32))


def test_nan_and_infinity_pass(tmp_path: Path) -> None:
    pixels = np.array([[np.nan, 1.0], [np.inf, -np.inf]], dtype=np.float32)
    fits.PrimaryHDU(pixels).writeto(tmp_path / "nan.fits")
    np.testing.assert_array_equal(read_image(tmp_path / "nan.fits").data, pixels)


def test_doubles_beyond_float32_become_infinite_without_a_warning(tmp_path: Path) -> None:
    fits.PrimaryHDU(np.array([[1e300, 1.0], [2.0, 3.0]])).writeto(tmp_path / "big.fits")
    data = read_image(tmp_path / "big.fits").data
    assert np.isinf(data[0, 0])
    assert data[1, 1] == 3.0


@pytest.mark.parametrize("shape", [(1, 6, 8), (1, 1, 6, 8)])
def test_degenerate_axes_are_dropped(tmp_path: Path, shape: tuple[int, ...]) -> None:
    fits.PrimaryHDU(RAMP.reshape(shape).astype("f4")).writeto(tmp_path / "cube.fits")
    check(read_image(tmp_path / "cube.fits").data, RAMP)


def test_primary_cards_are_inherited_but_not_its_structure(tmp_path: Path) -> None:
    primary = fits.PrimaryHDU()
    primary.header.update(EXPTIME=30.0, FILTER="r", CRVAL1=1.0)
    image = fits.ImageHDU(RAMP, name="SCI")
    image.header["FILTER"] = "g"
    fits.HDUList([primary, image]).writeto(tmp_path / "mef.fits")
    header = read_image(tmp_path / "mef.fits").header
    assert header["EXPTIME"] == 30.0
    assert header["FILTER"] == "g"
    assert "CRVAL1" not in header
    assert header["NAXIS"] == 2
    assert dict(read_header(tmp_path / "mef.fits")) == dict(header)


def test_companion_planes_are_not_taken_for_the_image(tmp_path: Path) -> None:
    planes = [fits.ImageHDU(np.zeros((6, 8)), name=name) for name in ("MASK", "VARIANCE")]
    fits.HDUList([fits.PrimaryHDU(), planes[0], fits.ImageHDU(RAMP, name="IMAGE"), planes[1]]).writeto(
        tmp_path / "m.fits"
    )
    image = read_image(tmp_path / "m.fits")
    assert image.hdu == 2
    check(image.data, RAMP)


def test_several_images_need_a_name(tmp_path: Path) -> None:
    chips = [fits.ImageHDU(RAMP + i, name=f"CCD{i}") for i in (1, 2)]
    path = tmp_path / "chips.fits"
    fits.HDUList([fits.PrimaryHDU(), *chips]).writeto(path)
    with pytest.raises(UnreadableFits, match=r"several images.*1 CCD1 8x6, 2 CCD2 8x6"):
        read_image(path)
    check(read_image(path, "CCD2").data, RAMP + 2)
    check(read_image(path, 1).data, RAMP + 1)
    with pytest.raises(UnreadableFits, match=r"no HDU 'CCD9'.*CCD1"):
        read_image(path, "CCD9")
    with pytest.raises(UnreadableFits, match="no HDU 7"):
        read_image(path, 7)
    with pytest.raises(UnreadableFits, match="HDU 0 is no two-dimensional image"):
        read_image(path, 0)


def test_no_image_at_all(tmp_path: Path) -> None:
    table = fits.BinTableHDU.from_columns([fits.Column("a", "J", array=[1, 2])], name="CAT")
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(tmp_path / "table.fits")
    with pytest.raises(UnreadableFits, match=r"no two-dimensional image.*1 CAT table"):
        read_image(tmp_path / "table.fits")


def image_file(folder: Path, form: str) -> Path:
    noise = np.random.default_rng(1).normal(1000, 30, (120, 100))
    path = folder / "whole.fits"
    if form == "fz":
        fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(noise.astype(np.int16))]).writeto(path)
    else:
        fits.PrimaryHDU(noise.astype(np.float32)).writeto(path)
    return gzipped(path) if form == "gz" else path


@pytest.mark.parametrize("form", ["plain", "gz", "fz"])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_truncated_files_are_refused(tmp_path: Path, form: str, part: float) -> None:
    whole = image_file(tmp_path, form)
    content = whole.read_bytes()
    cut = tmp_path / f"cut-{whole.name}"
    cut.write_bytes(content[: int(part * len(content))])
    with pytest.raises(UnreadableFits, match="truncated"):
        read_image(cut)


def test_a_small_file_cannot_take_the_memory_of_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = tmp_path / "bomb.fits.gz"
    bomb.write_bytes(image_file(tmp_path, "gz").read_bytes() + gzip.compress(bytes(1 << 20)))
    monkeypatch.setattr("nightsift.io.fits.LARGEST_FILE", 1 << 20)
    with pytest.raises(UnreadableFits, match="more than 1048576 bytes when decompressed"):
        read_image(bomb)
    folder = tmp_path / "tiles"
    folder.mkdir()
    liar = image_file(folder, "fz")
    text = liar.read_bytes()
    for axis, length in (("1", "100"), ("2", "120")):
        card = b"ZNAXIS%s =%21s" % (axis.encode(), length.encode())
        assert card in text
        text = text.replace(card, b"ZNAXIS%s =%21s" % (axis.encode(), b"200000"))
    liar.write_bytes(text)
    with pytest.raises(UnreadableFits, match="200000x200000 has 40000000000 pixels"):
        read_image(liar)


def test_a_file_of_endless_extensions_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "many.fits"
    extension = b"XTENSION= 'IMAGE   '".ljust(80) + b"".join(
        card.ljust(80)
        for card in (
            b"BITPIX  =                    8",
            b"NAXIS   =                    0",
            b"PCOUNT  = 0",
            b"GCOUNT  = 1",
            b"END",
        )
    )
    fits.PrimaryHDU(RAMP.astype(np.float32)).writeto(path)
    with path.open("ab") as file:
        file.write(extension.ljust(2880) * 1000)
    with pytest.raises(UnreadableFits, match="more than 1000 HDUs"):
        read_image(path)


def test_missing_padding_is_no_loss(tmp_path: Path) -> None:
    whole = image_file(tmp_path, "plain")
    cut = tmp_path / "unpadded.fits"
    cut.write_bytes(whole.read_bytes()[: 2880 + 4 * 120 * 100])
    np.testing.assert_array_equal(read_image(cut).data, read_image(whole).data)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "it is empty"),
        (b"<html>404 not found</html>", "starts with b'<html>404 not found<'"),
        (b"SIMPLE  =                    T", "."),
        (gzip.compress(b"plain text, compressed", mtime=0), "not with SIMPLE"),
        (b"\x1f\x8b\x08garbage", "gzip stream"),
        (gzip.compress(b"", mtime=0), "it is empty"),
        (b"SIMPLE  =                    T".ljust(5760, b" "), "."),
    ],
)
def test_what_is_no_fits_file(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "odd.fits"
    path.write_bytes(content)
    with pytest.raises(UnreadableFits) as caught:
        read_image(path)
    assert str(path) in str(caught.value)
    assert told in str(caught.value)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFits, match="no such file"):
        read_image(tmp_path / "none.fits")
    with pytest.raises(UnreadableFits, match="directory"):
        read_image(tmp_path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(place=30, byte=0, form="plain")  # SIMPLE is no longer T
@given(place=st.integers(0, 2879), byte=st.integers(0, 255), form=st.sampled_from(["plain", "gz", "fz"]))
def test_damage_is_never_another_error(
    tmp_path_factory: pytest.TempPathFactory, place: int, byte: int, form: str
) -> None:
    """A header with one wrong byte is read or refused; nothing else comes out, not even a warning."""
    folder = tmp_path_factory.mktemp("damaged")
    content = bytearray(image_file(folder, form).read_bytes())
    content[place % len(content)] = byte
    path = folder / "damaged.fits"
    path.write_bytes(content)
    try:
        assert read_image(path).data.ndim == 2
    except NightsiftError as error:
        if not isinstance(error, UnreadableFits):
            raise


def card(text: str) -> bytes:
    return text.encode().ljust(80)


def test_broken_cards_are_rescued(tmp_path: Path) -> None:
    cards = [
        "SIMPLE  =                    T",
        "BITPIX  =                  -32",
        "NAXIS   =                    2",
        "NAXIS1  =                    8",
        "NAXIS2  =                    6",
        "EXPTIME = 060.00 / Exposure time in Seconds",
        "TELALT  = +62.592 / Altitude",
        "OBJECT  = M 31 nucleus / no quotes",
        "FILTER  = 'r / no end quote",
        "AIRMASS =",
        "OBSID   = 12:30:15 / unquoted time",
        "END",
    ]
    path = tmp_path / "broken.fits"
    path.write_bytes(b"".join(map(card, cards)).ljust(2880) + RAMP.astype(">f4").tobytes().ljust(2880, b"\0"))
    image = read_image(path)
    check(image.data, RAMP)
    assert image.header["EXPTIME"] == 60.0
    assert image.header["TELALT"] == 62.592
    assert image.header["OBJECT"] == "M 31 nucleus"
    assert image.header["FILTER"].startswith("r")
    assert image.header["OBSID"] == "12:30:15"
    assert "AIRMASS" not in image.header


def test_unsigned_planes_of_our_own_files_are_scaled(tmp_path: Path) -> None:
    mask = np.array([[0, 1], [65535, 2]], dtype=np.uint16)
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(mask, name="MASK")]).writeto(tmp_path / "mask.fits")
    with open_fits(tmp_path / "mask.fits") as hdus:
        np.testing.assert_array_equal(np.array(hdus["MASK"].data), mask)


REAL = (
    "decam_sfft/DEC-OBS04b.mini.fits.gz",
    "goto_zip/3.fits.gz",
    "microobs_hatp32/HATP-32171220013343.FITS.gz",
    "panoptes/solved.fits.fz",
    "panoptes/unsolved.fits.gz",
    "huntsman/science_0.fits.gz",
)


@pytest.mark.parametrize("name", REAL)
def test_real_files_equal_what_astropy_reads(data_dir: Path, name: str) -> None:
    path = data_dir / "images" / name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = fits.getdata(path)
    check(read_image(path).data, expected)


@pytest.mark.parametrize("read", [read_image, read_header])
def test_real_masters_hold_several_planes(data_dir: Path, read: Callable[[Path], object]) -> None:
    read(data_dir / "images/huntsman/flat_14_Huntsman_g_band_2021-01-07.fits.gz")
