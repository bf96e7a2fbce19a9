"""What stands in infra/: valid by the schemas of compose and Kubernetes, no password by default, nothing open."""

from __future__ import annotations

import importlib
import itertools
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from typer.testing import CliRunner

from flows.tracking import LEASES_ON_DISK
from nightsift.cli import app

POOLS = {"night", "backfill", "alert"}


@pytest.fixture(scope="module")
def infra(project_root: Path) -> Path:
    return project_root / "infra"


@pytest.fixture(scope="module")
def compose(infra: Path) -> dict[str, Any]:
    return yaml.safe_load((infra / "compose.yaml").read_text())


@pytest.fixture(scope="module")
def resources(infra: Path) -> list[dict[str, Any]]:
    kustomization = yaml.safe_load((infra / "kubernetes" / "kustomization.yaml").read_text())
    files = [infra / "kubernetes" / name for name in kustomization["resources"]]
    return [one for file in files for one in yaml.safe_load_all(file.read_text())]


def _pods(resources: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {
        one["metadata"]["name"]: one["spec"]["template"]["spec"]
        for one in resources
        if "template" in one.get("spec", {})
    }


def test_compose_follows_its_specification(infra: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.compose-spec",
        str(infra / "compose.yaml"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_manifest_follows_the_schema_of_kubernetes(
    infra: Path, resources: list[dict[str, Any]], subtests: pytest.Subtests
) -> None:
    for one in [*resources, yaml.safe_load((infra / "kubernetes" / "secrets.example.yaml").read_text())]:
        with subtests.test(msg=f"{one['kind']} {one['metadata']['name']}"):
            kubernetes_validate.validate(one, "1.31", strict=True)


def test_every_manifest_is_applied(infra: Path) -> None:
    listed = set(yaml.safe_load((infra / "kubernetes" / "kustomization.yaml").read_text())["resources"])
    there = {path.name for path in (infra / "kubernetes").glob("*.yaml")}
    assert there - listed == {"kustomization.yaml", "secrets.example.yaml"}


def test_no_password_by_default(infra: Path) -> None:
    example = dict(re.findall(r"^(\w+)=(.*)$", (infra / "compose.env.example").read_text(), re.M))
    secret = yaml.safe_load((infra / "kubernetes" / "secrets.example.yaml").read_text())["stringData"]
    named = re.compile("AUTH|PASSWORD|SECRET|CONNECTION_URL")
    assert {value for key, value in {**example, **secret}.items() if named.search(key)} == {""}
    text = (infra / "compose.yaml").read_text()
    for name in ("PREFECT_AUTH", "POSTGRES_PASSWORD"):  # ':?' stops docker compose while it is unset or empty
        assert f"${{{name}:?" in text


def test_ports_open_on_loopback_only(compose: dict[str, Any]) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def _words(compose: dict[str, Any], resources: list[dict[str, Any]]) -> list[list[str]]:
    """What the containers of the image are started with, by compose.yaml and by the manifests."""
    ours = [pod["containers"][0] for pod in _pods(resources).values() if pod["containers"][0]["image"] == "nightsift"]
    services = [one for name, one in compose["services"].items() if name != "database"]
    # an entry point of their own would pass by that of the image, and with it its compiled code
    assert not any("command" in one for one in ours)
    assert not any("entrypoint" in one for one in services)
    return [one["command"] for one in services] + [one["args"] for one in ours]


def test_a_worker_for_each_pool(compose: dict[str, Any], resources: list[dict[str, Any]]) -> None:
    words = _words(compose, resources)
    pools = [one[one.index("--pool") + 1] for one in words if "--pool" in one]
    assert sorted(pools) == sorted([*POOLS, *POOLS])


def test_every_command_exists(infra: Path, compose: dict[str, Any], resources: list[dict[str, Any]]) -> None:
    others = re.search(r"^    ([\w| ]+)\) ;;$", (infra / "entrypoint.sh").read_text(), re.M)
    assert others is not None
    called = [one for one in _words(compose, resources) if one[0] not in others[1].split(" | ")]
    assert len(called) >= 4
    for command in called:
        words = list(itertools.takewhile(str.isalpha, command))
        help_page = CliRunner().invoke(app, [*words, "--help"])
        assert help_page.exit_code == 0, command


def test_leases_outlive_a_server_that_is_killed(compose: dict[str, Any], resources: list[dict[str, Any]]) -> None:
    importlib.import_module(LEASES_ON_DISK)
    server = compose["services"]["server"]
    assert server["environment"]["PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"] == LEASES_ON_DISK
    mounts = [one.split(":")[1] for one in server["volumes"]]
    assert any(server["environment"]["PREFECT_HOME"].startswith(f"{mount}/") for mount in mounts)
    container = _pods(resources)["server"]["containers"][0]
    settings = {one["name"]: one.get("value", "") for one in container["env"]}
    assert settings["PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"] == LEASES_ON_DISK
    assert any(settings["PREFECT_HOME"].startswith(f"{one['mountPath']}/") for one in container["volumeMounts"])


def test_pods_have_no_rights(resources: list[dict[str, Any]], subtests: pytest.Subtests) -> None:
    for name, pod in _pods(resources).items():
        with subtests.test(msg=name):
            container = pod["containers"][0]
            assert pod["securityContext"]["runAsNonRoot"]
            assert not pod["automountServiceAccountToken"]
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert not container["securityContext"]["allowPrivilegeEscalation"]
            assert "limits" in container["resources"]


def test_secrets_come_from_the_secret(resources: list[dict[str, Any]]) -> None:
    named = re.compile("AUTH|PASSWORD|SECRET|CONNECTION_URL")
    for pod in _pods(resources).values():
        for variable in pod["containers"][0].get("env", ()):
            if named.search(variable["name"]):
                assert "secretKeyRef" in variable["valueFrom"], variable["name"]


def test_image_holds_every_package_and_no_root(infra: Path, project_root: Path) -> None:
    text = (infra / "Dockerfile").read_text()
    project = tomllib.loads((project_root / "pyproject.toml").read_text())
    for package in project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]:
        assert f"COPY {package} {package}\n" in text
        assert f"\n!{package}\n" in (infra / "Dockerfile.dockerignore").read_text()
    users = re.findall(r"^USER (\S+)", text, re.M)
    assert users
    assert users[-1] not in ("root", "0")
    assert "--require-hashes" in text
    extras = set(project["project"]["optional-dependencies"]) - {"dev", "docs"}
    installed = re.search(r'install "nightsift\[([\w,]+)\]"', text)
    assert installed is not None
    assert set(installed[1].split(",")) == extras
