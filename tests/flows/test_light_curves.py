"""Light curves: which exposures are measured, what their rows hold, and how the command tells of trouble."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.wcs import WCS
from pyarrow import csv
from typer.testing import CliRunner

from nightsift.archive import ledger
from nightsift.archive.paths import Archive
from nightsift.cli import app
from nightsift.core import tables
from nightsift.core.errors import BadTable, ConfigurationError, TooFewStars
from nightsift.core.flags import Flag
from nightsift.core.frames import Difference, Frame, Meta, Pair
from nightsift.core.psf import Psf
from nightsift.images.injection import inject_stars
from nightsift.images.photometry.difference_photometry import ZeroPoint
from nightsift.sky.sphere import separation
from tasks import photometry
from tasks.photometry import Position, may_cover

SHAPE, FLUX = (200, 240), 4000.0
HERE, THERE = (150.0, 20.0), (150.01, 20.005)


def wcs_of() -> WCS:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval = ["RA---TAN", "DEC--TAN"], HERE
    wcs.wcs.crpix, wcs.wcs.cdelt = [120.5, 100.5], [-3.4e-4, 3.4e-4]
    return wcs


def difference_with_source(sign: float, seed: int) -> tuple[Pair, Difference]:
    rng = np.random.default_rng(seed)
    meta = Meta("tiny-1", "f", "r", "2026-11-20", "e", 61000.0, 60.0, 1.0, 5.0, 1e9, 1.2)
    y, x = np.mgrid[-10:11, -10:11]
    p = np.exp(-0.5 * (x**2 + y**2) / 1.4**2)
    psf = Psf((p / p.sum())[None].astype("f4"), 0, SHAPE, 3.3)
    blank = Frame(np.zeros(SHAPE, "f4"), np.full(SHAPE, 25, "f4"), np.zeros(SHAPE, "u2"), meta, wcs=wcs_of())
    at = blank.wcs.all_world2pix([THERE], 0)[0]
    light = inject_stars(blank, at[:1], at[1:], [FLUX], psf).data
    data = (rng.normal(0, 5, SHAPE) + sign * light).astype("f4")
    score = np.zeros(SHAPE, "f4")
    return Pair(blank, blank), Difference(data, blank.variance, blank.mask, score, psf, "t", "template", 1.0)


def ledger_row(exposure: str, url: str, mjd: float, ra: float | None = HERE[0]) -> dict:
    texts = {"reason": "", "message": "", "facts": "{}", "stage_seconds": "{}", "provenance": "p", "version": "0"}
    return {
        **texts, "exposure_id": exposure, "unit": "tiny-1", "night": "2026-11-20", "url": url, "state": "done",
        "checksum": "0" * 64, "area": 0.006, "ra": ra, "dec": HERE[1], "mjd": mjd, "seconds": 1.0,
    }  # fmt: skip


@pytest.fixture
def survey(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An archive of four exposures: brighter, fainter, far away, and one that cannot be reduced any more."""
    unit = (Path(photometry.__file__).parents[1] / "units").glob("*.toml")
    name = sorted(u.stem for u in unit if not u.stem.startswith("_"))[0]
    file = tmp_path / "survey.toml"
    file.write_text(
        f'name = "s"\narchive = "archive"\n[[source]]\nunit = "{name}"\nframes = "{tmp_path}"\ntemplates = ""\n'
    )
    archive = Archive(tmp_path / "archive")
    for number, (mjd, ra) in enumerate([(61001.0, HERE[0]), (61000.0, HERE[0]), (61002.0, 10.0), (61003.0, HERE[0])]):
        (tmp_path / f"{number}.fits").write_bytes(bytes([number]))
        ledger.record(archive, {**ledger_row(f"e{number}", str(tmp_path / f"{number}.fits"), mjd, ra), "unit": name})

    def reduce(reduction, path, unit, archive):
        number = int(Path(path).stem)
        if number == 3:
            raise TooFewStars(found=1, needed=3, where="3.fits")
        reduction.pair, reduction.difference = difference_with_source(1.0 - 2.0 * number, number)
        reduction.row |= {"mjd": 61001.0 - number, "band": "r", "template_id": "t-1", "zero_point": 25.0}
        return None, ZeroPoint(25.0, 0.01, 30, 0.03)

    monkeypatch.setattr(photometry, "to_difference", reduce)
    return file


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, re.sub(r"\s+", " ", result.output)


