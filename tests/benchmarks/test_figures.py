"""What the figures of the pages show is what was measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.subtraction import figures


def test_montage_keeps_every_image_in_its_place() -> None:
    images = np.random.default_rng(1).normal(size=(2, 3, 5, 5))
    shown = figures.montage(images)
    assert shown.shape == (2 * 6 + 1, 3 * 6 + 1)
    assert np.array_equal(shown[7:12, 13:18], images[1, 2])
    assert int(np.isfinite(shown).sum()) == images.size


@pytest.mark.parametrize("size", [9, 13, 31])
def test_crop_keeps_the_middle(size: int) -> None:
    image = np.zeros((size, size))
    image[size // 2, size // 2] = 1.0
    shown = figures.crop(image)
    assert shown.shape == (2 * figures.CROP + 1,) * 2
    assert shown[figures.CROP, figures.CROP] == 1.0


def test_completeness_of_all_fields_is_summed() -> None:
    tables = [{"3-4": [4, 1, 1], "10-20": [5, 5, 4], "20-50": [2, 2, 2]}, {"3-4": [6, 2, 3], "10-20": [0, 0, 0]}]
    sums = {name: list(map(int, counts)) for name, counts in figures.sum_completeness(tables).items()}
    assert sums == {"3\u20134": [10, 3, 4], "> 10": [7, 7, 6]}


def test_peers_are_drawn_from_a_table(tmp_path: Path) -> None:
    peer = {
        "completeness": {"3-4": [4, 1, 1], "10-20": [5, 5, 4]},
        "false_plus": 0.0, "false_minus": 0.0, "residual_500": 1.02,
    }  # fmt: skip
    figures.draw_peers(tmp_path / "peers.png", {"empty": {"hotpants": peer, "~delta": peer, "~sfft": {"reason": "no"}}})
    assert (tmp_path / "peers.png").read_bytes().startswith(b"\x89PNG")
