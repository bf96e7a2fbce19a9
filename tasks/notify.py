"""People are told of trouble: once a night, with what to do, by command, e-mail, webhook or a block of Prefect."""

from __future__ import annotations

import json
import logging
import os
import smtplib
import ssl
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.message import EmailMessage
from functools import partial
from typing import Any
from urllib.request import Request, urlopen

from nightsift.io.atomic import atomic
from nightsift.io.exclusive import create_exclusively
from nightsift.io.paths import Archive
from nightsift.nights.notify import Email
from nightsift.survey import Survey

SECONDS = 20.0
"""A way to people may take so long; the night does not wait for it longer."""

_logger = logging.getLogger("nightsift.notify")


def tell_once(survey: Survey, archive: Archive, night: str, key: str, what: str, advice: str) -> bool:
    """Tell people of a trouble, unless they were told of it this night, by whatever process.

    Parameters
    ----------
    survey : Survey
        With its table ``[notify]``.
    archive : Archive
        Remembers what was told, under ``status``.
    night : str
        The night.
    key : str
        What makes it the same trouble.
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
    except OSError as error:  # a full disk is a trouble of its own: rather told twice than not at all
        _logger.error("cannot note what was told: %s", error)
    _logger.warning("%s. %s", what, advice)
    outcome = tell(survey, f"nightsift {survey.name}: {what}", f"{what}.\n\nWhat to do: {advice}.\n\nNight {night}.")
    try:
        with atomic(marker) as temporary:
            temporary.write_text(json.dumps({**content, "ways": outcome}))
    except OSError as error:
        _logger.error("cannot note what was told: %s", error)
    return True


def tell(survey: Survey, subject: str, text: str) -> dict[str, str]:
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
        except (OSError, ValueError, RuntimeError, subprocess.SubprocessError) as error:
            outcome[way] = f"{type(error).__name__}: {' '.join(str(error).split())}"
            _logger.error("%s could not be told by %s: %s", subject, way, outcome[way])
    return outcome


def _ways(survey: Survey, subject: str, text: str) -> Iterator[tuple[str, Callable[[], None]]]:
    options = survey.notify
    if options.command:
        yield "command", lambda: _run(options.command, subject, text)
    if options.email is not None:
        mail = options.email
        yield "email", lambda: _mail(mail, subject, text)
    if options.webhook_env:
        yield "webhook", lambda: _post(_secret(options.webhook_env), subject, text)
    for block in options.blocks:
        yield block, partial(_notify, block, subject, text)


def _run(command: tuple[str, ...], subject: str, text: str) -> None:
    environment = {**os.environ, "NIGHTSIFT_SUBJECT": subject}
    subprocess.run(command, input=f"{subject}\n\n{text}\n", text=True, timeout=SECONDS, check=True, env=environment)


def _mail(options: Email, subject: str, text: str) -> None:
    message = EmailMessage()
    message["Subject"] = " ".join(subject.split())  # a line break would begin another header
    message["From"], message["To"] = options.sender, ", ".join(options.to)
    message.set_content(text)
    with smtplib.SMTP(options.server, options.port, timeout=SECONDS) as server:
        if options.tls:
            server.starttls(context=ssl.create_default_context())
        if options.user:
            server.login(options.user, _secret(options.password_env))
        server.send_message(message)


def _post(address: str, subject: str, text: str) -> None:
    if not address.startswith(("https://", "http://127.0.0.1", "http://localhost")):
        raise ValueError("the address of the webhook must begin with https://")
    content = json.dumps({"text": f"*{subject}*\n{text}"}).encode()
    request = Request(address, content, {"Content-Type": "application/json"})
    with urlopen(request, timeout=SECONDS) as reply:
        if reply.status >= 300:
            raise OSError(f"the webhook answered {reply.status}")


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
