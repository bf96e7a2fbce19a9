"""What was compiled before an update can be forgotten: numba does not see when an inner function has changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from nightsift.cli import installation


def test_only_compiled_files_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        installation, "COMPILED_PACKAGES", ()
    )  # those of the packages are needed by the tests that follow
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    (tmp_path / "subtraction_1").mkdir()
    for name in ("subtraction_1/loop-1.nbi", "subtraction_1/loop-1.1.nbc", "other.txt"):
        (tmp_path / name).touch()
    assert installation.forget_compiled() == 2
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["other.txt"]


def test_every_package_with_compiled_loops_is_looked_at(project_root: Path) -> None:
    with_loops = {path.relative_to(project_root).parts[0] for path in project_root.glob("*/**/*.nbi")}
    assert with_loops - {"tests", "benchmarks", ".venv"} <= set(installation.COMPILED_PACKAGES)
