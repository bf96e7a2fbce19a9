"""Difference images kept for people."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from astropy.io import fits

from nightsift.core.frames import Difference, Frame, Meta, Pair
from nightsift.core.psf import Psf
from nightsift.io.fits import open_fits, read_image, write_difference


def test_all_planes_are_kept(tmp_path: Path, rng: np.random.Generator) -> None:
    shape = (20, 30)
    ones, mask = np.ones(shape, dtype=np.float32), np.zeros(shape, dtype=np.uint16)
    mask[3, 4] = 2
    meta = Meta("u", "Höhe", "r", "2026-11-20", "u-1", 61000.0, 60.0, 1.0, 5.0, 6e4, 1.0)
    science, template, data = (rng.normal(0, 1, shape).astype(np.float32) for _ in range(3))
    pair = Pair(Frame(science, ones, mask, meta), Frame(template, ones, mask, meta))
    psf = Psf(np.ones((1, 3, 3), dtype=np.float32), 0, shape, 2.0)
    difference = Difference(data, ones, mask, data, psf, "hotpants", "template", 1.25)
    path = write_difference(tmp_path / "kept", pair, difference)
    assert path.name == "u-1.fits"
    for name, plane in {"SCIENCE": science, "TEMPLATE": template, "DIFFERENCE": data, "SCORE": data}.items():
        np.testing.assert_array_equal(read_image(path, name).data, plane)
    with open_fits(path) as hdus:
        np.testing.assert_array_equal(hdus["MASK"].data, mask)
        assert hdus[0].header["KERNSUM"] == 1.25
    assert fits.getheader(path)["METHOD"] == "hotpants"
