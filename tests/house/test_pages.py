"""The pages say what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nightsift.cli.schema_docs import schema_page
from nightsift.core import tables
from nightsift.core.flags import Flag, Mask

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md")])


def relative(file: Path) -> str:
    return str(file.relative_to(ROOT))


def test_schema_page_is_current() -> None:
    assert (ROOT / "docs/schema.md").read_text(encoding="utf-8") == schema_page(), "run: make docs"


@pytest.mark.parametrize("columns", [tables.CANDIDATE_COLUMNS, tables.LEDGER_COLUMNS, tables.TRUTH_COLUMNS])
def test_every_column_is_described_once(columns: tuple[tables.Column, ...]) -> None:
    assert all(column.description and column.writer for column in columns)
    assert len({column.name for column in columns}) == len(columns)


@pytest.mark.parametrize("kind", [Flag, Mask])
def test_every_bit_is_single_and_described(kind: type[Flag] | type[Mask]) -> None:
    bits = list(kind)
    assert [bit.value for bit in bits] == [1 << n for n in range(len(bits))]
    assert all(bit.description for bit in bits)


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
    missing = [one for one in links if "://" not in one and not (page.parent / one).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_files_named_exist(page: Path) -> None:
    """A path in code quotes that begins with one of our folders must exist."""
    tops = "nightsift|subtraction|models|tasks|flows|units|docs|tests|benchmarks|infra"
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    named = re.findall(rf"`((?:{tops})/[\w./-]+\.(?:py|toml|md))`", text)
    missing = [one for one in named if not (ROOT / one).exists()]
    assert not missing
