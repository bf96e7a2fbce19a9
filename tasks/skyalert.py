"""The steps of a sky alert as tracked tasks, and where notices come from: files in a folder, topics of GCN (Kafka)."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from http.client import HTTPMessage
from pathlib import Path
from typing import IO, Any, Protocol
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from prefect import task
from prefect.cache_policies import NO_CACHE

from nightsift.archive.survey import Survey
from nightsift.core.errors import BadNotice, ConfigurationError, SourceError
from nightsift.io.atomic import atomic
from nightsift.skyalerts.event_store.targets import Target
from nightsift.skyalerts.notices.notice import notice_bytes
from nightsift.skyalerts.notices.skyalert import SkyAlert
from nightsift.skyalerts.planning.planning import map_path, ruling
from nightsift.skyalerts.skyalert_session import SkyAlertSession
from nightsift.skyalerts.skymaps.skymap_file import LARGEST, read_skymap
from tasks.retry import run_logger

FETCH_SECONDS = 20.0
PAUSES = [1.0, 3.0, 10.0]
"""Seconds between tries to fetch a sky map: the network is to blame, not the map."""

CLIENT_ID, CLIENT_SECRET = "GCN_CLIENT_ID", "GCN_CLIENT_SECRET"
"""Environment variables of the credentials; Secret blocks of Prefect with these names in small letters, with dashes."""
LARGEST_MESSAGE = 64 * 2**20
MOST = 200
"""Most messages taken at one look."""
SUFFIXES = (".json", ".avro", ".xml")

_logger = logging.getLogger("nightsift.skyalerts")


def is_trusted(url: str, hosts: Sequence[str]) -> bool:
    """Whether a sky map may be fetched from an address: https, one of the hosts, without user or another port."""
    try:
        parts = urlsplit(url)
        return parts.scheme == "https" and parts.netloc.lower() in hosts
    except ValueError:
        return False


class StayAmong(HTTPRedirectHandler):
    """Follows redirects only to hosts that maps may be fetched from.

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
        """Refuse a redirect to any other host."""
        if not is_trusted(newurl, self._hosts):
            raise URLError(f"it sends on to {newurl[:200]}, which is not among the hosts of maps")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@task(name="read notice", persist_result=False, cache_policy=NO_CACHE)
def read_ruling(session: SkyAlertSession, event: str) -> SkyAlert:
    """Read the notice that rules an event (see `nightsift.skyalerts.planning.planning.ruling`)."""
    alert, notice = ruling(session.archive, event)
    run_logger().info("%s: %s of %s, %s, from %s", event, alert.kind, alert.sender, alert.role, notice.path.name)
    return alert


