"""The command line: help, exit codes, and errors as people see them."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
import typer
from typer.testing import CliRunner

from nightsift import __version__
from nightsift.cli import app
from nightsift.cli.console import LineProgress, night_given, row_line, text
from nightsift.cli.root import main
from nightsift.core.errors import ConfigurationError, NoTemplate

ROOT = Path(__file__).resolve().parents[3]
COMMANDS = (
    "night", "frame", "simulate", "template", "train", "unit", "show", "report", "score", "doctor", "photometry",
    "calibrate", "compile", "ask", "watch", "serve", "status", "deploy", "backfill", "catalog", "extract",
)  # fmt: skip


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, re.sub(r"\s+", " ", result.output)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    code, output = run(command, "--help")
    assert code == 0
    assert command in output
    assert command in run("--help")[1]


def commands() -> list[tuple[tuple[str, ...], click.Command]]:
    """All commands with the words that call them, groups and their own commands among them."""
    found: list[tuple[tuple[str, ...], click.Command]] = []
    waiting = [((), typer.main.get_command(app))]
    while waiting:
        path, one = waiting.pop()
        found.append((path, one))
        waiting += [((*path, name), inner) for name, inner in getattr(one, "commands", {}).items()]
    return sorted(found, key=lambda one: one[0])


@pytest.mark.parametrize(("path", "command"), commands(), ids=lambda one: " ".join(one) if type(one) is tuple else "")
def test_help_loses_nothing_to_markup(path: tuple[str, ...], command: click.Command) -> None:
    """A word in brackets is taken for a style and vanishes, unless it is escaped."""
    shown = re.sub(r"[\s│]+", "", CliRunner().invoke(app, [*path, "--help"]).output)
    texts = [command.help or "", *(getattr(one, "help", None) or "" for one in command.params)]
    bracketed = [word for text in texts for word in re.findall(r"\[[^\s\]]+\]+", text)]
    assert not [word for word in bracketed if word not in shown]


def test_every_command_stands_in_a_panel_with_one_line() -> None:
    for path, command in commands():
        if len(path) == 1:
            assert getattr(command, "rich_help_panel", None), f"{path}: no panel"
            assert 0 < len(command.short_help or "") <= 66, f"{path}: its line is folded at 80 columns"
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"}).output
    panels = re.findall(r"╭─ (.*?) ─+╮", shown)
    assert panels[:2] == ["Options", "Start here"]
    assert len(panels) == 8, "no command stands outside of a panel"


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("26/12/2015", "write 2015-12-26"), ("26.12.2015", "write 2015-12-26"), ("20151226", "write 2015-12-26"),
        ("2015-12-26T21:00", "write 2015-12-26"), ("2015-2-6", "write 2015-02-06"),
        ("05/04/2015", "write 2015-04-05 or 2015-05-04"), ("2015-02-30", "as 2026-11-20"), ("tonight", "as 2026-11-20"),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "arguments",
    [("night",), ("show",), ("report",), ("score",), ("status",), ("monitor",), ("photometry",),
     ("template", "--until"), ("backfill", "--from"), ("backfill", "--to")],
)  # fmt: skip
def test_a_night_is_a_date_and_a_wrong_one_says_the_right_one(
    arguments: tuple[str, ...], given: str, meant: str, tmp_path: Path
) -> None:
    command, option = (*arguments, "--night")[:2]
    error = CliRunner().invoke(app, [command, str(tmp_path / "survey.toml"), option, given]).exception
    assert isinstance(error, ConfigurationError)
    assert given in str(error)
    assert meant in str(error)


def test_a_right_night_passes() -> None:
    for one in (None, "2015-12-26", "unknown"):
        assert night_given(one) == one


def test_version() -> None:
    assert run("--version") == (0, f"nightsift {__version__} ")


def test_unknown_command_is_a_configuration_error() -> None:
    assert run("nigth")[0] == 2


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (
            ConfigurationError(file="s.toml", table="runner", key="kind", what="'x' is unknown", advice="use dask"),
            2,
            "[runner] kind",
        ),
        (NoTemplate(unit="u", field="f", band="r"), 1, "no template for unit 'u'"),
    ],
)
def test_errors_raised_on_purpose_become_text(
    error: Exception, code: int, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        raise error

    monkeypatch.setattr("nightsift.cli.root.app", broken)
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == code
    told = capsys.readouterr().err
    assert message in told
    assert "Traceback" not in told


def test_threads_are_held_to_one_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, str] = {}
    monkeypatch.delenv("OPENBLAS_NUM_THREADS")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setattr("nightsift.cli.root.app", lambda: seen.update(os.environ))
    main()
    assert (seen["OPENBLAS_NUM_THREADS"], seen["OMP_NUM_THREADS"]) == ("1", "3")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")


def test_unexpected_errors_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("nightsift.cli.root.app", broken)
    with pytest.raises(ZeroDivisionError):
        main()


def test_configuration_error_of_the_real_program(tmp_path: Path) -> None:
    (tmp_path / "survey.toml").write_text('name = "x"\narchiv = "archive"\n')
    done = subprocess.run(
        [sys.executable, "-c", "from nightsift.cli import main; main()", "show", str(tmp_path / "survey.toml")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    assert "archiv" in done.stderr
    assert "Traceback" not in done.stderr


def test_show_describes_a_fits_file(tmp_path: Path) -> None:
    import numpy as np
    from astropy.io import fits

    hdus = [fits.PrimaryHDU(), fits.ImageHDU(np.zeros((7, 9), np.float32), name="SCI")]
    hdus[1].header["GAIN"] = (1.7, "electron/adu")
    fits.HDUList(hdus).writeto(tmp_path / "one.fits")
    code, output = run("show", str(tmp_path / "one.fits"))
    assert code == 0
    assert "7x9" in output
    assert "GAIN | 1.7" in output


def test_show_of_a_file_that_is_no_fits(tmp_path: Path) -> None:
    (tmp_path / "bad.fits").write_bytes(b"no fits at all")
    result = CliRunner().invoke(app, ["show", str(tmp_path / "bad.fits")])
    assert type(result.exception).__name__ == "UnreadableFits"


@pytest.mark.parametrize(
    ("value", "shown"), [(None, ""), (float("nan"), ""), (0.0, "0"), (21.53218, "21.532"), (3, "3")]
)
def test_cells(value: object, shown: str) -> None:
    assert text(value) == shown


def test_progress_elsewhere_is_one_line_an_exposure(capsys: pytest.CaptureFixture[str]) -> None:
    done = {"unit": "u1", "url": "/n/a.fits", "state": "done", "n_candidates": 5, "n_accepted": 1, "seconds": 2.51}
    refused = {"unit": "u1", "url": "/n/b.fits", "state": "refused", "reason": "BlankFrame"}
    with LineProgress("exposures", row_line) as progress:
        progress(done, 2)
        progress(refused, 2)
    assert capsys.readouterr().out.splitlines() == [
        "1/2 u1 a.fits done 5 candidates, 1 accepted, 2.5 s",
        "2/2 u1 b.fits refused: BlankFrame",
    ]
    assert row_line(refused).endswith("BlankFrame")


def test_commands_named_in_the_pages_exist() -> None:
    group = typer.main.get_command(app)
    pages = "\n".join(page.read_text() for page in [*ROOT.glob("*.md"), *sorted((ROOT / "docs").glob("*.md"))])
    blocks = "\n".join(re.findall(r"```.*?```", pages, re.S))
    named = re.findall(r"^ *nightsift ([a-z-]+)(?: ([a-z-]+))?(?= |$)", blocks, re.M)
    assert named, "the pages show no command at all"
    for command, rest in named:
        assert command in group.commands, f"a page names nightsift {command}"
        inner = getattr(group.commands[command], "commands", None)
        by_default = not rest and "build" in (inner or ())  # nightsift template SURVEY.toml
        assert inner is None or rest in inner or by_default, f"a page names nightsift {command} {rest}"


def test_commands_of_the_pages_take_what_the_pages_give() -> None:
    """Arguments and options of every example are parsed: a page that names one that is not there is found here."""
    group = typer.main.get_command(app)
    pages = "\n".join(page.read_text() for page in [*ROOT.glob("*.md"), *sorted((ROOT / "docs").glob("*.md"))])
    blocks = "\n".join(re.findall(r"```.*?```", pages, re.S)).replace("\\\n", " ")
    examples = re.findall(r"^ *(?:\d\. )?nightsift ([a-z-]+ .*)$", blocks, re.M)
    assert len(examples) > 50
    for example in examples:
        words = shlex.split(example, comments=True)
        command, name = group, ""
        while words and words[0] in getattr(command, "commands", {}):
            name = words.pop(0)
            command = command.commands[name]
        try:
            command.make_context(name, [one.replace("RA", "1").replace("DEC", "1") for one in words])
        except click.exceptions.UsageError as error:
            pytest.fail(f"nightsift {example}: {error.format_message()}")
