"""Cosmic rays are found, star cores are not taken for them, from undersampled to broad PSFs."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from nightsift.core.flags import Mask
from nightsift.images.artefacts.artefacts import mask_artefacts
from nightsift.images.injection import inject_stars

_spec = importlib.util.spec_from_file_location("artefact_fields", Path(__file__).with_name("test_artefacts.py"))
fields = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fields)


@pytest.mark.parametrize("fwhm", [1.8, 2.2, 3.0, 4.5, 6.0])
def test_stars_are_not_flagged(rng, fwhm):
    frame, x, y = fields.field(rng, fwhm, (900, 900), n=1200, brightest=2e4 * fwhm**2)
    marked = mask_artefacts(frame, fields.make_unit(streaks=False))
    hits = marked.mask & Mask.COSMIC_RAY != 0
    inside = (x > 2) & (y > 2) & (x < 897) & (y < 897)
    columns, rows = np.round(x[inside]).astype(int), np.round(y[inside]).astype(int)
    core = np.array([hits[j - 1 : j + 2, i - 1 : i + 2].any() for i, j in zip(columns, rows, strict=True)])
    assert core.mean() < 0.002
    assert hits.sum() <= 5


@pytest.mark.parametrize("fwhm", [1.8, 3.0, 6.0])
def test_tracks_and_hot_pixels_are_found(rng, fwhm):
    frame, _, _ = fields.field(rng, fwhm, (600, 600), n=300, brightest=4e4)
    data, planted = frame.data.copy(), np.zeros(frame.shape, bool)
    for _ in range(60):
        x, y, angle, length = *rng.uniform(20, 580, 2), rng.uniform(0, np.pi), rng.integers(1, 14)
        for step in range(length):
            planted[int(y + step * np.sin(angle)), int(x + step * np.cos(angle))] = True
    data[planted] += rng.uniform(300, 4000, planted.sum()).astype(np.float32)
    marked = mask_artefacts(frame.replace(data=data), fields.make_unit())
    hits = marked.mask & Mask.COSMIC_RAY != 0
    assert hits[planted].mean() > (0.8 if fwhm < 2 else 0.93)
    grown = planted.copy()
    grown[1:] |= planted[:-1]
    grown[:-1] |= planted[1:]
    grown[:, 1:] |= grown[:, :-1]
    grown[:, :-1] |= grown[:, 1:]
    assert (hits & ~grown).sum() <= 10
    assert np.count_nonzero(mask_artefacts(frame, fields.make_unit(cosmic_rays=False)).mask & Mask.COSMIC_RAY) == 0


def test_elongated_and_varying_psf_is_safe(rng):
    shape = (700, 700)
    frame, _, _ = fields.field(rng, 3.0, shape, n=0)
    y, x = np.mgrid[:31, :31] - 15
    for _ in range(500):
        along, across = rng.uniform(2.0, 4.0), rng.uniform(0.9, 1.2)
        image = np.exp(-0.5 * ((x / across) ** 2 + (y / along) ** 2))
        psf = fields.Psf((image / image.sum())[None].astype(np.float32), 0, shape, 3.0)
        frame = inject_stars(frame, [rng.uniform(5, 695)], [rng.uniform(5, 695)], [10 ** rng.uniform(3, 5)], psf)
    hits = mask_artefacts(frame, fields.make_unit()).mask & Mask.COSMIC_RAY != 0
    assert hits.sum() <= 5
