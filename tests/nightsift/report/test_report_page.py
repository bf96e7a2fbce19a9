"""The report: opens alone, says what happened, shows what was found; also when there is next to nothing."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from nightsift.core import tables
from nightsift.core.frames import Stamps
from nightsift.core.probabilities import LEGEND
from nightsift.report import plots
from nightsift.report.night import choose_candidates, render_night, sexagesimal, verdict
from nightsift.report.pictures import strip

NIGHT = "2026-11-20"
VOID = {"meta", "img", "br", "hr", "input", "link", "path", "use", "rect"}


def ledger_row(i: int, **changes: Any) -> dict[str, Any]:
    row = {
        "exposure_id": f"a-{i:016d}", "unit": "a", "night": NIGHT, "state": "done", "reason": "", "message": "",
        "facts": "{}", "url": f"somewhere/frame-{i}.fits", "checksum": "00", "field": "f1", "band": "L",
        "mjd": 61364.9 + i / 100, "ra": 120.0, "dec": -30.0, "area": 0.25, "seeing": 2.5 + 0.1 * i, "zero_point": 24.0,
        "limiting_mag": 20.0 - i / 10, "align_residual": 0.05,
        "n_candidates": 1, "n_unflagged": 1, "n_accepted": 1, "seconds": 1.5, "verdict": "good",
        "stage_seconds": '{"ingest": 0.5, "subtract": 1.0}', "provenance": "p", "version": "0", "recorded_at": 0,
    }  # fmt: skip
    return {**row, **changes}


def candidate_row(i: int, **changes: Any) -> dict[str, Any]:
    row = {
        "candidate_id": f"c{i}", "exposure_id": "a-0", "unit": "a", "night": NIGHT, "field": "f1", "band": "L",
        "mjd": 61364.9, "x": 10.0, "y": 12.0, "ra": 120.1, "dec": -30.2, "sign": 1, "snr": 8.0 + i, "n_pixels": 9,
        "elongation": 1.1, "flux": 100.0, "flux_err": 10.0, "flux_aperture": 90.0, "flux_aperture_err": 12.0,
        "mag": 18.0, "mag_err": 0.1, "dipole": 0.0, "masked_fraction": 0.0, "flags": 0, "template_id": "t",
        "stamp_index": i, "score": 0.9, "score_std": 0.02,
    }  # fmt: skip
    return {**row, **changes}


def ledger_of(*rows: dict[str, Any]) -> pa.Table:
    return tables.table(list(rows), tables.LEDGER) if rows else tables.LEDGER.empty_table()


def candidates_of(*rows: dict[str, Any]) -> pa.Table:
    return tables.table(list(rows), tables.CANDIDATES) if rows else tables.CANDIDATES.empty_table()


def stamps(seed: int = 0) -> Stamps:
    noise = np.random.default_rng(seed)
    data = noise.normal(0, 1, (1, 21, 21, 3)).astype(np.float32)
    data[0, 10, 10, :] += (60.0, 0.0, 60.0)
    mask = np.zeros((1, 21, 21), dtype=bool)
    mask[0, :, 0] = True
    return Stamps(data, mask)


class Checker(HTMLParser):
    """Tags that do not match, and everything that would be fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "href", "xlink:href") and value and not value.startswith(("#", "data:")):
                self.fetched.append(value)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def page(ledger: pa.Table, candidates: pa.Table, problems: tuple[str, ...] = (), **kwargs: Any) -> str:
    thresholds = {"a": 0.5, "b": 0.5}
    choice = choose_candidates(candidates, thresholds, **kwargs)
    pictures = {one: stamps() for one in candidates["candidate_id"].to_pylist() if one != "c0"}
    html = render_night(
        NIGHT, ledger, candidates, choice=choice, stamps=pictures, thresholds=thresholds, problems=problems
    )
    checker = Checker()
    checker.feed(html)
    assert not checker.open
    assert not checker.fetched, "the page must open without network or other files"
    assert not re.search(r"url\((?!#)", html)
    return html


def test_empty_night() -> None:
    html = page(ledger_of(), candidates_of())
    assert "No exposure of this night is in the ledger." in html
    assert "Nothing was detected." in html


def test_whole_night() -> None:
    rows = [ledger_row(i) for i in range(4)]
    rows.append(
        ledger_row(5, state="refused", reason="TooFewStars", message="3 usable <stars> found", mjd=None, ra=None)
    )
    rows.append(ledger_row(6, unit="b", state="failed", reason="ProcessDied", message="it died", seeing=None))
    found = [candidate_row(i) for i in range(3)] + [
        candidate_row(9, flags=32, score=0.99),
        candidate_row(10, score=0.1),
    ]
    html = page(ledger_of(*rows), candidates_of(*found), ("unit c: cannot be reached",))
    assert "4 of 6 exposures were reduced, 1 refused, 1 failed; 3 candidates stand out." in html
    assert "Nothing usable came from b." in html
    assert "3 usable &lt;stars&gt; found" in html, "text of others is escaped"
    assert "unit c: cannot be reached" in html
    assert html.count("<article") == 5
    assert html.index("Below the threshold") > html.index('id="cards-accepted"')
    assert "no stamps" in html
    assert '<span class="flag">dipole</span>' in html
    assert html.count("<svg") == 2


