"""What an alert delivers: files that are there, a page that opens alone, no markup of others, reports as asked for."""

from __future__ import annotations

import dataclasses
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from nightsift.archive.paths import Archive
from nightsift.archive.skyalert_options import ReportOptions
from nightsift.archive.templates import write_template
from nightsift.core.frames import Template
from nightsift.core.tables import LEDGER
from nightsift.images.resampling.reprojection import north_up_wcs
from nightsift.images.stars.stars import find_stars
from nightsift.skyalerts.notices.skyalert import Coincidence
from nightsift.skyalerts.products.gather import footprint_of
from nightsift.skyalerts.products.page import facts, light_curve, percent
from nightsift.skyalerts.products.rank import RANKED, Catalogues
from nightsift.skyalerts.products.reports import plain, rate, utc
from nightsift.skyalerts.products.sky_figure import Part, part_of, sky_figure
from nightsift.skyalerts.products.write import CHARTS, Products, write_products
from tests.nightsift.skyalerts.made_up_skyalert import (
    EVENT,
    T0,
    MadeUp,
    fields_at,
    fill,
    skyalert_of,
    skymap_at,
    target_of,
)

VOID = {"meta", "img", "br", "hr", "input", "link", "path", "use", "rect", "circle"}
HOSTILE = '<script>alert("1")</script><img src=x onerror=alert(2)>\r\nSUBJECT: forged'


