from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.training import Source, train_model
from models.network.store import NO_MODEL, load
from models.training import examples
from models.training.release import after_training, held_out_folder
from models.training.train import TrainOptions
from nightsift.archive.paths import Archive
from nightsift.archive.survey import Survey, load_survey
from nightsift.cli import app
from nightsift.core.errors import ConfigurationError, OneClassOnly
from nightsift.simulate.options import SimulationOptions
from nightsift.simulate.survey import simulate
from tasks.discover import find_exposures
from tasks.examples import build_templates, harvest
from tasks.factory import ReductionGuards, changed, lowered
from tasks.reduce import reduce_file


def reduced(survey: Survey) -> Path:
    """The nights of the survey, reduced carelessly and without a classifier: enough false candidates to learn from."""
    source, archive = survey.sources[0], Archive(Path(survey.archive))
    unit = lowered(
        changed(survey.load_unit(source.unit), model={"name": NO_MODEL}), ReductionGuards("careless", False, False)
    )
    build_templates(source, unit, archive, folders=[str(survey.units)])
    for exposure in find_exposures(source, unit, source.frames):
        reduce_file(exposure.url, unit, archive, night=exposure.night)
    return archive.root


def test_model_from_an_archive_with_its_truth(tmp_path: Path) -> None:
    survey = load_survey(simulate(tmp_path / "survey", SimulationOptions.preset("tiny", 5, fields=6, visits=1)))
    examples.write(tmp_path / "sets" / "tiny", harvest(survey, "tiny"))
    archive, truth = reduced(survey), tmp_path / "survey" / "truth.parquet"
    epochs: list[int] = []
    card = train_model(
        tmp_path / "mine", Source((), str(archive), str(truth)), TrainOptions(epochs=2, seed=1), work=tmp_path / "w",
        workers=1,
        track=False, on_epoch=lambda epoch, of, losses: epochs.append(epoch),
    )  # fmt: skip
    assert epochs == [1, 2]
    assert load(tmp_path / "mine").model_id == card["model_id"]
    assert json.loads((tmp_path / "mine" / "card.json").read_text())["made"]["truth"] == str(truth)
    assert "field" in card["data"]["split_by"], "one unit leaves nothing stricter than its fields, and it is told"
    parts = {part["part"]: part for part in card["data"]["parts"]}
    assert sum(parts[name]["exposures"] for name in ("train", "validation", "test")) == 6
    assert card["figures_on_test_part"]["all"]["real"] > 0, "its unit was learnt from too"
    assert card["purpose"].endswith(f"learnt from the archive {archive} with the truth in {truth}")
    assert "simulated" not in json.dumps({name: card[name] for name in ("purpose", "made", "learnt_from")})
    known = card["learnt_from"]
    assert known["units"] == ["survey/tiny-1"]
    assert (
        known["examples"]
        == sum(known["examples_by_source"].values())
        == sum(parts[name][kind] for name in ("train", "validation") for kind in ("real", "bogus"))
    )
    lines = after_training(tmp_path / "mine", card, ())
    assert "of 1 unit and 1 night (" in lines[1]
    assert " examples only: nightsift transfer" in lines[2]
    assert lines[3:] == [
        f"the test examples are in {tmp_path / 'mine-held-out'}",
        f"next: nightsift evaluate {tmp_path / 'mine'} --out mine.html",
    ]
    _evaluated_on_what_was_held_out(tmp_path / "mine", parts["test"])

    network = {"filters": (4, 6), "dense": 8}
    options = TrainOptions(epochs=1, network=network, prevalence=0.1)
    source = Source((str(tmp_path / "sets"),), leave_out=("synthetic",))
    other = train_model(tmp_path / "other", source, options, work=tmp_path / "w2", track=False)
    assert other["score_means"] == "the probability to be real where 10% of the candidates are"
    assert other["made"]["from"] == f"the stamp sets {tmp_path / 'sets'}"
    assert other["made"]["sets made from"] == "not known"
    assert other["made"]["not learnt from"] == "synthetic"
    assert other["data"]["not_learnt_from"]["injected"] > 0


def _evaluated_on_what_was_held_out(model: Path, test: dict[str, int]) -> None:
    """Without a set, the command takes the test examples of this very model, and none of another."""
    page = model.with_name("mine.html")
    asked = ["evaluate", str(model), "--out", str(page), "--samples", "2"]
    result = CliRunner().invoke(app, asked)
    assert result.exit_code == 0, result.output
    about = f"{test['real'] + test['bogus']} examples ({test['real']} real, {test['bogus']} bogus) of the part"
    assert about in page.read_text(encoding="utf-8")
    held_out = held_out_folder(model)
    assert set(examples.read(held_out).table["split"].to_pylist()) == {"test"}
    card = json.loads((held_out / "card.json").read_text())
    (held_out / "card.json").write_text(json.dumps({**card, "held_out_of": "mine-before"}))
    with pytest.raises(ConfigurationError, match="set apart for mine-before"):
        CliRunner().invoke(app, asked, catch_exceptions=False)
    with pytest.raises(ConfigurationError, match="name a set with --set"):
        CliRunner().invoke(app, ["evaluate", "base", "--out", str(page)], catch_exceptions=False)


def test_folders_without_stamp_sets_are_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no stamp set"):
        train_model(tmp_path / "mine", Source((str(tmp_path),)), track=False)
    with pytest.raises(ConfigurationError, match="both are given"):
        Source(("a",), "b", "c")


def test_archive_without_truth_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="only one of them"):
        train_model(tmp_path / "mine", Source(archive=str(tmp_path)), track=False)
    assert not (tmp_path / "mine").exists()


def test_one_field_cannot_be_split_and_it_is_told(tmp_path: Path) -> None:
    survey = load_survey(simulate(tmp_path / "survey", SimulationOptions.preset("tiny", 5, visits=3)))
    source = Source((), str(reduced(survey)), str(tmp_path / "survey" / "truth.parquet"))
    with pytest.raises(OneClassOnly, match="both classes in every part"):
        train_model(tmp_path / "mine", source, TrainOptions(epochs=1), work=tmp_path / "w", workers=1, track=False)
