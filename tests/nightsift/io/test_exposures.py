"""From a file to a Frame, with the units shipped and with masters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from nightsift.core.errors import BadFact, BlankFrame, ConfigurationError, MissingFact, SourceError, UnreadableFits
from nightsift.io.exposures import load_exposure
from nightsift.io.sources import checksum
from nightsift.unit.units import Unit, load_unit

UNIT = """
[facts]
gain = { constant = 2.0 }
read_noise = { constant = 6.0 }
saturation = { constant = 50000 }
pixel_scale = { constant = 3.6 }
band = { card = "FILTER" }
exposure = { card = "EXPTIME" }
time = { card = "DATE-OBS", position = "start" }
field = { card = "OBJECT" }
[site]
longitude = 0.0
"""


def unit(folder: Path, text: str = "") -> Unit:
    path = folder / "mine.toml"
    path.write_text(UNIT + text)
    return load_unit(path)


def write(path: Path, data: np.ndarray, **cards: Any) -> Path:
    hdu = fits.PrimaryHDU(data)
    hdu.header.update({"FILTER": "r", "EXPTIME": 100.0, "DATE-OBS": "2026-11-20T22:00:00", "OBJECT": "M 31"})
    hdu.header.update(cards)
    hdu.writeto(path)
    return path


def sky(rng: np.random.Generator, level: float = 1000.0) -> np.ndarray:
    return rng.poisson(level, (60, 80)).astype(np.uint16)


def test_a_frame_and_its_metadata(tmp_path: Path, rng: np.random.Generator) -> None:
    path = write(tmp_path / "a.fits", sky(rng))
    frame = load_exposure(path, unit(tmp_path))
    assert frame.meta.exposure_id == f"mine-{checksum(path)[:16]}"
    assert (frame.meta.night, frame.meta.field, frame.meta.path) == ("2026-11-20", "M 31", str(path))
    assert frame.wcs is None
    assert load_exposure(str(path), unit(tmp_path), night="2026-01-01").meta.night == "2026-01-01"


def test_a_remote_exposure_is_fetched(tmp_path: Path, rng: np.random.Generator) -> None:
    import fsspec

    path = write(tmp_path / "a.fits", sky(rng))
    with fsspec.open("memory://exposures/a.fits", "wb") as file:
        file.write(path.read_bytes())
    remote = load_exposure("memory://exposures/a.fits", unit(tmp_path))
    local = load_exposure(path, unit(tmp_path))
    np.testing.assert_array_equal(remote.data, local.data)
    assert remote.meta.exposure_id == local.meta.exposure_id


@pytest.mark.parametrize("includes", [True, False])
def test_masters_are_applied(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, includes: bool
) -> None:
    """Raw masters and finished ones give the same frame."""
    flat = rng.uniform(0.7, 1.3, (60, 80)).astype(np.float32)
    flat /= np.median(flat)
    dark = rng.uniform(0, 0.5, (60, 80)).astype(np.float32)
    bias = rng.normal(300, 2, (60, 80)).astype(np.float32)
    stars = rng.normal(500, 20, (60, 80)).astype(np.float32)
    folder = tmp_path / "masters"
    folder.mkdir()
    write(folder / "bias.fits", bias)
    write(folder / "dark.fits", dark * 60 + (bias if includes else 0), EXPTIME=60.0)
    write(folder / "flat_r.fits", flat * 20000 + (bias + dark * 5 if includes else 0), EXPTIME=5.0)
    raw = write(tmp_path / "raw.fits", stars * flat + dark * 100 + bias)
    flag = str(includes).lower()
    text = f"""
