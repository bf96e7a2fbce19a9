"""Exposures of all sources of a survey, and how each is asked to be reduced."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from nightsift.archive.survey import Survey
from tasks.discover import Exposure, find_in_sources, reduction_call
from tasks.reduce import reduce_exposure


def test_a_place_that_cannot_be_reached_costs_only_its_own_exposures(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / f"{name}.fits").write_bytes(b"no frame")
    first = Survey.for_folder(tmp_path, "decam", tmp_path / "archive")
    gone = first.sources[0].model_copy(update={"frames": str(tmp_path / "gone" / "n1")})
    survey = first.model_copy(update={"sources": (gone, *first.sources, *first.sources)})
    found, problems = find_in_sources(survey, survey.load_units())
    assert [one.name for one in found] == ["a.fits", "b.fits"], "each place once"
    assert {one.unit for one in found} == {"decam"}
    assert len(problems) == 1
    assert problems[0].startswith("decam: ")


@pytest.mark.parametrize("options", [{"redo": True}, {"wait": 0.0}])
def test_a_call_says_all_that_the_reduction_must_know(tmp_path: Path, options: dict[str, object]) -> None:
    survey = Survey.for_folder(tmp_path, "decam", tmp_path / "archive")
    unit = survey.load_unit("decam")
    exposure = Exposure("s3://b/n1/x.fits", "x.fits", "decam", "2026-10-01", "field-7", "r")
    call = reduction_call(exposure, unit, survey, **options)
    bound = inspect.signature(reduce_exposure.fn).bind(**call)
    assert bound.arguments == {
        "url": "s3://b/n1/x.fits", "unit": unit.file, "archive": str(tmp_path / "archive"), "night": "2026-10-01",
        "folders": [], "label": "decam x.fits field-7 r", **options,
    }  # fmt: skip
