"""Notifying people of a problem, once a night, with advice: by apprise, a command, or a block of Prefect.

Apprise knows a hundred services by their addresses (mail, Slack, Matrix, Telegram, ntfy, webhooks). An address may hold
a password or token, so it comes from the environment or a file, and no message or log repeats a part of it.
"""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote

from nightsift.archive.paths import Archive
from nightsift.archive.survey import Survey
from nightsift.core.errors import NightsiftError
from nightsift.io.atomic import atomic, create_exclusively

if TYPE_CHECKING:
    from apprise import NotifyBase

SECONDS = 20.0
"""The command may take so long; apprise gives a service up after 4 s without an answer, a mail server after 15 s."""

LOOPBACK = ("127.0.0.1", "localhost", "::1")

_logger = logging.getLogger("nightsift.notify")


class NotSent(NightsiftError):
    """A message did not reach everybody."""

    problem = "{what}"
    hint = "check address, account and network"


def notify_people(survey: Survey, archive: Archive, night: str, *, key: str, what: str, advice: str) -> bool:
    """Notify people of a problem, unless any process has done so this night.

    Parameters
    ----------
    survey : Survey
        With its table ``[notify]``.
    archive : Archive
        Remembers what was sent, under ``status``.
    night : str
        The night.
    key : str
        Identity of the problem.
    what, advice : str
        What is wrong, and what to do.

    Returns
    -------
    bool
        Whether it was new.
    """
    marker = archive.status(f"told {night} {key}")
    if marker.exists():
        return False
    content = {"key": key, "what": what, "advice": advice, "at": f"{datetime.now(UTC):%FT%TZ}", "ways": {}}
    try:
        if not create_exclusively(marker, json.dumps(content).encode()):
            return False
    except OSError as error:  # a full disk is a problem of its own: rather sent twice than not at all
        _logger.error("cannot note what was sent: %s", error)
    _logger.warning("%s. %s", what, advice)
    outcome = send_message(
        survey, f"nightsift {survey.name}: {what}", f"{what}.\n\nWhat to do: {advice}.\n\nNight {night}."
    )
    try:
        with atomic(marker) as temporary:
            temporary.write_text(json.dumps({**content, "ways": outcome}))
    except OSError as error:
        _logger.error("cannot note what was sent: %s", error)
    return True


def send_message(survey: Survey, subject: str, text: str) -> dict[str, str]:
    """Send a message by every way of ``[notify]``; one that fails costs no other.

    Parameters
    ----------
    survey : Survey
        With its table ``[notify]``.
    subject, text : str
        The message.

    Returns
    -------
    dict of str to str
        ``"sent"`` or what went wrong, by way.
    """
    outcome = {}
    for way, send in _ways(survey, subject, text):
        try:
            send()
            outcome[way] = "sent"
        except (NightsiftError, OSError, ValueError, RuntimeError, subprocess.SubprocessError) as error:
            outcome[way] = f"{type(error).__name__}: {' '.join(str(error).split())}"
            _logger.error("%s could not be sent by %s: %s", subject, way, outcome[way])
    return outcome


def _ways(survey: Survey, subject: str, text: str) -> Iterator[tuple[str, Callable[[], None]]]:
    options = survey.notify
    if options.command:
        yield "command", lambda: _run(options.command, subject, text)
    for variable in options.urls_env:
        yield variable, lambda name=variable: _send_all(_secret(name).split(), subject, text)  # type: ignore[misc]
    if options.urls_file:
        yield "urls_file", lambda: _send_all(_read(Path(options.urls_file)), subject, text)
    for block in options.blocks:
        yield block, partial(_notify, block, subject, text)


def _run(command: tuple[str, ...], subject: str, text: str) -> None:
    environment = {**os.environ, "NIGHTSIFT_SUBJECT": subject}
    subprocess.run(command, input=f"{subject}\n\n{text}\n", text=True, timeout=SECONDS, check=True, env=environment)


def _send_all(urls: Sequence[str], subject: str, text: str) -> None:
    failures = [f"{_scheme(url)}: {what}" for url in urls if (what := _send(url, subject, text))]
    if failures or not urls:
        raise NotSent(what="; ".join(failures) or "there is no address")


