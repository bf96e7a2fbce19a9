"""Minor planets moved onto other places: light and noise are what a real transient there would have."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from nightsift.core.flags import Mask
from nightsift.core.frames import Pair
from nightsift.images.injection import cut_movers, inject_stars, transplant
from nightsift.images.photometry.psf_photometry import psf_fluxes
from tests.nightsift.images.test_inject import gaussian_psf, make_frame

SHAPE, SMALL = (240, 640), (120, 240)
SKY = 900.0  # ADU: a variance of 450 with the gain of two
PSF = gaussian_psf(3.0, SHAPE)


def pair_with_movers(rng: np.random.Generator, x, y, flux, stars=((), (), ()), shape=SHAPE) -> Pair:
    blank = make_frame(shape=shape, sky=SKY)
    blank = blank.replace(variance=np.full(shape, SKY / 2.0 + 9.0, np.float32))
    noise = [rng.normal(0.0, np.sqrt(blank.variance)).astype(np.float32) for _ in range(2)]
    template = inject_stars(blank.replace(data=noise[0]), *stars, PSF, rng)
    science = inject_stars(blank.replace(data=noise[1]), *stars, PSF, rng)
    return Pair(inject_stars(science, x, y, flux, PSF, rng), template)


@pytest.mark.parametrize("scale", [0.25, 0.9])
def test_variance_added_is_the_photon_noise_of_the_light_added(rng: np.random.Generator, scale: float) -> None:
    """Fault: adding whole stamps doubles the sky and adds the sky's noise a second time."""
    flux, half = 6000.0, 7
    place = (slice(60 - half, 61 + half), slice(180 - half, 181 + half))
    added, naive = [], []
    for _ in range(250):
        pair = pair_with_movers(rng, [60.2], [59.7], [flux], shape=SMALL)
        movers = cut_movers(pair, PSF, np.array([60.0]), np.array([60.0]))
        if not len(movers):  # noise of the template looks like light there: once in a thousand
            continue
        wanted = np.array([scale * flux])
        moved, x, y = transplant(
            pair.science,
            PSF,
            movers,
            which=np.zeros(1, int),
            x=np.array([180.0]),
            y=np.array([60.0]),
            flux=wanted,
            rng=rng,
        )
        assert np.hypot(x[0] - 180, y[0] - 60) < 0.75
        added.append((moved.data - pair.science.data)[place])
        naive.append(scale * pair.science.data[60 - half : 61 + half, 60 - half : 61 + half])
    assert len(added) > 245
    clean = inject_stars(make_frame(shape=SMALL), [180.2], [59.7], [scale * flux], PSF).data[place]
    photons, sky = clean / 2.0, SKY / 2.0 + 9.0
    seen = np.var(np.array(added), axis=0)
    # the measured centre of each mover scatters too, by hundredths of a pixel: a little more at the flanks of the core
    assert seen.sum() == pytest.approx(photons.sum(), rel=0.25)
    wings = clean < 0.02 * clean.max()
    assert seen[wings].mean() < 0.03 * scale**2 * sky, "no noise of the sky comes along"
    assert np.var(np.array(naive), axis=0)[wings].mean() == pytest.approx(scale**2 * sky, rel=0.1), "as it did before"
    assert np.mean(added, axis=0).sum() == pytest.approx(scale * flux, rel=0.02), "no sky comes along"
    assert np.abs(np.mean(added, axis=0) - clean)[wings].max() < 4.0


