"""Nights as scheduled runs, against a real server: each once, at dusk, and another one where a watch has died."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flows.plan_nights import EARLY, NotDeployed, plan
from nightsift.archive.claims import claimed
from nightsift.archive.paths import Archive
from nightsift.archive.survey import Survey, load_survey
from nightsift.site.clock import night_at

SURVEY = """
name = "{name}"
archive = "archive"
[[source]]
unit = "north"
frames = "nights"
site = "palma"
[[source]]
unit = "south"
frames = "nights"
site = "spring"
[site.palma]
latitude = 28.76
longitude = -17.88
timezone = "Atlantic/Canary"
[site.spring]
latitude = -31.27
longitude = 149.06
timezone = "Australia/Sydney"
"""
NOON = datetime(2031, 3, 1, 12, 0, tzinfo=UTC)


def survey(tmp_path: Path, name: str) -> Survey:
    file = tmp_path / "survey.toml"
    file.write_text(SURVEY.format(name=name))
    return load_survey(file)


@pytest.mark.usefixtures("prefect_harness")
def test_planned_once_and_begun_again_when_a_watch_has_died(tmp_path: Path) -> None:
    from prefect.client.orchestration import get_client
    from prefect.states import Crashed, Running

    from flows.deployments import declare

    one = survey(tmp_path, "plan")
    with pytest.raises(NotDeployed, match="nightsift serve"):
        plan(one, "survey.toml", now=NOON)
    declare(str(tmp_path / "survey.toml"))
    declare(str(tmp_path / "survey.toml"))

    def runs(site: str) -> list[str]:
        with get_client(sync_client=True) as client:
            found = [run for run in client.read_flow_runs() if run.name.startswith(f"plan {site}")]
        return sorted(f"{run.expected_start_time:%Y-%m-%d %H:%M}" for run in found)

    first = plan(one, "survey.toml", days=2, now=NOON)
    assert plan(one, "survey.toml", days=2, now=NOON + timedelta(minutes=7)) == first
    assert len(runs("palma")) == 2
    dusk = night_at(one.sites["palma"], NOON + timedelta(hours=3), one.watch.sun_altitude).dusk
    assert dusk is not None
    assert runs("palma")[0] == f"{dusk - EARLY:%Y-%m-%d %H:%M}"
    assert any("AEDT" in line for line in first), "told in the clock of the site"

    tonight = dusk + timedelta(hours=2)
    archive = Archive(one.archive)
    with get_client(sync_client=True) as client:
        (run,) = [r for r in client.read_flow_runs() if r.name == f"plan palma {NOON:%Y-%m-%d}"]
        client.set_flow_run_state(run.id, Running(), force=True)
        with claimed(archive, "watch plan palma"):
            plan(one, "survey.toml", days=1, now=tonight)
            assert len(runs("palma")) == 2, "it is watched: nothing to do"
        plan(one, "survey.toml", days=1, now=tonight)
        assert client.read_flow_run(run.id).state_name == "Crashed", "a run that could not say that it had died"
        assert len(runs("palma")) == 3
        client.set_flow_run_state(run.id, Crashed(), force=True)
        plan(one, "survey.toml", days=1, now=tonight)
        assert len(runs("palma")) == 3, "the second is on its way"
