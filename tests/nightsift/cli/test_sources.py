"""``nightsift extract`` on every kind of image, in every format, and what it says of files that are none."""

from __future__ import annotations

import re

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy import units
from astropy.io import fits
from astropy.table import Table
from typer.testing import CliRunner

from nightsift.archive.paths import Archive
from nightsift.archive.templates import write_template
from nightsift.cli import app
from nightsift.core.errors import BlankFrame, ConfigurationError, DetectionFailed, SourceError, UnreadableFits
from nightsift.core.frames import Difference, Frame, Meta, Pair, Template
from nightsift.core.psf import Psf
from nightsift.images.detection.catalogue import SOURCES
from nightsift.images.stars.stars import STAR_DTYPE
from nightsift.io.fits import write_difference

X, Y, FLUX = np.array([40.0, 100.0, 150.0]), np.array([40.0, 120.0, 60.0]), 20_000.0
META = Meta("u", "f", "r", "2026-11-20", "u-1", 61000.0, 60.0, 1.0, 5.0, 6e4, 1.0)


def drawn(rng, sky=0.0, gradient=0.0, shape=(180, 200)):
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    data = rng.normal(sky, 5.0, shape) + gradient * columns
    for x, y in zip(X, Y, strict=True):
        data += FLUX / (2 * np.pi * 4) * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 8)
    return data.astype("f4")


def run(*arguments):
    result = CliRunner().invoke(app, ["extract", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def are_found(table, most=5):
    x, y = np.asarray(table["x"], float), np.asarray(table["y"], float)
    assert np.hypot(x[:, None] - X, y[:, None] - Y).min(axis=0).max() < 0.3
    assert 3 <= len(x) <= most


@pytest.mark.parametrize("kind", [">i2", ">f8", "f4"])
def test_any_image_with_its_background(rng, tmp_path, kind):
    data = drawn(rng, 800.0, 0.3).astype(kind)
    if kind != ">i2":
        data[:, 190:] = np.nan
    path, out = tmp_path / "image.fits", tmp_path / "sources.parquet"
    image = fits.CompImageHDU(data) if kind == ">i2" else fits.PrimaryHDU(data)
    image.header["MAGZPT"] = 24.0
    fits.HDUList([*([fits.PrimaryHDU()] if kind == ">i2" else []), image]).writeto(path)
    result = run(path, "--out", out)
    table = pq.read_table(out)
    assert f"{table.num_rows} sources" in result.output
    assert "no coordinates" in result.output
    assert table.schema.equals(SOURCES)
    are_found(table)
    assert np.asarray(table["flux"])[:3] == pytest.approx(FLUX, rel=0.05)
    assert np.asarray(table["mag"])[:3] == pytest.approx(24 - 2.5 * np.log10(FLUX), abs=0.06)


@pytest.mark.parametrize("suffix", [".fits", ".ecsv", ".csv"])
def test_formats_hold_units_and_descriptions(rng, tmp_path, suffix):
    fits.PrimaryHDU(drawn(rng)).writeto(tmp_path / "image.fits")
    out = tmp_path / f"sources{suffix}"
    run(tmp_path / "image.fits", "--out", out, "--zero-point", "25")
    table = Table.read(out)
    are_found(table)
    assert table.colnames == SOURCES.names
    run(tmp_path / "image.fits", "--out", tmp_path / "sources.parquet", "--zero-point", "25")
    again = pq.read_table(tmp_path / "sources.parquet")
    for name in ("x", "flux", "mag"):
        np.testing.assert_allclose(np.asarray(table[name]), np.asarray(again[name]), rtol=1e-6)
    if suffix != ".csv":
        assert table["x"].unit == units.pix
        assert table["ra"].unit == units.deg
        assert np.ma.getmaskarray(np.ma.masked_invalid(table["ra"])).all()
    if suffix == ".ecsv":
        assert table["flux"].description == "Kron flux"


def test_template_and_difference_bring_their_own_noise(rng, tmp_path):
    data, variance, mask = drawn(rng), np.full((180, 200), 25.0, "f4"), np.zeros((180, 200), "u2")
    frame = Frame(data, variance, mask, META, sky=0.0)
    template = Template(frame, np.zeros(0, STAR_DTYPE), np.ones(data.shape, "f4"), "t-1", 24.5, ("u-1",), ())
    out = tmp_path / "sources.parquet"
    run(write_template(Archive(tmp_path), template), "--out", out)
    table = pq.read_table(out)
    are_found(table)
    assert np.asarray(table["mag"])[:3] == pytest.approx(24.5 - 2.5 * np.log10(FLUX), abs=0.06)
    psf = Psf(np.ones((1, 3, 3), dtype=np.float32), 0, data.shape, 2.0)
    blank = frame.replace(data=np.zeros_like(data))
    difference = Difference(-data, variance, mask, data, psf, "hotpants", "template", 1.0)
    path = write_difference(tmp_path, Pair(frame, blank), difference)
    run(path, "--out", out, "--negative")
    are_found(pq.read_table(out))
    run(path, "--out", out)
    assert pq.read_table(out).num_rows <= 2
    run(path, "--out", out, "--hdu", "SCIENCE")
    are_found(pq.read_table(out))


def test_without_out_the_brightest_are_shown(rng, tmp_path):
    fits.PrimaryHDU(drawn(rng)).writeto(tmp_path / "image.fits")
    output = run(tmp_path / "image.fits", "--best", "2").output
    assert "half_light_radius" in output
    assert re.search(r"^[345] sources$", output, re.MULTILINE)
    assert output.count("\n|") == 3


def test_an_exposure_of_a_unit(data_dir, tmp_path):
    out = tmp_path / "sources.parquet"
    run(data_dir / "images/goto_zip/3.fits.gz", "--unit", "goto_zip", "--out", out)
    table = pq.read_table(out)
    assert 50 < table.num_rows < 300
    assert 2 < np.median(np.asarray(table["half_light_radius"], float)) < 4


def test_what_is_no_image_is_named(rng, tmp_path):
    text, empty, flat = (tmp_path / name for name in ("a.txt", "b.fits", "c.fits"))
    text.write_text("no FITS")
    fits.PrimaryHDU().writeto(empty)
    fits.PrimaryHDU(np.full((50, 60), 7.0, "f4")).writeto(flat)
    for path, error in (
        (text, UnreadableFits),
        (empty, UnreadableFits),
        (flat, BlankFrame),
        (tmp_path / "e", SourceError),
    ):
        with pytest.raises(error, match=str(path)):
            run(path)
    with pytest.raises(DetectionFailed, match="lie above"):
        run(write_difference(tmp_path, *wrecked(rng)))
    with pytest.raises(ConfigurationError, match=r"\.parquet"):
        run(flat, "--out", tmp_path / "x.txt")
    with pytest.raises(ConfigurationError, match="--hdu"):
        run(flat, "--unit", "goto_zip", "--hdu", "1")


def wrecked(rng):
    """A pair and a difference whose sky is off by far."""
    data, variance, mask = drawn(rng, 300.0), np.full((180, 200), 25.0, "f4"), np.zeros((180, 200), "u2")
    frame = Frame(data, variance, mask, META)
    psf = Psf(np.ones((1, 3, 3), dtype=np.float32), 0, data.shape, 2.0)
    return Pair(frame, frame), Difference(data, variance, mask, data, psf, "hotpants", "template", 1.0)
