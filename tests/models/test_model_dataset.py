from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from models.dataset import collect
from models.examples import TrainingSet
from nightsift.frames import Stamps
from nightsift.io.parquet import write_candidates, write_stamps
from nightsift.io.paths import Archive
from nightsift.simulate import SimulationOptions, simulate
from nightsift.survey import load_survey
from tasks.examples import harvest


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate(tmp_path_factory.mktemp("tiny"), SimulationOptions.preset("tiny", 4))


@pytest.fixture(scope="module")
def harvested(survey: Path) -> TrainingSet:
    return harvest(load_survey(survey), "tiny")


def test_examples_are_what_the_pipeline_found(harvested: TrainingSet, survey: Path) -> None:
    table = harvested.table
    assert set(np.asarray(table["reduction"])) == {"standard", "careless"}
    assert (harvested.labels == 1).sum() >= 8, "most of the transients of two visits are found"
    assert (harvested.labels == 0).sum() >= 5
    truth = pq.read_table(survey.parent / "truth.parquet")
    known = {f"tiny/{one}" for one in truth["object_id"].to_pylist()}
    real = harvested.labels == 1
    objects, kinds = np.asarray(table["object_id"]), np.asarray(table["kind"])
    assert set(objects[real]) <= known
    assert set(objects[~real]) == {None}
    assert set(kinds[real]) <= set(truth["kind"].to_pylist())
    assert set(kinds[~real]) == {"bogus"}
    assert len(set(table["example_id"].to_pylist())) == len(harvested)


def test_stamps_belong_to_their_rows(harvested: TrainingSet) -> None:
    """A real example that brightened shows a positive peak at the centre of its difference, a fading one a negative."""
    real = (harvested.labels == 1) & (np.asarray(harvested.table["snr"]) > 15)
    assert real.sum() >= 3
    centre = harvested.stamps.data[real][:, 14:17, 14:17, 2].sum(axis=(1, 2))
    np.testing.assert_array_equal(np.sign(centre), harvested.sign[real])


def test_no_exposure_fills_the_set_and_what_is_left_out_is_counted(survey: Path, harvested: TrainingSet) -> None:
    archive = Archive(load_survey(survey).archive.with_name("careless"))
    truth = pq.read_table(survey.parent / "truth.parquet")
    thin = collect(archive, truth, "tiny", max_real=3, max_bogus=2)
    _, counts = np.unique(np.asarray(thin.table["exposure_id"]), return_counts=True)
    assert counts.max() <= 5
    whole = collect(archive, truth, "tiny", max_real=10**6, max_bogus=10**6)
    left = thin.card["left_out"]
    assert len(whole) - len(thin) == left["real_thinned"] + left["bogus_thinned"]
    assert left["ambiguous"] == whole.card["left_out"]["ambiguous"]


def test_archive_without_a_ledger_row_is_an_error(survey: Path, harvested: TrainingSet, tmp_path: Path) -> None:
    from nightsift.io.parquet import read_candidates

    candidates = read_candidates(Archive(load_survey(survey).archive)).slice(0, 1)
    archive = Archive(tmp_path)
    night, unit, exposure = (candidates[name][0].as_py() for name in ("night", "unit", "exposure_id"))
    write_candidates(archive, night, unit, exposure, candidates)
    stamps = Stamps(np.zeros((1, 31, 31, 3), np.float32), np.zeros((1, 31, 31), bool))
    write_stamps(archive.stamps(night, unit, exposure), candidates["candidate_id"].to_pylist(), stamps)
    with pytest.raises(ValueError, match="ledger names no file"):
        collect(archive, pq.read_table(survey.parent / "truth.parquet"), "tiny")
