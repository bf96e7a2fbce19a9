"""Provenance: the same for the same result, another one whenever something that matters changes."""

from __future__ import annotations

import ast
import math
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import nightsift
from nightsift.core import provenance
from nightsift.core.import_closure import PACKAGES
from nightsift.unit.units import load_unit

ROOT = Path(str(nightsift.__file__)).resolve().parent.parent
INPUTS = {"exposure": "abc", "template": "def"}


def test_order_does_not_matter_and_values_do() -> None:
    first = provenance.key(INPUTS, {"a": 1, "b": [1.5, math.nan]})
    assert provenance.key(dict(reversed(INPUTS.items())), {"b": (1.5, math.nan), "a": np.int64(1)}) == first
    others = [
        {"a": 2, "b": [1.5, math.nan]},
        {"a": 1, "b": [math.nan, 1.5]},
        {"a": "1", "b": [1.5, math.nan]},
        {"a": 1},
    ]
    assert len({first, *(provenance.key(INPUTS, other) for other in others)}) == 5
    assert len(first) == 64


def test_units_are_options() -> None:
    unit = load_unit("decam")
    changed = unit.model_copy(update={"detection": unit.detection.model_copy(update={"threshold": 6.0})})
    keys = {provenance.key(INPUTS, {"unit": one}) for one in (unit, load_unit("decam"), changed)}
    assert len(keys) == 2


def test_it_is_the_same_in_another_process() -> None:
    code = "from nightsift.core import provenance; print(provenance.key({'a': 'b'}, {'s': {'x', 'y', 'z'}}))"
    runs = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2")
    }
    assert runs == {provenance.key({"a": "b"}, {"s": {"x", "y", "z"}}) + "\n"}


def test_what_has_no_canonical_form() -> None:
    with pytest.raises(TypeError, match="object"):
        provenance.key({}, {"a": object()})