def _scheme(url: str) -> str:
    """Service of an address, which is all of it that may be repeated."""
    return url.partition("://")[0] if "://" in url else "(no address)"


def _send(url: str, subject: str, text: str) -> str:
    """Send a message by apprise; what went wrong, without any part of the address, or nothing."""
    from apprise import Apprise, AppriseAsset, NotifyFormat, NotifyType

    asset = AppriseAsset(app_id="nightsift", app_desc="nightsift", async_mode=False)
    with _said_by_apprise() as lines:
        service = Apprise.instantiate(url, asset=asset)
        if service is not None and (clear := _in_clear(service)):
            return clear
        lines += _not_understood(service, url)
        title = " ".join(subject.split())  # a line break would begin another header of a mail
        sent = service is not None and Apprise(service, asset=asset).notify(
            text, title, notify_type=NotifyType.WARNING, body_format=NotifyFormat.TEXT
        )
    what = _without_secrets(" ".join("; ".join(lines).split()), url)
    return f"sent, but {what}" if sent and what else "" if sent else what or "it was not taken"


def _in_clear(service: NotifyBase) -> str:
    """Why an address is refused: its secrets and the message would go over the wire unencrypted; else nothing."""
    host = str(getattr(service, "smtp_host", "") or service.host)
    plain: Any = service.protocol
    schemes: Any = service.secure_protocol  # one, several, or none
    scheme = schemes if isinstance(schemes, str) or not schemes else schemes[0]
    is_plain = bool(plain and not service.secure) or getattr(service, "secure_mode", "") == "insecure"
    if not is_plain or not scheme or host in LOOPBACK:
        return ""
    return f"it would go over the wire in clear: write {scheme}:// instead (without mode=insecure)"


def _not_understood(service: NotifyBase | None, url: str) -> Iterator[str]:
    """Say how many addresses under ``to=`` are none: apprise leaves them out in silence."""
    asked = [one for to in parse_qs(url.partition("?")[2]).get("to", ()) for one in to.split(",")]
    left = len(asked) - len(getattr(service, "targets", asked))
    if left > 0:
        yield f"{left} of {len(asked)} addresses under to= are no addresses"


@contextmanager
def _said_by_apprise() -> Iterator[list[str]]:
    """Collect the warnings of apprise, and the errors behind them, which it logs at the level of debugging only."""
    lines: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            message = record.getMessage()
            if record.levelno >= logging.WARNING or "Exception" in message:
                lines.append(message)

    logger, below, collector = logging.getLogger("apprise"), logging.getLogger("urllib3"), Collector()
    levels, propagate = (logger.level, below.level), logger.propagate
    logger.addHandler(collector)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False  # lines of debugging hold whole addresses, those of urllib3 as well
    below.setLevel(logging.CRITICAL)
    try:
        yield lines
    finally:
        logger.removeHandler(collector)
        logger.setLevel(levels[0])
        below.setLevel(levels[1])
        logger.propagate = propagate


def _without_secrets(message: str, url: str) -> str:
    """Blot out every word of an address, except what names this machine."""
    path, _, query = (url.partition("://")[2] if "://" in url else url).partition("?")
    words = [*re.split(r"[/:@,]+", path), *(one.partition("=")[2] for one in query.split("&"))]
    secrets = {form for word in words for form in (word, unquote(word)) if len(form) > 3 and form not in LOOPBACK}
    for secret in sorted(secrets, key=len, reverse=True):
        message = message.replace(secret, "***")
    return message


def _read(file: Path) -> list[str]:
    lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def _notify(block: str, subject: str, text: str) -> None:
    from prefect.blocks.core import Block

    loaded: Any = Block.load(block)
    if not hasattr(loaded, "notify"):
        raise ValueError(f"the block {block} notifies nobody")
    loaded.notify(text, subject=subject)


def _secret(variable: str) -> str:
    value = os.environ.get(variable, "")
    if not value:
        raise ValueError(f"the environment variable {variable} is not set")
    return value