def test_fluxes_are_those_asked_for_and_the_variance_tells_the_noise(rng: np.random.Generator) -> None:
    pair = pair_with_movers(rng, [100.3, 300.6], [60.2, 60.8], [9000.0, 4000.0])
    movers = cut_movers(pair, PSF, np.array([100.0, 301.0]), np.array([60.0, 61.0]))
    n = 40
    x, y = np.tile(np.linspace(40, 600, 20), 2), np.repeat([150.0, 200.0], 20)
    which = np.arange(n) % 2
    flux = movers.flux[which] * np.linspace(0.2, 1.0, n)
    moved, x, y = transplant(pair.science, PSF, movers, which=which, x=x, y=y, flux=flux, rng=rng)
    fits = psf_fluxes(moved.data, moved.variance, moved.mask, psf=PSF, x=x, y=y)
    pull = (fits.flux - flux) / fits.flux_err
    assert abs(pull.mean()) < 0.7
    assert 0.6 < pull.std() < 1.4
    assert (moved.variance - pair.science.variance).sum() == pytest.approx(flux.sum() / 2.0, rel=0.01)


def test_shape_of_a_bright_mover_comes_along(rng: np.random.Generator) -> None:
    """A trailed minor planet stays trailed, which a PSF model would not do."""
    trail = np.linspace(-2.0, 2.0, 9)
    pair = pair_with_movers(rng, 120.0 + trail, np.full(9, 120.0), np.full(9, 8000.0))
    movers = cut_movers(pair, PSF, np.array([120.0]), np.array([120.0]))
    moved, x, y = transplant(
        pair.science,
        PSF,
        movers,
        which=np.zeros(1, int),
        x=np.array([420.0]),
        y=np.array([100.0]),
        flux=movers.flux * 0.5,
        rng=rng,
    )
    added = (moved.data - pair.science.data).astype(np.float64)
    yy, xx = np.mgrid[: SHAPE[0], : SHAPE[1]]
    core = np.hypot(xx - x[0], yy - y[0]) < 6
    width = [np.sqrt((added[core] * (c[core] - o) ** 2).sum() / added[core].sum()) for c, o in ((xx, x[0]), (yy, y[0]))]
    assert width[0] > 1.25 * width[1]


def test_neighbours_do_not_come_along(rng: np.random.Generator) -> None:
    stars = ([129.0], [120.0], [30000.0])
    pair = pair_with_movers(rng, [120.0], [120.0], [9000.0], stars)
    movers = cut_movers(pair, PSF, np.array([120.0]), np.array([120.0]))
    assert len(movers) == 1
    moved, _, _ = transplant(
        pair.science,
        PSF,
        movers,
        which=np.zeros(1, int),
        x=np.array([420.0]),
        y=np.array([100.0]),
        flux=movers.flux,
        rng=rng,
    )
    added = moved.data - pair.science.data
    assert np.abs(added[97:104, 427:432]).max() < 60, "the star nine pixels beside it had 3,000 there"


def test_movers_that_do_not_stand_alone_are_left_out(rng: np.random.Generator) -> None:
    stars = ([100.0], [100.0], [9000.0])
    pair = pair_with_movers(rng, [101.0, 200.0, 300.0, 400.0], [100.0] * 4, [9000.0, 9000.0, 300.0, 9000.0], stars)
    mask = pair.science.mask.copy()
    mask[100, 400] = Mask.COSMIC_RAY.value
    pair = dataclasses.replace(pair, science=pair.science.replace(mask=mask))
    asked = np.array([101.0, 200.0, 300.0, 400.0, np.nan, 3.0])
    movers = cut_movers(pair, PSF, asked, np.array([100.0, 100.0, 100.0, 100.0, 50.0, 3.0]))
    assert movers.row.tolist() == [1], "on a star, alone, too faint, hit, nowhere, at the edge"


def test_brighter_than_the_mover_is_refused(rng: np.random.Generator) -> None:
    pair = pair_with_movers(rng, [120.0], [120.0], [9000.0])
    movers = cut_movers(pair, PSF, np.array([120.0]), np.array([120.0]))
    with pytest.raises(ValueError, match="fainter"):
        transplant(
            pair.science,
            PSF,
            movers,
            which=np.zeros(1, int),
            x=np.ones(1) * 90,
            y=np.ones(1) * 90,
            flux=movers.flux * 1.1,
            rng=rng,
        )
