"""The manual builds without a warning and without a network; its notebooks run and store no results."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))


def name_of(file: Path) -> str:
    return file.stem


@pytest.fixture(scope="module")
def manual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manual, its notebooks as they stand."""
    out = tmp_path_factory.mktemp("manual")
    # A site that every import of socket meets: nothing outside of this machine is asked for.
    (out / "offline").mkdir()
    (out / "offline" / "sitecustomize.py").write_text(
        "import socket\n\ndef refuse(*_):\n    raise OSError('the manual is built without network')\n\n"
        "socket.getaddrinfo = socket.socket.connect = refuse\n"
    )
    path = os.pathsep.join([str(out / "offline"), str(ROOT)])
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-d", str(out / "trees"), str(DOCS)]
    environment = {**os.environ, "PYTHONPATH": path, "NIGHTSIFT_NOTEBOOKS": "off"}
    done = subprocess.run([*command, str(out / "html")], capture_output=True, text=True, env=environment, timeout=280)
    assert done.returncode == 0, done.stderr
    return out / "html"


def test_every_page_is_in_the_manual(manual: Path) -> None:
    sources = [*DOCS.glob("*.md"), *DOCS.glob("api/*.md"), *NOTEBOOKS]
    absent = [one for one in sources if not (manual / one.relative_to(DOCS)).with_suffix(".html").is_file()]
    assert not absent


def test_links_and_pictures_of_the_manual_are_there(manual: Path) -> None:
    broken = []
    for page in manual.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        for link in re.findall(r'(?:href|src)="([^"#?]+)[^"]*"', text):
            outside = "://" in link or link.startswith(("data:", "mailto:"))
            if not outside and not (page.parent / link).exists():
                broken.append(f"{page.relative_to(manual)}: {link}")
    assert not broken


def test_no_page_asks_another_machine_for_anything(manual: Path) -> None:
    loaded = re.compile(r"<(?:script|link|img)[^>]+(?:src|href)=\"(https?:)?//")
    asking = [page.name for page in manual.rglob("*.html") if loaded.search(page.read_text(encoding="utf-8"))]
    assert not asking


def test_api_pages_describe_what_people_call(manual: Path) -> None:
    for page, names in {
        "subtraction": ("subtraction.subtract", "subtraction.DifferenceImage.detect", "subtraction.subtract_pair"),
        "archive": ("nightsift.open", "nightsift.archive.view.ArchiveView.light_curve"),
        "scores": ("models.score", "models.network.store.predict"),
        "frames": ("nightsift.core.frames.Frame", "nightsift.core.flags.Mask"),
        "errors": ("nightsift.core.errors.BadImage",),
    }.items():
        text = (manual / "api" / f"{page}.html").read_text(encoding="utf-8")
        assert [name for name in names if f'id="{name}"' not in text] == []


@pytest.mark.parametrize("file", NOTEBOOKS, ids=name_of)
def test_notebooks_store_no_results(file: Path) -> None:
    cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
    assert cells[0]["source"][0].startswith("# ")
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells if cell["cell_type"] == "code")


@pytest.mark.parametrize("file", NOTEBOOKS, ids=name_of)
def test_notebooks_run(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.delenv("MPLBACKEND")
    notebook = nbformat.read(file, as_version=4)
    NotebookClient(
        notebook, kernel_name="python3", timeout=250, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 2
    errors = [output.text for output in outputs if output.get("name") == "stderr"]
    assert not [text for text in errors if "Warning" in text]


def test_citation_can_be_read() -> None:
    """The required keys of the Citation File Format 1.2.0, and the version of the package."""
    import nightsift

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(citation)
    assert citation["type"] == "software"
    assert citation["version"] == nightsift.__version__
    assert citation["license"] == "BSD-3-Clause"
    for author in citation["authors"]:
        assert set(author) <= {"name", "family-names", "given-names", "orcid", "affiliation", "website"}
        assert author.get("name") or author.get("family-names")
    for reference in citation["references"]:
        assert {"type", "title", "authors"} <= set(reference)
