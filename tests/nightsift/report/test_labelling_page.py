"""The page for labels: it opens alone, shows a stamp for each candidate, and never the score."""

from __future__ import annotations

import re

import numpy as np
import pytest

from nightsift.core.frames import Stamps
from nightsift.report.pictures import render_labelling

ROWS = [
    {"candidate_id": f"c-{k}", "label": None, "night": "2026-11-20", "exposure_id": "e",
     "x_file": 10.0 * k, "y_file": 7.0, "snr": 9.0, "score": 0.4321, "information": 0.1234, "rule": "batch"}
    for k in range(3)
]  # fmt: skip


def stamps(n: int) -> Stamps:
    noise = np.random.default_rng(0).normal(0, 1, (n, 21, 21, 3)).astype(np.float32)
    return Stamps(noise, np.zeros((n, 21, 21), dtype=bool))


def test_page_shows_each_candidate_and_saves_what_the_commands_read() -> None:
    page = render_labelling(
        "north <1>", ROWS, stamps(3), table="asked-labelled.csv", next_step="nightsift calibrate s.toml --unit north-1"
    )
    assert re.findall(r'data-id="(c-\d)" data-rule="batch"', page) == ["c-0", "c-1", "c-2"]
    assert page.count("data:image/png;base64,") == 3
    assert "candidate_id,label,rule" in page
    assert '"asked-labelled.csv"' in page
    assert "north &lt;1&gt;" in page
    assert not re.search(r'(src|href)="(?!data:)', page), "it opens offline"
    assert "0.4321" not in page, "who sees the score agrees with it"
    assert "0.1234" not in page


def test_answers_of_other_candidates_are_kept_apart() -> None:
    pages = [
        render_labelling("u", rows, stamps(len(rows)), table="t.csv", next_step="x") for rows in (ROWS, ROWS[:2], ROWS)
    ]
    keys = {re.findall(r'"(nightsift-[0-9a-f]{16})"', page)[0] for page in pages}
    assert len(keys) == 2


def test_stamps_must_belong_to_the_rows() -> None:
    with pytest.raises(ValueError, match="each of 3 rows, got 2"):
        render_labelling("u", ROWS, stamps(2), table="t.csv", next_step="x")
