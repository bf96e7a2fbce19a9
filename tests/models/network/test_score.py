"""`models.score` gives arrays of any size the scores that the pipeline gives its stamps."""

from __future__ import annotations

import json

import numpy as np
import pytest

from models import score
from models.network.store import load, predict
from nightsift.core.errors import ModelMismatch
from nightsift.core.frames import Stamps
from nightsift.core.tables import CANDIDATES
from nightsift.unit.units import default_unit
from tasks import classify
from tests.models.conftest import make_examples
from tests.nightsift.archive.drawn_archive import filled


@pytest.fixture(scope="module")
def wide() -> tuple[Stamps, np.ndarray]:
    """Stamps wider than the network's input, some pixels bad."""
    made = make_examples(40, 3, size=41)
    mask = np.random.default_rng(1).random(made.stamps.mask.shape) < 0.01
    return Stamps(made.stamps.data, mask), made.table["sign"].to_numpy()


def test_scores_are_those_of_the_pipeline(wide: tuple[Stamps, np.ndarray]) -> None:
    stamps, sign = wide
    expected = predict(stamps, sign, "base", samples=20, seed=0)
    found = score(stamps.science, stamps.template, stamps.difference, stamps.mask, sign=sign)
    for name in ("score", "score_std", "confidence"):
        assert np.array_equal(found[name], expected[name])
    assert found.meta["model_id"] == expected["model_id"][0]
    assert np.ptp(found["score"]) > 0.5


def test_scores_are_those_that_a_night_writes(wide: tuple[Stamps, np.ndarray]) -> None:
    stamps, sign = wide
    written = classify.score(stamps, filled(CANDIDATES, len(sign), sign=sign), default_unit())
    found = score(stamps.science, stamps.template, stamps.difference, stamps.mask, sign=sign)
    for name in ("score", "score_std", "confidence"):
        assert np.array_equal(found[name].astype(np.float32), written[name].to_numpy().astype(np.float32))
    assert set(written["model_id"].to_pylist()) == {found.meta["model_id"]}


def test_even_sizes_have_the_candidate_beyond_the_middle(wide: tuple[Stamps, np.ndarray]) -> None:
    stamps, sign = wide
    middle = stamps.data.shape[1] // 2
    whole = score(stamps.science, stamps.template, stamps.difference, stamps.mask, sign=sign)
    for size in (32, 33, 40):
        cut = slice(middle - size // 2, middle - size // 2 + size)
        planes = [one[:, cut, cut] for one in (stamps.science, stamps.template, stamps.difference, stamps.mask)]
        assert np.array_equal(score(*planes, sign=sign)["score"], whole["score"])


@pytest.mark.parametrize("size", [21, 22, 30])
def test_small_stamps_are_padded_and_the_padding_masked(size: int, wide: tuple[Stamps, np.ndarray]) -> None:
    stamps, sign = wide
    middle, width = stamps.data.shape[1] // 2, load("base").recipe.size
    cut = slice(middle - size // 2, middle - size // 2 + size)
    inner = slice(middle - width // 2, middle + width // 2 + 1)
    mask = np.ones(stamps.mask.shape, dtype=bool)
    mask[:, cut, cut] = stamps.mask[:, cut, cut]
    padded = Stamps(np.where(mask[..., None], np.float32(0), stamps.data)[:, inner, inner], mask[:, inner, inner])
    expected = predict(padded, sign, "base", samples=20, seed=0)
    planes = [one[:, cut, cut] for one in (stamps.science, stamps.template, stamps.difference, stamps.mask)]
    assert np.abs(score(*planes, sign=sign)["score"] - expected["score"]).max() < 1e-6


def test_one_stamp_lists_masked_arrays_and_nan(wide: tuple[Stamps, np.ndarray]) -> None:
    stamps, sign = wide
    many = score(stamps.science, stamps.template, stamps.difference, stamps.mask, sign=sign)
    one = score(stamps.science[3], stamps.template[3], stamps.difference[3], stamps.mask[3], sign=sign[3])
    assert len(one) == 1
    assert one["score"][0] == many["score"][3]
    masked = [np.ma.masked_array(plane, stamps.mask) for plane in (stamps.science, stamps.template, stamps.difference)]
    assert np.array_equal(score(*masked, sign=sign)["score"], many["score"])
    holes = np.where(stamps.mask, np.float32(np.nan), stamps.difference)
    assert np.array_equal(score(stamps.science, stamps.template, holes, sign=sign)["score"], many["score"])
    lists = score(stamps.science[:2].tolist(), stamps.template[:2].tolist(), stamps.difference[:2].tolist(), sign=1)
    assert len(lists) == 2


def test_sign_is_that_of_the_difference_at_the_centre(wide: tuple[Stamps, np.ndarray]) -> None:
    stamps, _ = wide
    source = np.zeros((2, 41, 41), dtype=np.float32)
    source[0, 20, 20], source[1, 20, 20] = 5000.0, -5000.0
    found = score(stamps.science[:2], stamps.template[:2], stamps.difference[:2] + source)
    assert found["sign"].tolist() == [1, -1]


def test_planes_may_be_absent(wide: tuple[Stamps, np.ndarray]) -> None:
    stamps, sign = wide
    data = stamps.data.copy()
    data[..., 1] = np.nan
    expected = predict(Stamps(data, stamps.mask), sign, "base", samples=20, seed=0)
    found = score(stamps.science, None, stamps.difference, stamps.mask, sign=sign)
    assert np.array_equal(found["score"], expected["score"])


def test_nothing_gives_an_empty_table() -> None:
    none = np.zeros((0, 31, 31))
    found = score(none, none, none)
    assert len(found) == 0
    assert found.colnames == ["score", "score_std", "confidence", "sign"]


def test_calibration_of_a_unit(tmp_path, wide: tuple[Stamps, np.ndarray]) -> None:
    stamps, sign = wide
    content = {
        "method": "temperature", "parameters": [2.0], "model_id": load("base").model_id, "unit": "u", "real": 20,
        "bogus": 20, "prevalence": 0.5, "figures": {}, "reasons": [],
    }  # fmt: skip
    file = tmp_path / "u.json"
    file.write_text(json.dumps(content))
    planes = (stamps.science, stamps.template, stamps.difference, stamps.mask)
    plain, found = score(*planes, sign=sign), score(*planes, sign=sign, calibration=file)
    sure = plain["score"] > 0.99
    assert (found["score"][sure] < plain["score"][sure]).all()
    assert found.meta["model_id"].startswith(content["model_id"] + "+")
    file.write_text(json.dumps({**content, "model_id": "another"}))
    with pytest.raises(ModelMismatch, match="learnt for another"):
        score(*planes, calibration=file)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((2, 31, 31), (2, 31, 30), (2, 31, 31)), "one shape"),
        (((2, 20, 31),) * 3, "21 pixels wide at least"),
        (((31,),) * 3, r"\(n, ny, nx\)"),
        ((None, None, None), "one shape"),
    ],
)
def test_what_is_wrong_is_named(shapes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        score(*(None if one is None else np.zeros(one) for one in shapes))
    with pytest.raises(ValueError, match="the mask must have the shape"):
        score(*[np.zeros((2, 31, 31))] * 3, np.zeros((31, 31)))
