"""People are told once, by every way, with what to do: a real mail server and a real webhook on loopback."""

from __future__ import annotations

import base64
import email
import json
import logging
import os
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.header import decode_header, make_header
from email.message import Message
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from nightsift.archive.paths import Archive
from nightsift.archive.survey import Survey, load_survey
from nightsift.core.errors import ConfigurationError
from tasks.notify import notify_people, send_message

SURVEY = """
name = "demo"
archive = "archive"
[[source]]
unit = "tiny"
frames = "nights"
[notify]
"""


class Mail(socketserver.StreamRequestHandler):
    """Just enough of a mail server (RFC 5321, RFC 4954) to take messages of those who know the password."""

    def handle(self) -> None:
        self.wfile.write(b"220 here\r\n")
        for line in iter(self.rfile.readline, b""):
            word = line[:4].upper()
            if word == b"EHLO":
                self.wfile.write(b"250-here\r\n250 AUTH PLAIN\r\n")
                continue
            if word == b"AUTH":
                known = base64.b64decode(line.split()[2]) == b"\0ann\0pa55word"
                self.wfile.write(b"235 good\r\n" if known else b"535 no\r\n")
                continue
            if word == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                lines = list(iter(self.rfile.readline, b".\r\n"))
                self.server.taken.append(b"".join(lines))  # type: ignore[attr-defined]
            self.wfile.write(b"221 bye\r\n" if word == b"QUIT" else b"250 good\r\n")
            if word == b"QUIT":
                return


class Hook(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.taken.append(json.loads(content))  # type: ignore[attr-defined]
        self.send_response(getattr(self.server, "status", 200))
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        pass


@contextmanager
def sink(server: Any) -> Iterator[tuple[int, list[Any]]]:
    server.taken = []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1], server.taken
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def survey(tmp_path: Path, notify: str) -> Survey:
    file = tmp_path / "survey.toml"
    file.write_text(SURVEY + notify)
    return load_survey(file)


def message_of(mail: bytes) -> tuple[Message, str]:
    message = email.message_from_bytes(mail)
    parts = [one for one in message.walk() if one.get_content_type() == "text/plain"]
    return message, b"".join(one.get_payload(decode=True) for one in parts).decode()  # type: ignore[misc]


def mail_url(port: int, *to: str) -> str:
    to_all = ",".join(to)
    return f"mailto://ann:pa55word@127.0.0.1:{port}?mode=insecure&from=nightsift@example.org&to={to_all}"


