"""Blind solution of an image from its pointing and a list of positions."""

import numpy as np
import pytest
from astropy.wcs import WCS

from nightsift.core.errors import AlignmentFailed
from nightsift.images.registration.plate_solve import solve

SHAPE = (400, 520)


def _field(rng, parity, angle_deg, n=60):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [130.0, 35.0]
    wcs.wcs.crpix = [310.0, 170.0]
    c, s = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    wcs.wcs.cd = np.array([[parity * c, -s], [parity * s, c]]) * 4.05 / 3600
    x, y = rng.uniform(0, SHAPE[1], n), rng.uniform(0, SHAPE[0], n)
    ra, dec = wcs.all_pix2world(x, y, 0)
    return wcs, x, y, ra, dec


@pytest.mark.parametrize(("parity", "angle"), [(-1, 3.0), (1, 181.0), (-1, 97.0)])
def test_finds_orientation_among_unrelated_sources(rng, parity, angle):
    _, x, y, ra, dec = _field(rng, parity, angle)
    spurious = rng.uniform(0, 1, (60, 2)) * SHAPE[::-1]
    seen = rng.permutation(60)[:40]
    stars = np.concatenate([np.stack([x, y], 1)[seen], spurious])[rng.permutation(100)]
    stars += rng.normal(0, 0.15, stars.shape)
    solution = solve(stars[:, 0], stars[:, 1], (ra, dec), pointing=(130.02, 35.03), pixel_scale=4.0, shape=SHAPE)
    found = np.stack(solution.wcs.all_world2pix(ra, dec, 0), axis=1)
    assert np.median(np.hypot(*(found - np.stack([x, y], 1)).T)) < 0.2
    assert solution.matched >= 35


def test_unrelated_positions_are_refused(rng):
    _, x, y, ra, dec = _field(rng, 1, 0.0)
    with pytest.raises(AlignmentFailed, match="beyond chance"):
        solve(rng.permutation(x), y, (ra, dec), pointing=(130.0, 35.0), pixel_scale=4.0, shape=SHAPE)


def test_too_few_positions_are_said():
    few = np.arange(4.0)
    with pytest.raises(AlignmentFailed, match="only 4 catalogue positions and 4 stars"):
        solve(
            few * 50,
            few * 60,
            (130.0 + few / 60, 35.0 + few / 60),
            pointing=(130.0, 35.0),
            pixel_scale=4.0,
            shape=SHAPE,
        )
