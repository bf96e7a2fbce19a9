"""Finding exposures, archive paths and atomic writing."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightsift.archive.paths import Archive
from nightsift.core.errors import DiskFull, SourceError
from nightsift.io.atomic import atomic
from nightsift.io.sources import checksum, discover, local_copy


@pytest.fixture
def nights(tmp_path: Path) -> Path:
    for name in (
        "n1/a/2.fits",
        "n1/a/1.FITS.gz",
        "n1/b/3.fits.fz",
        "n2/a/4.fit",
        "n2/a/notes.txt",
        "n2/a/.hidden.fits",
    ):
        path = tmp_path / "nights" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "nights"


@pytest.mark.parametrize(
    ("location", "pattern", "names"),
    [
        ("", "*.fit*", ["1.FITS.gz", "2.fits", "3.fits.fz", "4.fit"]),
        ("n1", "*.fit*", ["1.FITS.gz", "2.fits", "3.fits.fz"]),
        ("*/a", "*.fit*", ["1.FITS.gz", "2.fits", "4.fit"]),
        ("*/a/*.fits", "*.fit*", ["2.fits"]),
        ("", "*.fits|*.fz", ["2.fits", "3.fits.fz"]),
        ("n1/a/2.fits", "*.fz", ["2.fits"]),
        ("n9/*", "*.fit*", []),
    ],
)
def test_discover(nights: Path, location: str, pattern: str, names: list[str]) -> None:
    found = discover(nights / location, pattern)
    assert [one.name for one in found] == names
    assert [one.url for one in found] == sorted(one.url for one in found)
    for one in found:
        assert one.size == Path(one.url).stat().st_size
        assert one.modified == pytest.approx(Path(one.url).stat().st_mtime)


def test_discover_names_what_is_missing(nights: Path) -> None:
    with pytest.raises(SourceError, match="n9"):
        discover(nights / "n9")
    with pytest.raises(SourceError, match="nonsense"):
        discover("nonsense://a/b")


def test_a_folder_with_brackets_in_its_name(tmp_path: Path) -> None:
    (tmp_path / "M31 [deep]").mkdir()
    (tmp_path / "M31 [deep]" / "a.fits").write_text("x")
    assert [one.name for one in discover(tmp_path / "M31 [deep]")] == ["a.fits"]


def test_discover_and_fetch_in_a_remote_store() -> None:
    import fsspec

    store = fsspec.filesystem("memory")
    store.pipe({"/survey/n1/a.fits": b"one", "/survey/n1/b.txt": b"two", "/survey/n2/c.fits.gz": b"three"})
    found = discover("memory://survey")
    assert [one.url for one in found] == ["memory:///survey/n1/a.fits", "memory:///survey/n2/c.fits.gz"]
    with local_copy(found[0].url) as path:
        assert path.read_bytes() == b"one"
        assert path.suffix == ".fits"
    assert not path.exists()
    with pytest.raises(SourceError), local_copy("memory://survey/none.fits"):
        pass


def test_discover_and_fetch_from_a_web_server(nights: Path) -> None:
    pytest.importorskip("aiohttp")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(nights)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        base = f"http://127.0.0.1:{server.server_port}"
        found = discover(f"{base}/n1/")
        assert [one.name for one in found] == ["1.FITS.gz", "2.fits", "3.fits.fz"]
        assert [one.name for one in discover(f"{base}/n1/a/2.fits")] == ["2.fits"]
        with local_copy(found[1].url) as path:
            assert path.read_text() == "n1/a/2.fits"
        with pytest.raises(SourceError), local_copy(f"{base}/none.fits"):
            pass
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_the_same_content_has_the_same_checksum(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 3_000_000)
    (tmp_path / "b").write_bytes(b"x" * 3_000_000)
    assert checksum(tmp_path / "a") == checksum(tmp_path / "b")
    (tmp_path / "b").write_bytes(b"x" * 2_999_999 + b"y")
    assert checksum(tmp_path / "a") != checksum(tmp_path / "b")
    with pytest.raises(SourceError):
        checksum(tmp_path / "c")


NAMES = st.text(st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=20)


@given(night=NAMES, unit=NAMES, identity=NAMES)
def test_no_name_leaves_the_archive(night: str, unit: str, identity: str) -> None:
    path = Archive(Path("/archive")).ledger(night, unit, identity)
    parts = path.relative_to("/archive").parts
    assert len(parts) == 4
    assert ".." not in parts
    assert os.path.normpath(path) == str(path)
    other = Archive(Path("/archive")).ledger(night, unit, identity + "x")
    assert other != path


def test_tables_of_an_archive(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    assert archive.tables("ledger") == []
    for night, unit, name in (("2", "a", "x"), ("1", "b", "y"), ("1", "a", "z")):
        path = archive.ledger(night, unit, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        (path.parent / ".writing-1-half.parquet").touch()
    assert [path.stem for path in archive.tables("ledger")] == ["z", "y", "x"]
    assert [path.stem for path in archive.tables("ledger", night="1", unit="b")] == ["y"]
    assert [path.stem for path in archive.tables("ledger", unit="a")] == ["z", "x"]
    assert archive.nights() == ["1", "2"]


def write(path: Path, text: str, error: Exception | None = None) -> None:
    with atomic(path) as temporary:
        temporary.write_text(text)
        assert temporary.parent == path.parent
        assert temporary != path
        if error is not None:
            raise error


def test_atomic_replaces_whole_files(tmp_path: Path) -> None:
    target = tmp_path / "new" / "file"
    write(target, "one")
    with pytest.raises(RuntimeError, match="boom"):
        write(target, "two", RuntimeError("boom"))
    assert target.read_text() == "one"
    assert list(target.parent.iterdir()) == [target]


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(DiskFull, match="bytes free"):
        write(tmp_path / "file", "half", OSError(errno.ENOSPC, "No space left on device"))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(PermissionError):
        write(tmp_path / "file", "half", PermissionError(errno.EACCES, "no"))


def test_a_kill_in_the_middle_leaves_nothing_that_is_read(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    target = archive.ledger("n", "u", "x")
    code = f"""
import time
from nightsift.archive.paths import atomic
with atomic({str(target)!r}) as temporary:
    temporary.write_bytes(b"half")
    print("writing", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"writing\n"
        time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    assert not target.exists()
    assert archive.tables("ledger") == []
