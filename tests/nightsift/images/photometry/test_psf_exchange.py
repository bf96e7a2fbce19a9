"""Our PSFs as photutils knows them, and theirs as ours."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import NDData
from astropy.table import Table
from photutils.psf import CircularGaussianPRF, GriddedPSFModel, ImagePSF, PSFPhotometry

from nightsift.core.frames import Frame, Meta, Pair
from nightsift.core.psf import Psf, polynomial_terms
from nightsift.images.injection import inject_stars
from nightsift.images.photometry.difference_photometry import fluxes_at
from nightsift.images.photometry.psf_exchange import from_photutils, read_psf, to_photutils, write_psf
from nightsift.images.photometry.psf_photometry import psf_fluxes
from nightsift.images.stars.stars import find_stars
from subtraction.api.pairs import subtract_pair
from subtraction.psf.fit import fit_psf

SHAPE = (300, 340)
SIGMA = 5.0
META = Meta("made-up", "f", "r", "2026-11-20", "e-1", 61000.0, 60.0, 2.0, 5.0, 60000.0, 1.0)


def gaussian(fwhm, x=0.0, y=0.0):
    return CircularGaussianPRF(fwhm=fwhm, x_0=x, y_0=y)


def drawn(fwhm, half, step=1):
    offsets = np.arange(-half * step, half * step + 1) / step
    return gaussian(fwhm)(*np.meshgrid(offsets, offsets))


def varying_psf(fwhm=3.0, half=12, step=1, wings=0.02, wider=0.1):
    """A PSF that widens by a tenth from left to right, of second order."""
    rng = np.random.default_rng(3)
    x, y = rng.uniform(0, SHAPE[1], 40), rng.uniform(0, SHAPE[0], 40)
    images = np.stack([drawn(fwhm * (1 + wider * (a / SHAPE[1] - 0.5)), half, step) for a in x])
    terms = np.linalg.lstsq(polynomial_terms(x, y, SHAPE, 2), images.reshape(40, -1), rcond=None)[0]
    fine = terms.reshape(-1, *images.shape[1:]).astype(np.float32)
    coarse = np.ascontiguousarray(fine[:, ::step, ::step])
    return Psf(coarse, 2, SHAPE, fwhm, wings, fine if step > 1 else None)


def empty(rng, level=SIGMA):
    data = rng.normal(0, level, SHAPE).astype(np.float32)
    return Frame(data, np.full(SHAPE, level**2, np.float32), np.zeros(SHAPE, np.uint16), META, sky=0.0)


def measured_by_photutils(frame, model, x, y, size=15):
    model = model.copy()
    model.x_0.fixed = model.y_0.fixed = True
    fit = PSFPhotometry(model, fit_shape=(size, size))
    start = Table({"x": x, "y": y, "flux": np.full(len(x), 1e3)})
    return fit(frame.data, error=np.sqrt(frame.variance), mask=frame.mask > 0, init_params=start)


@pytest.mark.parametrize(("fwhm", "step"), [(3.2, 1), (1.8, 3)])
def test_fluxes_are_those_of_photutils(rng, fwhm, step):
    psf = varying_psf(fwhm, step=step, wider=0.04)
    y, x = np.mgrid[20:280:40, 20:320:40].reshape(2, -1) + rng.uniform(-5, 5, (2, 56))
    flux = 10 ** rng.uniform(3.5, 4.5, len(x))
    frame = inject_stars(empty(rng, 1.0), x, y, flux, psf)
    ours = psf_fluxes(frame.data, frame.variance, frame.mask, psf=psf, x=x, y=y)
    theirs = measured_by_photutils(frame, to_photutils(psf), x, y)
    # Ours take the PSF of the middle of a cell of 256 pixels, theirs that of each place.
    np.testing.assert_allclose(theirs["flux_fit"], ours.flux, rtol=0.01)
    assert np.median(theirs["flux_fit"] / ours.flux) == pytest.approx(1.0, abs=3e-3)
    np.testing.assert_allclose(theirs["flux_err"], ours.flux_err, rtol=0.1)
    np.testing.assert_allclose(theirs["flux_fit"], flux, rtol=0.01, atol=5 * ours.flux_err.max())


def test_model_follows_the_psf_over_the_frame():
    psf = varying_psf()
    model = to_photutils(psf)
    assert len(model.data) > 4
    y, x = np.mgrid[-10:11, -10:11]
    for place in ((0, 0), (77, 133), (200, 40), (SHAPE[1] - 1, SHAPE[0] - 1)):
        model.x_0, model.y_0 = place
        seen = model(x + place[0], y + place[1])
        expected = psf.at(*place)[2:-2, 2:-2]
        np.testing.assert_allclose(seen, expected, atol=2e-3 * expected.max())
    flat = dataclasses.replace(psf, terms=psf.terms[:1], order=0)
    assert len(to_photutils(flat).data) == 1


def test_there_and_back():
    for psf in (varying_psf(), varying_psf(1.9, step=3)):
        again = from_photutils(to_photutils(psf), SHAPE)
        assert (again.order, again.oversampling) == (2, psf.oversampling)
        assert again.wings == pytest.approx(psf.wings, abs=2e-3)
        assert again.fwhm == pytest.approx(psf.fwhm, rel=0.1)
        for place in ((10, 20), (170, 150), (300, 290)):
            ours, theirs = psf.at(*place), again.at(*place)
            np.testing.assert_allclose(theirs, ours, atol=3e-3 * ours.max())


def test_models_of_all_kinds_are_taken():
    analytic = from_photutils(gaussian(3.0), SHAPE)
    sampled = from_photutils(ImagePSF(drawn(3.0, 10, 4), oversampling=4), SHAPE)
    assert analytic.order == sampled.order == 0
    assert sampled.size == 21
    for psf in (analytic, sampled):
        assert psf.fwhm == pytest.approx(np.hypot(3.0, 2.355 / 12**0.5), rel=0.03)
        assert psf.wings == pytest.approx(0.0, abs=1e-3)
        half = psf.size // 2
        np.testing.assert_allclose(psf.at(0, 0), drawn(3.0, half), atol=1e-3)


def test_what_is_no_psf_is_refused_with_what_to_do():
    with pytest.raises(ValueError, match="oversampling factors"):
        from_photutils(ImagePSF(drawn(3.0, 10, 4) / 16, oversampling=4), SHAPE)
    with pytest.raises(ValueError, match="flux, x_0 and y_0"):
        from_photutils(object(), SHAPE)
    places = [(x, y) for y in (0, 299) for x in (0, 170, 339)]
    wild = np.stack([drawn(fwhm, 10) for fwhm in (2.0, 6.0, 2.0, 6.0, 2.0, 6.0)])
    model = GriddedPSFModel(NDData(wild, meta={"grid_xypos": places, "oversampling": 1}))
    with pytest.raises(ValueError, match="6 positions"):
        from_photutils(model, SHAPE)


def test_files_of_grids(tmp_path):
    psf = varying_psf()
    path = write_psf(tmp_path / "psf.fits", psf)
    theirs = GriddedPSFModel.read(str(path), format="webbpsf")
    np.testing.assert_allclose(theirs.grid_xypos, to_photutils(psf).grid_xypos)
    again = read_psf(path, SHAPE)
    np.testing.assert_allclose(again.at(30, 200), psf.at(30, 200), atol=3e-3 * psf.terms.max())
    other = tmp_path / "other.fits"
    fits.PrimaryHDU(np.zeros((4, 4))).writeto(other)
    with pytest.raises(ValueError, match=r"other\.fits"):
        read_psf(other, SHAPE)


def test_photutils_measures_a_difference_with_our_psf_and_we_with_theirs(rng):
    y, x = np.mgrid[30:280:34, 30:320:34].reshape(2, -1).astype(float)
    x, y = x + rng.uniform(-3, 3, len(x)), y + rng.uniform(-3, 3, len(y))
    stars = 10 ** rng.uniform(4, 5, len(x))
    psf = from_photutils(gaussian(3.0), SHAPE)
    new_x, new_y = np.array([64.3, 150.2, 251.7, 112.4]), np.array([115.1, 64.8, 147.5, 217.3])
    new = np.array([2000.0, 4000.0, 3000.0, 2500.0])
    template = inject_stars(empty(rng, 1.5), x, y, stars, psf, rng)
    science = inject_stars(inject_stars(empty(rng), x, y, stars, psf, rng), new_x, new_y, new, psf, rng)
    science, template = (one.replace(psf=fit_psf(one, find_stars(one))) for one in (science, template))
    pair = Pair(science, template)
    difference = subtract_pair(pair, "hotpants")
    ours = fluxes_at(difference, new_x, new_y, factor=1.0)
    theirs = measured_by_photutils(difference, to_photutils(difference.psf), new_x, new_y)
    # Their weights take the variance of each pixel, ours a smooth one.
    np.testing.assert_allclose(theirs["flux_fit"], ours.flux, atol=0.5 * ours.flux_err.max())
    np.testing.assert_allclose(ours.flux, new, atol=5 * ours.flux_err.max())
    # A PSF from photutils serves the subtraction.
    given = Pair(science.replace(psf=psf), template.replace(psf=psf))
    again = fluxes_at(subtract_pair(given, "zogy"), new_x, new_y)
    np.testing.assert_allclose(again.flux, new, atol=5 * ours.flux_err.max())
