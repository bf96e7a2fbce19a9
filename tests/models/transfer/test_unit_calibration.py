"""A unit's calibration from labels of its stored candidates, by the command, and its use in scoring."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from models.network.classifier import Classifier
from models.network.unit_scoring import calibration_of, scoring_identity
from models.training.dataset import labelled_candidates
from models.training.examples import TrainingSet
from models.transfer.active import questions
from nightsift.archive.candidates import write_candidates
from nightsift.archive.paths import Archive
from nightsift.archive.survey import load_survey
from nightsift.cli import app
from nightsift.core import tables
from nightsift.core.errors import ConfigurationError
from nightsift.io.parquet import write_stamps
from nightsift.unit.units import Unit
from tasks.classify import score

EXPOSURES = 8


@pytest.fixture
def survey(
    tmp_path: Path,
    project_root: Path,
    separable: TrainingSet,
    untrained: tuple[Path, Classifier],
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A survey of one unit whose candidates are the separable stamps, labelled in a table beside it."""
    monkeypatch.setenv("NIGHTSIFT_MODELS", str(untrained[0].parent))
    (tmp_path / "units").mkdir()
    shipped = (project_root / "units" / "panoptes.toml").read_text(encoding="utf-8")
    (tmp_path / "units" / "calm.toml").write_text(shipped + '\n[model]\nname = "fresh"\nsamples = 4\n', "utf-8")
    file = tmp_path / "survey.toml"
    file.write_text(
        'name = "s"\narchive = "archive"\nunits = "units"\n[[source]]\nunit = "calm"\nframes = "nights"\n', "utf-8"
    )
    archive, labels = Archive(tmp_path / "archive"), []
    for number, rows in enumerate(np.array_split(np.arange(len(separable)), EXPOSURES)):
        part, exposure = separable.take(rows), f"e{number}"
        ids = [f"{exposure}-{k}" for k in range(len(rows))]
        constant = {"exposure_id": exposure, "unit": "calm", "night": "2026-11-20", "field": f"f{number}", "band": "r"}
        found = [
            {"candidate_id": one, **constant, "template_id": "t", "mjd": 61000.0, "x": 1.0, "y": 1.0, "sign": int(s),
             "snr": 9.0, "n_pixels": 5, "elongation": 1.0, "flux": 9.0, "flux_err": 1.0, "flux_aperture": 9.0,
             "flux_aperture_err": 1.0, "dipole": 0.0, "masked_fraction": 0.0, "flags": 0, "stamp_index": k}
            for k, (one, s) in enumerate(zip(ids, part.sign, strict=True))
        ]  # fmt: skip
        write_candidates(archive, "2026-11-20", "calm", exposure, tables.table(found, tables.CANDIDATES))
        write_stamps(archive.stamps("2026-11-20", "calm", exposure), ids, part.stamps)
        labels += [
            {"candidate_id": one, "label": "real" if y else "bogus"}
            for one, y in zip(ids, part.labels, strict=True)
        ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(labels), tmp_path / "labels.parquet")
    return file


def calibrate(survey: Path, *more: str, labels: str = "labels.parquet") -> str:
    command = ["calibrate", str(survey), "--unit", "calm", "--labels", str(survey.parent / labels), *more]
    result = CliRunner().invoke(app, command)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def unit_with(survey: Path, **model: object) -> Unit:
    unit = load_survey(survey).load_unit("calm")
    return unit.model_copy(update={"model": unit.model.model_copy(update=model)})


def test_command_learns_a_map_and_scoring_uses_it(survey: Path, separable: TrainingSet) -> None:
    told = calibrate(survey, "--rule", "FPR 5%")
    assert re.search(r"\d+ real and \d+ bogus labels, map: (temperature|platt|beta|isotonic)", told)
    assert 'calibration = "calm.calibration.json"' in told
    threshold = float(re.findall(r"threshold = ([\d.]+)", told)[0])
    plain, calibrated = unit_with(survey), unit_with(survey, calibration="calm.calibration.json")
    assert calibration_of(plain) is None
    assert scoring_identity(calibrated) == f"{scoring_identity(plain)}+{calibration_of(calibrated).digest}"
    table = tables.CANDIDATES.empty_table()
    rows = pq.read_table(next(Archive(survey.parent / "archive").root.glob("candidates/*/*/e0.parquet")))
    assert table.schema.names == rows.schema.names
    part = separable.take(np.array_split(np.arange(len(separable)), EXPOSURES)[0])
    before, after = (score(part.stamps, rows, unit) for unit in (plain, calibrated))
    assert set(after["model_id"].to_pylist()) == {scoring_identity(calibrated)}
    one, other = (np.asarray(scored["score"]) for scored in (before, after))
    assert np.abs(one - other).max() > 0.01, "an untrained network is not calibrated"
    accepted = other[part.labels == 0] >= threshold
    assert accepted.mean() < 0.15


def test_a_rate_that_the_labels_cannot_tell_is_said(survey: Path) -> None:
    told = calibrate(survey, "--rule", "FPR 1e-4")
    assert "needs 30000 bogus labels" in told
    assert "what it was, in these scores" in told


def test_few_labels_keep_the_threshold_and_strangers_are_counted(survey: Path) -> None:
    lines = "".join(f"e{k}-{k},real\n" for k in range(4)) + "nobody,bogus\n"
    (survey.parent / "few.csv").write_text("candidate_id,label\n" + lines)
    told = calibrate(survey, labels="few.csv")
    assert "1 of 5 labels are of no stored candidate of calm" in told
    before = unit_with(survey).model.threshold
    assert f"threshold = {before}     # what it was" in told


