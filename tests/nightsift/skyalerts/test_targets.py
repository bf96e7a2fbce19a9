"""What a running alert wants first: fields, times, units and states; damaged files cost only their own alert."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from nightsift.archive.paths import Archive
from nightsift.core.errors import BadAlertFile
from nightsift.sky.fields import SkyField, square_field
from nightsift.skyalerts.event_store.targets import (
    Target,
    active_targets,
    damaged_targets,
    folder_of,
    read_target,
    wants,
    write_target,
)

NEAR = square_field("near", 30.0, 40.0, width=2.0)
FAR = SkyField("far", 200.0, -89.0, (), 3.0, units=("south-1",))
TARGET = Target("S1", 60000.0, 60003.0, "active", (NEAR, FAR), (0.3, 0.1), excluded=("north-2",), revision=2)


def test_the_field_the_time_and_the_unit_decide():
    assert wants([TARGET], "north-1", 30.0, dec=40.0, mjd=60000.5) == pytest.approx(0.3)
    assert wants([TARGET], "north-1", 30.0, dec=41.2, mjd=60000.5) == pytest.approx(0.15), (
        "a frame that touches the field"
    )
    assert wants([TARGET], "north-1", 30.0, dec=42.0, mjd=60000.5) == 0.0
    assert wants([TARGET], "north-1", 30.0, dec=40.0, mjd=59999.9) == 0.0, "before the event"
    assert wants([TARGET], "north-1", 30.0, dec=40.0, mjd=60004.0) == 0.0, "after the claim has ended"
    assert wants([TARGET], "north-2", 30.0, dec=40.0, mjd=60000.5) == 0.0, "taken out by the operators"
    assert wants([TARGET], "south-1", 10.0, dec=-89.5, mjd=60000.5) == pytest.approx(0.1)
    assert wants([TARGET], "north-1", 10.0, dec=-89.5, mjd=60000.5) == 0.0, "a field of another unit"
    assert wants([TARGET], "north-1", math.nan, dec=math.nan, mjd=60000.5) == 0.0
    assert wants([], "north-1", 30.0, dec=40.0, mjd=60000.5) == 0.0
    assert wants([TARGET, replace(TARGET, event="S2", probability=(0.8, 0.0))], "n", 30.0, dec=40.0, mjd=60001.0) == 0.8


def test_only_active_alerts_are_found_and_what_is_written_is_read(tmp_path):
    archive = Archive(tmp_path)
    assert active_targets(archive) == ()
    write_target(archive, TARGET)
    for state in ("waiting", "paused", "stopped", "retracted"):
        write_target(archive, replace(TARGET, event=f"other-{state}", state=state))
    assert active_targets(archive) == (TARGET,)


def test_a_damaged_file_costs_only_its_own_alert(tmp_path):
    archive = Archive(tmp_path)
    path = write_target(archive, TARGET)
    for number, text in enumerate(["", "{", "[]", "{}", path.read_text().replace("active", "lively"), "null"]):
        bad = folder_of(archive, f"bad-{number}") / "targets.json"
        bad.parent.mkdir()
        bad.write_text(text)
        with pytest.raises(BadAlertFile, match="damaged"):
            read_target(bad)
    content = json.loads(path.read_text())
    content["fields"][0]["ra"] = "nan"
    (folder_of(archive, "bad-0") / "targets.json").write_text(json.dumps(content))
    assert [one.event for one in active_targets(archive)] == ["S1"]
    assert len(damaged_targets(archive)) == 6


@pytest.mark.parametrize("event", ["../../etc", "..", ".", "", "a/b", "S1\x00", ".hidden"])
def test_no_name_leads_out_of_the_archive(event, tmp_path):
    folder = folder_of(Archive(tmp_path), event)
    assert folder.resolve().parent == (tmp_path / "alerts").resolve()
    assert "\x00" not in str(folder)
