"""Transfer: the base stays as it is, held-out labels are held out, few labels do no harm, a shift is learnt."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from models.calibration.calibrate import Calibration, mean_probability
from models.calibration.metrics import auc
from models.network.classifier import Classifier, of_network
from models.network.inputs import Recipe
from models.network.store import load, predict, save
from models.training import examples as sets
from models.training.examples import TrainingSet
from models.training.train import TrainOptions, train
from models.transfer.transfer import (
    CrossFit,
    TransferOptions,
    cross_fit,
    fit,
    folds_of,
    simplest,
    transfer,
    write_transferred,
)
from models.transfer.tuner import STRATEGIES, TuneOptions, Tuner
from nightsift.cli.root import app
from nightsift.core.errors import ConfigurationError, TooFewLabels
from nightsift.core.frames import Stamps

QUICK = TuneOptions(rounds=2, steps=3, samples=4, learning_rate=3e-3)


def upside_down(found: TrainingSet) -> TrainingSet:
    """Another world: sources are seen as holes, so that a base network is lost."""
    data = found.stamps.data.copy()
    data[..., :2] *= -1
    return TrainingSet(Stamps(data, found.stamps.mask), found.table, found.card)


@pytest.fixture(scope="module")
def base(separable: TrainingSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = TrainOptions(network={"filters": (6, 8, 12), "dense": 16}, epochs=2, learning_rate=3e-3, seed=3)
    trained = train(separable.take(np.arange(0, 1600, 2)), options)
    folder = tmp_path_factory.mktemp("bases") / "source"
    golden = separable.part("test").take(np.arange(8))
    save(folder, trained.model, Recipe(), card={"threshold": 0.4}, golden=golden.stamps, sign=golden.sign)
    return folder


def test_strategies_move_what_they_say_and_never_the_base(base: Path, separable: TrainingSet) -> None:
    source = load(base, engine="keras")
    before = [one.copy() for one in source.network.get_weights()]
    labelled = separable.part("test").take(np.arange(40))
    for name in STRATEGIES:
        tuner = Tuner(source, name, QUICK)
        seen = tuner.prepare(labelled)
        tuner.restart()
        start = tuner.model.get_weights()
        if name != "frozen":
            tuner.round(seen, np.arange(40), 1)
        moved = [bool((a != b).any()) for a, b in zip(start, tuner.model.get_weights(), strict=True)]
        expected = {"frozen": [0] * 16, "head": [0] * 12 + [1] * 4, "partial": [0] * 8 + [1] * 8}
        assert moved == [bool(one) for one in expected.get(name, [1] * 16)], name
        if name != "scratch":
            for one, other in zip(start, before, strict=True):
                np.testing.assert_array_equal(one, other)
    for one, other in zip(source.network.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_fit_can_be_repeated_and_its_logits_are_those_of_service(base: Path, separable: TrainingSet) -> None:
    tuner = Tuner(load(base, engine="keras"), "head", dataclasses.replace(QUICK, samples=20))
    labelled = separable.part("test").take(np.arange(60))
    seen = tuner.prepare(labelled)
    found = []
    for _ in range(2):
        fit(tuner, seen, 2)
        found.append(tuner.logits(seen.planes))
    np.testing.assert_allclose(found[0], found[1], atol=1e-4)
    service = predict(labelled.stamps, labelled.sign, of_network(tuner.model, tuner.recipe), samples=20, seed=0)
    np.testing.assert_allclose(mean_probability(found[1]), service["score"], atol=1e-4)


def test_strong_prior_keeps_the_base_and_no_prior_lets_it_go(base: Path, separable: TrainingSet) -> None:
    labelled = upside_down(separable.part("test").take(np.arange(60)))
    moved = []
    for prior in (1e4, 0.0):
        tuner = Tuner(load(base, engine="keras"), "full", dataclasses.replace(QUICK, prior=prior))
        tuner.restart()
        start = np.concatenate([one.ravel() for one in tuner.model.get_weights()])
        seen = tuner.prepare(labelled)
        for number in range(1, 4):
            tuner.round(seen, np.arange(60), number)
        moved.append(np.abs(np.concatenate([one.ravel() for one in tuner.model.get_weights()]) - start).mean())
    assert moved[0] < 0.5 * moved[1]


def test_no_group_stands_in_two_folds_and_both_classes_are_left(separable: TrainingSet) -> None:
    fold, keys = folds_of(separable, 4, seed=1)
    assert keys == ("field", "object_id")
    fields = np.asarray(separable.table["field"])
    assert all(len(set(fold[fields == one])) == 1 for one in np.unique(fields))
    one_field = separable.part("test")
    fold, keys = folds_of(one_field, 4, seed=1)
    assert keys == ("object_id",)
    for k in range(4):
        assert set(one_field.labels[fold != k]) == {0, 1}


def test_held_out_labels_do_not_teach(base: Path, separable: TrainingSet) -> None:
    """Flipped labels of one fold change what the others learn, and not what that fold is scored by."""
    labelled = separable.part("test").take(np.arange(48))
    fold, _ = folds_of(labelled, 3, seed=0)
    tuner = Tuner(load(base, engine="keras"), "head", QUICK)
    seen = tuner.prepare(labelled)
    flipped = dataclasses.replace(seen, labels=np.where(fold == 0, 1 - seen.labels, seen.labels))
    one, other = (cross_fit(tuner, each, fold).logits[-1].mean(axis=0) for each in (seen, flipped))
    change = np.abs(one - other)
    assert change[fold == 0].mean() < 0.3 * change[fold != 0].mean()


def test_transfer_learns_a_shift_and_the_model_can_be_loaded(
    base: Path, separable: TrainingSet, tmp_path: Path
) -> None:
    source = load(base, engine="keras")
    world = upside_down(separable)
    labelled, unseen = world.take(np.arange(0, 1200, 6)), world.part("test")
    options = TransferOptions("full", dataclasses.replace(QUICK, rounds=4, steps=8, prior=0.01), folds=2)
    before = auc(np.asarray(predict(unseen.stamps, unseen.sign, source)["score"]), unseen.labels)
    found = transfer(source, labelled, options)
    assert found.rounds > 0
    assert min(found.curves["full"]) < found.curves["full"][0]
    model, calibration, _ = write_transferred(
        tmp_path / "moved", found, source, examples=labelled, made={}, options=options, unit="u"
    )
    assert calibration.model_id == model.model_id
    assert model.card["base"]["model_id"] == source.model_id
    again = load(tmp_path / "moved")
    after = auc(np.asarray(predict(unseen.stamps, unseen.sign, again)["score"]), unseen.labels)
    assert after > before + 0.02


def test_auto_takes_the_simplest_within_one_standard_error(rng: np.random.Generator) -> None:
    labels = rng.integers(0, 2, 200)
    logits = (np.where(labels == 1, 3.0, -3.0) + rng.normal(0, 2, 200))[None].astype(np.float32)

    def tried(one: np.ndarray) -> CrossFit:
        return CrossFit([one], [0.0], 0)

    nearly = logits + rng.normal(0, 0.05, (1, 200)).astype(np.float32)
    assert simplest({"frozen": tried(nearly), "head": tried(logits)}, labels) == "frozen"
    assert simplest({"frozen": tried(-logits), "head": tried(nearly), "full": tried(logits)}, labels) == "head"


def test_too_few_labels_and_unknown_strategies_are_refused(base: Path, separable: TrainingSet) -> None:
    source: Classifier = load(base, engine="keras")
    bogus = separable.take(np.flatnonzero(separable.labels == 0)[:30])
    with pytest.raises(TooFewLabels, match="real"):
        transfer(source, bogus)
    with pytest.raises(ValueError, match="'hea' is unknown"):
        Tuner(source, "hea", QUICK)


def test_a_handful_of_labels_tunes_nothing_unless_asked_to(base: Path, separable: TrainingSet) -> None:
    source: Classifier = load(base, engine="keras")
    few = upside_down(separable).take(np.arange(0, 1200, 30))
    found = transfer(source, few, TransferOptions(tune=QUICK))
    assert (found.strategy, found.rounds, list(found.curves)) == ("frozen", 0, ["frozen"])
    assert any("fewer than 50 labels, got 40" in note for note in found.notes)
    assert transfer(source, few, TransferOptions("head", QUICK)).strategy == "head"


def test_command_writes_model_and_calibration(base: Path, separable: TrainingSet, tmp_path: Path) -> None:
    sets.write(tmp_path / "set", separable.part("test").take(np.arange(40)))
    out = tmp_path / "models" / "mine"
    told = CliRunner().invoke(
        app, ["transfer", str(out), "--base", str(base), "--stamps", str(tmp_path / "set"), "--strategy", "head"]
    )
    assert told.exit_code == 0, told.output
    assert "taken: head" in told.output
    calibration = Calibration.from_json(out.with_name("mine.calibration.json").read_text())
    assert calibration.model_id == load(out).model_id
    assert CliRunner().invoke(app, ["transfer", str(out)]).exit_code != 0
    wrong = CliRunner().invoke(app, ["transfer", str(out), "--stamps", str(tmp_path / "set"), "--strategy", "heads"])
    assert isinstance(wrong.exception, ConfigurationError)
    assert "no strategy 'heads'" in str(wrong.exception)
