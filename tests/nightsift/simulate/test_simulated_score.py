"""The scorecard counts what was planted, and nothing else."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pyarrow as pa
import pytest

from nightsift.core import tables
from nightsift.core.flags import Flag
from nightsift.report.score import score_night

DEFAULTS: dict[str, Any] = {"string": "", "double": 0.0, "float": 0.0, "int32": 0, "int8": 1}


def rows(schema: pa.Schema, *given: dict[str, Any]) -> pa.Table:
    """A table in which what is not given is zero, empty, or null where allowed."""
    filled = []
    for one in given:
        row = {f.name: None if f.nullable else DEFAULTS.get(str(f.type)) for f in schema}
        if "recorded_at" in row:
            row["recorded_at"] = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
        filled.append({**row, **one})
    return tables.table(filled, schema) if filled else schema.empty_table()


def true(x: float, **changes: Any) -> dict[str, Any]:
    base = {
        "exposure_file": "a.fits",
        "unit": "u",
        "kind": "supernova",
        "x": x,
        "y": 50.0,
        "flux": 10.0,
        "snr": 20.0,
        "obstructed": False,
        "host_offset": 0.7,
    }
    return {**base, **changes}


def seen(x: float, **changes: Any) -> dict[str, Any]:
    return {"exposure_id": "u-1", "unit": "u", "x": x, "y": 50.5, "sign": 1, "score": 0.9, **changes}


LEDGER = rows(
    tables.LEDGER,
    {"exposure_id": "u-1", "unit": "u", "state": "done", "url": "s3://b/a.fits", "area": 0.5},
    {"exposure_id": "u-2", "unit": "u", "state": "refused", "url": "/d/b.fits"},
)


def test_stages_are_counted() -> None:
    truth = rows(tables.TRUTH, true(10), true(30), true(50), true(70, snr=4.5), true(90, exposure_file="b.fits"))
    candidates = rows(tables.CANDIDATES, seen(10.5), seen(30.2, score=0.2), seen(50, flags=int(Flag.STREAK)), seen(200))
    card = score_night(candidates, LEDGER, truth, thresholds={"u": 0.5})
    assert card.not_searched == 1
    assert card.fraction("kind", "supernova") == 1.0
    assert card.fraction("kind", "supernova", "unflagged") == pytest.approx(2 / 3)
    assert card.fraction("kind", "supernova", "accepted") == pytest.approx(1 / 3)
    assert card.fraction("host offset", "0.5 to 1", "accepted", unit="u") == pytest.approx(1 / 3)
    assert card.fraction("snr", "4 to 5") == 0.0
    total = card.false_rates[0]
    assert (total.detected, total.unflagged, total.accepted) == (1, 1, 1)
    assert total.per_deg2("accepted") == 2.0


def test_variables_asteroids_and_faint_truths_are_not_false() -> None:
    truth = rows(
        tables.TRUTH,
        true(10, kind="asteroid", host_offset=None),
        true(40, snr=1.0),
        true(70, kind="variable", flux=5.0, reference_flux=9.0, host_offset=None),
    )
    candidates = rows(tables.CANDIDATES, seen(10), seen(40), seen(70, sign=-1, flags=int(Flag.NEGATIVE)))
    card = score_night(candidates, LEDGER, truth, thresholds={"u": 0.5})
    assert card.false_rates[0].detected == 0
    assert card.fraction("kind", "variable", "accepted") == 1.0
    wrong = score_night(rows(tables.CANDIDATES, seen(70, sign=1)), LEDGER, truth, thresholds={"u": 0.5})
    assert wrong.fraction("kind", "variable") == 0.0
    assert wrong.false_rates[0].detected == 1


def test_obstructed_objects_stand_apart() -> None:
    truth = rows(tables.TRUTH, true(10, obstructed=True), true(40))
    card = score_night(rows(tables.CANDIDATES, seen(10)), LEDGER, truth, thresholds={"u": 0.5})
    assert card.fraction("kind", "supernova") == 0.0
    assert card.fraction("obstructed", "snr over 8") == 1.0


def test_candidates_far_away_or_of_other_exposures_do_not_count() -> None:
    truth = rows(tables.TRUTH, true(10))
    card = score_night(
        rows(tables.CANDIDATES, seen(13), seen(10, exposure_id="u-9")), LEDGER, truth, thresholds={"u": 0.5}
    )
    assert card.fraction("kind", "supernova") == 0.0
    assert card.false_rates[0].detected == 1


def test_without_scores_nothing_is_accepted() -> None:
    truth = rows(tables.TRUTH, true(10))
    card = score_night(rows(tables.CANDIDATES, seen(10, score=None)), LEDGER, truth, thresholds={"u": 0.5})
    assert not card.classified
    assert card.fraction("kind", "supernova", "unflagged") == 1.0
    assert card.fraction("kind", "supernova", "accepted") == 0.0


def test_empty_night_and_json() -> None:
    card = score_night(rows(tables.CANDIDATES), LEDGER, rows(tables.TRUTH), thresholds={"u": 0.5})
    assert card.false_rates[0].detected == 0
    assert json.loads(card.to_json())["false_rates"][0]["per_deg2"]["detected"] == 0.0
    assert card.table()[0][0] == "group"


def test_threshold_must_be_given() -> None:
    with pytest.raises(ValueError, match="no score threshold"):
        score_night(rows(tables.CANDIDATES), LEDGER, rows(tables.TRUTH), thresholds={})
