"""Our loops against the reference implementations of the field: reproject, photutils and sep (SExtractor)."""

from __future__ import annotations

import numpy as np
import pytest
import sep
from astropy.table import Table
from astropy.wcs import WCS
from photutils.aperture import ApertureStats, CircularAperture, aperture_photometry
from photutils.psf import ImagePSF, PSFPhotometry
from reproject import reproject_adaptive, reproject_interp
from scipy.spatial import cKDTree

from nightsift.core.flags import Mask
from nightsift.core.frames import Difference
from nightsift.core.psf import Psf
from nightsift.images.background.background import subtract_background
from nightsift.images.photometry.difference_photometry import aperture_fluxes
from nightsift.images.photometry.psf_photometry import psf_fluxes
from nightsift.images.registration.align import node_grid
from nightsift.images.resampling.warp import resample
from nightsift.images.stars.stars import circle_fluxes, find_stars

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
    fits = psf_fluxes(frame.data, frame.variance, frame.mask, psf=psf, x=x, y=y)
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
    sums, errors = aperture_fluxes(difference, x, y, radius=5.0)
    table = aperture_photometry(
        frame.data.astype(np.float64), CircularAperture(np.stack([x, y], 1), r=5.0), error=error.astype(np.float64)
    )
    np.testing.assert_allclose(sums, table["aperture_sum"], rtol=1e-4, atol=1e-3 * np.median(errors))
    np.testing.assert_allclose(errors, table["aperture_sum_err"], rtol=1e-4)


def sky_of(shape):
    """A gradient and a broad dome: some 40 ADU over the frame."""
    v, u = np.mgrid[: shape[0], : shape[1]] / np.array(shape)[:, None, None]
    return 300.0 + 25.0 * u - 10.0 * v + 15.0 * np.exp(-((u - 0.4) ** 2 + (v - 0.6) ** 2) / 0.18)


@pytest.mark.parametrize(("n_stars", "limit"), [(40, 0.06), (400, 0.12)])
def test_background_agrees_with_the_mesh_of_sep(make_frame, star_list, n_stars, limit):
    shape = (512, 640)
    x, y, flux = star_list(n_stars, shape)
    truth = sky_of(shape)
    frame = make_frame(x, y, flux, shape, sigma=1.6, subtracted=False, extra=truth - 300.0)
    ours = frame.data - subtract_background(frame, 64).data
    theirs = sep.Background(frame.data, bw=64, bh=64, fw=3, fh=3).back()
    sigma = np.sqrt(np.median(frame.variance))
    assert sigma > 10
    assert np.ptp(truth) > 2 * sigma
    off, theirs_off = (float(np.sqrt(np.mean((one - truth) ** 2))) for one in (ours, theirs))
    assert np.sqrt(np.mean((ours - theirs) ** 2)) < 0.15 * sigma
    # Stars are masked here and only clipped there: in a crowd half of each cell is left.
    assert off < max(limit * sigma, theirs_off)
    assert abs(np.mean(ours - truth)) < 0.05 * sigma


@pytest.mark.parametrize("kind", ["bowl", "vignette", "moon"])
def test_a_steep_sky_is_no_worse_than_with_sep(make_frame, star_list, kind):
    shape = (512, 640)
    v, u = np.mgrid[: shape[0], : shape[1]] / np.array(shape)[:, None, None] * 2 - 1
    height = {"bowl": (u + 0.3 * v) ** 2, "vignette": -(u**2) - v**2, "moon": np.exp(-np.hypot(u - 1, v + 1) / 0.8)}
    truth = 2000.0 + 600.0 * height[kind]
    frame = make_frame(*star_list(60, shape), shape, sigma=1.6, sky=2000.0, subtracted=False, extra=truth - 2000.0)
    sigma = np.sqrt(np.median(frame.variance))
    assert np.ptp(truth) > 10 * sigma
    ours = frame.data - subtract_background(frame, 64).data
    theirs = sep.Background(frame.data, bw=64, bh=64, fw=3, fh=3).back()
    off, theirs_off = (float(np.sqrt(np.mean((one - truth) ** 2))) / sigma for one in (ours, theirs))
    assert off < 0.15
    assert off < 1.1 * theirs_off


def sep_places(frame, threshold=1.5):
    """Objects of sep with the filter of ours."""
    side = np.exp(-(np.arange(-4, 5) ** 2) / (2 * 1.2**2))
    found = sep.extract(
        frame.data, threshold, err=np.sqrt(frame.variance), minarea=3, filter_kernel=np.outer(side, side),
        filter_type="conv",
    )  # fmt: skip
    return np.column_stack((found["x"], found["y"]))


def places_of(stars):
    return np.column_stack((stars["x"], stars["y"]))


