"""Provenance: the same for the same result, another one whenever something that matters changes."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nightsift import provenance
from nightsift.units import load_unit

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
    code = "from nightsift import provenance; print(provenance.key({'a': 'b'}, {'s': {'x', 'y', 'z'}}))"
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


def test_changed_code_is_another_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = provenance.code_version()
    assert before.startswith("0.")
    for folder in ("subtraction", "nightsift/images"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "subtraction/method.py").write_text("a = 1\n")
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "nightsift/provenance.py"))
    versions = []
    for text in ("a = 1\n", "a = 2\n", "a = 1\n"):
        (tmp_path / "subtraction/method.py").write_text(text)
        provenance.code_version.cache_clear()
        versions.append(provenance.code_version())
    provenance.code_version.cache_clear()
    assert versions[0] == versions[2] != versions[1]


def test_scoring_is_what_its_imports_say() -> None:
    """Reading imports finds every module of models that scoring really loads, and none that only evaluates."""
    code = (
        "import sys, models.predict, models.unit_scoring; print(*(m for m in sys.modules if m.startswith('models.')))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    root = Path(provenance.__file__).parent.parent
    found = {path.relative_to(root).with_suffix("").as_posix().replace("/", ".") for path in provenance.scoring_files()}
    assert {"tasks.classify", "models.onnx_scorer", "models.normalisation", *loaded} <= found
    assert not found & {f"models.{name}" for name in ("evaluate", "evaluation", "train", "thresholds", "drift")}


@pytest.mark.parametrize(
    ("edited", "changed"),
    [
        ("models/evaluation.py", {"all"}),
        ("models/deep.py", {"all", "scoring"}),
        ("tasks/classify.py", {"scoring"}),
        ("subtraction/method.py", {"all", "reduction"}),
    ],
)
def test_each_code_has_its_digest(
    edited: str, changed: set[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    files = {
        "tasks/classify.py": "from models.predict import predict\n",
        "models/predict.py": "def predict():\n    from models import deep\n",
        "models/deep.py": "", "models/evaluation.py": "from models.predict import predict\n",
        "subtraction/method.py": "",
    }  # fmt: skip
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "nightsift/provenance.py"))
    codes = {
        "all": provenance.code_version, "reduction": provenance.reduction_code, "scoring": provenance.scoring_code
    }  # fmt: skip

    def digests() -> dict[str, str]:
        for code in codes.values():
            code.cache_clear()
        return {name: code() for name, code in codes.items()}

    before = digests()
    (tmp_path / edited).write_text(files[edited] + "a = 1\n")
    after = digests()
    for code in codes.values():
        code.cache_clear()
    assert {name for name in codes if before[name] != after[name]} == changed
