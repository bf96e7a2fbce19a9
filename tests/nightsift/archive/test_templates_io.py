"""Templates survive the way to disk and back, and the right one is found."""

from __future__ import annotations

import dataclasses
import os

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS

from nightsift.archive.paths import Archive
from nightsift.archive.templates import find_template, read_template, write_template
from nightsift.core.errors import NoTemplate, UnreadableFits
from nightsift.core.flags import Mask
from nightsift.core.frames import ApertureCorrection, Template
from nightsift.images.registration.mapping import fit_tan_sip
from nightsift.images.stars.stars import find_stars
from nightsift.images.template_catalogue import template_catalogue


def bent_wcs(ra=150.0, dec=2.0, size=200):
    xy = np.stack(np.meshgrid(np.linspace(0, size, 9), np.linspace(0, size, 9)), axis=-1).reshape(-1, 2)
    u = (xy - size / 2) / size
    offset = (xy - size / 2) + 3 * u * (u**2).sum(1)[:, None]
    sky = np.column_stack((ra - offset[:, 0] / 3600 / np.cos(np.radians(dec)), dec + offset[:, 1] / 3600))
    return fit_tan_sip(xy, sky, np.array([size / 2, size / 2]), centre_sky=np.array([ra, dec]))


@pytest.fixture
def make_template(make_frame, star_list):
    def make(template_id="t-1", wcs=None, **facts):
        frame = make_frame(*star_list(20, (200, 200), faint=4.0), (200, 200), wcs=wcs, **facts)
        mask = frame.mask.copy()
        mask[:, :7] = Mask.NO_DATA.value
        mask[50, 50] = Mask.SATURATED.value
        frame = frame.replace(mask=mask, sky=123.5)
        coverage = np.where(mask == Mask.NO_DATA.value, 0, 3).astype(np.float32)
        refused = (("made-up-9", "a long reason: " + "very " * 40 + "bad"),)
        return Template(frame, find_stars(frame), coverage, template_id, 24.5, ("made-up-1", "made-up-2"), refused)

    return make


def test_there_and_back(tmp_path, make_template):
    archive = Archive(tmp_path)
    template = make_template(wcs=bent_wcs(), field="M 31/a", ra=150.0, dec=2.0, path="s3://somewhere/" + "x" * 90)
    path = write_template(archive, template)
    assert path == archive.template("made-up", "M 31/a", "r", template_id="t-1")
    again = read_template(path)
    for plane in ("data", "variance", "mask"):
        assert np.array_equal(getattr(again.frame, plane), getattr(template.frame, plane))
        assert getattr(again.frame, plane).dtype == getattr(template.frame, plane).dtype
    assert np.array_equal(again.stars, template.stars)
    assert np.array_equal(again.coverage, template.coverage)
    assert again.frame.meta == template.frame.meta
    assert (again.template_id, again.zero_point, again.sources) == ("t-1", 24.5, ("made-up-1", "made-up-2"))
    assert again.refused == template.refused
    assert again.frame.sky == 123.5
    xy = np.random.default_rng(1).uniform(0, 199, (50, 2))
    np.testing.assert_allclose(again.frame.wcs.all_pix2world(xy, 0), template.frame.wcs.all_pix2world(xy, 0), atol=1e-9)


def test_catalogue_has_units_and_may_be_absent(tmp_path, make_template):
    template = make_template(wcs=bent_wcs())
    catalogue = template_catalogue(template.frame, template.stars)
    path = write_template(Archive(tmp_path), dataclasses.replace(template, catalogue=catalogue))
    again = read_template(path).catalogue
    assert again.dtype == catalogue.dtype
    for name in catalogue.dtype.names:
        np.testing.assert_array_equal(again[name], catalogue[name])
    table = Table.read(path, hdu="CATALOG")
    assert (str(table["ra"].unit), str(table["radius"].unit), str(table["theta"].unit)) == ("deg", "pix", "rad")
    with fits.open(path, mode="update") as hdus:
        del hdus["CATALOG"]
    assert read_template(path).catalogue is None


