"""A night against a Prefect server: each exposure is a task run with a telling name, stage times in log and table."""

from __future__ import annotations

import json

import pytest

from flows.night import night
from flows.templates import build_templates
from nightsift.archive.survey import Runner
from nightsift.simulate.options import SimulationOptions
from nightsift.simulate.survey import simulate

IN_PROCESS = Runner(kind="in-process", workers=1, address="")


POOL = Runner(kind="processes", workers=1, address="")


@pytest.mark.usefixtures("prefect_harness")
@pytest.mark.parametrize("runner", [IN_PROCESS, POOL], ids=["in-process", "processes"])
def test_exposures_stand_as_task_runs(tmp_path, runner):
    from prefect.client.orchestration import get_client

    survey = simulate(tmp_path, SimulationOptions.preset("tiny", seed=5))
    for file in (tmp_path / "units").glob("*.toml"):
        file.write_text(file.read_text().replace('name = "base"', 'name = "none"'))
    assert build_templates(survey, runner=IN_PROCESS).states == {"done": 1}
    summary = night(survey, runner=runner)
    assert summary.tracked
    assert summary.states == {"done": 2}
    with get_client(sync_client=True) as client:
        runs = {run.name: run.state_name for run in client.read_task_runs()}
        artifacts = {one.key: one for one in client.read_artifacts()}
    for row in summary.rows:
        file = row["url"].rpartition("/")[2]
        name = next(name for name in runs if file in name)
        assert row["unit"] in name
        assert row["field"] in name
        assert runs[name] == "Completed"
    table = json.loads(artifacts["night-2026-11-20-exposures"].data)
    assert {one["file"] for one in table} == {row["url"].rpartition("/")[2] for row in summary.rows}
    assert all(float(one["subtract"]) > 0 for one in table)
    assert "2 done" in artifacts["night-2026-11-20"].data
