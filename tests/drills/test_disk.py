"""A disk that is full, for real: a small tmpfs. When there is room again, the catalogue is as it should be."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.night import night
from nightsift.archive.survey import Runner, load_survey
from tests.drills.catalogue import same_catalogue
from tests.drills.conftest import VISITS

HERE = Runner(kind="in-process", workers=1, address="")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small tmpfs needs root")
    place = tmp_path / "small"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)  # lazy: templates in memory are still mapped


def fill(path: Path) -> None:
    with path.open("ab", buffering=0) as file:
        while True:
            file.write(b"\0" * 4096)


def test_disk_fills_in_the_middle_of_a_night(survey: Path, small_disk: Path, undisturbed: Path) -> None:
    shutil.copytree(load_survey(survey).archive, small_disk / "archive")
    survey.write_text(survey.read_text().replace('archive = "archive"', f'archive = "{small_disk / "archive"}"'))
    ballast = small_disk / "ballast"

    def fill_after_three(row: object, total: int) -> None:
        counted.append(row)
        if len(counted) == 3:
            with pytest.raises(OSError, match="No space"):
                fill(ballast)

    counted: list[object] = []
    summary = night(survey, runner=HERE, track=False, progress=fill_after_three)
    assert summary.states == {"done": 3, "failed": VISITS - 3}
    assert summary.exit_code == 1
    assert {row["reason"] for row in summary.rows if row["state"] == "failed"} == {"DiskFull"}
    ballast.unlink()
    again = night(survey, runner=HERE, track=False)
    assert (again.skipped, again.states) == (3, {"done": VISITS - 3})
    same_catalogue(small_disk / "archive", undisturbed)
