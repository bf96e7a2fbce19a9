"""What a server is told: every entry point loads, and the file for other servers says the same as the code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from prefect import Flow

from flows.deployments import DEPLOYMENTS, POOLS, Deployed, load_flow

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


def test_the_file_says_what_the_code_says() -> None:
    here = {one.name: one for one in DEPLOYMENTS if load_flow(one.entrypoint) is not None}
    there = from_file()
    assert set(here) == set(there)
    for name, one in here.items():
        told = there[name]
        assert told["entrypoint"] == one.entrypoint
        assert told["work_pool"]["name"] == one.pool
        assert told["concurrency_limit"] == {"limit": one.limit, "collision_strategy": "ENQUEUE"}
        assert tuple(told["parameters"]) == one.parameters
        assert [schedule["cron"] for schedule in told["schedules"]] == ([one.cron] if one.cron else [])


def test_pools_do_not_starve_each_other() -> None:
    assert {one.pool for one in DEPLOYMENTS} == set(POOLS)
    nights = {one.name for one in DEPLOYMENTS if one.pool == "night"}
    assert nights == {"nightly", "plan"}


def test_what_is_not_installed_is_left_out() -> None:
    assert load_flow("flows.no_such_module.flow") is None
    assert load_flow("flows.scheduled.no_such_flow") is None
    assert isinstance(Deployed("a", "b", "c"), Deployed)