def test_light_curve_of_positions_in_a_table(survey: Path, tmp_path: Path) -> None:
    positions = tmp_path / "positions.csv"
    positions.write_text(f"name,ra,dec\nnew,{THERE[0]},{THERE[1]}\nempty,150.0,20.0\nfar,330.0,-20.0\n")
    out = tmp_path / "curves.parquet"
    code, text = run("photometry", str(survey), "--positions", str(positions), "--out", str(out))
    assert code == 1
    assert "3.fits" in text
    assert "4 points" in text
    curves = pq.ParquetFile(out).read()
    assert curves.schema.equals(tables.LIGHT_CURVE)
    rows = [row for row in curves.to_pylist() if row["name"] == "new"]
    assert [row["mjd"] for row in rows] == [61000.0, 61001.0]
    assert [row["flux"] for row in rows] == pytest.approx([-FLUX, FLUX], rel=0.05)
    assert [bool(row["flags"] & Flag.NEGATIVE) for row in rows] == [True, False]
    assert rows[1]["mag"] == pytest.approx(25 - 2.5 * np.log10(FLUX), abs=0.05)
    assert len({row["provenance"] for row in rows}) == 2
    empty = [row for row in curves.to_pylist() if row["name"] == "empty"]
    assert all(abs(row["snr"]) < 4 and row["mag_limit_5"] > 15 for row in empty)


def test_one_position_as_a_table_for_people_or_csv(survey: Path, tmp_path: Path) -> None:
    place = ("--ra", str(THERE[0]), "--dec", str(THERE[1]))
    code, text = run("photometry", str(survey), *place, "--night", "2026-11-20")
    assert code == 1
    assert "target" in text
    assert "NEGATIVE" in text
    out = tmp_path / "curve.csv"
    run("photometry", str(survey), *place, "--out", str(out))
    assert csv.read_csv(out).num_rows == 2
    with pytest.raises(ConfigurationError, match="nothing is recorded of night 2020-01-01"):
        run("photometry", str(survey), *place, "--night", "2020-01-01")


def test_what_is_asked_wrongly_is_told(survey: Path, tmp_path: Path) -> None:
    table = tmp_path / "x.csv"
    table.write_text("a,b\n1,2\n")
    for arguments in ((), ("--ra", "1"), ("--ra", "400", "--dec", "1"), ("--ra", "1", "--dec", "1", "--out", "x.txt")):
        with pytest.raises(ConfigurationError):
            run("photometry", str(survey), *arguments)
    for file in (table, tmp_path / "none.parquet"):
        with pytest.raises(BadTable):
            run("photometry", str(survey), "--positions", str(file))


def test_exposures_that_cannot_cover_are_left_alone() -> None:
    near, far = Position("near", 150.02, 20.0), Position("far", 152.0, 20.0)
    assert may_cover(ledger_row("e", "u", 1.0), [near, far]) == [near]
    assert may_cover(ledger_row("e", "u", 1.0, None), [near, far]) == [near, far]


def test_separation_over_the_pole_and_the_meridian() -> None:
    assert separation(359.9, 0.0, 0.1, 0.0) == pytest.approx(0.2)
    assert separation(0.0, 89.0, 180.0, 89.0) == pytest.approx(2.0)
    assert separation(10.0, 5.0, 10.0, 5.0 + 1e-7) == pytest.approx(1e-7, rel=1e-6)
