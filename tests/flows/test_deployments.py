"""What a server is told: every entry point loads, and the file for other servers says the same as the code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from prefect import Flow

from flows.deployments import DEPLOYMENTS, POOLS, Deployed, load_flow, prefect_file
from nightsift.core.errors import ConfigurationError

ROOT = Path(__file__).resolve().parents[2]


def from_file() -> dict[str, dict[str, Any]]:
    from ruamel.yaml import YAML

    content = YAML(typ="safe").load((ROOT / "infra/prefect.yaml").read_text())
    return {one["name"]: one for one in content["deployments"]}


@pytest.mark.parametrize("one", from_file().values(), ids=lambda one: one["name"])
def test_every_entry_point_of_the_file_loads(one: dict[str, Any]) -> None:
    from prefect.flows import load_flow_from_entrypoint

    loaded = load_flow_from_entrypoint(one["entrypoint"])
    assert isinstance(loaded, Flow)
    assert set(one["parameters"]) <= set(loaded.parameters.properties)
    assert all(name in one["parameters"] for name in loaded.parameters.required or () if name == "survey")
    json.dumps(loaded.parameters.model_dump_for_openapi())


def test_the_file_is_the_one_that_is_written_from_the_code() -> None:
    assert (ROOT / "infra/prefect.yaml").read_text(encoding="utf-8") == prefect_file(), "run `make docs`"


def test_the_file_says_what_the_code_says() -> None:
    here = {one.name: one for one in DEPLOYMENTS if load_flow(one.entrypoint) is not None}
    there = from_file()
    assert set(here) == set(there)
    assert len(here) == len(DEPLOYMENTS), "in this tree every flow is there"
    for name, one in here.items():
        told = there[name]
        assert told["description"]
        assert tuple(told["tags"]) == one.tags
        assert told["entrypoint"] == one.entrypoint
        assert told["work_pool"]["name"] == one.pool
        assert told["concurrency_limit"] == {"limit": one.limit, "collision_strategy": "ENQUEUE"}
        assert tuple(told["parameters"]) == one.parameters
        assert [schedule["cron"] for schedule in told["schedules"]] == ([one.cron] if one.cron else [])


def test_pools_do_not_starve_each_other() -> None:
    assert {one.pool for one in DEPLOYMENTS} == set(POOLS)
    nights = {one.name for one in DEPLOYMENTS if one.pool == "night"}
    assert nights == {"nightly", "plan"}


def test_what_needs_a_package_that_is_not_installed_is_left_out_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "flow_with_more.py").write_text("import no_such_package.of_others\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert load_flow("flow_with_more.flow") is None
    assert "flow_with_more.flow is left out: the package no_such_package is not installed" in caplog.text
    assert isinstance(Deployed("a", "b", "c"), Deployed)


def test_a_misspelt_flow_is_an_error_and_not_a_missing_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "flow_that_errs.py").write_text("import flows.nihgtly\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for entrypoint, what in {
        "flows.scheduldes.nightly": "no module flows.scheduldes",
        "flwos.scheduled.nightly": "no module flwos",
        "flows.deployments.nihgtly": "the module flows.deployments has no flow nihgtly",
        "flows.deployments.RETRIES": "the module flows.deployments has no flow RETRIES",
        "flow_that_errs.flow": "no module flows.nihgtly",
    }.items():
        with pytest.raises(ConfigurationError, match=what):
            load_flow(entrypoint)
