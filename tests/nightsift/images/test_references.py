"""Our resampling and photometry against the reference implementations of the field, reproject and photutils."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.table import Table
from astropy.wcs import WCS
from photutils.aperture import ApertureStats, CircularAperture, aperture_photometry
from photutils.psf import ImagePSF, PSFPhotometry
from reproject import reproject_adaptive, reproject_interp

from nightsift.frames import Difference
from nightsift.images.align import node_grid
from nightsift.images.photometry import aperture_fluxes
from nightsift.images.psf_photometry import psf_fluxes
from nightsift.images.warp import resample
from nightsift.psf import Psf

SHAPE = (220, 240)


def tangential(angle_deg, scale, shift):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [150.0, 20.0]
    wcs.wcs.crpix = np.array([120.0, 110.0]) + shift
    c, s = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    wcs.wcs.cd = np.array([[-c, s], [s, c]]) * scale / 3600.0
    return wcs


@pytest.mark.parametrize(("angle", "scale"), [(0.0, 1.2), (3.0, 1.2), (178.0, 1.15)])
def test_resampling_agrees_with_reproject(make_frame, star_list, angle, scale):
    x, y, flux = star_list(60, SHAPE)
    frame = make_frame(x, y, flux, SHAPE, sigma=2.0, wcs=tangential(0.0, 1.2, (0.0, 0.0)))
    target = tangential(angle, scale, (3.3, -4.6))
    through = lambda xy: frame.wcs.all_world2pix(target.all_pix2world(xy, 0), 0)  # noqa: E731
    grid, step = node_grid(through, SHAPE)
    data, _, mask = resample(frame.data, frame.variance, frame.mask, grid, step, SHAPE)
    source = (frame.data.astype(np.float64), frame.wcs)
    reference, _ = reproject_interp(source, target, shape_out=SHAPE, order="bicubic")
    area = (scale / 1.2) ** 2
    inside = (mask == 0) & np.isfinite(reference)
    assert inside.mean() > 0.8
    stars = inside & (data > 50 * np.sqrt(np.median(frame.variance)))
    assert stars.sum() > 100
    assert np.median(np.abs(data[stars] / (area * reference[stars]) - 1)) < 0.01
    # Flux in apertures against the flux-conserving resampler: what one pixel loses another has.
    conserving, _ = reproject_adaptive(source, target, shape_out=SHAPE, conserve_flux=True, kernel="gaussian")
    px, py = target.all_world2pix(*frame.wcs.all_pix2world(x, y, 0), 0)
    clear = (px > 25) & (px < SHAPE[1] - 25) & (py > 25) & (py < SHAPE[0] - 25) & (flux > 2e4)
    apertures = CircularAperture(np.stack([px[clear], py[clear]], 1), r=12.0)
    ours, theirs = (ApertureStats(np.nan_to_num(image), apertures).sum for image in (data, conserving))
    assert np.median(np.abs(ours / theirs - 1)) < 0.005


def test_photometry_agrees_with_photutils(make_frame, star_list, rng):
    x, y, flux = star_list(40, SHAPE, apart=22.0)
    frame = make_frame(x, y, flux, SHAPE, sigma=1.7)
    size = 21
    centre = make_frame(size // 2, size // 2, 1e6, (size, size), sigma=1.7, sky=0.0, read_noise=0.0, gain=1e9)
    image = np.maximum(centre.data, 0) / centre.data.sum()
    psf = Psf(image[None].astype(np.float32), 0, SHAPE, 4.0)
    fits = psf_fluxes(frame.data, frame.variance, frame.mask, psf, x, y)
    model = ImagePSF(image, x_0=0, y_0=0)
    model.x_0.fixed = model.y_0.fixed = True
    error = np.sqrt(frame.variance)
    theirs = PSFPhotometry(model, fit_shape=(size, size))(
        frame.data, error=error, init_params=Table({"x": x, "y": y, "flux": flux})
    )
    np.testing.assert_allclose(fits.flux, theirs["flux_fit"], atol=0.35 * np.median(fits.flux_err), rtol=0.01)
    np.testing.assert_allclose(fits.flux_err, theirs["flux_err"], rtol=0.05)
    difference = Difference(
        frame.data, frame.variance, frame.mask, np.zeros(SHAPE, np.float32), psf, "none", "template", 1.0
    )
    sums, errors = aperture_fluxes(difference, x, y, 5.0)
    table = aperture_photometry(
        frame.data.astype(np.float64), CircularAperture(np.stack([x, y], 1), r=5.0), error=error.astype(np.float64)
    )
    # sep samples the rim of an aperture on a fine grid, photutils cuts it exactly
    np.testing.assert_allclose(sums, table["aperture_sum"], rtol=5e-3, atol=0.1 * np.median(errors))
    np.testing.assert_allclose(errors, table["aperture_sum_err"], rtol=5e-3)
