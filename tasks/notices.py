"""Where notices come from: files in a folder, and topics of GCN through Kafka. Each is looked at without waiting."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from nightsift.alerts.errors import BadNotice
from nightsift.alerts.notice import notice_bytes
from nightsift.errors import ConfigurationError
from nightsift.survey import Survey

CLIENT_ID, CLIENT_SECRET = "GCN_CLIENT_ID", "GCN_CLIENT_SECRET"
"""Environment variables of the credentials; Secret blocks of Prefect with these names in small letters, with dashes."""
LARGEST_MESSAGE = 64 * 2**20
MOST = 200
"""Messages taken at one look."""
SUFFIXES = (".json", ".avro", ".xml")

_logger = logging.getLogger("nightsift.alerts")


class NoticeSource(Protocol):
    """Something that notices come from."""

    def take(self) -> list[tuple[str, bytes]]:
        """Name and content of each notice that has come since the last look."""
        ...

    def close(self) -> None:
        """Look no more."""
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
        """Name and content of each file that has come and stayed the same since the last look."""
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
        """Name and content of each message that has come since the last look."""
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
        With the domain of the broker; its name is that of the group, so that a listener that was away is told what it
        has missed.
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
    """Settings that do not depend on the broker.

    Parameters
    ----------
    group : str
        Name of the consumer group.

    Returns
    -------
    dict
        Settings of librdkafka.
    """
    return {
        "group.id": group, "auto.offset.reset": "latest", "enable.auto.commit": True,
        "auto.commit.interval.ms": 1000, "fetch.message.max.bytes": LARGEST_MESSAGE,
        "max.poll.interval.ms": 3600000,
    }  # fmt: skip


def sources_of(survey: Survey, environment: Mapping[str, str]) -> list[NoticeSource]:
    """All places that a survey takes notices from.

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
    """Close sources.

    Parameters
    ----------
    sources : iterable of NoticeSource
        The sources.
    """
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
