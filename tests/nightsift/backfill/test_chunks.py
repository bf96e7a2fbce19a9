"""A plan is a partition: each exposure lies in one chunk, and a chunk is of one unit and one night."""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightsift.archive.night_status import nights_going_on
from nightsift.archive.paths import WITHOUT_NIGHT, Archive
from nightsift.backfill import campaigns, chunk_ledger
from nightsift.backfill.campaigns import ORDERS, Campaign, NoCampaign, Planned, deal
from tasks.batch import LOOK_SECONDS, make_room

EXPOSURES = st.lists(
    st.builds(
        Planned,
        night=st.sampled_from(["2023-01-01", "2023-01-02", "2024-02-29", "unknown"]),
        unit=st.sampled_from(["a", "b", "c 1"]),
        url=st.integers(0, 60).map(lambda n: f"frame-{n}.fits"),
    ),
    max_size=80,
)


@given(exposures=EXPOSURES, batch=st.integers(1, 12), order=st.sampled_from(ORDERS), seed=st.integers(0, 9))
def test_every_exposure_lies_in_one_chunk(exposures, batch, order, seed):
    chunks = deal(exposures, batch, order)
    dealt = [(one.unit, one.url) for chunk in chunks for one in chunk]
    assert Counter(dealt) == Counter({(one.unit, one.url): 1 for one in exposures})
    assert all(1 <= len(chunk) <= batch for chunk in chunks)
    assert all(len({(one.night, one.unit) for one in chunk}) == 1 for chunk in chunks)
    shuffled = exposures.copy()
    random.Random(seed).shuffle(shuffled)
    assert deal(shuffled, batch, order) == chunks, "the order of the exposures must not matter"


@given(exposures=EXPOSURES, batch=st.integers(1, 12))
def test_orders_deal_the_same_chunks(exposures, batch):
    assert len({frozenset(deal(exposures, batch, order)) for order in ORDERS}) == 1


def test_orders():
    exposures = [Planned(night, unit, f"{night}{unit}") for night in ("2023-01-01", "2023-01-02") for unit in "ab"]
    seen = {order: [(chunk[0].night[-1], chunk[0].unit) for chunk in deal(exposures, 5, order)] for order in ORDERS}
    assert seen["oldest"] == [("1", "a"), ("1", "b"), ("2", "a"), ("2", "b")]
    assert seen["newest"] == [("2", "a"), ("2", "b"), ("1", "a"), ("1", "b")]
    assert seen["unit"] == [("1", "a"), ("2", "a"), ("1", "b"), ("2", "b")]


def test_exposures_without_a_night_are_not_the_newest():
    exposures = [Planned(night, "a", night) for night in ("2023-01-01", WITHOUT_NIGHT, "2023-01-02")]
    nights = [chunk[0].night for chunk in deal(exposures, 5, "newest")]
    assert nights == ["2023-01-02", "2023-01-01", WITHOUT_NIGHT]


def test_pieces_are_about_as_long():
    exposures = [Planned("2023-01-01", "a", f"{n:03d}") for n in range(21)]
    assert [len(chunk) for chunk in deal(exposures, 20)] == [10, 11]
    with pytest.raises(ValueError, match="one exposure or more"):
        deal(exposures, 0)


@pytest.fixture
def campaign(tmp_path: Path) -> Campaign:
    name = campaigns.identity("2023-01-01", "", survey="s")
    return Campaign(name, "s", str(tmp_path), "", "2023-01-01", "", {"a": "a.toml"}, (), {"a": "r"}, 2, "oldest")


