"""Images from elsewhere are found with their noise and masks, in one file or beside it; maps and tiles of HEALPix."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from astropy.io import fits

from nightsift.core.errors import UnreadableFits
from nightsift.core.flags import Mask
from nightsift.images.resampling.reprojection import cutout, north_up_wcs
from nightsift.io.outside_files import ImportOptions, read_outside

SHAPE = (60, 80)
FIELD = (north_up_wcs(150.0, 30.0, 2.0, shape=(100, 120)), (100, 120))
PLAIN = ImportOptions()


def header(**cards):
    found = north_up_wcs(150.0, 30.0, 1.5, shape=SHAPE).to_header()
    found.update(cards)
    return found


@pytest.fixture
def pixels(rng):
    return rng.normal(100.0, 3.0, SHAPE).astype(np.float32)


def write(path, *hdus):
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(path)
    return path


@pytest.mark.parametrize(
    ("name", "stored"), [("VAR", 4.0), ("WEIGHT", 0.25), ("INVVAR", 0.25), ("ERR", 2.0), ("SIGMA", 2.0)]
)
def test_noise_in_an_extension(name, stored, pixels, tmp_path):
    noise = np.full(SHAPE, stored, np.float32)
    noise[3, 4] = 0.0
    path = write(tmp_path / "a.fits", fits.ImageHDU(pixels, header(GAIN=2.5)), fits.ImageHDU(noise, name=name))
    (found,) = read_outside(path, FIELD, PLAIN)
    np.testing.assert_array_equal(found.data, pixels)
    assert np.nanmedian(found.variance) == pytest.approx(4.0)
    assert not found.variance[3, 4] > 0, "a weight of nothing is a pixel worth nothing"
    assert found.gain == 2.5
    assert "sha256:" in found.name


@pytest.mark.parametrize(
    ("image", "noise", "stored"),
    [
        ("survey-image-r.fits.fz", "survey-invvar-r.fits.fz", 0.25),
        ("stack.r.unconv.fits", "stack.r.unconv.wt.fits", 4.0),
        ("coadd.fits", "coadd_weight.fits", 0.25),
        ("coadd.fits", "coadd.rms.fits", 2.0),
    ],
)
def test_noise_beside_the_image(image, noise, stored, pixels, tmp_path):
    for name, plane in ((image, pixels), (noise, np.full(SHAPE, stored, np.float32))):
        kind = fits.CompImageHDU if name.endswith(".fz") else fits.ImageHDU
        write(tmp_path / name, kind(plane, header()))
    (found,) = read_outside(tmp_path / image, FIELD, PLAIN)
    assert np.median(found.variance) == pytest.approx(4.0, rel=0.01)


def test_masks_and_bits_that_do_no_harm(pixels, tmp_path):
    mask = np.zeros(SHAPE, np.int16)
    mask[1, 1], mask[2, 2], mask[3, 3] = 4, 128, 132
    path = write(tmp_path / "a.fits", fits.ImageHDU(pixels, header()))
    write(tmp_path / "a.mask.fits", fits.ImageHDU(mask))
    (found,) = read_outside(path, FIELD, ImportOptions(ignored_bits=128))
    assert found.mask[1, 1] == found.mask[3, 3] == Mask.DEFECT.value
    assert found.mask[2, 2] == 0
    given = write(tmp_path / "other.fits", fits.ImageHDU(np.ones(SHAPE, np.int16)))
    (found,) = read_outside(path, FIELD, ImportOptions(masks=(str(given),)))
    assert found.mask.all()


def test_several_images_of_one_file_each_with_its_own(pixels, tmp_path):
    hdus = []
    for k in (1, 2):
        hdus += [fits.ImageHDU(pixels + k, header(), name="SCI", ver=k)]
        hdus += [fits.ImageHDU(np.full(SHAPE, float(k), np.float32), name="ERR", ver=k)]
    path = write(tmp_path / "a.fits", *hdus)
    found = read_outside(path, FIELD, PLAIN)
    assert [float(np.median(one.variance)) for one in found] == [1.0, 4.0]
    assert len({one.name for one in found}) == 2


def test_pixels_stored_as_inverse_hyperbolic_sine(pixels, tmp_path):
    offset, softening, a = 5.0, 20.0, 2.5 * np.log10(np.e)
    stored = a * np.arcsinh((pixels - offset) / (2 * softening))
    path = write(tmp_path / "a.fits", fits.ImageHDU(stored, header(BOFFSET=offset, BSOFTEN=softening)))
    (found,) = read_outside(path, FIELD, PLAIN)
    np.testing.assert_allclose(found.data, pixels, rtol=1e-4)


@pytest.mark.parametrize(
    ("cards", "zero_point"),
    [({"MAGZERO": 27.1}, 27.1), ({"BUNIT": "nanomaggy"}, 22.5), ({"HIERARCH FPA.ZP": 25.0, "EXPTIME": 100.0}, 30.0)],
)
def test_zero_points(cards, zero_point, pixels, tmp_path):
    path = write(tmp_path / "a.fits", fits.ImageHDU(pixels, header(**cards)))
    assert read_outside(path, FIELD, PLAIN)[0].zero_point == pytest.approx(zero_point)
    assert read_outside(path, FIELD, ImportOptions(zero_point=20.0))[0].zero_point == 20.0


@pytest.mark.parametrize("ctype", ["GLON", "ELON"])
def test_other_coordinate_systems(ctype, pixels, tmp_path):
    cards = header(CTYPE1=f"{ctype}-TAN", CTYPE2=f"{ctype.replace('LON', 'LAT')}-TAN")
    path = write(tmp_path / "a.fits.gz", fits.ImageHDU(pixels, cards))
    assert gzip.decompress(path.read_bytes()).startswith(b"SIMPLE")
    (found,) = read_outside(path, FIELD, PLAIN)
    assert found.wcs.wcs.ctype[0].startswith(ctype)


def test_what_cannot_be_used_says_so(pixels, tmp_path):
    no_place = write(tmp_path / "a.fits", fits.ImageHDU(pixels))
    with pytest.raises(UnreadableFits, match="cannot be placed on the sky"):
        read_outside(no_place, FIELD, PLAIN)
    small = write(tmp_path / "b.fits", fits.ImageHDU(pixels, header()), fits.ImageHDU(pixels[1:], name="VAR"))
    with pytest.raises(UnreadableFits, match=r"noise has the shape \(59, 80\)"):
        read_outside(small, FIELD, PLAIN)
    odd = write(
        tmp_path / "c.fits", *(fits.ImageHDU(pixels, header(), name="SCI", ver=k) for k in (1, 2)),
        fits.ImageHDU(pixels, name="VAR"),
    )  # fmt: skip
    with pytest.raises(UnreadableFits, match="--hdu"):
        read_outside(odd, FIELD, PLAIN)
    nameless = write(tmp_path / "d.fits", fits.ImageHDU(pixels))
    with pytest.raises(UnreadableFits, match="--noise-kind"):
        read_outside(no_place, FIELD, ImportOptions(noise=(str(nameless),)))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UnreadableFits, match="is no HiPS"):
        read_outside(tmp_path / "empty", FIELD, PLAIN)


def gradient(ra, dec):
    """A smooth sky: 1 more each arc minute to the north, 2 to the east."""
    return 100.0 + (dec - 30.0) * 60.0 + 2.0 * (ra - 150.0) * np.cos(np.radians(30.0)) * 60.0


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("part", [True, False])
def test_maps_in_healpix_cells(nested, part, tmp_path):
    from astropy_healpix import HEALPix

    nside = 256
    cells = HEALPix(nside, order="nested" if nested else "ring")
    numbers = (
        cells.cone_search_lonlat(*_degrees(150.0, 30.0), radius=_degrees(3.0)[0]) if part else np.arange(cells.npix)
    )
    lon, lat = cells.healpix_to_lonlat(np.sort(numbers))
    values = gradient(lon.deg, lat.deg).astype(np.float32)
    columns = [fits.Column("SIGNAL", "E", array=values)]
    if part:
        columns.insert(0, fits.Column("PIXEL", "K", array=np.sort(numbers)))
    table = fits.BinTableHDU.from_columns(columns)
    table.header.update(
        PIXTYPE="HEALPIX", NSIDE=nside, ORDERING="NESTED" if nested else "RING", COORDSYS="C",
        INDXSCHM="EXPLICIT" if part else "IMPLICIT",
    )  # fmt: skip
    wide = (north_up_wcs(150.0, 30.0, 60.0, shape=(100, 120)), (100, 120))
    (found,) = read_outside(write(tmp_path / "map.fits", table), wide, PLAIN)
    image, wcs = cutout(found.data, found.wcs, (150.0, 30.0), size=3600.0, pixel_scale=120.0)
    sky = wcs.pixel_to_world(*np.meshgrid(np.arange(30), np.arange(30)))
    np.testing.assert_allclose(image, gradient(sky.ra.deg, sky.dec.deg), atol=1.0)


def _degrees(*values):
    from astropy import units

    return tuple(value * units.deg for value in values)


@pytest.mark.parametrize("place", [(150.0, 30.0), (180.0, 66.0)], ids=["equatorial", "across two base cells"])
def test_tiles_of_a_hips(place, rng, tmp_path):
    """Tiles that the package reproject makes come back as the image that they were made of."""
    from reproject import reproject_interp
    from reproject.hips import reproject_to_hips

    wcs = north_up_wcs(*place, 20.0, shape=(300, 300))
    y, x = np.mgrid[0:300, 0:300]
    image = (100.0 + 0.05 * x - 0.02 * y).astype(np.float32)
    image += 50.0 * np.exp(-((x - 130) ** 2 + (y - 190) ** 2) / 50.0)
    reproject_to_hips(
        (image, wcs), coord_system_out="equatorial", reproject_function=reproject_interp, level=5, tile_size=128,
        output_directory=str(tmp_path / "hips"),
    )  # fmt: skip
    field = (north_up_wcs(*place, 20.0, shape=(200, 200)), (200, 200))
    found = read_outside(tmp_path / "hips", field, PLAIN)
    assert found
    seen = 0.0
    for one in found:
        part, grid = cutout(one.data, one.wcs, place, size=3600.0, pixel_scale=20.0)
        sky = grid.pixel_to_world(*np.meshgrid(np.arange(180), np.arange(180)))
        u, v = wcs.world_to_pixel(sky)
        true = 100.0 + 0.05 * u - 0.02 * v + 50.0 * np.exp(-((u - 130) ** 2 + (v - 190) ** 2) / 50.0)
        known = np.isfinite(part)
        seen += known.mean()
        np.testing.assert_allclose(part[known], true[known], atol=1.5)
    assert seen > 0.97
    far = (north_up_wcs(20.0, -40.0, 20.0, shape=(200, 200)), (200, 200))
    assert read_outside(tmp_path / "hips", far, PLAIN) == []
