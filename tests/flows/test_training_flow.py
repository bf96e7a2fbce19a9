from __future__ import annotations

import json
from pathlib import Path

import pytest

from flows.training import train_model
from models.store import NO_MODEL, load
from nightsift.errors import ConfigurationError
from nightsift.io.paths import Archive
from nightsift.simulate import SimulationOptions, simulate
from nightsift.survey import Survey, load_survey
from tasks.careless import Care, changed, lowered
from tasks.discover import find_exposures
from tasks.examples import build_templates
from tasks.reduce import reduce_file


def reduced(survey: Survey) -> Path:
    """The nights of the survey, reduced carelessly and without a classifier: enough false candidates to learn from."""
    source, archive = survey.sources[0], Archive(Path(survey.archive))
    unit = lowered(changed(survey.load_unit(source.unit), model={"name": NO_MODEL}), Care("careless", False, False))
    build_templates(source, unit, archive, [str(survey.units)])
    for exposure in find_exposures(source, unit, source.frames):
        reduce_file(exposure.url, unit, archive, exposure.night)
    return archive.root


def test_model_from_an_archive_with_its_truth(tmp_path: Path) -> None:
    survey = load_survey(simulate(tmp_path / "survey", SimulationOptions.preset("tiny", 5, visits=5)))
    archive, truth = reduced(survey), tmp_path / "survey" / "truth.parquet"
    epochs: list[int] = []
    card = train_model(
        tmp_path / "mine", seed=1, archive=archive, truth=truth, epochs=2, workers=1, track=False,
        on_epoch=lambda epoch, of, losses: epochs.append(epoch),
    )  # fmt: skip
    assert epochs == [1, 2]
    assert load(tmp_path / "mine").model_id == card["model_id"]
    assert json.loads((tmp_path / "mine" / "card.json").read_text())["made"]["truth"] == str(truth)
    assert card["data"]["split_by"] == ["exposure_id"], "one unit and one field leave nothing stricter, and it is told"
    assert sum(part["exposures"] for part in card["data"]["parts"]) == 5
    assert card["figures_on_unseen_units"]["all"]["real"] > 0


def test_archive_without_truth_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="only one of them"):
        train_model(tmp_path / "mine", archive=tmp_path, track=False)
    assert not (tmp_path / "mine").exists()
