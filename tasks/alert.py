"""The steps of an alert as tracked tasks, each around one plain function."""

from __future__ import annotations

from collections.abc import Sequence
from http.client import HTTPMessage
from pathlib import Path
from typing import IO
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from prefect import task
from prefect.cache_policies import NO_CACHE

from nightsift.alerts.alert import Alert
from nightsift.alerts.desk import Desk
from nightsift.alerts.planning import map_path, ruling
from nightsift.alerts.skymap_file import LARGEST, read_skymap
from nightsift.alerts.targets import Target
from nightsift.errors import SourceError
from nightsift.io.atomic import atomic
from tasks.logs import run_logger

FETCH_SECONDS = 20.0
PAUSES = [1.0, 3.0, 10.0]
"""Seconds between tries to fetch a sky map: the network is to blame, not the map."""


def is_trusted(url: str, hosts: Sequence[str]) -> bool:
    """Whether a sky map may be fetched from an address.

    Parameters
    ----------
    url : str
        The address, as a notice or a server told it.
    hosts : sequence of str
        Hosts that maps are fetched from.

    Returns
    -------
    bool
        Whether it is https, on one of the hosts, without user or another port.
    """
    try:
        parts = urlsplit(url)
        return parts.scheme == "https" and parts.netloc.lower() in hosts
    except ValueError:
        return False


class StayAmong(HTTPRedirectHandler):
    """Follows a server elsewhere only where maps may be fetched from.

    Parameters
    ----------
    hosts : sequence of str
        Hosts that maps are fetched from.
    """

    def __init__(self, hosts: Sequence[str]) -> None:
        self._hosts = hosts

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        """Refuse to be sent anywhere else."""
        if not is_trusted(newurl, self._hosts):
            raise URLError(f"it sends on to {newurl[:200]}, which is not among the hosts of maps")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@task(name="read notice", persist_result=False, cache_policy=NO_CACHE)
def read_ruling(desk: Desk, event: str) -> Alert:
    """Read the notice that rules an event (see `nightsift.alerts.planning.ruling`).

    Parameters
    ----------
    desk : Desk
        With the archive.
    event : str
        The event.

    Returns
    -------
    Alert
        What it says.
    """
    alert, kept = ruling(desk.archive, event)
    run_logger().info("%s: %s of %s, %s, from %s", event, alert.kind, alert.sender, alert.role, kept.path.name)
    return alert


@task(
    name="fetch sky map", retries=3, retry_delay_seconds=PAUSES, retry_jitter_factor=0.5, persist_result=False,
    cache_policy=NO_CACHE,
)  # fmt: skip
def fetch_map(desk: Desk, event: str) -> Path | None:
    """Fetch the sky map that the ruling notice names, where it brings none.

    Parameters
    ----------
    desk : Desk
        With the archive, and the hosts that maps are fetched from: the address in a notice is trusted no further.
    event : str
        The event.

    Returns
    -------
    Path or None
        The file, checked to be a sky map; None where there is nothing to fetch.

    Raises
    ------
    SourceError
        If the host does not answer.
    BadSkyMap
        If what it sends is none.
    """
    alert, kept = ruling(desk.archive, event)
    path = map_path(desk.archive, event, kept)
    if path.is_file() or alert.skymap is None or alert.skymap.content or not alert.skymap.url:
        return path if path.is_file() else None
    url = alert.skymap.url.partition(",")[0]  # GraceDB puts the version of the file behind a comma
    hosts = desk.survey.alert.map_hosts
    if not is_trusted(url, hosts):
        run_logger().warning("the sky map at %s is not fetched: only by https, from [alert] map_hosts", url)
        return None
    try:
        request = Request(url, headers={"User-Agent": "nightsift"})
        with build_opener(StayAmong(hosts)).open(request, timeout=FETCH_SECONDS) as reply:
            content = reply.read(LARGEST)
    except (OSError, ValueError) as error:
        raise SourceError(url=url, what=str(error)) from error
    read_skymap(content, url)
    with atomic(path) as temporary:
        temporary.write_bytes(content)
    return path


@task(name="rank fields, write targets", persist_result=False, cache_policy=NO_CACHE)
def plan_fields(desk: Desk, event: str) -> Target:
    """Rank the fields of an event and write what is wanted (see `nightsift.alerts.planning.make_plan`).

    Parameters
    ----------
    desk : Desk
        With fields and places.
    event : str
        The event.

    Returns
    -------
    Target
        What is wanted now.
    """
    planned = desk.plan(event)
    target = planned.target
    run_logger().info("%s: %s, %s; %d fields wanted", event, target.state, planned.why, len(target.fields))
    return target


@task(name="check templates", persist_result=False, cache_policy=NO_CACHE)
def check_templates(desk: Desk, event: str) -> list[str]:
    """Tell of which wanted fields units have no template: their exposures wait.

    Parameters
    ----------
    desk : Desk
        With the plan.
    event : str
        The event.

    Returns
    -------
    list of str
        One line a unit that lacks some.
    """
    lacking = desk.lacking_templates(desk.plans[event].target)
    for line in lacking:
        run_logger().warning("%s", line)
    return lacking


@task(name="gather candidates", persist_result=False, cache_policy=NO_CACHE)
def gather_candidates(desk: Desk, event: str) -> int:
    """Gather what candidates are ranked by: exposures after the event in its fields, and those before.

    Parameters
    ----------
    desk : Desk
        With the plan.
    event : str
        The event.

    Returns
    -------
    int
        Exposures of its fields.
    """
    gathered = desk.gather(event)
    exposures = gathered.exposures.num_rows
    run_logger().info("%d exposures, %d candidates after the event", exposures, gathered.after.num_rows)
    return exposures


@task(name="rank candidates, write page", persist_result=False, cache_policy=NO_CACHE)
def write_products(desk: Desk, event: str, problems: tuple[str, ...] = ()) -> int:
    """Rank candidates, write table, page and drafts (see `nightsift.alerts.products.write`).

    Parameters
    ----------
    desk : Desk
        With the plan and what was gathered.
    event : str
        The event.
    problems : tuple of str, optional
        What the page should tell.

    Returns
    -------
    int
        Objects ranked.
    """
    objects = desk.write_products(event, problems)
    run_logger().info("%d objects ranked", objects)
    return objects
