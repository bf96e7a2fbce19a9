"""A disk that is full, for real: a small tmpfs."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.night import night
from nightsift.archive import ledger
from nightsift.archive.candidates import read_candidates
from nightsift.archive.paths import Archive
from nightsift.archive.survey import Runner, load_survey

IN_PROCESS = Runner(kind="in-process", workers=1, address="")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small tmpfs needs root")
    place = tmp_path / "small"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(place)], capture_output=True, text=True
    )
    if done.returncode != 0:
        pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)  # lazy: templates in memory are still mapped


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        while True:
            file.write(b"\0" * 4096)


def test_full_disk_fails_and_resumes(survey: Path, small_disk: Path) -> None:
    old = load_survey(survey).archive
    shutil.copytree(old, small_disk / "archive")
    survey.write_text(survey.read_text().replace('archive = "archive"', f'archive = "{small_disk / "archive"}"'))
    archive = Archive(load_survey(survey).archive)
    assert archive.root == small_disk / "archive"
    ballast = small_disk / "ballast"
    with pytest.raises(OSError, match="No space"):
        fill(ballast)
    summary = night(survey, runner=IN_PROCESS, track=False)
    assert summary.states == {"failed": 5}
    assert summary.exit_code == 1
    assert {row["reason"] for row in summary.rows} == {"DiskFull"}
    assert any("could not be recorded" in problem for problem in summary.problems)
    assert not list(archive.root.rglob(".writing-*")), "nothing half-written is left"
    ballast.unlink()
    again = night(survey, runner=IN_PROCESS, track=False)
    assert again.states == {"done": 5}
    assert again.exit_code == 0
    assert [row["state"] for row in ledger.read(archive).to_pylist()] == ["done"] * 5
    ids = read_candidates(archive)["candidate_id"].to_pylist()
    assert len(ids) == len(set(ids))
