"""The image is built and every role of it is run, where there is a container engine: infra/try_image.sh."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

NEEDED = ("podman", "debootstrap")


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_image_is_built_and_every_role_runs(project_root: Path, tmp_path: Path) -> None:
    if missing := [name for name in NEEDED if shutil.which(name) is None]:
        pytest.skip(f"needs {' and '.join(missing)} (infra/README.md says what to install)")
    if os.geteuid() != 0:
        pytest.skip("debootstrap and podman without a name space of users need root")
    log = tmp_path / "log"
    with log.open("wb") as out:
        done = subprocess.run(
            [project_root / "infra" / "try_image.sh"], stdout=out, stderr=out, stdin=subprocess.DEVNULL, check=False
        )
    said = log.read_text(errors="replace")
    assert done.returncode == 0, said[-6000:]
    assert said.rstrip().endswith("every role works")
