from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.network.classifier import Classifier, sample_logits, summarise
from models.network.sampling import draw_gates, gate_shapes
from models.network.store import predict
from models.training.examples import TrainingSet
from nightsift.core.frames import Stamps

Saved = tuple[Path, Classifier]


def test_columns_are_finite_and_in_range(few: TrainingSet, untrained: Saved) -> None:
    scores = predict(few.stamps, few.sign, untrained[1])
    assert list(scores) == ["score", "score_std", "confidence", "model_id"]
    assert [scores[name].dtype for name in ("score", "score_std", "confidence")] == [np.float64, np.float64, np.float32]
    for name in ("score", "score_std", "confidence"):
        assert np.isfinite(scores[name]).all(), "masked, NaN and infinite pixels must not spoil a score"
        assert ((scores[name] >= 0) & (scores[name] <= 1)).all()
    assert set(scores["model_id"]) == {untrained[1].model_id}


def test_dropout_spreads_the_samples(few: TrainingSet, untrained: Saved) -> None:
    spread = predict(few.stamps, few.sign, untrained[1])["score_std"]
    # the stamp of zeros leaves nothing to drop in a network whose biases are still zero
    assert (np.delete(spread, 4) > 0).all()


def test_no_candidates_is_fine(few: TrainingSet, untrained: Saved) -> None:
    none = few.take(np.arange(0))
    scores = predict(none.stamps, none.sign, untrained[1])
    assert all(len(values) == 0 for values in scores.values())


def test_no_model_scores_nothing(few: TrainingSet) -> None:
    assert predict(few.stamps, few.sign, "none") == {}


def test_seed_decides(few: TrainingSet, untrained: Saved) -> None:
    one, again, other = (predict(few.stamps, few.sign, untrained[1], seed=seed)["score"] for seed in (7, 7, 8))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


def test_score_does_not_depend_on_company(few: TrainingSet, untrained: Saved) -> None:
    many = few.take(np.tile(np.arange(24), 25))  # 600 stamps: several batches
    alone = predict(few.stamps, few.sign, untrained[1])
    among = predict(many.stamps, many.sign, untrained[1])
    for name in ("score", "score_std", "confidence"):
        np.testing.assert_allclose(among[name].reshape(25, 24), np.tile(alone[name], (25, 1)), atol=1e-5)


def test_first_samples_do_not_depend_on_their_number(few: TrainingSet, untrained: Saved) -> None:
    short = sample_logits(few.stamps, few.sign, untrained[1], samples=3, seed=0)
    long = sample_logits(few.stamps, few.sign, untrained[1], samples=9, seed=0)
    np.testing.assert_allclose(long[:3], short, atol=1e-5)


def test_sampled_head_equals_the_whole_network_with_the_same_gates(few: TrainingSet, untrained: Saved) -> None:
    """With gates that keep everything the sampler must give the network's own deterministic logits."""
    from models.network.inputs import prepare

    classifier = untrained[1]
    data, mask = prepare(few.stamps, few.sign, classifier.recipe)
    keep_all = [np.ones_like(gate) for gate in draw_gates(classifier.gates, 2, 0)]
    sampled = classifier.sample(data, mask, keep_all)
    whole = np.asarray(classifier.model([data, mask], training=False))[:, 0]
    np.testing.assert_allclose(sampled, np.tile(whole, (2, 1)), atol=1e-5)


def test_gates_drop_at_their_rate_and_keep_the_mean(untrained: Saved) -> None:
    model = untrained[1].model
    maps, units = draw_gates(gate_shapes(model), 4000, 1)
    assert maps.shape == (4000, 1, 1, 12)
    assert units.shape == (4000, 16)
    for gate, rate in ((maps, 0.15), (units, 0.4)):
        assert gate.mean() == pytest.approx(1.0, abs=0.02)
        assert (gate == 0).mean() == pytest.approx(rate, abs=0.02)


def test_sign_is_symmetric(few: TrainingSet, untrained: Saved) -> None:
    """A fading source scores exactly as the same source brightening."""
    fading = Stamps(few.stamps.data[..., [1, 0, 2]] * np.array([1, 1, -1], np.float32), few.stamps.mask)
    up = predict(few.stamps, np.ones(24, int), untrained[1])["score"]
    down = predict(fading, -np.ones(24, int), untrained[1])["score"]
    np.testing.assert_array_equal(up, down)


def test_samples_must_be_positive(few: TrainingSet, untrained: Saved) -> None:
    with pytest.raises(ValueError, match="at least one dropout sample"):
        predict(few.stamps, few.sign, untrained[1], samples=0)


def test_summary_of_known_samples() -> None:
    logits = np.array([[0.0, 80.0, -80.0, np.log(3)], [0.0, 80.0, -80.0, -np.log(3)]], dtype=np.float32)
    found = summarise(logits)
    np.testing.assert_allclose(found["score"], [0.5, 1, 0, 0.5], atol=1e-6)
    np.testing.assert_allclose(found["score_std"], [0, 0, 0, 0.25], atol=1e-6)
    entropy = -(0.25 * np.log2(0.25) + 0.75 * np.log2(0.75))
    np.testing.assert_allclose(found["confidence"], [0, 1, 1, 1 - entropy], atol=1e-6)