def test_by_mail_webhook_and_command_once_a_night(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mail, hook = socketserver.TCPServer(("127.0.0.1", 0), Mail), HTTPServer(("127.0.0.1", 0), Hook)
    with sink(mail) as (mail_port, mails), sink(hook) as (hook_port, hooks):
        monkeypatch.setenv("MAIL", mail_url(mail_port, "ann@example.org", "bob@example.org"))
        monkeypatch.setenv("HOOK", f"json://127.0.0.1:{hook_port}/s3cret json://127.0.0.1:{hook_port}/?:message=text")
        text = f"""
command = ["sh", "-c", "cat >> {tmp_path / "told"}"]
urls_env = ["MAIL", "HOOK"]
"""
        one, archive = survey(tmp_path, text), Archive(tmp_path / "archive")
        what = "north has delivered no frame for 30 minutes"
        problem = {"key": "silent north", "what": what, "advice": "check the dome"}
        assert notify_people(one, archive, "2026-11-20", **problem)
        assert not notify_people(one, archive, "2026-11-20", **problem), "once"
        assert notify_people(one, archive, "2026-11-21", **problem), "another night"
        assert len(mails) == len(hooks) == 4, "two addresses each, two nights"
        messages = [message_of(one) for one in mails]
        assert sorted(str(message["To"]) for message, _ in messages[:2]) == ["ann@example.org", "bob@example.org"]
        for message, body in messages:
            assert str(make_header(decode_header(message["Subject"]))).startswith(
                "nightsift demo: north has delivered no frame"
            )
            assert "nightsift@example.org" in message["From"]
            assert "check the dome" in body
        assert "check the dome" in hooks[0]["message"]
        assert hooks[0]["type"] == "warning"
        assert hooks[0]["title"].startswith("nightsift demo: north has delivered no frame")
        assert "check the dome" in hooks[1]["text"], "under the key that Slack and its like ask for"
        assert (tmp_path / "told").read_text().count("What to do: check the dome") == 2
        noted = archive.status("told 2026-11-20 silent north").read_text()
        assert json.loads(noted)["ways"] == {"command": "sent", "MAIL": "sent", "HOOK": "sent"}
        assert "s3cret" not in noted


def test_addresses_from_a_file_beside_the_survey(tmp_path: Path) -> None:
    hook = HTTPServer(("127.0.0.1", 0), Hook)
    with sink(hook) as (port, hooks):
        (tmp_path / "people").write_text(f"# on duty\njson://127.0.0.1:{port}/a\n\njson://127.0.0.1:{port}/b\n")
        assert send_message(survey(tmp_path, 'urls_file = "people"\n'), "subject", "text") == {"urls_file": "sent"}
        assert [one["title"] for one in hooks] == ["subject", "subject"]
    (outcome,) = send_message(survey(tmp_path, 'urls_file = "nobody"\n'), "subject", "text").values()
    assert "FileNotFoundError" in outcome
    (tmp_path / "people").write_text("# nobody on duty\n")
    (outcome,) = send_message(survey(tmp_path, 'urls_file = "people"\n'), "subject", "text").values()
    assert "there is no address" in outcome


def test_a_way_that_fails_costs_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hook = HTTPServer(("127.0.0.1", 0), Hook)
    with sink(hook) as (port, hooks):
        monkeypatch.setenv("MAIL", f"{mail_url(1, 'ann@example.org')} json://127.0.0.1:{port}/")
        monkeypatch.setenv("WRONG", "no-such-service://t0ken/ and-no-address")
        text = f"""
command = ["sh", "-c", "cat >> {tmp_path / "told"}"]
urls_env = ["NOT_SET_ANYWHERE", "MAIL", "WRONG"]
blocks = []
"""
        outcome = send_message(survey(tmp_path, text), "subject", "text")
        assert len(hooks) == 1, "the address behind the one that failed"
    assert outcome["command"] == "sent"
    assert "mailto" in outcome["MAIL"]
    assert "Connection refused" in outcome["MAIL"]
    assert "NOT_SET_ANYWHERE is not set" in outcome["NOT_SET_ANYWHERE"]
    assert "no-such-service" in outcome["WRONG"]
    for way in ("MAIL", "NOT_SET_ANYWHERE", "WRONG"):
        assert f"subject could not be sent by {way}: {outcome[way]}" in caplog.text


def test_an_address_that_is_left_out_is_not_called_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mail = socketserver.TCPServer(("127.0.0.1", 0), Mail)
    with sink(mail) as (port, mails):
        monkeypatch.setenv("MAIL", mail_url(port, "ann@example.org", "bob-at-home"))
        (outcome,) = send_message(survey(tmp_path, 'urls_env = ["MAIL"]\n'), "subject", "text").values()
        assert len(mails) == 1
        assert "mailto: sent, but 1 of 2 addresses under to= are no addresses" in outcome


def test_a_server_that_refuses_or_falls_silent_is_an_outcome_without_any_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    hook = HTTPServer(("127.0.0.1", 0), Hook)
    with sink(hook) as (port, _), socketserver.TCPServer(("127.0.0.1", 0), Mail) as silent:
        hook.status = 403  # type: ignore[attr-defined]
        urls = [
            f"json://ann:pa55word@127.0.0.1:{port}/t0ken-1/?-key=t0ken-2",
            f"json://127.0.0.1:{silent.server_address[1]}/t0ken-3?cto=0.2&rto=0.2",
            "json://ann:pa%2D55word@127.0.0.1:1/t0ken-4?-key=t0ken-5",
            "slack://T1JJ3T3L2/A1BRTD4JD/t0ken6IiukCDE",
            "t0ken-7",
            "no-such-service://ann:pa55word@t0ken-8/",
        ]
        monkeypatch.setenv("HOOK", " ".join(urls))
        (outcome,) = send_message(survey(tmp_path, 'urls_env = ["HOOK"]\n'), "subject", "text").values()
    assert "error=403" in outcome
    assert "timed out" in outcome
    assert "Connection refused" in outcome
    assert "slack: A Connection error occurred" in outcome, "it is asked, and not here: tests have no network"
    for place in (outcome, caplog.text):
        for secret in ("pa55word", "pa-55word", "pa%2D55word", "t0ken", "T1JJ3T3L2", "A1BRTD4JD"):
            assert secret not in place


@pytest.mark.parametrize(
    "url",
    [
        "json://example.org/hook",
        "mailto://ann:pa55word@example.org?to=bob@example.org",
        "mailtos://ann:pa55word@example.org?mode=insecure&to=bob@example.org",
        "mailto://ann:pa55word@localhost?smtp=mail.example.org&mode=insecure&to=bob@example.org",
    ],
)
def test_what_goes_beyond_loopback_must_be_encrypted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("HOOK", url)
    (outcome,) = send_message(survey(tmp_path, 'urls_env = ["HOOK"]\n'), "subject", "text").values()
    assert "in clear: write " in outcome
    assert ("mailtos://" if "mail" in url else "jsons://") in outcome
    assert "pa55word" not in outcome


def test_header_lines_cannot_be_smuggled_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = socketserver.TCPServer(("127.0.0.1", 0), Mail)
    with sink(server) as (port, mails):
        monkeypatch.setenv("MAIL", mail_url(port, "ann@example.org"))
        send_message(survey(tmp_path, 'urls_env = ["MAIL"]\n'), "frame\nBcc: all@example.org", "text")
        (mail,) = mails
        assert b"\nBcc:" not in mail
        assert email.message_from_bytes(mail)["Bcc"] is None


def test_no_address_in_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="name the environment variable"):
        survey(tmp_path, 'urls_env = ["mailto://ann:secret@example.org"]\n')
    with pytest.raises(ConfigurationError, match="did you mean 'urls_env'"):
        survey(tmp_path, 'urls = ["mailto://ann:secret@example.org"]\n')


def test_many_processes_notify_people(tmp_path: Path) -> None:
    log = tmp_path / "told"
    survey(tmp_path, f'command = ["sh", "-c", "echo told >> {log}"]\n')
    code = (
        "import sys, time; from tasks.notify import notify_people; from nightsift.archive.survey import load_survey\n"
        "from nightsift.archive.paths import Archive\n"
        "one = load_survey(sys.argv[1])\n"
        "notify_people(one, Archive(one.archive), '2026-11-20', key='lag', what='what', advice='advice')\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "survey.toml")]
    both = [subprocess.Popen(command, env=dict(os.environ)) for _ in range(3)]
    assert [one.wait(100) for one in both] == [0, 0, 0]
    assert log.read_text() == "told\n"
