"""People are told once, by every way, with what to do: a real mail server and a real webhook on loopback."""

from __future__ import annotations

import json
import os
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from nightsift.errors import ConfigurationError
from nightsift.io.paths import Archive
from nightsift.survey import Survey, load_survey
from tasks.notify import tell, tell_once

SURVEY = """
name = "demo"
archive = "archive"
[[source]]
unit = "tiny"
frames = "nights"
[notify]
"""


class Mail(socketserver.StreamRequestHandler):
    """Just enough of a mail server (RFC 5321) to take messages."""

    def handle(self) -> None:
        self.wfile.write(b"220 here\r\n")
        for line in iter(self.rfile.readline, b""):
            word = line[:4].upper()
            if word == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                lines = list(iter(self.rfile.readline, b".\r\n"))
                self.server.taken.append(b"".join(lines).decode())  # type: ignore[attr-defined]
            self.wfile.write(b"221 bye\r\n" if word == b"QUIT" else b"250 good\r\n")
            if word == b"QUIT":
                return


class Hook(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.taken.append(json.loads(content))  # type: ignore[attr-defined]
        self.send_response(200)
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


def test_by_mail_webhook_and_command_once_a_night(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mail, hook = socketserver.TCPServer(("127.0.0.1", 0), Mail), HTTPServer(("127.0.0.1", 0), Hook)
    with sink(mail) as (mail_port, mails), sink(hook) as (hook_port, hooks):
        monkeypatch.setenv("HOOK", f"http://127.0.0.1:{hook_port}/")
        text = f"""
command = ["sh", "-c", "cat >> {tmp_path / "told"}"]
webhook_env = "HOOK"
[notify.email]
server = "127.0.0.1"
port = {mail_port}
sender = "nightsift@localhost"
to = ["ann@localhost", "bob@localhost"]
tls = false
"""
        one, archive = survey(tmp_path, text), Archive(tmp_path / "archive")
        trouble = ("silent north", "north has delivered no frame for 30 minutes", "check the dome")
        assert tell_once(one, archive, "2026-11-20", *trouble)
        assert not tell_once(one, archive, "2026-11-20", *trouble), "once"
        assert tell_once(one, archive, "2026-11-21", *trouble), "another night"
        assert len(mails) == len(hooks) == 2
        assert "Subject: nightsift demo: north has delivered no frame" in mails[0]
        assert "check the dome" in mails[0]
        assert "bob@localhost" in mails[0]
        assert "check the dome" in hooks[0]["text"]
        assert (tmp_path / "told").read_text().count("What to do: check the dome") == 2
        noted = json.loads(archive.status("told 2026-11-20 silent north").read_text())
        assert noted["ways"] == {"command": "sent", "email": "sent", "webhook": "sent"}


def test_a_way_that_fails_costs_no_other(tmp_path: Path) -> None:
    text = f"""
command = ["sh", "-c", "cat >> {tmp_path / "told"}"]
webhook_env = "NOT_SET_ANYWHERE"
blocks = []
[notify.email]
server = "127.0.0.1"
port = 1
sender = "nightsift@localhost"
to = ["ann@localhost"]
tls = false
"""
    outcome = tell(survey(tmp_path, text), "subject", "text")
    assert outcome["command"] == "sent"
    assert "ConnectionRefused" in outcome["email"]
    assert "NOT_SET_ANYWHERE is not set" in outcome["webhook"]


def test_webhook_beyond_loopback_must_be_encrypted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK", "http://example.org/hook")
    assert "https" in tell(survey(tmp_path, 'webhook_env = "HOOK"\n'), "subject", "text")["webhook"]


def test_header_lines_cannot_be_smuggled_in(tmp_path: Path) -> None:
    server = socketserver.TCPServer(("127.0.0.1", 0), Mail)
    with sink(server) as (port, mails):
        text = f'[notify.email]\nserver = "127.0.0.1"\nport = {port}\nsender = "a@b"\nto = ["c@d"]\ntls = false\n'
        tell(survey(tmp_path, text), "frame\nBcc: all@localhost", "text")
        assert "\nBcc:" not in mails[0]


def test_no_password_in_the_file_and_none_in_clear(tmp_path: Path) -> None:
    head = '[notify.email]\nserver = "mail"\nsender = "a@b"\nto = ["c@d"]\nuser = "ann"\n'
    with pytest.raises(ConfigurationError, match="password_env"):
        survey(tmp_path, head)
    with pytest.raises(ConfigurationError, match="clear"):
        survey(tmp_path, head + 'password_env = "MAIL"\ntls = false\n')
    with pytest.raises(ConfigurationError, match="did you mean 'password_env'"):
        survey(tmp_path, head + 'password = "secret"\n')


def test_many_processes_tell_once(tmp_path: Path) -> None:
    log = tmp_path / "told"
    survey(tmp_path, f'command = ["sh", "-c", "echo told >> {log}"]\n')
    code = (
        "import sys, time; from tasks.notify import tell_once; from nightsift.survey import load_survey\n"
        "from nightsift.io.paths import Archive\n"
        "one = load_survey(sys.argv[1])\n"
        "tell_once(one, Archive(one.archive), '2026-11-20', 'lag', 'what', 'advice')\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "survey.toml")]
    both = [subprocess.Popen(command, env=dict(os.environ)) for _ in range(3)]
    assert [one.wait(100) for one in both] == [0, 0, 0]
    assert log.read_text() == "told\n"