class Checker(HTMLParser):
    """Tags that do not match, everything that would be fetched, and every script or handler."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag != "script"
        for name, value in attrs:
            assert not name.startswith("on"), name
            if name == "href" and tag == "a" and value and not value.startswith("#"):
                self.links.append(value)
            elif name in ("src", "href", "xlink:href") and value and not value.startswith(("#", "data:")):
                self.fetched.append(value)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def checked(path: Path) -> tuple[str, Checker]:
    html = path.read_text(encoding="utf-8")
    checker = Checker()
    checker.feed(html)
    assert not checker.open
    assert not checker.fetched, "the page must open without network or other files"
    return html, checker


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[MadeUp, Catalogues]:
    return fill(tmp_path_factory.mktemp("archive"))


@pytest.fixture(scope="module")
def products(made: tuple[MadeUp, Catalogues]) -> Products:
    where = made[0].ra, made[0].dec
    return write_products(
        made[0].archive, skyalert_of(), skymap_at(*where), target=target_of(*where), catalogues=made[1]
    )


def test_files_are_there(products: Products) -> None:
    assert products.folder.name == "001"
    assert products.folder.parent.name == EVENT
    assert pq.read_table(products.table, schema=RANKED).equals(products.ranked)
    assert products.latest.read_bytes() == products.page.read_bytes()
    assert sorted(one.name for one in products.folder.iterdir()) == [
        "candidates.parquet", "circular.txt", "index.html", "report.json",
    ]  # fmt: skip


def test_page_says_what_happened(products: Products) -> None:
    html, checker = checked(products.page)
    assert "The alert is active" in html
    assert "1 with nothing against it" in html
    assert "1 of 9 fields observed" in html
    assert html.count('<article class="card"') == products.ranked.num_rows
    assert html.count("data:image/png;base64") == products.ranked.num_rows + 1, "stamps of each, and the sky map"
    assert "known variable star (vsx)" in html
    assert "minor planet (K26W01A)" in html
    assert "200 ± 4" not in html
    assert checker.links == ["https://gracedb.example/S261120ab"]


def test_finding_charts_from_the_templates(tmp_path: Path, make_frame: Any, star_list: Any) -> None:
    """Each of the best candidates whose template has coordinates gets one."""
    made, catalogues = fill(tmp_path)
    where = made.ra, made.dec
    wcs = north_up_wcs(*where, 4.0, shape=(256, 256))
    for unit, here in (("one", wcs), ("two", None)):
        frame = make_frame(*star_list(40), unit=unit, field="f1", band="L", wcs=here)
        write_template(made.archive, Template(frame, find_stars(frame), np.ones(frame.shape, np.int16), unit, np.nan))
    done = write_products(
        made.archive, skyalert_of(), skymap_at(*where), target=target_of(*where), catalogues=catalogues
    )
    html, _ = checked(done.page)
    best = done.ranked.slice(0, CHARTS).to_pylist()
    by_unit = [one["best_id"].split("-")[0] for one in best if one["ra"] is not None]
    assert by_unit.count("one") > 0
    assert html.count("<summary>Finding chart</summary>") == by_unit.count("one")


def test_markup_of_a_notice_stays_text(made: tuple[MadeUp, Catalogues], tmp_path: Path) -> None:
    other = Coincidence(HOSTILE, HOSTILE, 1.7, 1e-9)
    alert = skyalert_of(
        sender=HOSTILE, classification=((HOSTILE, 0.9),), properties=((HOSTILE, 1.0),), instruments=(HOSTILE,),
        url='javascript:alert("3")', pipeline=HOSTILE, remarks=(HOSTILE,), coincidence=other,
    )  # fmt: skip
    where = made[0].ra, made[0].dec
    found = write_products(Archive(tmp_path), alert, skymap_at(*where), target=target_of(*where))
    html, checker = checked(found.page)
    assert "&lt;script&gt;" in html
    assert checker.links == []
    assert "javascript:" not in html
    text = found.circular.read_text(encoding="utf-8")
    assert len(re.findall(r"^SUBJECT:", text, re.M)) == 1, "a notice cannot add lines to a circular"
    assert "No exposure after" in text
    assert json.loads(found.report.read_text()) == {"at_report": {}}
    assert "No exposure after the event has been reduced yet." in html


@pytest.mark.parametrize(
    ("changes", "state", "told"),
    [
        ({"kind": "retraction"}, "retracted", "RETRACTED"),
        ({"role": "test"}, "active", "TEST"),
        ({"role": "mock"}, "active", "MOCK EVENT"),
    ],
)
def test_retraction_and_test_stand_in_large_letters(
    made: tuple[MadeUp, Catalogues], tmp_path: Path, changes: dict[str, Any], state: str, told: str
) -> None:
    target = target_of(made[0].ra, made[0].dec, state)
    skymap = None if state == "retracted" else skymap_at(made[0].ra, made[0].dec)
    found = write_products(Archive(tmp_path), skyalert_of(**changes), skymap, target=target)
    assert f'<p class="warning">{told}</p>' in checked(found.page)[0]
    assert f"*** {told} ***" in found.circular.read_text(encoding="utf-8")


def test_report_has_the_layout_and_names_what_is_not_set(made: tuple[MadeUp, Catalogues], products: Products) -> None:
    reports = json.loads(products.report.read_text())["at_report"]
    assert len(reports) == 2, "counterpart and the one in a host too far: both are real, new, unknown and inside"
    one = reports["0"]
    assert one["reporting_group_id"] == "SET [alert.report] reporting_group"
    assert one["non_detection"]["flux_units"] == "1"
    assert one["host_name"] == "RIGHT"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d", one["discovery_datetime"])
    assert len(one["photometry"]["photometry_group"]) == 4
    options = ReportOptions.model_validate({
        "survey": "Made up", "authors": "A. Nobody", "reporting_group": "11", "data_source": "12",
        "filters": {"L": "75"}, "unit": [{"name": "one", "instrument": "218"}, {"name": "two", "instrument": "219"}],
    })  # fmt: skip
    where = made[0].ra, made[0].dec
    target = dataclasses.replace(target_of(*where), revision=2)
    full = write_products(
        made[0].archive, skyalert_of(), skymap_at(*where), target=target, catalogues=made[1], report=options
    )
    text = full.report.read_text()
    assert "SET" not in text
    one = json.loads(text)["at_report"]["0"]
    points = one["photometry"]["photometry_group"].values()
    assert {point["instrument_value"] for point in points} == {"218", "219"}
    assert one["internal_name"].startswith("Made up J")


def test_circular_is_a_draft_that_fits(products: Products) -> None:
    text = products.circular.read_text(encoding="utf-8")
    assert text.startswith("DRAFT, not sent.")
    assert "[alert.report.survey]" in text
    assert "4.0 deg2" in text
    assert "RIGHT (205 +/- 5 Mpc)" in text
    assert max(len(line) for line in text.splitlines()) <= 100
    assert text.isascii()


def test_footprint_counts_nothing_twice(made: tuple[MadeUp, Catalogues], products: Products) -> None:
    where = made[0].ra, made[0].dec
    skymap = skymap_at(*where)
    seen = footprint_of(products.gathered.exposures, T0, fields_at(*where), probability=[0.1] * 9, skymap=skymap)
    assert seen.exposures == 4
    assert len(seen.pointings) == 1
    assert seen.area == pytest.approx(4.0, rel=2e-3)
    # square of 2 deg on a Fisher distribution whose 90 % radius is 3 deg
    sigma = 3.0 / np.sqrt(-2 * np.log(0.1))
    from scipy.special import erf

    assert seen.probability == pytest.approx(float(erf(1.0 / sigma / np.sqrt(2))) ** 2, rel=5e-3)
    assert [one["observed"] for one in seen.fields].count(True) == 1
    nothing = footprint_of(LEDGER.empty_table(), T0, (), probability=(), skymap=None)
    assert (nothing.exposures, nothing.area, nothing.probability, nothing.first) == (0, 0.0, None, None)


def test_part_of_the_sky_is_chosen_by_size(made: tuple[MadeUp, Catalogues]) -> None:
    ra, dec = made[0].ra, made[0].dec
    part = part_of(skymap_at(ra, dec), fields_at(ra, dec))
    assert part is not None
    assert 3.0 < part.width < 8.0
    assert part_of(skymap_at(ra, dec, radius=80.0), ()) is None
    there = Part(10.0, -60.0)
    x, y = np.array([3.0, -20.0, 0.0]), np.array([-2.0, 10.0, 0.0])
    back = there.project(*there.position(x, y))
    assert np.allclose(back, (x, y), atol=1e-9)
    east = there.project(np.array([11.0]), np.array([-60.0]))
    assert east[0][0] == pytest.approx(0.5, rel=1e-3)


@pytest.mark.parametrize("radius", [0.01, 3.0, 80.0])
def test_sky_figure_of_any_size(made: tuple[MadeUp, Catalogues], radius: float) -> None:
    ra, dec = made[0].ra, made[0].dec
    fields = fields_at(ra, dec)
    svg = sky_figure(skymap_at(ra, dec, radius), fields, [True] * 4 + [False] * 5, places=[(ra, dec)] * 14)
    assert svg.startswith("<svg")
    assert "waiting" in svg
    assert sky_figure(None, (), (), places=()) == ""


def test_light_curve_draws_points_and_limits() -> None:
    svg = light_curve([(T0 + 0.1, 18.0, 0.1), (T0 + 0.3, 18.4, float("nan"))], [(T0 - 1.0, 20.5)], T0)
    assert svg.count("<circle") == 2
    assert svg.count("h8l-4 6z") == 1
    assert "−24 h" in svg
    assert light_curve([(T0, float("nan"), 0.1)], [], T0) == ""
    assert "<circle" in light_curve([(T0, 18.0, 0.1)], [], T0), "one point at the event itself"


def test_words() -> None:
    assert [percent(one) for one in (0.5, 0.0, 1e-5, None, float("nan"))] == ["50.0 %", "0.0 %", "< 0.1 %", "–", "–"]
    assert utc(61364.25, 1) == "2026-11-20 06:00:00.0"
    assert utc(61363.999999999, 0) == "2026-11-20 00:00:00"
    assert utc(None) == utc(float("nan")) == utc(1e12) == ""
    assert rate(1.0 / (365.25 * 86400.0)) == "one in 1 years"
    assert rate(1e-5) == "one in 1.16 days"
    assert rate(None) == rate(0.0) == ""
    assert plain("a\x00b\u202e c\n\n d") == "a b c d"
    assert len(plain("x" * 5000, 50)) == 50


def test_facts_are_left_out_where_unknown(made: tuple[MadeUp, Catalogues]) -> None:
    bare = dataclasses.replace(
        skyalert_of(), far=None, classification=(), properties=(), instruments=(), significant=None
    )
    told = dict(facts(bare, target_of(made[0].ra, made[0].dec), None))
    assert set(told) == {"Time of the event", "Notice", "Sent", "Sender"}
