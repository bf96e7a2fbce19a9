from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.network.store import NO_MODEL
from models.training import examples
from models.training.dataset import collect
from models.training.examples import TrainingSet, detected, identity_of
from nightsift.archive.candidates import write_candidates
from nightsift.archive.paths import Archive
from nightsift.archive.survey import load_survey
from nightsift.core.frames import Stamps
from nightsift.io.parquet import write_stamps
from nightsift.simulate.options import SimulationOptions
from nightsift.simulate.survey import simulate
from tasks.discover import find_exposures
from tasks.examples import build_templates, examples_of_file, harvest
from tasks.factory import FactoryOptions, Known, ReductionGuards, changed, lowered
from tasks.reduce import reduce_file


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate(tmp_path_factory.mktemp("tiny"), SimulationOptions.preset("tiny", 4))


@pytest.fixture(scope="module")
def harvested(survey: Path) -> TrainingSet:
    return harvest(load_survey(survey), "tiny")


def test_examples_are_what_the_pipeline_found(harvested: TrainingSet, survey: Path) -> None:
    table = harvested.table
    assert set(np.asarray(table["reduction"])) == {"standard", "careless"}
    source, kinds = np.asarray(table["source"].to_pylist()), np.asarray(table["kind"].to_pylist())
    real = harvested.labels == 1
    assert (source[real] == "detected").sum() >= 6, "most of the transients of two visits are found"
    assert (source == "injected").sum() >= 15
    assert (~real).sum() >= 5
    truth = pq.read_table(survey.parent / "truth.parquet")
    known = {f"tiny/{one}" for one in truth["object_id"].to_pylist()}
    objects = np.asarray(table["object_id"].to_pylist(), dtype=object)
    simulated = np.isin(source, ["detected", "minor_planet"])
    assert set(objects[simulated]) <= known
    assert len(set(objects[real & ~simulated])) == (real & ~simulated).sum(), "a synthetic transient is one example"
    assert set(objects[~real]) == {None}
    assert set(kinds[simulated]) <= set(truth["kind"].to_pylist())
    assert set(kinds[~real]) == {"bogus"}
    assert set(source[~real]) <= {"random", "galaxy_residual", "galaxy_pixel"}
    assert len(set(table["example_id"].to_pylist())) == len(harvested)


def test_columns_tell_what_an_example_is(harvested: TrainingSet) -> None:
    table = harvested.table.to_pydict()
    assert set(table["class"]) <= {"transient", "variable", "mover", "bogus"}
    real = harvested.labels == 1
    assert np.isfinite(np.array(table["true_mag"], dtype=float)[real]).all()
    measured, true = (np.array(table[name], dtype=float) for name in ("mag", "true_mag"))
    bright = real & (np.asarray(table["snr"]) > 15) & (np.asarray(table["source"]) == "injected")
    assert np.percentile(np.abs(measured - true)[bright], 90) < 0.3
    assert np.isfinite(measured[~real]).mean() > 0.9, "measured for bogus too: it may be learnt from"
    offset = np.array(table["host_offset"], dtype=float)
    assert (np.isfinite(offset) == [one is not None for one in table["host_id"]]).all()
    assert (np.array(table["neighbour_distance"], dtype=float) >= 0).all()
    synthetic = harvested.card["synthetic"]
    assert 0 < synthetic["injected_found"] < synthetic["injected"], "some are too faint to be found"
    for kind in ("injected", "faded", "varied_star"):
        assert synthetic[f"{kind}_found"] == (np.asarray(table["kind"]) == kind).sum()
    assert synthetic["faded"] > 0
    sign = np.asarray(table["sign"])
    assert (sign[np.asarray(table["kind"]) == "faded"] == -1).all()
    assert (sign[np.asarray(table["kind"]) == "injected"] == 1).all()


def test_pixels_of_galaxies_differ_from_detections(harvested: TrainingSet) -> None:
    source = np.asarray(harvested.table["source"].to_pylist())
    placed = source == "galaxy_pixel"
    assert placed.sum() >= 3
    assert (harvested.labels[placed] == 0).all()
    np.testing.assert_array_equal(detected(harvested.table), ~placed)
    snr = np.asarray(harvested.table["snr"])
    assert np.median(snr[placed]) < snr[~placed].min(), "most are below every threshold"
    assert identity_of(harvested)["counts"]["source"]["galaxy_pixel"] == placed.sum()