def test_campaign_is_there_when_it_is_whole(tmp_path, campaign):
    archive = Archive(tmp_path)
    chunks = deal([Planned("2023-01-01", "a", f"{n}.fits") for n in range(5)], 2)
    with pytest.raises(NoCampaign, match="known here: none"):
        campaigns.read(archive, campaign.name)
    campaigns.write(archive, campaign, chunks)
    assert campaigns.read(archive, campaign.name) == campaign
    assert campaigns.names(archive) == [campaign.name]
    campaigns.extend(archive, campaign, [(Planned("2023-01-02", "a", "late.fits"),)])
    plan = campaigns.read_plan(archive, campaign.name).to_pylist()
    assert [row["chunk"] for row in plan] == [0, 1, 1, 2, 2, 3]
    assert [row["url"] for row in campaigns.read_plan(archive, campaign.name, 3).to_pylist()] == ["late.fits"]
    rows = chunk_ledger.read(archive, campaign.name).to_pylist()
    assert [(row["chunk"], row["exposures"], row["state"]) for row in rows] == [
        (0, 1, "planned"), (1, 2, "planned"), (2, 2, "planned"), (3, 1, "planned"),
    ]  # fmt: skip


def test_rows_of_chunks_are_replaced_whole(tmp_path, campaign):
    archive = Archive(tmp_path)
    campaigns.write(archive, campaign, deal([Planned("2023-01-01", "a", f"{n}.fits") for n in range(3)], 2))
    first = chunk_ledger.read(archive, campaign.name).to_pylist()[0]
    chunk_ledger.record(archive, {**chunk_ledger.begun(first), "failed": 1, "state": "failed", "message": "disk"})
    again = chunk_ledger.begun(chunk_ledger.read_one(archive, first))
    assert (again["attempt"], again["failed"], again["message"], again["state"]) == (2, 0, "", "running")
    chunk_ledger.record(archive, again)
    night = chunk_ledger.opening(campaign.name, -1, "", night="2023-01-01", exposures=3, kind="finish")
    chunk_ledger.record(archive, {**night, "state": "done"})
    rows = chunk_ledger.read(archive, campaign.name).to_pylist()
    assert [(row["kind"], row["state"]) for row in rows] == [
        ("reduce", "running"), ("reduce", "planned"), ("finish", "done"),
    ]  # fmt: skip
    with pytest.raises(ValueError, match="the state of a chunk"):
        chunk_ledger.record(archive, {**first, "state": "lost"})


def test_identity_depends_on_the_request_alone():
    one = campaigns.identity("2023-01-01", "2024-12-31", units=["a"], batch=20)
    assert one.startswith("2023-01-01_2024-12-31_")
    assert one == campaigns.identity("2023-01-01", "2024-12-31", batch=20, units=["a"])
    assert one != campaigns.identity("2023-01-01", "2024-12-31", batch=21, units=["a"])


def status(tmp_path: Path, state: str, age: float = 0.0) -> Path:
    path = Archive(tmp_path).status("2026-11-20 south")
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"night": "2026-11-20", "state": state}))
    os.utime(path, (time.time() - age,) * 2)
    return path


@pytest.mark.parametrize(
    ("state", "age", "nights"),
    [("watching", 0.0, ["2026-11-20"]), ("closed", 0.0, []), ("watching", 3600.0, [])],
)
def test_a_night_goes_on_while_its_watch_says_so(tmp_path, state, age, nights):
    status(tmp_path, state, age)
    (tmp_path / "status" / "torn.json").write_text("{")
    assert nights_going_on(Archive(tmp_path)) == nights


def test_a_batch_makes_room_for_the_night(tmp_path):
    path, slept = status(tmp_path, "watching"), []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            path.write_text(json.dumps({"night": "2026-11-20", "state": "closed"}))

    make_room(Archive(tmp_path), "go-on", 10.0, sleep=sleep)
    assert not slept
    make_room(Archive(tmp_path), "pause", 0.0, sleep=sleep)
    assert slept == [LOOK_SECONDS] * 3, "it looks again until the night is over"
    status(tmp_path, "watching")
    make_room(Archive(tmp_path), "narrow", 0.0, sleep=sleep)
    assert len(slept) == 3, "alone it has nobody to make room for"
    make_room(Archive(tmp_path), "narrow", 0.05, sleep=lambda seconds: (slept.append(seconds), time.sleep(seconds)))
    assert 0.0 < slept[3] <= 0.05
