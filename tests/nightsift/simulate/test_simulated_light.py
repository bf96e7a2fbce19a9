"""Stars and galaxies carry the right flux, place and shape."""

from __future__ import annotations

import numpy as np
import pytest

from nightsift.simulate.galaxies import draw_radii, render_galaxies
from nightsift.simulate.optics import make_psf
from nightsift.simulate.render import render_stars
from nightsift.simulate.unit_options import OpticsOptions

SHAPE = (220, 240)
PLAIN = OpticsOptions(ellipticity=0.0, defocus=0.0, coma=0.0, curvature=0.0, astigmatism=0.0, beta=3.5)
CASES = {
    "plain": (PLAIN, 3.0, 1.2),
    "undersampled with coma": (OpticsOptions(coma=1.3, beta=4.0), 3.2, 2.1),
    "donut": (OpticsOptions(defocus=3.5, obstruction=0.5), 3.0, 1.1),
    "trailed, wide wings": (OpticsOptions(beta=2.5, trail=2.0), 4.0, 1.0),
}


def centroid(image: np.ndarray) -> tuple[float, float]:
    y, x = np.indices(image.shape)
    return float((image * x).sum() / image.sum()), float((image * y).sum() / image.sum())


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("place", [(110.3, 100.7), (110.5, 100.5), (110.0, 100.0)])
def test_star_has_its_flux_at_its_place(case: str, place: tuple[float, float]) -> None:
    optics, seeing, scale = CASES[case]
    psf = make_psf(optics, SHAPE, scale, seeing=seeing, trail=(1.5, 0.5) if "trailed" in case else (0.0, 0.0))
    image = render_stars(SHAPE, *place, flux=1e5, psf=psf, noise=1e-3)
    assert image.sum() == pytest.approx(1e5, rel=2e-3)
    assert centroid(image) == pytest.approx(place, abs=0.01)
    assert image.min() >= 0


def test_full_width_is_that_of_the_moffat_profile() -> None:
    # 5 px of seeing: the pixel adds 0.7 % in quadrature.
    psf = make_psf(PLAIN, SHAPE, 1.0, seeing=5.0)
    assert psf.fwhm == pytest.approx(5.03, rel=0.02)
    fine = psf.at(119.5, 109.5)
    row = fine[len(fine) // 2, len(fine) // 2 :] / fine.max()
    half = np.interp(0.5, row[::-1], np.arange(len(row))[::-1] / psf.oversampling)
    assert half == pytest.approx(2.515, rel=0.01)


def test_coma_grows_to_the_corner_and_points_outwards() -> None:
    psf = make_psf(
        OpticsOptions(
            **{
                **{n: getattr(PLAIN, n) for n in ("ellipticity", "defocus")},
                "coma": 2.0,
                "curvature": 0.0,
                "astigmatism": 0.0,
            }
        ),
        SHAPE,
        1.2,
        seeing=3.0,
    )

    def skewness(x: float) -> float:
        image = render_stars((41, 41), 20.0, 20.0, flux=1.0, psf=make_shifted(psf, x))
        offsets = np.arange(41) - 20.0
        profile = image.sum(axis=0)
        return float((profile * offsets**3).sum())

    middle, edge, other = skewness(119.5), skewness(235.0), skewness(4.0)
    assert abs(middle) < 0.05 * abs(edge)
    assert edge * other < 0


def make_shifted(psf, x: float):
    """The point-spread function at (x, middle) as that of a small frame."""
    import dataclasses

    local = psf.at(x, (SHAPE[0] - 1) / 2)
    return dataclasses.replace(psf, nodes=np.repeat(local[None], 9, axis=0), shape=(41, 41))


def test_defocus_makes_a_donut() -> None:
    psf = make_psf(OpticsOptions(defocus=6.0, obstruction=0.5, curvature=0.0), SHAPE, 1.2, seeing=2.0)
    image = render_stars(SHAPE, 110.0, 100.0, flux=1.0, psf=psf)
    assert image[100, 110] < 0.8 * image[100, 105]


def test_wings_join_the_core_smoothly() -> None:
    psf = make_psf(PLAIN, SHAPE, 1.2, seeing=3.0)
    image = render_stars(SHAPE, 60.0, 100.0, flux=1e8, psf=psf, noise=1.0)
    profile = image[100, 60:200].astype(float)
    slope = np.diff(np.log(profile[5:47]))  # beyond, it is below a fiftieth of the noise
    assert (slope < 0).all()
    assert np.abs(np.diff(slope)).max() < 0.12


@pytest.mark.parametrize("index", [1.0, 4.0])
def test_galaxy_is_its_light_seen_through_the_psf(index: float) -> None:
    psf = make_psf(OpticsOptions(coma=1.0), SHAPE, 1.3, seeing=3.0)
    galaxy = render_galaxies(
        SHAPE, 130.3, 100.2, flux=1e6, effective_radius=4.0, axis_ratio=0.6, angle=0.5, index=index, psf=psf, noise=1e-2
    )
    assert galaxy.sum() == pytest.approx(1e6, rel=1e-4)
    radii = np.repeat(draw_radii(index, (np.arange(600) + 0.5) / 600), 24)
    angle = np.tile(np.arange(24) / 24 * 2 * np.pi, 600) + np.repeat(np.arange(600) * 0.7, 24)
    along, across = 4.0 * radii * np.cos(angle), 2.4 * radii * np.sin(angle)
    x = 130.3 + along * np.cos(0.5) - across * np.sin(0.5)
    y = 100.2 + along * np.sin(0.5) + across * np.cos(0.5)
    points = render_stars(SHAPE, x, y, flux=np.full(len(x), 1e6 / len(x)), psf=psf, noise=1e-6)
    assert np.abs(galaxy - points).max() < 0.01 * points.max()


def test_half_of_the_light_is_within_the_effective_radius() -> None:
    # The profile is cut off, which takes away 1 % (exponential) and 10 % (de Vaucouleurs) of its wings.
    assert draw_radii(1.0, np.array([0.5]))[0] == pytest.approx(1.0, abs=0.03)
    assert draw_radii(4.0, np.array([0.5]))[0] == pytest.approx(0.9, abs=0.1)
