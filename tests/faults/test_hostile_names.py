"""Texts in headers and notices that would lead out of the archive, or that no file system takes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from astropy.io import fits

from flows.night import night
from flows.templates import build_templates
from nightsift.archive import ledger
from nightsift.archive.paths import Archive
from nightsift.archive.survey import Runner, load_survey
from nightsift.skyalerts.event_store.targets import folder_of

IN_PROCESS = Runner(kind="in-process", workers=1, address="")
HOSTILE = {
    "up": "../../x",
    "absolute": "/etc/passwd",
    "slashes": "a/b//c/",
    "dots": "..",
    "percent": "%2e%2e%2f%00",
    "windows": "c:\\x|y<z>?*",
    "hidden": ".writing-1",
    "long": "x" * 5000,
    "long and odd": "/" * 5000,
    "unicode": "пол\u202e\u0301é" * 50,
    "line": "a\nb\r\t\x1b[31m",
    "nul": "a\0b",
    "surrogate": "\udcff",
}
"""Texts by what they try. Cards of FITS hold printable ASCII only; notices and file names hold all of them."""
CARDS = [name for name, text in HOSTILE.items() if text.isascii() and text.isprintable()]


@pytest.mark.parametrize("name", HOSTILE)
def test_whatever_a_text_says_its_product_lies_in_the_archive(name: str, tmp_path: Path) -> None:
    text, archive = HOSTILE[name], Archive(tmp_path / "archive")
    places = [
        archive.ledger("2026-11-20", text, text),
        archive.template(text, text, text, template_id=text),
        archive.claim(text),
        archive.status(text),
        archive.report(text, text),
        archive.embeddings(text, text, text),
        archive.archived_model(text) / "card.json",
        folder_of(archive, text) / "targets.json",
    ]
    for one in places:
        assert ".." not in one.parts
        assert len(one.relative_to(archive.root).parts) == len(one.resolve().relative_to(archive.root.resolve()).parts)
        one.parent.mkdir(parents=True, exist_ok=True)
        one.write_bytes(b"")
    lying = [Path(folder) / file for folder, _, files in os.walk(tmp_path) for file in files]
    assert len(lying) == len(places)
    assert all(one.is_relative_to(archive.root) for one in lying)


def test_different_texts_have_different_places(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    texts = [*HOSTILE.values(), "x" * 5001, "x" * 4999 + "y", "X" * 5000, "a_b", "a b", "%2F", "/"]
    assert len({archive.claim(text) for text in texts}) == len(texts)
    assert len({folder_of(archive, text) for text in texts}) == len(texts)


@pytest.mark.parametrize("name", CARDS)
def test_frame_with_hostile_cards_stays_in_the_archive(name: str, survey: Path, frames: list[Path]) -> None:
    loaded = load_survey(survey)
    unit = loaded.load_unit(loaded.sources[0].unit)
    cards = [card for fact in (unit.facts.field, unit.facts.band) for card in fact.cards or ()]
    assert cards, "the simulated unit tells field and band by cards"
    with fits.open(frames[1], mode="update", memmap=False) as hdus:
        for card in cards:
            hdus[0].header[card] = HOSTILE[name]
    for one in frames[2:]:
        one.unlink()
    before = outside(survey)
    summary = night(survey, runner=IN_PROCESS, track=False)
    assert summary.states == {"done": 1, "refused" if name.startswith("long") else "waiting": 1}
    assert all(len(row["message"]) < 1000 for row in summary.rows)
    assert ledger.read(Archive(loaded.archive)).num_rows == 2
    assert outside(survey) == before


def test_template_frames_with_hostile_cards_stay_in_the_archive(survey: Path) -> None:
    loaded = load_survey(survey)
    unit = loaded.load_unit(loaded.sources[0].unit)
    assert unit.facts.field is not None
    for one in Path(loaded.sources[0].templates).rglob("*.fits"):
        with fits.open(one, mode="update", memmap=False) as hdus:
            for card in unit.facts.field.cards:
                hdus[0].header[card] = "../../../x/" + "y" * 80
    before = outside(survey)
    assert build_templates(survey, runner=IN_PROCESS, track=False).states == {"done": 1}
    assert outside(survey) == before


def outside(survey: Path) -> set[Path]:
    """Everything near the survey that is not in its archive."""
    archive = load_survey(survey).archive
    return {one for one in survey.parent.parent.rglob("*") if not one.is_relative_to(archive)}
