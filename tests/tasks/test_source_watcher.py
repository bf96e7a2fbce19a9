"""When a frame may be read: never before it is whole, never later than needed, and none is forgotten."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from nightsift.io.sources import Found, completeness
from tasks.source_watcher import Arrivals


def image(tmp_path: Path, extensions: int = 0, compress: bool = False, extend: bool = False) -> bytes:
    hdus = [fits.PrimaryHDU(np.zeros((30, 40), np.float32) if not extensions else None)]
    kind = fits.CompImageHDU if compress else fits.ImageHDU
    hdus += [kind(np.full((50, 60), n, np.int16)) for n in range(extensions)]
    out = io.BytesIO()
    fits.HDUList(hdus).writeto(out)
    content = out.getvalue()
    return (
        content
        if extensions or extend
        else content.replace(b"EXTEND  =                    T", b"EXTEND  =                    F")
    )


@pytest.mark.parametrize(
    ("extensions", "compress", "told"), [(0, False, "whole"), (3, False, "open"), (2, True, "open")]
)
def test_length_by_the_headers(tmp_path: Path, extensions: int, compress: bool, told: str) -> None:
    content, path = image(tmp_path, extensions, compress), tmp_path / "frame.fits"
    path.write_bytes(content)
    assert completeness(path) == told
    for part in (0, 100, 2880, 2880 + 1000, len(content) - 2880, len(content) - 1):
        path.write_bytes(content[:part])
        assert completeness(path) in ("partial", "open") if extensions else ("partial",)
        assert completeness(path) != "whole"


def test_what_is_no_fits(tmp_path: Path) -> None:
    path = tmp_path / "frame.fits"
    path.write_bytes(b"\x1f\x8b" + b"x" * 5000)
    assert completeness(path) == "unknown"
    path.write_bytes(b"SIMPLE  =                    T" + b" " * (2880 * 3 - 30))
    assert completeness(path) == "partial", "a header without end"


def found(size: int, modified: float = 1.0, url: str = "frame.fits") -> Found:
    return Found(url, url, size, modified)


def arrivals(state: str) -> Arrivals:
    return Arrivals(10.0, look=lambda _: state)


def names(settled: list[object]) -> int:
    return len(settled)


def test_whole_file_is_taken_at_the_second_look() -> None:
    frames = arrivals("whole")
    assert names(frames.see([found(5)], 0.0)) == 0
    assert names(frames.see([found(5)], 2.0)) == 1
    assert names(frames.see([found(5)], 4.0)) == 0, "once"


def test_growing_and_partial_files_are_waited_for() -> None:
    frames = arrivals("partial")
    for second in range(0, 500, 5):
        assert names(frames.see([found(5)], second)) == 0
    assert len(frames.settling()) == 1
    frames = arrivals("open")
    for second in range(0, 50, 5):
        assert names(frames.see([found(second)], second)) == 0
    assert names(frames.see([found(45)], 54.9)) == 0
    assert names(frames.see([found(45)], 55.0)) == 1


def test_file_that_changes_after_it_was_taken_comes_again() -> None:
    frames = arrivals("whole")
    frames.take_as_done(found(5))
    assert names(frames.see([found(5)], 20.0)) == 0
    assert names(frames.see([found(6)], 30.0)) == 0
    assert names(frames.see([found(6)], 35.0)) == 1


def test_remote_files_by_what_the_server_tells() -> None:
    frames = Arrivals(10.0)
    nan = float("nan")
    for second in (0.0, 5.0):
        assert names(frames.see([found(-1, nan, "memory://frame.fits")], second)) == 0
    assert names(frames.see([found(-1, nan, "memory://frame.fits")], 10.0)) == 1


def test_file_that_vanishes_and_comes_back() -> None:
    frames = Arrivals(10.0)
    frames.see([found(5)], 0.0)
    assert names(frames.see([found(5)], 20.0)) == 0, "it cannot be opened"
    assert len(frames.settling()) == 1
