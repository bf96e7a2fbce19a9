"""Ranked fields: visibility against astropy, tile grids, and the commands of the operator without any server."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from nightsift.archive.paths import Archive
from nightsift.archive.skyalert_options import Tiling, default_skyalert
from nightsift.archive.survey import load_survey
from nightsift.cli import app
from nightsift.core.errors import BadTiling
from nightsift.site.site import Site
from nightsift.sky.fields import square_field
from nightsift.skyalerts.event_store.targets import active_targets, wants
from nightsift.skyalerts.notices.skyalert import ErrorRegion
from nightsift.skyalerts.planning.field_ranking import rank_fields
from nightsift.skyalerts.planning.planning import sites_of
from nightsift.skyalerts.planning.tilings import read_tiling
from nightsift.skyalerts.skymaps.skymap import skymap_of
from nightsift.skyalerts.skymaps.skymap_file import read_skymap
from nightsift.unit.units import load_unit

LA_PALMA = Site(latitude=28.76, longitude=-17.88, height=2300.0)


def grid(path, step=2.0):
    rows = [f"f{k} {ra:.4f} {dec:.4f}" for k, (ra, dec) in enumerate(
        (ra, dec) for dec in np.arange(-10, 15, step) for ra in np.arange(135.0, 166.0, step))]  # fmt: skip
    path.write_text("# name ra dec\n" + "\n".join(rows) + "\n")
    return path


def run(*arguments):
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, re.sub(r"\s+", " ", result.output)


def test_fields_are_ranked_and_those_out_of_sight_told(tmp_path, blob):
    fields = read_tiling(Tiling(name="g", file=str(grid(tmp_path / "g.txt")), width=2.1))  # type: ignore[call-arg]
    skymap = read_skymap(blob())
    for places in ({}, {"": LA_PALMA}):
        table = rank_fields(skymap, fields, places, start=61000.0, options=default_skyalert())
        ranked = table.filter(table["rank"].is_valid())
        gain, total = ranked["gain"].to_numpy(), ranked["cumulative"].to_numpy()
        assert (np.diff(gain) <= 1e-12).all()
        np.testing.assert_allclose(np.cumsum(gain), total, atol=1e-9)
        assert 0.95 < total[-1] <= 1.0
        best = ranked.to_pylist()[0]
        assert (best["ra"], best["dec"]) == pytest.approx((150.0, 2.0), abs=1.5)
    far_south = rank_fields(
        skymap, fields, {"": Site(latitude=-80.0, longitude=0.0)}, start=61000.0, options=default_skyalert()
    )
    assert far_south["rank"].null_count == far_south.num_rows > 0
    assert all(far_south["reason"].to_pylist())
    few = default_skyalert().model_copy(update={"least": 0.2, "probability": 1.0})
    worth = rank_fields(skymap, fields, {}, start=61000.0, options=few)["gain"].drop_null().to_numpy()
    assert worth.min() >= 0.2 * worth.max(), "no exposure is asked for that adds next to nothing"
    assert len(worth) < len(
        rank_fields(skymap, fields, {}, start=61000.0, options=default_skyalert())["gain"].drop_null()
    )

    first = rank_fields(skymap, fields, {}, start=61000.0, options=default_skyalert(), wanted=["f0"])
    assert first["field"].to_pylist()[0] == "f0"
    total = first["cumulative"].drop_null().to_numpy()
    assert (np.diff(total) >= -1e-12).all()


def test_small_fields_on_a_wide_map_are_asked_for():
    fields = tuple(square_field(f"f{k}", 100.0 + 0.2 * k, 10.0, width=0.1) for k in range(9))
    found = rank_fields(
        skymap_of(ErrorRegion(100.0, 10.0, 40.0, 40.0, 0.9)), fields, {}, start=61000.0, options=default_skyalert()
    )
    assert found["gain"].drop_null().to_numpy().max() < 2e-4
    assert len(found["rank"].drop_null()) == 9


@pytest.mark.real
def test_the_grids_that_surveys_use(data_dir):
    for name, width, count in (("GOTO-4", 4.23, 2384), ("ATLAS", 5.46, 1413)):
        path = data_dir / f"tilings/{name}.tess"
        fields = read_tiling(Tiling(name=name, file=str(path)))  # type: ignore[call-arg]
        assert len(fields) == count
        assert fields[5].radius == pytest.approx(width / 2**0.5, rel=0.01), "the width stands in the file beside it"


@pytest.mark.parametrize(
    ("text", "why"),
    [("", "no fields"), ("a 1 2\na 3 4\n", "given twice"), ("a 1 2\nb x y\n", "line 2"), ("a 1 99\n", "no proper")],
)
def test_grids_that_are_none(tmp_path, text, why):
    (tmp_path / "g.txt").write_text(text)
    with pytest.raises(BadTiling, match=why):
        read_tiling(Tiling(name="g", file=str(tmp_path / "g.txt"), width=2.0))  # type: ignore[call-arg]
    with pytest.raises(BadTiling, match="size of its fields"):
        read_tiling(Tiling(name="g", file=str(tmp_path / "g.txt")))  # type: ignore[call-arg]


def test_plan_ranks_without_a_server(tmp_path, notice, blob):
    (tmp_path / "n.json").write_bytes(notice())
    (tmp_path / "m.fits").write_bytes(blob())
    (tmp_path / "gone.json").write_bytes(notice("RETRACTION"))
    tiling = ("--tiling", grid(tmp_path / "g.txt"), "--width", 2.1)
    code, text = run("alert", "plan", tmp_path / "n.json", *tiling, "--out", tmp_path / "f.parquet")
    assert code == 0
    assert "S261120ab: preliminary of LVK" in text
    assert "200" in text
    assert pq.read_table(tmp_path / "f.parquet").num_rows > 10
    assert run("alert", "plan", tmp_path / "m.fits", *tiling, "--fields", 3)[0] == 0
    code, text = run("alert", "plan", tmp_path / "gone.json", *tiling)
    assert (code, "retracted" in text) == (0, True)
    with pytest.raises(Exception, match="no fields to rank"):
        run("alert", "plan", tmp_path / "n.json")


@pytest.fixture
def survey(tmp_path):
    """A survey of two units with a grid of its own."""
    grid(tmp_path / "g.txt")
    unit = '[facts]\nfield = "x"\n'
    (tmp_path / "nightsift.toml").write_text(
        'name = "two"\narchive = "archive"\n'
        '[[source]]\nunit = "decam"\nframes = "frames"\nsite = "here"\n'
        '[[source]]\nunit = "huntsman"\nframes = "frames2"\n'
        "[site.here]\nlatitude = 28.76\nlongitude = -17.88\n"
        '[alert]\nfields = 20\n[[alert.tiling]]\nname = "g"\nfile = "g.txt"\nwidth = 2.1\n'
    )
    assert unit
    return tmp_path / "nightsift.toml"


def test_units_stand_at_the_site_of_their_source_or_where_their_file_says(survey):
    opened = load_survey(survey)
    units = {name: load_unit(name) for name in ("decam", "huntsman")}
    sites = sites_of(opened, units)
    assert sites == {"decam": opened.sites["here"], "huntsman": units["huntsman"].site}
    unknown = units["huntsman"].model_copy(update={"site": Site(longitude=149.13)})
    assert set(sites_of(opened, {"huntsman": unknown})) == set(), "a latitude that nobody tells"


def test_orders_change_what_is_wanted_at_once(survey, tmp_path, notice):
    from nightsift.skyalerts.event_store.inbox import receive

    archive = Archive(tmp_path / "archive")
    receive(archive, notice())
    here = ("decam", 150.0, 2.0, 61000.0)
    moment = 61364.5  # within the claim of an event at 61364.04
    assert run("alert", "resume", survey, "S261120ab")[1].startswith("S261120ab: active")
    assert wants(active_targets(archive), *here[:2], dec=here[2], mjd=moment) > 0.05
    assert "paused" in run("alert", "pause", survey, "S261120ab")[1]
    assert active_targets(archive) == ()
    run("alert", "resume", survey, "S261120ab")
    run("alert", "exclude-unit", survey, "S261120ab", "decam")
    assert wants(active_targets(archive), *here[:2], dec=here[2], mjd=moment) == 0.0
    assert wants(active_targets(archive), "huntsman", 150.0, dec=2.0, mjd=moment) > 0.05
    run("alert", "add-field", survey, "S261120ab", "f0")
    assert active_targets(archive)[0].fields[0].name == "f0"
    code, text = run("alert", "status", survey)
    assert code == 0
    assert "S261120ab" in text
    assert "active" in text
    receive(archive, notice("RETRACTION", 40))
    assert "retracted" in run("alert", "resume", survey, "S261120ab")[1]
    assert active_targets(archive) == ()
    with pytest.raises(Exception, match="there is no 'nobody'"):
        run("alert", "exclude-unit", survey, "S261120ab", "nobody")
    with pytest.raises(Exception, match="there is no alert 'S261120aa'"):
        run("alert", "pause", survey, "S261120aa")


def test_a_misspelt_key_of_alerts_is_an_error(survey):
    survey.write_text(survey.read_text().replace("fields = 20", "feilds = 20"))
    with pytest.raises(Exception, match="did you mean 'fields'"):
        run("alert", "status", survey)


def test_tables_are_typed_when_nothing_is_in_sight(blob):
    table = rank_fields(read_skymap(blob()), [], {}, start=61000.0, options=default_skyalert())
    assert isinstance(table, pa.Table)
    assert table.num_rows == 0