def test_aperture_correction_is_stored_with_its_reason(tmp_path, make_template):
    template = make_template()
    assert read_template(write_template(Archive(tmp_path), template)).growth is None
    for growth in (ApertureCorrection(0.0431, 0.0012, 38), ApertureCorrection(n_stars=3, reason="3 stars, 5 needed")):
        path = write_template(Archive(tmp_path), dataclasses.replace(template, growth=growth))
        again = read_template(path).growth
        assert (again.n_stars, again.reason) == (growth.n_stars, growth.reason)
        np.testing.assert_equal((again.value, again.error), (growth.value, growth.error))


def test_without_wcs_and_zero_point(tmp_path, make_template):
    template = dataclasses.replace(make_template(), zero_point=float("nan"), refused=(), sources=())
    again = read_template(write_template(Archive(tmp_path), template))
    assert again.frame.wcs is None
    assert np.isnan(again.zero_point)
    assert np.isnan(again.frame.meta.ra)
    assert again.sources == again.refused == ()


def test_others_can_read_the_file(tmp_path, make_template):
    path = write_template(Archive(tmp_path), make_template(wcs=bent_wcs()))
    with fits.open(path) as hdus:
        hdus.verify("exception")
        assert [one.name for one in hdus[1:]] == ["SCI", "VAR", "MASK", "COVERAGE", "STARS", "SOURCES"]
        assert WCS(hdus["SCI"].header).sip is not None
        assert hdus["SCI"].header["NFRAMES"] == 2


def test_nothing_is_left_behind_when_writing_fails(tmp_path, make_template, monkeypatch):
    def fail(*_args, **_kwargs):
        raise OSError(5, "input/output error")

    monkeypatch.setattr(fits.HDUList, "writeto", fail)
    with pytest.raises(OSError, match="input/output error"):
        write_template(Archive(tmp_path), make_template())
    assert not [one for one in tmp_path.rglob("*") if one.is_file()]


def test_a_damaged_file_is_named(tmp_path, make_template):
    path = write_template(Archive(tmp_path), make_template())
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UnreadableFits, match=r"t-1\.fits"):
        read_template(path)
    fits.PrimaryHDU(np.zeros((5, 5))).writeto(path, overwrite=True)
    with pytest.raises(UnreadableFits, match="lacks the extensions SCI"):
        read_template(path)


def test_the_newest_is_found_and_kept_in_memory(tmp_path, make_template):
    archive = Archive(tmp_path)
    old, new = make_template("t-9"), make_template("t-1")
    os.utime(write_template(archive, old), (1000, 1000))
    os.utime(write_template(archive, new), (2000, 2000))
    found = find_template(archive, new.frame.meta)
    assert found.template_id == "t-1"
    assert find_template(archive, new.frame.meta) is found
    newest = make_template("t-5")
    os.utime(write_template(archive, newest), (3000, 3000))
    assert find_template(archive, new.frame.meta).template_id == "t-5"


def test_another_field_that_holds_the_pointing(tmp_path, make_template):
    archive = Archive(tmp_path)
    for name, ra in (("far", 220.0), ("near", 150.0), ("antipode", 330.0)):
        dec = -2.0 if name == "antipode" else 2.0
        write_template(archive, make_template(name, wcs=bent_wcs(ra, dec), field=name))
    write_template(archive, make_template("bare", field="bare", ra=40.0, dec=-30.0))
    meta = make_template().frame.meta
    ask = dataclasses.replace(meta, field="new name", ra=150.01, dec=2.01)
    assert find_template(archive, ask).template_id == "near"
    assert find_template(archive, dataclasses.replace(ask, ra=40.005, dec=-30.0)).template_id == "bare"
    for changes in ({"ra": 150.2}, {"ra": float("nan")}, {"band": "g"}, {"unit": "other"}, {"dec": 89.0}):
        with pytest.raises(NoTemplate, match="no template for unit"):
            find_template(archive, dataclasses.replace(ask, **changes))


def test_an_empty_archive(tmp_path, make_template):
    with pytest.raises(NoTemplate, match="field 'f1'"):
        find_template(Archive(tmp_path / "absent"), make_template().frame.meta)