@pytest.mark.parametrize("old_source", ["galaxy_residual", "random"])
def test_a_set_made_before_pixels_had_a_source_of_their_own_is_read_with_it(
    harvested: TrainingSet, tmp_path: Path, old_source: str
) -> None:
    source = harvested.table["source"].to_pylist()
    old = [old_source if one == "galaxy_pixel" else one for one in source]
    column = harvested.table.schema.get_field_index("source")
    table = harvested.table.set_column(column, harvested.table.schema.field("source"), pa.array(old))
    examples.write(tmp_path, TrainingSet(harvested.stamps, table, harvested.card))
    found = examples.read(tmp_path)
    assert found.table["source"].to_pylist() == source
    assert found.table.drop(["source"]).equals(harvested.table.drop(["source"]))
    assert identity_of(found)["set_id"] == found.card["set_id"], "the set is the same, whatever its sources are called"


def test_the_same_seed_makes_the_same_examples(survey: Path, harvested: TrainingSet) -> None:
    loaded = load_survey(survey)
    unit = changed(loaded.load_unit(loaded.sources[0].unit), model={"name": NO_MODEL})
    exposure = find_exposures(loaded.sources[0], unit, loaded.sources[0].frames)[0]
    known = Known(pq.read_table(survey.parent / "truth.parquet").slice(0, 0))
    archive = Archive(Path(loaded.archive))
    one, same, other = (
        examples_of_file(
            exposure.url,
            unit,
            archive,
            known=known,
            survey="s",
            options=FactoryOptions(seed=seed),
            night=exposure.night,
        )[0][0]
        for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(one.stamps.data, same.stamps.data)
    assert one.table.equals(same.table)
    injected = [np.asarray(s.table["true_mag"])[np.asarray(s.table["source"]) == "injected"] for s in (one, other)]
    assert len(injected[0]) > 5
    assert not np.isin(*injected).any()


def test_stamps_belong_to_their_rows(harvested: TrainingSet) -> None:
    """A real example that brightened shows a positive peak at the centre of its difference, a fading one a negative."""
    real = (harvested.labels == 1) & (np.asarray(harvested.table["snr"]) > 15)
    assert real.sum() >= 3
    centre = harvested.stamps.data[real][:, 14:17, 14:17, 2].sum(axis=(1, 2))
    np.testing.assert_array_equal(np.sign(centre), harvested.sign[real])


@pytest.fixture(scope="module")
def archive(survey: Path) -> Archive:
    """The survey reduced as nights are, without a classifier."""
    loaded = load_survey(survey)
    reduced = Archive(Path(loaded.archive))
    for source in loaded.sources:
        unit = lowered(changed(loaded.load_unit(source.unit), model={"name": NO_MODEL}), ReductionGuards("careless"))
        build_templates(source, unit, reduced, folders=[str(loaded.units)])
        for exposure in find_exposures(source, unit, source.frames):
            reduce_file(exposure.url, unit, reduced, night=exposure.night)
    return reduced


def test_no_exposure_fills_the_set_and_what_is_left_out_is_counted(survey: Path, archive: Archive) -> None:
    truth = pq.read_table(survey.parent / "truth.parquet")
    thin = collect(archive, truth, "tiny", max_real=3, max_bogus=2)
    _, counts = np.unique(np.asarray(thin.table["exposure_id"]), return_counts=True)
    assert counts.max() <= 5
    whole = collect(archive, truth, "tiny", max_real=10**6, max_bogus=10**6)
    left = thin.card["left_out"]
    assert len(whole) - len(thin) == left["real_thinned"] + left["bogus_thinned"]
    assert left["ambiguous"] == whole.card["left_out"]["ambiguous"]


def test_archive_without_a_ledger_row_is_an_error(survey: Path, archive: Archive, tmp_path: Path) -> None:
    from nightsift.archive.candidates import read_candidates

    candidates = read_candidates(archive).slice(0, 1)
    archive = Archive(tmp_path)
    night, unit, exposure = (candidates[name][0].as_py() for name in ("night", "unit", "exposure_id"))
    write_candidates(archive, night, unit, exposure, candidates)
    stamps = Stamps(np.zeros((1, 31, 31, 3), np.float32), np.zeros((1, 31, 31), bool))
    write_stamps(archive.stamps(night, unit, exposure), candidates["candidate_id"].to_pylist(), stamps)
    with pytest.raises(ValueError, match="ledger names no file"):
        collect(archive, pq.read_table(survey.parent / "truth.parquet"), "tiny")
