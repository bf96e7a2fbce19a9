"""Frames as they should not be: each is told from the others in the ledger, and costs none of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
from astropy.io import fits

from flows.night import night
from nightsift.archive import ledger
from nightsift.archive.candidates import read_candidates
from nightsift.archive.paths import Archive
from nightsift.archive.survey import Runner, load_survey
from nightsift.core.tables import CANDIDATES
from nightsift.io.parquet import read_table

IN_PROCESS = Runner(kind="in-process", workers=1, address="")


def rewritten(path: Path, change: Callable[[np.ndarray, fits.Header], np.ndarray]) -> None:
    with fits.open(path) as hdus:
        data, header = hdus[0].data.astype(np.float32), hdus[0].header.copy()
    for card in ("BZERO", "BSCALE"):
        header.remove(card, ignore_missing=True)
    fits.PrimaryHDU(change(data, header), header).writeto(path, overwrite=True)


def truncated(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def no_fits(path: Path) -> None:
    path.write_text("this is no FITS file")


def lacking_a_card(path: Path) -> None:
    def change(data: np.ndarray, header: fits.Header) -> np.ndarray:
        del header["GAIN"]
        return data

    rewritten(path, change)


def all_nan(path: Path) -> None:
    rewritten(path, lambda data, _: np.full_like(data, np.nan))


def all_saturated(path: Path) -> None:
    rewritten(path, lambda data, _: np.full_like(data, 65535.0))


def blank(path: Path) -> None:
    rewritten(path, lambda data, _: np.full_like(data, 500.0))


def without_stars(path: Path) -> None:
    noise = np.random.default_rng(8)
    rewritten(path, lambda data, _: noise.normal(900.0, 12.0, data.shape).astype(np.float32))


def other_field(path: Path) -> None:
    """Same coordinates in the header, but another sky in the pixels."""
    noise = np.random.default_rng(9)

    def change(data: np.ndarray, _: fits.Header) -> np.ndarray:
        sky = noise.normal(900.0, 12.0, data.shape)
        y, x = np.mgrid[: data.shape[0], : data.shape[1]]
        for _i in range(80):
            cx, cy = noise.uniform(8, data.shape[1] - 8), noise.uniform(8, data.shape[0] - 8)
            sky += noise.uniform(300, 9000) * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * 1.4**2))
        return sky.astype(np.float32)

    rewritten(path, change)


def a_corner_only(path: Path) -> None:
    """Shift the content and its coordinates so far that the template covers about a fifth of the frame."""

    def change(data: np.ndarray, header: fits.Header) -> np.ndarray:
        ny, nx = data.shape
        dy, dx = int(0.54 * ny), int(0.56 * nx)
        moved = np.random.default_rng(3).normal(np.median(data), 12.0, data.shape).astype(np.float32)
        moved[: ny - dy, : nx - dx] = data[dy:, dx:]
        header["CRPIX1"] -= dx
        header["CRPIX2"] -= dy
        return moved

    rewritten(path, change)


FAULTS = {
    truncated: {"UnreadableFits"},
    no_fits: {"UnreadableFits"},
    lacking_a_card: {"MissingFact"},
    all_nan: {"BlankFrame"},
    all_saturated: {"BlankFrame", "TooFewStars"},
    blank: {"BlankFrame"},
    without_stars: {"TooFewStars", "BlankFrame", "AlignmentFailed"},
    other_field: {"AlignmentFailed"},
    a_corner_only: {"PoorCoverage", "AlignmentFailed"},
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda one: one.__name__)
def test_fault_is_named_and_costs_no_other_frame(
    fault: Callable[[Path], None], survey: Path, frames: list[Path]
) -> None:
    for extra in frames[3:]:
        extra.unlink()
    fault(frames[1])
    summary = night(survey, runner=IN_PROCESS, track=False)
    archive = Archive(load_survey(survey).archive)
    rows = {Path(row["url"]).name: row for row in ledger.read(archive).to_pylist()}
    bad = rows.pop(frames[1].name)
    assert bad["state"] == "refused"
    assert bad["reason"] in FAULTS[fault]
    assert bad["message"]
    assert bad["night"] == "2026-11-20", "an exposure stands in the report of its own night"
    assert [row["state"] for row in rows.values()] == ["done", "done"]
    assert summary.exit_code == 1
    assert "refused" in summary.reports["2026-11-20"].read_text()
    assert night(survey, runner=IN_PROCESS, track=False).skipped >= 2, "a second run finds nothing new"


def test_first_frame_at_fault_as_well(survey: Path, frames: list[Path]) -> None:
    for path in frames:
        truncated(path)
    summary = night(survey, runner=IN_PROCESS, track=False)
    assert summary.states == {"refused": 5}
    assert summary.exit_code == 1
    assert len(summary.reports) == 1


def test_corrected_header_is_taken_up(survey: Path, frames: list[Path]) -> None:
    good = frames[0].read_bytes()
    truncated(frames[0])
    assert night(survey, runner=IN_PROCESS, track=False).states == {"done": 4, "refused": 1}
    frames[0].write_bytes(good)
    again = night(survey, runner=IN_PROCESS, track=False)
    assert again.states == {"done": 1}
    assert again.skipped == 4


def test_without_a_template_exposures_wait(survey: Path) -> None:
    archive = Archive(load_survey(survey).archive)
    (template,) = archive.root.rglob("*.fits")
    kept = template.read_bytes()
    template.unlink()
    assert night(survey, runner=IN_PROCESS, track=False).states == {"waiting": 5}
    template.write_bytes(kept)
    assert night(survey, runner=IN_PROCESS, track=False).states == {"done": 5}


def test_no_detection_writes_a_typed_empty_table(survey: Path, frames: list[Path]) -> None:
    for extra in frames[1:]:
        extra.unlink()
    unit = next((survey.parent / "units").glob("*.toml"))
    unit.write_text(unit.read_text() + "\n[detection]\nthreshold = 1000000.0\n")
    summary = night(survey, runner=IN_PROCESS, track=False)
    assert summary.states == {"done": 1}
    archive = Archive(load_survey(survey).archive)
    (path,) = archive.tables("candidates")
    table = read_table(path, CANDIDATES)
    assert table.num_rows == 0
    assert table.schema.equals(CANDIDATES)
    assert read_candidates(archive).num_rows == 0


def test_options_code_and_template_decide_about_a_rerun(survey: Path) -> None:
    assert night(survey, runner=IN_PROCESS, track=False).states == {"done": 5}
    again = night(survey, runner=IN_PROCESS, track=False)
    assert (again.skipped, again.states, again.exit_code) == (5, {}, 0)
    unit = next((survey.parent / "units").glob("*.toml"))
    unit.write_text(unit.read_text() + "\n[detection]\nthreshold = 6.0\n")
    assert night(survey, runner=IN_PROCESS, track=False).states == {"done": 5}
    archive = Archive(load_survey(survey).archive)
    candidates = read_candidates(archive)
    assert pc.min(candidates["snr"]).as_py() >= 6.0, "candidates of the first run are gone"
    assert len(set(candidates["candidate_id"].to_pylist())) == candidates.num_rows


def test_another_threshold_counts_anew_and_reduces_nothing(survey: Path, frames: list[Path]) -> None:
    for extra in frames[2:]:
        extra.unlink()
    unit = next((survey.parent / "units").glob("*.toml"))
    text = unit.read_text().replace('name = "none"', 'name = "base"')
    assert "threshold = 0.796" in text

    def accepted(threshold: float) -> tuple[int, int]:
        unit.write_text(text.replace("threshold = 0.796", f"threshold = {threshold}"))
        skipped = night(survey, runner=IN_PROCESS, track=False).skipped
        return skipped, sum(ledger.read(Archive(load_survey(survey).archive))["n_accepted"].to_pylist())

    first, strict, all_ = accepted(0.796), accepted(1.0), accepted(0.0)
    assert (first[0], strict[0], all_[0]) == (0, 2, 2)
    assert strict[1] < first[1] <= all_[1]
    assert accepted(0.796) == (2, first[1])