def test_a_crowd_is_resolved_as_well_as_by_sep(make_frame, rng):
    shape = (400, 400)
    x, y = rng.uniform(5, 395, (2, 900))
    snr = 5 * rng.uniform(size=900) ** (-1 / 0.7)
    frame = make_frame(x, y, snr * 12.0 * 2 * 1.5 * np.sqrt(np.pi), shape, sigma=1.5, sky=200.0)
    truth = np.column_stack((x, y))
    ours, theirs = places_of(find_stars(frame)), sep_places(frame)
    faint = (snr > 10) & (snr < 30)
    assert faint.sum() > 150
    found, theirs_found = ((cKDTree(one).query(truth[faint])[0] < 1.5).sum() for one in (ours, theirs))
    assert found >= theirs_found - np.sqrt(theirs_found)
    assert (cKDTree(truth).query(ours)[0] > 2.5).sum() <= max(3, (cKDTree(truth).query(theirs)[0] > 2.5).sum())


def test_halos_and_spikes_hold_no_more_false_stars_than_with_sep(make_frame, star_list):
    shape = (500, 500)
    x, y, flux = star_list(60, shape, faint=3.7, bright=5.0)
    v, u = np.mgrid[:500, :500]
    r = np.hypot(u - 250, v - 240)
    turned = [(u - 250) * c + (v - 240) * s for c, s in ((0.955, 0.296), (-0.296, 0.955))]
    halo = 2e4 / (r + 8) ** 1.5 + 40.0 * ((r > 60) & (r < 66)) + 25.0 * (r < 66)
    halo += sum(2000.0 * np.exp(-(a**2) / 3.4) / (np.abs(b) + 12) for a, b in (turned, turned[::-1]))
    frame = make_frame(np.append(x, 250.0), np.append(y, 240.0), np.append(flux, 3e6), shape, sky=300.0, extra=halo)
    frame = frame.replace(mask=np.where(r < 6, Mask.SATURATED.value, 0).astype(np.uint16))
    ours, theirs = places_of(find_stars(frame)), sep_places(frame)
    truth = np.column_stack((x, y))
    false = [(cKDTree(truth).query(one[np.hypot(*(one - (250, 240)).T) > 12])[0] > 2.5).sum() for one in (ours, theirs)]
    assert false[0] <= max(3, false[1])
    away = np.hypot(x - 250, y - 240) > 20
    found = [(cKDTree(one).query(truth[away])[0] < 1.5).mean() for one in (ours, theirs)]
    assert found[0] > 0.95
    assert found[0] >= found[1]


def test_stars_are_those_that_sep_finds(make_frame, star_list):
    shape = (400, 420)
    x, y, flux = star_list(120, shape, faint=2.9, bright=4.8, apart=12.0)
    frame = make_frame(x, y, flux, shape, sigma=1.7)
    ours = find_stars(frame)
    theirs = sep.extract(frame.data, 2.0, err=np.sqrt(frame.variance), minarea=5)
    assert len(theirs) > 90
    sure = theirs["flux"] > 12 * np.sqrt(theirs["npix"] * np.median(frame.variance))
    tree = cKDTree(np.column_stack((ours["x"], ours["y"])))
    distance, index = tree.query(np.column_stack((theirs["x"], theirs["y"])))
    assert sure.sum() > 60
    assert distance[sure].max() < 0.5
    # And nothing bright that they do not have.
    back, _ = cKDTree(np.column_stack((theirs["x"], theirs["y"]))).query(tree.data[ours["snr"] > 12])
    assert back.max() < 0.5
    # The same windowed centroids (theirs with the width of these stars), and the same sums within the same circles.
    px, py, flag = sep.winpos(frame.data, theirs["x"][sure], theirs["y"][sure], 1.7)
    mine = ours[index[sure]]
    moved = np.hypot(mine["x"] - px, mine["y"] - py)[flag == 0]
    assert np.median(moved) < 0.02
    place, radius = (np.ascontiguousarray(mine["x"]), np.ascontiguousarray(mine["y"])), 5.0
    sums = np.empty((len(mine), 2))
    circle_fluxes(frame.data, frame.variance, frame.mask, np.uint16(0xFFFF), *place, radius, sums)
    total, error, _ = sep.sum_circle(frame.data, *place, radius, err=np.sqrt(frame.variance), subpix=0)
    np.testing.assert_allclose(sums[:, 0], total, rtol=5e-3, atol=0.1 * np.median(error))
    np.testing.assert_allclose(sums[:, 1], error, rtol=5e-3)


def test_apertures_agree_with_sep_where_pixels_are_masked(make_frame, star_list, rng):
    x, y, flux = star_list(40, SHAPE, apart=22.0)
    frame = make_frame(x, y, flux, SHAPE, sigma=1.7)
    spoilt = rng.uniform(size=SHAPE) < 0.02
    data = np.where(spoilt, np.float32(1e6), frame.data)
    psf = Psf(np.ones((1, 1, 1), np.float32), 0, SHAPE, 4.0)
    difference = Difference(
        data, frame.variance, spoilt.astype(np.uint16) * 2, np.zeros(SHAPE, np.float32), psf, "none", "template", 1.0
    )
    sums, errors = aperture_fluxes(difference, x, y, radius=5.0)
    total, error, _ = sep.sum_circle(data, x, y, 5.0, err=np.sqrt(frame.variance), mask=spoilt, subpix=0)
    np.testing.assert_allclose(sums, total, rtol=0.01, atol=0.15 * np.median(error))
    np.testing.assert_allclose(errors, error, rtol=0.01)
