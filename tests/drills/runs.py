"""A deployed night: its work pool, its runs, and what the server says of them."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, Request, build_opener

from tests.drills.engine import ROOT, Engine, processes_of, wait_for

POOL = "drills"
FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


class Runs:
    """The deployment ``drill`` on an engine, by the plain API of the server."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        try:
            self.ask("POST", "/work_pools/", {"name": POOL, "type": "process"})
        except HTTPError as error:
            if error.code != 409:  # it stands already
                raise
        flow = self.ask("POST", "/flows/", {"name": "drill"})["id"]
        self.deployment = self.ask(
            "POST",
            "/deployments/",
            {
                "name": "drill",
                "flow_id": flow,
                "work_pool_name": POOL,
                "entrypoint": "tests.drills.drilled.drill",
                "pull_steps": [{"prefect.deployments.steps.set_working_directory": {"directory": str(ROOT)}}],
            },
        )["id"]

    def ask(self, method: str, place: str, content: Any = None) -> Any:
        """Ask the server, with its password."""
        server = self.engine.server
        request = Request(f"{server.url}{place}", method=method)
        request.add_header("Authorization", f"Basic {base64.b64encode(server.password.encode()).decode()}")
        request.add_header("Content-Type", "application/json")
        data = None if content is None else json.dumps(content).encode()
        with build_opener(ProxyHandler({})).open(request, data, timeout=30.0) as reply:
            return json.loads(reply.read() or b"null")

    def start(self, survey: Path, **parameters: Any) -> str:
        """Schedule a run for now."""
        content = {"parameters": {"survey": str(survey), **parameters}, "state": {"type": "SCHEDULED"}}
        return str(self.ask("POST", f"/deployments/{self.deployment}/create_flow_run", content)["id"])

    def state(self, run: str) -> str:
        """State of a run; empty while the server does not answer."""
        try:
            return str(self.ask("GET", f"/flow_runs/{run}")["state_type"])
        except (URLError, OSError):
            return ""

    def ended(self, run: str) -> str:
        """Wait for the end of a run and tell its state."""
        return str(wait_for(lambda: {self.state(run)} & FINAL, f"the end of run {run}", pause=0.5).pop())

    def processes(self, run: str) -> list[int]:
        """Processes of a run that is under way, its own one first."""
        return list(wait_for(lambda: processes_of(run), f"the process of run {run}"))

    def all(self) -> list[Any]:
        """All runs that the server knows, those inside others too."""
        return list(self.ask("POST", "/flow_runs/filter", {"limit": 200}))

    def running(self) -> set[str]:
        """Runs that are under way, or seem to be."""
        return {one["id"] for one in self.all() if one["state_type"] == "RUNNING"}
