"""Ranked candidates: the counterpart first, all others below with a reason, none left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from nightsift.archive.skyalert_options import default_ranking
from nightsift.objects.association import associate, position_name
from nightsift.objects.history import probability_to_stay
from nightsift.skyalerts.products.gather import gather
from nightsift.skyalerts.products.rank import RANKED, Catalogues, rank_again, rank_candidates
from tests.nightsift.skyalerts.made_up_skyalert import T0, MadeUp, at, fields_at, fill, skymap_at

OPTIONS = default_ranking()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[MadeUp, Catalogues]:
    return fill(tmp_path_factory.mktemp("archive"))


@pytest.fixture(scope="module")
def ranked(made: tuple[MadeUp, Catalogues]) -> pa.Table:
    return rank(*made)


def rank(made: MadeUp, catalogues: Catalogues, **where: Any) -> pa.Table:
    found = gather(made.archive, T0, fields_at(made.ra, made.dec), history_days=OPTIONS.history_days)
    return rank_candidates(
        found, skymap_at(where.get("ra", made.ra), where.get("dec", made.dec)), catalogues, options=OPTIONS
    )


def row_of(ranked: pa.Table, made: MadeUp, name: str) -> dict[str, Any]:
    rows = [row for row in ranked.to_pylist() if set(row["candidate_ids"]) & set(made.ids[name])]
    assert len(rows) == 1, f"{name} is one object"
    return rows[0]


def test_counterpart_is_first_and_the_others_have_reasons(made: tuple[MadeUp, Catalogues], ranked: pa.Table) -> None:
    assert ranked.schema.equals(RANKED)
    assert ranked["rank"].to_pylist() == list(range(1, ranked.num_rows + 1))
    first = ranked.slice(0, 1).to_pylist()[0]
    assert set(first["candidate_ids"]) == set(made[0].ids["counterpart"])
    assert first["host_name"] == "RIGHT"
    assert first["reasons"] == ""
    assert first["probability"] > 0.5
    for name, told in {
        "far": "host at 900 ± 30 Mpc, the map says", "older": "seen 2 times before",
        "variable": "known variable star (vsx)",
        "nucleus": "known active nucleus", "mover": "minor planet (K26W01A)", "bogus": "score 0.03",
        "once": "not seen in 3 deeper exposures", "dipole": "flagged dipole", "lost": "no sky position",
    }.items():  # fmt: skip
        row = row_of(ranked, made[0], name)
        assert told in row["reasons"], name
        assert row["probability"] < 0.4 * first["probability"], name


def test_nothing_is_left_out(made: tuple[MadeUp, Catalogues], ranked: pa.Table) -> None:
    after = [one for name, ids in made[0].ids.items() for one in (ids[2:] if name in ("older", "variable") else ids)]
    assert sorted(one for ids in ranked["candidate_ids"].to_pylist() for one in ids) == sorted(after)
    assert sum(ranked["probability"].to_pylist()) <= 1.0
    assert (ranked["probability"].to_numpy()[:-1] >= ranked["probability"].to_numpy()[1:]).all()


def test_facts_of_the_counterpart(made: tuple[MadeUp, Catalogues], ranked: pa.Table) -> None:
    row = row_of(ranked, made[0], "counterpart")
    assert row["detections"] == 4
    assert row["epochs"] == 3, "2.0 h and 2.1 h are not apart"
    assert row["units"] == "one,two"
    assert row["host_separation"] == pytest.approx(np.hypot(6, 4), abs=0.05)
    assert row["limit_mjd"] == pytest.approx(T0 - 30 / 24)
    assert row["time_factor"] == pytest.approx(OPTIONS.visible_days / (32 / 24))
    assert row["map_distance"] == pytest.approx(200 * (1 + 3 * 0.04) / (1 + 0.04), rel=0.01), "mean of r**3 over r**2"
    assert row["score"] == pytest.approx(0.95)
    assert row["earlier"] == 0


def test_new_map_ranks_the_same_rows_in_another_order(made: tuple[MadeUp, Catalogues], ranked: pa.Table) -> None:
    there = row_of(ranked, made[0], "far")
    elsewhere = skymap_at(there["ra"], there["dec"], radius=0.2, distance=900.0)
    again = rank_again(ranked, elsewhere, made[1].hosts, t0=T0, options=OPTIONS)
    assert sorted(again["object_id"].to_pylist()) == sorted(ranked["object_id"].to_pylist())
    assert again["object_id"].to_pylist() != ranked["object_id"].to_pylist()
    assert again["object_id"][0].as_py() == there["object_id"]
    back = rank_again(again, skymap_at(made[0].ra, made[0].dec), made[1].hosts, t0=T0, options=OPTIONS)
    assert back.equals(ranked)


def test_without_distances_galaxies_or_map(made: tuple[MadeUp, Catalogues]) -> None:
    found = gather(made[0].archive, T0, (), history_days=OPTIONS.history_days)
    bare = rank_candidates(found, None, Catalogues(), options=OPTIONS)
    assert set(bare["host_state"].to_pylist()) == {"unknown"}
    assert bare["credible_level"].null_count == bare.num_rows
    flat = rank_candidates(found, skymap_at(made[0].ra, made[0].dec, distance=None), made[1], options=OPTIONS)
    assert set(flat["distance_factor"].to_pylist()) == {1.0}
    assert row_of(flat, made[0], "once")["host_state"] == "hostless"


def test_only_new_files_are_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, catalogues = fill(tmp_path)
    fields = fields_at(made.ra, made.dec)
    known = gather(made.archive, T0, fields, history_days=OPTIONS.history_days)
    made.expose(6.0, {"late": at(made.ra, made.dec, 77, 77)})
    read: list[int] = []
    from nightsift.skyalerts.products import gather as module

    real = module.read_tables
    monkeypatch.setattr(module, "read_tables", lambda paths, schema: read.append(len(paths)) or real(paths, schema))
    more = gather(made.archive, T0, fields, history_days=OPTIONS.history_days, known=known)
    assert read == [1, 1]
    fresh = gather(made.archive, T0, fields, history_days=OPTIONS.history_days)
    skymap = skymap_at(made.ra, made.dec)
    one, two = (rank_candidates(found, skymap, catalogues, options=OPTIONS) for found in (more, fresh))
    assert one.equals(two)
    assert row_of(one, made, "late")["detections"] == 1


def test_far_fields_and_unreduced_exposures_are_not_read(made: tuple[MadeUp, Catalogues]) -> None:
    away = gather(
        made[0].archive, T0, fields_at((made[0].ra + 90.0) % 360.0, made[0].dec), history_days=OPTIONS.history_days
    )
    assert away.candidates.num_rows == 0
    assert rank_candidates(away, None, Catalogues(), options=OPTIONS).num_rows == 0
    assert gather(made[0].archive, T0, (), history_days=2.0).before.num_rows == 2, (
        "only a day and a quarter before counts"
    )


def test_chains_do_not_grow_and_rows_may_stand_in_any_order(rng: np.random.Generator) -> None:
    ra, snr = (
        np.array([10.0, 10.0 + 1.4 / 3600, 10.0 + 2.8 / 3600, np.nan, np.nan]),
        np.array([9.0, 5.0, 8.0, 3.0, 3.0]),
    )
    dec, radius = np.zeros(5), np.full(5, 1.5)
    assert associate(ra, dec, snr, radius=radius).tolist() == [0, 0, 1, 2, 3]
    order = rng.permutation(5)
    shuffled = associate(ra[order], dec[order], snr[order], radius=radius)
    same = shuffled[:, None] == shuffled[None, :]
    back = np.argsort(order)
    assert same[np.ix_(back, back)].sum() == 7, "the same two and three singles"


def test_position_names_are_cut_off_not_rounded() -> None:
    assert position_name(12.062004, -25.056694) == "J004814.88-250324.0"
    assert position_name(359.99999999, 89.99999999) == "J235959.99+895959.9"
    assert position_name(float("nan"), 0.0) == ""


def test_seen_again_or_not() -> None:
    epochs, misses = np.array([1, 2, 4, 1, 1, 2]), np.array([0, 0, 0, 1, 3, 1])
    stays = probability_to_stay(epochs, misses, OPTIONS)
    assert stays[0] == pytest.approx(0.5)
    assert stays[1] == pytest.approx(0.9 / 0.95)
    assert stays[3] == pytest.approx(0.1 / 1.05)
    assert stays[4] < 0.01 < 0.3 < stays[5] < stays[1] < stays[2]
