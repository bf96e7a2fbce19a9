from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from models.training.labels import LabelOptions, label

FILES = {"x1": "one.fits", "x2": "two.fits"}


def candidates(*rows: tuple[str, float, float, float]) -> pa.Table:
    exposure, x, y, flux = zip(*rows, strict=True)
    return pa.table(
        {"exposure_id": exposure, "x": x, "y": y, "flux": pa.array(flux, pa.float32()), "unit": ["u"] * len(rows)}
    )


def truth(*rows: tuple[str, float, float, float, float]) -> pa.Table:
    file, x, y, flux, reference = zip(*rows, strict=True)
    return pa.table(
        {"exposure_file": file, "unit": ["u"] * len(rows), "x": x, "y": y, "flux": flux, "reference_flux": reference}
    )


def labels_of(found: pa.Table, true: pa.Table) -> list[int]:
    return label(found, FILES, true, LabelOptions())[0].tolist()


def test_match_ambiguous_and_clear() -> None:
    found = candidates(("x1", 101, 100, 480), ("x1", 105, 100, 90), ("x1", 130, 100, 90))
    labels, rows = label(found, FILES, truth(("one.fits", 100, 100, 500, 0)), LabelOptions())
    assert labels.tolist() == [1, -1, 0]
    assert rows.tolist() == [0, -1, -1]


def test_only_the_closest_detection_of_an_object_is_real() -> None:
    found = candidates(("x1", 102, 100, 400), ("x1", 100.4, 100, 400))
    assert labels_of(found, truth(("one.fits", 100, 100, 500, 0))) == [-1, 1]


@pytest.mark.parametrize(
    ("flux", "reference", "measured", "expected"),
    [(500, 0, 450, 1), (0, 500, -480, 1), (500, 0, -450, -1), (510, 500, 300, -1), (900, 500, 380, 1)],
    ids=["brighter", "fainter", "wrong sign", "hardly changed", "variable"],
)
def test_what_was_detected_must_be_the_change(flux: float, reference: float, measured: float, expected: int) -> None:
    assert labels_of(candidates(("x1", 100, 100, measured)), truth(("one.fits", 100, 100, flux, reference))) == [
        expected
    ]


def test_truth_of_another_exposure_or_place_does_not_count() -> None:
    found = candidates(("x1", 100, 100, 500), ("x2", 100, 100, 500))
    assert labels_of(found, truth(("two.fits", 100, 100, 500, 0), ("two.fits", np.nan, np.nan, 500, 0))) == [0, 1]


def test_exposure_without_a_file_is_an_error() -> None:
    with pytest.raises(ValueError, match="x9"):
        labels_of(candidates(("x9", 1, 1, 1)), truth(("one.fits", 1, 1, 1, 0)))


def test_predicted_minor_planet_needs_no_flux_but_light() -> None:
    true = truth(("one.fits", 100, 100, np.nan, np.nan))
    assert labels_of(candidates(("x1", 101, 100, 480)), true) == [1]
    assert labels_of(candidates(("x1", 101, 100, -480)), true) == [-1]
    assert labels_of(candidates(("x1", 106, 100, 480)), true) == [-1]
