"""Import closures of small trees: what is reached, what is not, and what changes a digest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from nightsift.core.import_closure import import_closure

Write = Callable[..., Path]
START = "tasks.way.begin"


@pytest.fixture
def tree(tmp_path: Path) -> Write:
    """A function that writes sources, named by module, into a folder and gives it back; packages get their file."""

    def write(**sources: str) -> Path:
        for module, text in sources.items():
            path = tmp_path.joinpath(*module.split("__")).with_suffix(".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            for folder in path.relative_to(tmp_path).parents[:-1]:
                (tmp_path / folder / "__init__.py").touch()
            path.write_text(text, encoding="utf-8")
        return tmp_path

    return write


def digest(root: Path) -> str:
    return str(sorted(import_closure(root, [START]).items()))


def test_names_are_followed_through_imports(tree: Write) -> None:
    root = tree(
        tasks__way="from tasks import second\nfrom models.deep import Net as Other\nLIMIT = 3\n\n"
        "def begin():\n    from nightsift.late import late\n    return late(second.step(LIMIT), Other)\n\n"
        "def beside():\n    return second.unused()\n",
        tasks__second="import numpy as np\n\ndef step(x):\n    return _inner(np.abs(x))\n\n"
        "def _inner(x):\n    return x\n\ndef unused():\n    pass\n",
        models__deep="class Base:\n    pass\n\nclass Net(Base):\n    pass\n\nclass Another:\n    pass\n",
        nightsift__late="def late(x, kind: 'Kind'):\n    return x\n",
        nightsift__unused="",
    )
    assert set(import_closure(root, [START])) == {
        "tasks.way.begin", "tasks.way.LIMIT", "tasks.second.step", "tasks.second._inner", "models.deep.Net",
        "models.deep.Base", "nightsift.late.late",
    }  # fmt: skip


def test_a_package_hands_on_what_its_file_imports(tree: Write) -> None:
    root = tree(
        tasks__way="from nightsift import room\nfrom nightsift.room import do\ndef begin():\n    do(room.other.more)\n",
        nightsift__room__inside="def do(x):\n    return x\n",
        nightsift__room__other="def more():\n    pass\n\ndef less():\n    pass\n",
    )
    (root / "nightsift/room/__init__.py").write_text("from nightsift.room.inside import do\n")
    assert set(import_closure(root, [START])) == {
        "tasks.way.begin", "nightsift.room.inside.do", "nightsift.room.other.more"
    }  # fmt: skip


def test_a_function_called_like_its_module(tree: Write) -> None:
    root = tree(
        tasks__way="from nightsift import align\nfrom nightsift.align import node\ndef begin():\n    align(node)\n",
        nightsift__align="def align(x):\n    return x\n\ndef node():\n    pass\n\ndef more():\n    pass\n",
        nightsift__page="def draw():\n    pass\n",
    )
    (root / "nightsift/__init__.py").write_text("from nightsift import page\nfrom nightsift.align import align\n")
    assert set(import_closure(root, [START])) == {"tasks.way.begin", "nightsift.align.align", "nightsift.align.node"}
    assert set(import_closure(root, ["nightsift.page"])) == {"nightsift.page.draw"}


def test_one_name_for_several_things_within_a_class(tree: Write) -> None:
    root = tree(
        tasks__way="from nightsift.a import f\n\nclass begin:\n    def first(self):\n        return f()\n"
        "    def second(self):\n        from nightsift.b import f\n        return f()\n"
        "    def third(self):\n        from nightsift.c import f\n        return f()\n",
        nightsift__a="def f():\n    pass\n", nightsift__b="def f():\n    pass\n", nightsift__c="def f():\n    pass\n",
    )  # fmt: skip
    assert {f"nightsift.{one}.f" for one in "abc"} <= set(import_closure(root, [START]))


def test_modules_found_by_name_and_modules_passed_on_belong_to_it_whole(tree: Write) -> None:
    root = tree(
        tasks__way="import importlib\nfrom tasks import whole\n\n"
        "def begin(name, use):\n    use(whole)\n    return importlib.import_module(f'subtraction.methods.{name}')\n",
        tasks__whole="def a():\n    pass\n\nB = 1\n",
        subtraction__methods__one="def subtract():\n    pass\n",
        subtraction__methods__two="from nightsift.part import part\n\ndef subtract():\n    part()\n",
        nightsift__part="def part():\n    pass\n",
    )
    before = import_closure(root, [START])
    assert set(before) == {
        "tasks.way.begin", "tasks.whole.a", "tasks.whole.B", "subtraction.methods.one.subtract",
        "subtraction.methods.two.subtract", "nightsift.part.part",
    }  # fmt: skip
    tree(subtraction__methods__three="def subtract():\n    pass\n")
    assert "subtraction.methods.three.subtract" in import_closure(root, [START])


def test_what_is_done_at_import_counts(tree: Write) -> None:
    root = tree(tasks__way="NODES = [0]\nfor i in range(3):\n    NODES.append(i)\n\ndef begin():\n    return 1\n")
    first = digest(root)
    assert "tasks.way." in import_closure(root, [START])
    tree(tasks__way="NODES = [0]\nfor i in range(4):\n    NODES.append(i)\n\ndef begin():\n    return 1\n")
    second = digest(root)
    (root / "tasks/__init__.py").write_text("import numpy\n\nnumpy.seterr(all='ignore')\n")
    assert len({first, second, digest(root)}) == 3, "the file of a package runs too"


BODY = '"""A module."""\nimport numpy as np\n\n\ndef begin(x):\n    """Begin."""\n    return np.abs(x) + 1\n'


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("import numpy as np\ndef begin(x):\n    # why\n    return (np.abs(x)\n       + 1)  # so\n", True),
        (BODY + '\n\nLIMIT = 3\n"""A limit."""\n', True),
        (BODY.replace("def", "@task(name='begin')\ndef").replace("as np\n", "as np\nfrom prefect import task\n"), True),
        (BODY.replace("def", "@cache\ndef").replace("as np\n", "as np\nfrom functools import cache\n"), False),
        (BODY.replace("+ 1", "+ 2"), False),
        (BODY.replace("import numpy", "import jax.numpy"), False),
        (BODY.replace("x", "y"), False),
        (BODY.replace("    return", "    x.sort()\n    return"), False),
    ],
)
def test_only_what_can_change_a_result_changes_the_digest(text: str, same: bool, tree: Write) -> None:
    first = digest(tree(tasks__way=BODY))
    assert (digest(tree(tasks__way=text)) == first) == same


def test_a_cut_is_not_followed(tree: Write) -> None:
    sources = {
        "tasks__way": "from tasks.log import tell\nfrom tasks.row import Row\n\ndef begin():\n    tell(Row)\n",
        "tasks__log": "from tasks.place import place\n\ndef tell(x):\n    place(x)\n",
        "tasks__place": "def place(x):\n    return x\n",
        "tasks__row": "class Row:\n    a = 1\n\nclass Rows:\n    b = 1\n",
    }  # fmt: skip
    root = tree(**sources)
    found = import_closure(root, [START], ["tasks.log", "tasks.row.Row"])
    assert set(found) == {"tasks.way.begin"}
    assert "tasks.row.Row" in import_closure(root, [START], ["tasks.row.Rows"])


def test_what_cannot_be_followed_is_an_error(tree: Write) -> None:
    root = tree(tasks__way="def begin():\n    pass\n")
    for names, cuts in (
        (["tasks.way.begun"], []),
        (["tasks.gone.begin"], []),
        ([START], ["tasks.way.gone"]),
        ([START], ["nowhere"]),
    ):
        with pytest.raises(LookupError, match="there is no"):
            import_closure(root, names, cuts)
    for text in (
        "from .way import begin\n",
        "from tasks.way import *\n",
        "import importlib\ndef begin(name):\n    importlib.import_module(name)\n",
        "from importlib import import_module\ndef begin(name):\n    import_module(f'{name}.x')\n",
    ):
        with pytest.raises(ValueError, match="cannot be followed"):
            import_closure(tree(tasks__other=text), ["tasks.other"])
