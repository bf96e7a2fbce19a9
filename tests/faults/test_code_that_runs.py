"""The code that makes an exposure is the code that its provenance hashes: every function of ours that runs is known."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import nightsift
from nightsift.archive.paths import Archive
from nightsift.archive.survey import load_survey
from nightsift.core import provenance
from nightsift.core.import_closure import PACKAGES, import_closure
from nightsift.io.sources import checksum
from nightsift.unit.units import Unit
from tasks import reduce, template
from tasks.record import opening_row
from tasks.steps import Stopwatch

ROOT = Path(str(nightsift.__file__)).resolve().parent.parent


@contextmanager
def functions_called() -> Iterator[set[str]]:
    """Dotted names of functions and classes of ours, in the module itself, that Python calls meanwhile."""
    files = {str(path): path for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    found: set[str] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        path = files.get(frame.f_code.co_filename)
        name = frame.f_code.co_qualname.partition(".")[0]
        if event == "call" and path is not None and not name.startswith("<"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found.add(".".join((*(parts[:-1] if parts[-1] == "__init__" else parts), name)))

    before = sys.getprofile()
    threading.setprofile(note)
    sys.setprofile(note)
    try:
        yield found
    finally:
        sys.setprofile(before)
        threading.setprofile(None)


def all_known(called: set[str], *products: str) -> None:
    """Each function that ran is in the closure of the products, or is reached only by what changes no result."""
    known = {name for product in products for name in provenance.closure_of(product)}
    beside = import_closure(ROOT, provenance.WITHOUT_EFFECT)
    assert called - known <= set(beside)
    assert len(called & known) > 50, "too few functions ran to show anything"


def test_every_function_that_makes_candidates_and_scores_is_hashed(survey: Path, frames: list[Path]) -> None:
    loaded = load_survey(survey)
    unit, archive = with_model(loaded.load_unit(loaded.sources[0].unit)), Archive(loaded.archive)
    row = opening_row(unit.name, None, str(frames[0]))
    row |= {"checksum": checksum(frames[0]), "night": frames[0].parent.name}
    reduce.run_steps(
        reduce.Reduction(dict(row)), frames[0], unit, archive=archive
    )  # compiles; watched, that takes minutes
    reduction = reduce.Reduction(row)
    with functions_called() as called:
        reduce.run_steps(reduction, frames[0], unit, archive=archive)
    assert reduction.candidates.num_rows
    assert reduction.candidates["score"].null_count < reduction.candidates.num_rows
    all_known(called, "reduction", "scoring")
    assert {"tasks.reduce.to_difference", "tasks.classify.score", "models.network.store.predict"} <= called


def test_every_function_that_makes_a_template_is_hashed(survey: Path, frames: list[Path]) -> None:
    loaded = load_survey(survey)
    unit, archive = loaded.load_unit(loaded.sources[0].unit), Archive(loaded.archive)
    row = template.TemplateRow(unit.name, "field", "r", "failed")
    urls = [str(path) for path in frames[:3]]
    template.build(row, urls, unit, archive=archive, clock=Stopwatch(), redo=True)
    with functions_called() as called:
        ended = template.build(row, urls, unit, archive=archive, clock=Stopwatch(), redo=True)
    assert ended.state == "done"
    all_known(called, "template")


def with_model(unit: Unit) -> Unit:
    return unit.model_copy(update={"model": unit.model.model_copy(update={"name": "base"})})