def test_the_best_scores_are_told_apart_and_the_source_is_found_in_its_file() -> None:
    sure = [candidate_row(i, score=1 - 10.0**-i, score_std=10.0**-i, x_file=21.5, y_file=13.0) for i in (5, 7, 9, 12)]
    html = page(ledger_of(ledger_row(0, exposure_id="a-0")), candidates_of(*sure))
    shown = re.findall(r'class="score" title="score ([\d.]+)">([^<]+) <small>', html)
    assert [text for _, text in shown] == ["+12.0 ± 0.4", "+9.0 ± 0.4", "+7.0 ± 0.4", "+5.0 ± 0.4"]
    assert len({score for score, _ in shown}) == 4
    assert "pixel 21.5, 13.0 of frame-0.fits" in html
    assert LEGEND in html


def test_night_without_positions() -> None:
    nothing = {"ra": None, "dec": None}
    html = page(ledger_of(ledger_row(1, **nothing)), candidates_of(candidate_row(1, mag=None, **nothing)))
    assert "no sky position" in html
    assert "ADU" in html
    assert html.count("<svg") == 1


def test_size_is_limited_and_told() -> None:
    found = [candidate_row(i, score=0.6 + i / 1000) for i in range(60)]
    html = page(ledger_of(ledger_row(0)), candidates_of(*found), most=40)
    assert html.count("<article") == 30
    assert "60 without a flag" in html
    assert "the best 30 are shown" in html


def test_choice_puts_accepted_first_and_flagged_apart() -> None:
    found = candidates_of(
        candidate_row(1, score=0.7), candidate_row(2, score=0.95), candidate_row(3, score=0.2),
        candidate_row(4, score=0.99, flags=1), candidate_row(5, score=None),
        candidate_row(6, unit="strange", score=0.97),
    )  # fmt: skip
    choice = choose_candidates(found, {"a": 0.5})
    assert choice.best["candidate_id"].to_pylist() == ["c2", "c1", "c6", "c3", "c5"]
    assert choice.flagged["candidate_id"].to_pylist() == ["c4"]
    assert (choice.accepted, choice.shown_accepted) == (2, 2)


def test_picture_shows_the_three_planes_upwards() -> None:
    one = stamps()
    one.data[0, 18, 4, 2] = 55.0  # near the top edge when y grows upwards
    uri = strip(one)
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB")).astype(int)
    assert image.shape == (21, 65, 3)
    science, template, difference = image[:, :21], image[:, 22:43], image[:, 44:]
    assert science[10, 10, 0] > 240 > template[10, 10, 0]
    assert difference[10, 10, 0] > 240
    assert difference[2, 4, 0] > 200
    assert abs(np.median(difference[:, 1:, 0]) - 128) < 12, "no difference is grey"
    assert (science[:, 0, 0] > science[:, 0, 2] + 20).all(), "masked pixels are tinted"


def test_picture_of_nothing() -> None:
    data = np.full((1, 11, 11, 3), np.nan, dtype=np.float32)
    assert strip(Stamps(data, np.ones((1, 11, 11), dtype=bool))).startswith("data:image/png")
    assert strip(Stamps(np.zeros_like(data), np.zeros((1, 11, 11), dtype=bool))).startswith("data:image/png")


@pytest.mark.parametrize(
    ("rows", "problems", "grade"),
    [
        ([ledger_row(0)], (), "good"),
        ([ledger_row(0), ledger_row(1, state="refused")], (), "fair"),
        ([ledger_row(0), ledger_row(1, verdict="suspect")], (), "fair"),
        ([ledger_row(0), ledger_row(1, state="failed")], (), "bad"),
        ([ledger_row(0), ledger_row(1, unit="b", state="refused")], (), "bad"),
        ([ledger_row(0)], ("disk",), "bad"),
    ],
)
def test_verdict(rows: list[dict[str, Any]], problems: tuple[str, ...], grade: str) -> None:
    assert verdict(rows, 0, problems).grade == grade


@pytest.mark.parametrize(
    ("ra", "dec", "text"),
    [
        (318.10822, -66.01571, "21:12:25.97 -66:00:56.6"),
        (0.0, -0.00001, "00:00:00.00 -00:00:00.0"),
        (359.99999, 89.99999, "00:00:00.00 +90:00:00.0"),
        (None, 1.0, ""),
    ],
)
def test_sexagesimal(ra: float | None, dec: float, text: str) -> None:
    assert sexagesimal(ra, dec) == text


def test_plots_of_little_or_nothing() -> None:
    assert plots.trends(ledger_of()) == ""
    assert plots.sky_map(ledger_of()) == ""
    one = ledger_of(ledger_row(0))
    assert plots.trends(one).startswith("<svg")
    assert plots.trends(one) == plots.trends(one), "the same night gives the same figure"
    across_zero = ledger_of(ledger_row(0, ra=359.9), ledger_row(1, ra=0.1))
    assert "Declination" in plots.sky_map(across_zero), "two neighbours across RA 0 are no all-sky survey"
    wide = ledger_of(ledger_row(0, ra=10.0, dec=60.0), ledger_row(1, ra=200.0, dec=-60.0))
    assert "grows to the left" in plots.sky_map(wide)