@task(
    name="fetch sky map", retries=3, retry_delay_seconds=PAUSES, retry_jitter_factor=0.5, persist_result=False,
    cache_policy=NO_CACHE,
)  # fmt: skip
def fetch_map(session: SkyAlertSession, event: str) -> Path | None:
    """Fetch the sky map that the ruling notice names, where it brings none.

    Parameters
    ----------
    session : SkyAlertSession
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
    alert, notice = ruling(session.archive, event)
    path = map_path(session.archive, event, notice)
    if path.is_file() or alert.skymap is None or alert.skymap.content or not alert.skymap.url:
        return path if path.is_file() else None
    url = alert.skymap.url.partition(",")[0]  # GraceDB puts the version of the file behind a comma
    hosts = session.survey.alert.map_hosts
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
def plan_fields(session: SkyAlertSession, event: str) -> Target:
    """Rank the fields of an event and write its targets (see `nightsift.skyalerts.planning.planning.make_plan`)."""
    planned = session.plan(event)
    target = planned.target
    run_logger().info("%s: %s, %s; %d fields wanted", event, target.state, planned.why, len(target.fields))
    return target


@task(name="check templates", persist_result=False, cache_policy=NO_CACHE)
def check_templates(session: SkyAlertSession, event: str) -> list[str]:
    """Return one line per unit that has no template of some wanted fields: their exposures wait."""
    lacking = session.lacking_templates(session.plans[event].target)
    for line in lacking:
        run_logger().warning("%s", line)
    return lacking


@task(name="gather candidates", persist_result=False, cache_policy=NO_CACHE)
def gather_candidates(session: SkyAlertSession, event: str) -> int:
    """Gather candidates of the fields of an event, before and after it; return the number of exposures."""
    gathered = session.gather(event)
    exposures = gathered.exposures.num_rows
    run_logger().info("%d exposures, %d candidates after the event", exposures, gathered.after.num_rows)
    return exposures


@task(name="rank candidates, write page", persist_result=False, cache_policy=NO_CACHE)
def write_products(session: SkyAlertSession, event: str, problems: tuple[str, ...] = ()) -> int:
    """Rank candidates, write table, page and drafts, with problems for the page; return the number of objects."""
    objects = session.write_products(event, problems)
    run_logger().info("%d objects ranked", objects)
    return objects


class NoticeSource(Protocol):
    """A source of notices."""

    def take(self) -> list[tuple[str, bytes]]:
        """Return name and content of each notice that has come since the last look."""
        ...

    def close(self) -> None:
        """Stop looking."""
        ...


class FolderSource:
    """Notices as files in a folder; a file is taken once it has stayed the same between two looks.

    Parameters
    ----------
    folder : str or Path
        The folder; it is made when absent.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._seen: dict[Path, tuple[int, int]] = {}
        self._taken: dict[Path, tuple[int, int]] = {}

    def take(self) -> list[tuple[str, bytes]]:
        """Return name and content of each file that has come and stayed the same since the last look."""
        found: dict[Path, tuple[int, int]] = {}
        ready = []
        with os.scandir(self.folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or not entry.name.lower().endswith(SUFFIXES) or not entry.is_file():
                    continue
                stat = entry.stat()
                found[Path(entry.path)] = (stat.st_mtime_ns, stat.st_size)
        for path, sign in sorted(found.items()):
            if self._seen.get(path) == sign and self._taken.get(path) != sign:
                self._taken[path] = sign
                try:
                    ready.append((str(path), notice_bytes(path)))
                except BadNotice as error:
                    _logger.warning("%s", error)
        self._seen = found
        return ready

    def close(self) -> None:
        """Nothing is held open."""


class KafkaSource:
    """Notices of topics of GCN.

    Parameters
    ----------
    topics : sequence of str
        The topics, such as ``igwn.gwalert`` and ``gcn.classic.voevent.FERMI_GBM_FIN_POS``.
    settings : mapping of str to object
        Settings of the consumer (see `gcn_settings`).
    """

    def __init__(self, topics: Sequence[str], settings: Mapping[str, Any]) -> None:
        from confluent_kafka import Consumer

        self._consumer = Consumer(dict(settings))
        self._consumer.subscribe(list(topics))
        self.problem = ""

    def take(self) -> list[tuple[str, bytes]]:
        """Return name and content of each message that has come since the last look."""
        taken: list[tuple[str, bytes]] = []
        for message in self._consumer.consume(MOST, timeout=0.05):
            if message.error() is not None:
                self.problem = str(message.error())
                _logger.warning("the broker says: %s", self.problem)
                continue
            value = message.value()
            if value:
                taken.append((f"{message.topic()} {message.offset()}", bytes(value)))
                self.problem = ""
        return taken

    def close(self) -> None:
        """Leave the group, so that what was taken is remembered by the broker."""
        self._consumer.close()


def gcn_settings(survey: Survey, environment: Mapping[str, str]) -> dict[str, Any]:
    """Settings of a consumer of GCN: credentials from the environment or from blocks, never from the survey file.

    Parameters
    ----------
    survey : Survey
        With the domain of the broker; its name is that of the group, so that a listener that was away gets what it has
        missed.
    environment : mapping of str to str
        Environment variables.

    Returns
    -------
    dict
        Settings of librdkafka.

    Raises
    ------
    ConfigurationError
        If there are no credentials.
    """
    identity, secret = (_credential(name, environment) for name in (CLIENT_ID, CLIENT_SECRET))
    if not identity or not secret:
        raise ConfigurationError(
            file=survey.file, table="alert", key="topics", what="there are no credentials for the broker of GCN",
            advice=f"set {CLIENT_ID} and {CLIENT_SECRET} in the environment (gcn.nasa.gov gives them for nothing)",
        )  # fmt: skip
    domain = survey.alert.domain
    return {
        "bootstrap.servers": f"kafka.{domain}", "security.protocol": "sasl_ssl", "sasl.mechanisms": "OAUTHBEARER",
        "sasl.oauthbearer.method": "oidc", "sasl.oauthbearer.client.id": identity,
        "sasl.oauthbearer.client.secret": secret,
        "sasl.oauthbearer.token.endpoint.url": f"https://auth.{domain}/oauth2/token",
        **common_settings(f"nightsift-{survey.name}"),
    }  # fmt: skip


def common_settings(group: str) -> dict[str, Any]:
    """Return the settings of librdkafka for a consumer group that do not depend on the broker."""
    return {
        "group.id": group, "auto.offset.reset": "latest", "enable.auto.commit": True,
        "auto.commit.interval.ms": 1000, "fetch.message.max.bytes": LARGEST_MESSAGE,
        "max.poll.interval.ms": 3600000,
    }  # fmt: skip


def sources_of(survey: Survey, environment: Mapping[str, str]) -> list[NoticeSource]:
    """Return the sources of notices of a survey.

    Parameters
    ----------
    survey : Survey
        With its table ``[alert]``.
    environment : mapping of str to str
        Environment variables.

    Returns
    -------
    list of NoticeSource
        A folder, and a broker where topics are named.

    Raises
    ------
    ConfigurationError
        If nothing is configured, or credentials are missing.
    """
    sources: list[NoticeSource] = []
    if survey.alert.folder:
        sources.append(FolderSource(survey.alert.folder))
    if survey.alert.topics:
        sources.append(KafkaSource(survey.alert.topics, gcn_settings(survey, environment)))
    if not sources:
        raise ConfigurationError(
            file=survey.file, table="alert", key="folder, topics", what="there is nothing to listen to",
            advice='write folder = "notices", or topics = ["igwn.gwalert"]',
        )  # fmt: skip
    return sources


def close_all(sources: Iterable[NoticeSource]) -> None:
    """Close all sources."""
    for one in sources:
        one.close()


def _credential(name: str, environment: Mapping[str, str]) -> str:
    if value := environment.get(name, ""):
        return value
    from httpx import HTTPError
    from prefect.blocks.system import Secret

    try:
        block: Any = Secret.load(name.lower().replace("_", "-"))
    except (ValueError, HTTPError, RuntimeError):  # no such block, or no server
        return ""
    return str(block.get())