def test_the_version_tells_the_code() -> None:
    codes = [provenance.code_version(), *(provenance.code_of(product) for product in provenance.MAKERS)]
    assert len(set(codes)) == len(codes)
    assert all(code.startswith(f"{nightsift.__version__}+") for code in codes)
    assert (provenance.reduction_code(), provenance.scoring_code()) == (codes[1], codes[2])
    assert provenance.key({}, {}) == provenance.key({}, {}, provenance.reduction_code())


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources."""
    root = tmp_path_factory.mktemp("sources")
    for path in sources(ROOT):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, root / path)
    return root


@pytest.fixture
def tree(copy: Path) -> Iterator[Path]:
    """The copy, to be edited; afterwards it is as it was, with the times of its files, by which they are known."""
    yield copy
    for path in sources(copy):
        if not (ROOT / path).exists():
            (copy / path).unlink()
        elif (ROOT / path).read_bytes() != (copy / path).read_bytes():
            shutil.copy2(ROOT / path, copy / path)


def sources(root: Path) -> list[Path]:
    return [path.relative_to(root) for package in PACKAGES for path in sorted((root / package).rglob("*.py"))]


def closures(root: Path) -> dict[str, dict[str, str]]:
    return {product: provenance.closure_of(product, root) for product in provenance.MAKERS}


def changed_products(tree: Path) -> set[str]:
    now, here = closures(tree), closures(ROOT)
    return {product for product in here if now[product] != here[product]}


def file_of(root: Path, module: str) -> Path:
    base = root.joinpath(*module.split("."))
    return base / "__init__.py" if base.is_dir() else base.with_suffix(".py")


class Edited(ast.NodeTransformer):
    """Other docstrings; where asked for, one more statement at the head of every function, or of those of one name."""

    def __init__(self, deep: bool, only: str) -> None:
        self.deep, self.only = deep, only

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            node.value = ast.Constant("Something else is written here.")
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        within, self.only = self.only, "" if node.name == self.only else self.only
        self.generic_visit(node)
        self.only = within
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self.generic_visit(node)
        if self.deep and self.only in ("", node.name):
            node.body.insert(0, ast.parse("assert True").body[0])
        return node


def edit(path: Path, deep: bool, only: str = "") -> None:
    before = ast.parse(path.read_text(encoding="utf-8"))
    body = Edited(deep, only).visit(before)
    text = ast.unparse(ast.fix_missing_locations(body))
    assert not only or "assert True" in text, f"{only} is in {path} no more"
    path.write_text(
        "# A comment.\n" + text + "\n# Another.\n" + ("assert True\n" if deep and not only else ""), encoding="utf-8"
    )


def test_comments_docstrings_and_layout_of_all_sources_change_nothing(tree: Path) -> None:
    """Every file that counts written anew: without its comments, with others, other docstrings, other line breaks."""
    reached = {name.rpartition(".")[0] for found in closures(ROOT).values() for name in found}
    assert len(reached) > 100
    for module in reached:
        edit(file_of(tree, module), deep=False)
    assert changed_products(tree) == set()


PIXELS = {"reduction", "photometry", "injection", "training"}
TEMPLATES = {"template", "imported template"}


@pytest.mark.parametrize(
    ("changed", "products"),
    [
        (["nightsift.report.drift_plots", "nightsift.report.plots", "nightsift.report.pair_figure"], set()),
        (["nightsift.report.night", "nightsift.report.model_pages", "nightsift.cli.night"], set()),
        (["nightsift.cli.installation", "models.training.evaluation"], set()),
        (["flows.night", "flows.watch_state", "flows.summary", "flows.monitoring"], set()),
        (["tasks.monitor:read_night", "models.drift.alarm"], {"monitoring"}),
        (["nightsift.archive.claims", "nightsift.core.parallel:this_process", "tasks.record:known_row"], set()),
        (["tasks.retry", "tasks.classify:rescore", "tasks.steps:Stopwatch"], set()),
        (["nightsift.core.provenance", "nightsift.core.import_closure"], set()),
        (["models.training.train", "models.transfer.tuner", "models.network.architectures.vgg"], {"training"}),
        (
            ["models.network.store:predict", "models.network.runtime:read_export"],
            {"scoring", "injection", "monitoring"},
        ),
        (["subtraction.methods.zogy"], PIXELS),
        (["subtraction.methods.hotpants"], PIXELS),
        (["subtraction.methods.sfft"], PIXELS),
        (["tasks.measure", "tasks.steps:with_psf"], PIXELS),
        (["tasks.steps:ingest"], {*PIXELS, *TEMPLATES}),
        (["nightsift.images.stamps"], {"reduction", "injection", "training"}),
        (["nightsift.images.photometry.candidate_flags:flag_repeated_pixels"], {"reduction"}),
        (["nightsift.images.resampling.coadd", "nightsift.images.templates"], {*TEMPLATES, "training"}),
        (["nightsift.images.resampling.reprojection", "nightsift.io.outside_files"], {"imported template"}),
        (["nightsift.images.artefacts.artefacts"], {*PIXELS, *TEMPLATES}),
        (["tasks.monitor:recover_injected"], {"injection"}),
        (["tasks.photometry"], {"photometry"}),
    ],
)
def test_a_changed_step_changes_what_it_has_a_part_in(changed: list[str], products: set[str], tree: Path) -> None:
    for place in changed:
        module, _, only = place.partition(":")
        edit(file_of(tree, module), deep=True, only=only)
    assert changed_products(tree) == products


@pytest.mark.parametrize(
    ("step", "products"),
    [
        ("frame = mask_artefacts(frame, unit)", {"reduction", "photometry", "injection"}),
        ("measure.require_coverage(pair, unit)", {"reduction", "photometry", "injection"}),
        ("reduction.candidates, reduction.stamps = candidates, stamps", {"reduction"}),
        ("withdraw(archive, reduction.row)", set()),
        ("reduction.clock.log(logger, f\"{label}: {reduction.row['state']}\")", set()),
    ],
)
def test_a_step_taken_out_of_the_way_of_an_exposure(step: str, products: set[str], tree: Path) -> None:
    path = file_of(tree, "tasks.reduce")
    text = path.read_text(encoding="utf-8")
    assert text.count(f"{step}\n") == 1
    path.write_text(text.replace(step, "pass"), encoding="utf-8")
    assert changed_products(tree) == products


def test_a_new_method_and_a_new_architecture_count(tree: Path) -> None:
    (tree / "subtraction/methods/another.py").write_text("def subtract(pair):\n    return pair\n")
    assert changed_products(tree) == PIXELS
    (tree / "subtraction/methods/another.py").unlink()
    (tree / "models/network/architectures/another.py").write_text("def build(options):\n    return options\n")
    assert changed_products(tree) == {"training"}


def test_no_product_is_made_by_what_only_draws_watches_or_keeps_order() -> None:
    for product, found in closures(ROOT).items():
        modules = {name.rpartition(".")[0] for name in found}
        for other in ("flows", "nightsift.cli", "nightsift.report", "nightsift.archive.claims"):
            assert not [one for one in modules if f"{one}.".startswith(f"{other}.")], (product, other)
        assert not {"tasks.record.known_row", "tasks.record.Job"} & set(found), product
        assert not [one for one in modules if "plot" in one or "figure" in one], product


def test_scoring_is_what_its_imports_say() -> None:
    """Reading imports finds every module of models that scoring loads and uses, and none that only evaluates."""
    code = (
        "import sys, models.network.store, models.network.unit_scoring; "
        "print(*(m for m in sys.modules if m.startswith('models.')))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    found = {name.rpartition(".")[0] for name in provenance.closure_of("scoring")}
    assert {"tasks.classify", "models.network.runtime", "models.network.inputs"} <= found
    # Loaded beside what scores, for writing models and fitting calibrations.
    packages = {"models.network", "models.calibration"}
    assert set(loaded) - found - packages <= {"models.network.card", "models.calibration.metrics"}
    assert not found & {f"models.{name}" for name in ("evaluate", "evaluation", "train", "thresholds", "drift")}