def test_calibration_of_another_model_is_refused(survey: Path) -> None:
    calibrate(survey)
    path = survey.parent / "units" / "calm.calibration.json"
    path.write_text(path.read_text().replace('"model_id": "fresh-', '"model_id": "other-'))
    with pytest.raises(ConfigurationError, match="was learnt for the model other-"):
        calibration_of(unit_with(survey, calibration=path.name))
    with pytest.raises(ConfigurationError, match="cannot be used"):
        calibration_of(unit_with(survey, calibration="absent.json"))
    path.write_text("{}")
    with pytest.raises(ConfigurationError, match="no calibration"):
        calibration_of(unit_with(survey, calibration=path.name))


def test_wrong_labels_are_refused(survey: Path) -> None:
    (survey.parent / "words.csv").write_text("candidate_id,label\ne0-1,perhaps\n")
    with pytest.raises(ConfigurationError, match="'perhaps' of e0-1 is no label"):
        calibrate(survey, labels="words.csv")
    (survey.parent / "others.csv").write_text("candidate_id,label\nzz,real\n")
    with pytest.raises(ConfigurationError, match="none of the 1 labels"):
        calibrate(survey, labels="others.csv")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        calibrate(survey, labels="absent.csv")
    (survey.parent / "both.csv").write_text("candidate_id,label\ne0-1,real\ne0-1,bogus\n")
    with pytest.raises(ConfigurationError, match="e0-1 is called real and bogus"):
        calibrate(survey, labels="both.csv")
    ask(survey, "--count", "3")
    with pytest.raises(ConfigurationError, match="no label is filled in, of 3 rows"):
        calibrate(survey, labels="ask.csv")


def test_labels_that_are_no_fair_draw_are_said_to_be_so(survey: Path) -> None:
    for rule, fair in (("batch", False), ("random", True)):
        table = ask(survey, "--count", "3", "--rule", rule)[1]
        assert set(table["rule"].to_pylist()) == {rule}
        filled = table.set_column(1, "label", pa.array(["real", "bogus", "real"]))
        csv.write_csv(filled, survey.parent / "filled.csv")
        assert ("no fair draw" in calibrate(survey, labels="filled.csv")) != fair


def ask(survey: Path, *more: str) -> tuple[str, pa.Table]:
    out = survey.parent / "ask.csv"
    command = ["ask", str(survey), "--unit", "calm", "--out", str(out), *more]
    result = CliRunner().invoke(app, command)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output, csv.read_csv(out)


def test_command_asks_for_labels_that_are_not_there_yet(survey: Path) -> None:
    told, table = ask(survey, "--count", "12")
    assert "12 candidates of calm" in told
    assert "no fair draw" in told
    page = (survey.parent / "ask.html").read_text(encoding="utf-8")
    assert page.count('class="card"') == 12
    assert "ask-labelled.csv" in page
    assert table.num_rows == len(set(table["candidate_id"].to_pylist())) == 12
    assert table["label"].null_count == 12
    best = ask(survey, "--count", "12", "--rule", "bald")[1]["information"].to_pylist()
    assert best == sorted(best, reverse=True)
    filled = table.set_column(1, "label", pa.array(["real"] * 6 + [""] * 6))
    csv.write_csv(filled, survey.parent / "filled.csv")
    more = ask(survey, "--count", "30", "--labels", str(survey.parent / "filled.csv"))[1]["candidate_id"].to_pylist()
    assert not set(more) & set(table["candidate_id"].to_pylist()[:6]), "what has a label is not asked for again"
    fair = ask(survey, "--count", "9", "--rule", "random")
    assert "no fair draw" not in fair[0]


def test_questions_without_an_answer_are_refused(survey: Path) -> None:
    archive = Archive(survey.parent / "archive")
    with pytest.raises(ConfigurationError, match="no model that could be unsure"):
        questions(archive, unit_with(survey, name="none"), 5)
    with pytest.raises(ConfigurationError, match="holds no candidates"):
        questions(Archive(survey.parent / "empty"), unit_with(survey), 5)
    with pytest.raises(ConfigurationError, match="no rule 'best'"):
        ask(survey, "--rule", "best")


def test_transfer_from_the_labels_of_a_survey_is_put_to_use_by_the_unit(survey: Path) -> None:
    out, few = survey.parent / "models" / "moved", survey.parent / "few.parquet"
    pq.write_table(pq.read_table(survey.parent / "labels.parquet").take(pa.array(np.arange(0, 1600, 10))), few)
    command = ["transfer", str(out), "--base", "fresh", "--survey", str(survey), "--unit", "calm", "--strategy", "head"]
    told = CliRunner().invoke(app, [*command, "--labels", str(few), "--rule", "miss 5%"])
    assert told.exit_code == 0, told.output
    assert f'name = "{out.resolve()}"' in told.output, "a relative path holds for one folder only"
    threshold = float(re.search(r"threshold = ([\d.]+)", told.output).group(1))  # type: ignore[union-attr]
    unit = unit_with(survey, name=str(out), calibration="moved.calibration.json", threshold=threshold)
    assert calibration_of(unit) is not None
    assert scoring_identity(unit).startswith("moved-")


def test_labels_of_no_candidate_are_refused_and_others_counted(survey: Path) -> None:
    archive = Archive(load_survey(survey).archive)
    found = labelled_candidates(archive, {"e0-0": 1, "e1-2": 0, "nobody": 1}, 31, unit="calm")
    assert found.labels.tolist() == [1, 0]
    assert found.card["left_out"] == {"labels_without_candidate": 1}
    with pytest.raises(ConfigurationError, match="none of the 1 labels"):
        labelled_candidates(archive, {"nobody": 1}, 31)