[calibration]
bias = "bias.fits"
dark = "dark.fits"
flat = "flat_{{band}}.fits"
dark_includes_bias = {flag}
flat_includes_bias = {flag}
"""
    monkeypatch.setenv("NIGHTSIFT_CALIBRATION", str(folder))
    frame = load_exposure(raw, unit(tmp_path, text))
    np.testing.assert_allclose(frame.data, stars, rtol=1e-3)
    assert not frame.mask.any()


def test_missing_masters_name_file_and_key(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = write(tmp_path / "raw.fits", sky(rng))
    monkeypatch.delenv("NIGHTSIFT_CALIBRATION", raising=False)
    with pytest.raises(ConfigurationError, match=r"\[calibration\] bias: a relative path"):
        load_exposure(raw, unit(tmp_path, '[calibration]\nbias = "bias.fits"\n'))
    with pytest.raises(ConfigurationError, match=r"there is no master .*bias\.fits"):
        load_exposure(raw, unit(tmp_path, '[calibration]\nfolder = "."\nbias = "bias.fits"\n'))
    write(tmp_path / "bias.fits", np.ones((5, 5), dtype=np.float32))
    with pytest.raises(ConfigurationError, match="5 x 5 pixels"):
        load_exposure(raw, unit(tmp_path, '[calibration]\nfolder = "."\nbias = "bias.fits"\n'))


def test_trim_moves_pixels_and_coordinates(tmp_path: Path, rng: np.random.Generator) -> None:
    cards = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 10.0, "CRVAL2": 0.0, "CRPIX1": 40.0, "CRPIX2": 30.0}
    cards |= {"CD1_1": -0.001, "CD2_2": 0.001, "CD1_2": 0.0, "CD2_1": 0.0}
    pixels = sky(rng)
    raw = write(tmp_path / "raw.fits", pixels, **cards)
    frame = load_exposure(raw, unit(tmp_path, '[image]\ntrim = "[11:70,6:55]"\n'))
    np.testing.assert_array_equal(frame.data, pixels[5:55, 10:70])
    assert frame.wcs is not None
    np.testing.assert_allclose(frame.wcs.all_pix2world(29, 24, 0), (10.0, 0.0), atol=1e-9)
    with pytest.raises(BadFact, match="80 x 60"):
        load_exposure(raw, unit(tmp_path, '[image]\ntrim = "[11:90,6:55]"\n'))


@pytest.mark.parametrize(
    ("image", "star"), [('trim = "[11:70,6:55]"', (41, 22)), ('bayer = "RGGB"\ntrim = "[9:70,5:54]"', (41, 21))]
)
def test_a_source_of_the_reduced_image_is_found_in_the_file(
    image: str, star: tuple[int, int], tmp_path: Path, rng: np.random.Generator
) -> None:
    """A star drawn at a FITS pixel of the file, at the corner of four pixels of a colour camera."""
    one, bayer = unit(tmp_path, f"[image]\n{image}\n"), "bayer" in image
    pixels, (x, y) = sky(rng).astype(np.float32), star
    reach = 2 if bayer else 1
    pixels[y - 1 : y - 1 + reach, x - 1 : x - 1 + reach] += 20000.0
    frame = load_exposure(write(tmp_path / "raw.fits", pixels), one)
    row, column = np.unravel_index(np.argmax(frame.data), frame.shape)
    middle = 0.5 if bayer else 0.0
    found = one.image.in_file(np.array([float(column)]), np.array([float(row)]))
    np.testing.assert_array_equal(np.ravel(found), (x + middle, y + middle))


def test_faults_have_names(tmp_path: Path, rng: np.random.Generator) -> None:
    one = unit(tmp_path)
    with pytest.raises(SourceError):
        load_exposure(tmp_path / "none.fits", one)
    (tmp_path / "text.fits").write_text("no image")
    with pytest.raises(UnreadableFits):
        load_exposure(tmp_path / "text.fits", one)
    with pytest.raises(BlankFrame):
        load_exposure(write(tmp_path / "nan.fits", np.full((60, 80), np.nan, dtype=np.float32)), one)
    bare = tmp_path / "bare.fits"
    fits.PrimaryHDU(sky(rng)).writeto(bare)
    with pytest.raises(MissingFact, match="FILTER"):
        load_exposure(bare, one)


@pytest.mark.parametrize(
    ("name", "file", "shape", "has_wcs"),
    [
        ("decam", "decam_sfft/DEC-OBS04b.mini.fits.gz", (256, 256), True),
        ("decam", "decam_sfft/DEC-OBS18a.mini.fits.gz", (256, 256), True),
        ("goto_zip", "goto_zip/3.fits.gz", (800, 900), False),
        ("microobservatory", "microobs_hatp32/HATP-32171220013343.FITS.gz", (492, 648), False),
        ("panoptes", "panoptes/solved.fits.fz", (350, 350), True),
        ("panoptes", "panoptes/unsolved.fits.gz", (350, 350), False),
        ("huntsman", "huntsman/science_0.fits.gz", (800, 800), True),
    ],
)
def test_real_frames(data_dir: Path, name: str, file: str, shape: tuple[int, int], has_wcs: bool) -> None:
    frame = load_exposure(data_dir / "images" / file, load_unit(name))
    assert frame.shape == shape
    assert (frame.wcs is not None) == has_wcs
    good = frame.mask == 0
    assert good.mean() > 0.99
    # noise from neighbours two pixels apart, below the sky level where stars do not matter
    steps = (frame.data[:, 2:] - frame.data[:, :-2])[frame.data[:, 1:-1] < np.median(frame.data)]
    seen = 1.4826 * np.median(np.abs(steps)) / 2**0.5
    assert 0.4 < seen / np.sqrt(np.median(frame.variance[good])) < 2.5


@pytest.mark.parametrize("masters", ["raw", "lsst"])
def test_real_raw_frame_with_its_masters(data_dir: Path, tmp_path: Path, masters: str) -> None:
    folder = data_dir / "images/huntsman"
    if masters == "raw":
        text = 'bias = "bias_0.fits.gz"\ndark = "dark_0.fits.gz"\nflat = "flat_0.fits.gz"\n'
    else:
        text = """bias = "bias_14_Huntsman_2021-01-07.fits.gz"
dark = "dark_14_Huntsman_2021-01-07.fits.gz"
flat = "flat_14_Huntsman_{band}_band_2021-01-07.fits.gz"
dark_exposure = 1.0
dark_includes_bias = false
flat_includes_bias = false
trim = "[1:800,1:800]"
"""
    path = tmp_path / "camera.toml"
    path.write_text(f'extends = "huntsman"\n[calibration]\nfolder = "{folder}"\n{text}')
    frame = load_exposure(folder / "science_0.fits.gz", load_unit(path))
    raw = load_exposure(folder / "science_0.fits.gz", load_unit("huntsman"))
    assert (frame.mask == 0).mean() > 0.98
    # bias 32 and dark 5 ADU are gone; hot pixels were found again in the dark
    assert np.median(raw.data) - np.median(frame.data) == pytest.approx(37.0, abs=3.0)
    steps = np.abs(np.diff(frame.data, axis=1))
    assert np.median(steps) <= 1.05 * np.median(np.abs(np.diff(raw.data, axis=1)))
