"""Nothing from outside is run: no pickle is read, no text becomes code; and no secret stands in a file."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.service import Serving, check_binding, password, settings
from nightsift.archive.survey import Survey
from nightsift.core.errors import ConfigurationError

ROOT = Path(__file__).resolve().parents[2]
CODE = sorted(f for p in ("nightsift", "subtraction", "models", "tasks", "flows") for f in (ROOT / p).rglob("*.py"))
RUNS_WHAT_IT_READS = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "code", "runpy"}
MAY_PICKLE = {"flows/worker_process.py": "asks whether an error of its own can be sent through a pipe to its parent"}
CALLS = {"eval", "exec", "compile", "__import__", "system", "popen", "extractall", "unsafe_load", "read_pickle"}
OURS = {"models/": {"compile"}}
"""A network is compiled by a method of that name."""

HARMLESS_CALLS = {("re", "compile"), ("platform", "system")}

SECRET = re.compile(
    r"(?i)\b[\w-]*(passwor[d]|passwd|secret|token|auth_string|api_?key|_auth)[\w-]*\b[\"']?\s*[:=]\s*(.*)"
)
HARMLESS = re.compile(r"""(["']{2}(\s|$)|$|["']?\$[({]|[#<{\[|>]|(null|true|false|nightsift)\b)""")
"""An empty value, a variable, a comment, the beginning of a block, the name of the secret of Kubernetes."""

CREDENTIALS = re.compile(r"://[^/\s:@]+:([^@/\s]+)@")


def relative(file: Path) -> str:
    return str(file.relative_to(ROOT))


@pytest.mark.parametrize("file", CODE, ids=relative)
def test_nothing_read_is_run(file: Path) -> None:
    wrong = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom) and relative(file) not in MAY_PICKLE:
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            wrong += [(node.lineno, name) for name in names if name.partition(".")[0] in RUNS_WHAT_IT_READS]
        if isinstance(node, ast.Call):
            wrong += [(node.lineno, name) for name in dangerous(node, relative(file))]
    assert not wrong, f"{wrong}: what was read from outside could run"


def dangerous(call: ast.Call, file: str) -> Iterator[str]:
    """What of a call would run a text or read a pickle."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    owner = getattr(getattr(call.func, "value", None), "id", "")
    ours = {one for folder, names in OURS.items() if file.startswith(folder) for one in names}
    if name in CALLS - ours and (owner, name) not in HARMLESS_CALLS:
        yield name
    for keyword in call.keywords:
        value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
        if keyword.arg in ("shell", "allow_pickle") and value is not False:
            yield f"{keyword.arg}={value}"
        if keyword.arg == "safe_mode" and value is not True:
            yield f"safe_mode={value}"


def infra() -> list[Path]:
    return sorted(one for one in (ROOT / "infra").rglob("*") if one.is_file())


@pytest.mark.parametrize("file", infra(), ids=relative)
def test_no_secret_stands_in_a_file(file: Path) -> None:
    lines = file.read_text().splitlines()
    found = [line.strip() for line in lines if (hit := SECRET.search(line)) and not HARMLESS.match(hit[2].strip())]
    assert not [line for line in found if not names_only(line)], "a secret belongs into the environment or a block"
    for line in lines:
        for word in CREDENTIALS.findall(line):
            assert word == "PASSWORD" or word.startswith("$"), f"credentials in an address: {line.strip()}"


def names_only(line: str) -> bool:
    """Lines that name a place of secrets, or a setting that is none."""
    return bool(re.match(r"(-\s+)?(secret(Name|KeyRef)?|name|key|automountServiceAccountToken|\#)", line))


@pytest.fixture
def survey(tmp_path: Path) -> Survey:
    return Survey.for_folder(tmp_path, "unit", tmp_path / "archive")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "observatory.example.org", ""])
def test_nobody_listens_beyond_this_machine_without_a_password(host: str, survey: Survey, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="password"):
        check_binding(Serving(tmp_path, host, auth=False), survey)
    check_binding(Serving(tmp_path, host), survey)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_on_this_machine_it_may(host: str, survey: Survey, tmp_path: Path) -> None:
    check_binding(Serving(tmp_path, host, auth=False), survey)


def test_every_installation_has_a_password_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = password(tmp_path / "one"), password(tmp_path / "other")
    assert one != other
    assert len(one.partition(":")[2]) >= 32
    assert password(tmp_path / "one") == one
    assert (tmp_path / "one" / "password").stat().st_mode & 0o777 == 0o600
    monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", "somebody:else")
    told = settings(Serving(tmp_path / "one"))
    assert told["PREFECT_SERVER_API_AUTH_STRING"] == told["PREFECT_API_AUTH_STRING"] == one
    (tmp_path / "one" / "password").chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        password(tmp_path / "one")
