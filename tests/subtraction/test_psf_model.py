"""The PSF model: against profiles drawn by quadrature, on real stars' terms, and beside photutils."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pytest
from astropy.nddata import NDData
from astropy.table import Table
from photutils.psf import EPSFBuilder, extract_stars

from nightsift.core.errors import TooFewStars
from nightsift.core.flags import Mask
from nightsift.core.frames import Frame, Meta
from nightsift.images.injection import inject_stars
from nightsift.images.photometry.psf_photometry import psf_fluxes
from nightsift.images.stars.stars import find_stars
from subtraction.psf.fit import fit_model, fit_psf

NODES, WEIGHTS = (0.5 * a for a in np.polynomial.legendre.leggauss(5))


@dataclasses.dataclass(frozen=True)
class Optics:
    """An elliptical Moffat profile that varies over the frame, integrated over pixels by quadrature."""

    shape: tuple[int, int] = (640, 640)
    fwhm: float = 3.0
    vary: float = 0.08
    ellipticity: float = 0.15
    beta: float = 3.0

    def at(self, x: float, y: float, half: int, dx: float = 0.0, dy: float = 0.0) -> np.ndarray:
        """Light of a star of unit flux in the pixels around a position."""
        u, v = 2 * x / (self.shape[1] - 1) - 1, 2 * y / (self.shape[0] - 1) - 1
        fwhm = self.fwhm * (1 + self.vary * (0.6 * u + 0.5 * v * v))
        e1, e2 = self.ellipticity * (0.5 + 0.5 * u * v), self.ellipticity * 0.7 * v
        alpha2 = fwhm**2 / (4 * (2 ** (1 / self.beta) - 1))
        pixel = np.arange(-half, half + 1)
        image = np.zeros((2 * half + 1, 2 * half + 1))
        for a, wa in zip(NODES, WEIGHTS, strict=True):
            for b, wb in zip(NODES, WEIGHTS, strict=True):
                px, py = pixel[None, :] - dx + a, pixel[:, None] - dy + b
                r = ((1 - e1) * px**2 + (1 + e1) * py**2 - 2 * e2 * px * py) / np.sqrt(1 - e1**2 - e2**2) / alpha2
                image += wa * wb * (1 + r) ** -self.beta
        return image * (self.beta - 1) / (np.pi * alpha2)


def expose(optics: Optics, rng: np.random.Generator, n: int, from_data: bool = False, gap: float = 0.0):
    """A frame of stars with photon and read noise."""
    ny, nx = optics.shape
    if gap:
        gx, gy = (a.ravel() for a in np.meshgrid(np.arange(20.0, nx - 20, gap), np.arange(20.0, ny - 20, gap)))
        x, y = gx + rng.uniform(-2, 2, gx.size), gy + rng.uniform(-2, 2, gx.size)
        n = len(x)
    else:
        x, y = rng.uniform(0, nx, n), rng.uniform(0, ny, n)
    flux = 10 ** (5.0 - 1.6 * rng.uniform(0, 1, n) ** 0.5)
    light = np.zeros(optics.shape)
    for px, py, f in zip(x, y, flux, strict=True):
        column, row = round(px), round(py)
        stamp, half = optics.at(px, py, 28, px - column, py - row) * f, 28
        rows, columns = np.arange(row - half, row + half + 1), np.arange(column - half, column + half + 1)
        inside = np.ix_((rows >= 0) & (rows < ny), (columns >= 0) & (columns < nx))
        light[np.ix_(rows[(rows >= 0) & (rows < ny)], columns[(columns >= 0) & (columns < nx)])] += stamp[inside]
    sky, gain, read = 200.0, 1.5, 6.0
    raw = (rng.poisson((light + sky) * gain) + rng.normal(0, read, optics.shape)) / gain
    variance = (np.maximum(raw, 0) if from_data else light + sky) / gain + (read / gain) ** 2
    mask = np.where(raw > 50_000, np.uint16(Mask.SATURATED.value), np.uint16(0))
    meta = Meta("t", "f", "V", "2026-11-20", "t-0", 61000.0, 60.0, gain, read, 50_000.0, 1.0)
    return Frame((raw - sky).astype("f4"), variance.astype("f4"), mask, meta, sky=sky), (x, y, flux)


def errors(psf, optics: Optics) -> np.ndarray:
    """Largest error of the PSF as a part of the peak, on a grid of positions."""
    ny, nx = optics.shape
    worst = []
    for px in np.linspace(0.06, 0.94, 5) * nx:
        for py in np.linspace(0.06, 0.94, 5) * ny:
            true = optics.at(px, py, psf.size // 2)
            worst.append(np.abs(psf.at(px, py) - true).max() / true.max())
    return np.array(worst)


@pytest.mark.parametrize("fwhm", [1.6, 3.0, 5.0])
def test_error_at_the_core_is_below_half_a_percent(rng, fwhm):
    gap = max(20.0, 8 * fwhm)
    optics = Optics(shape=(round(24 * gap),) * 2, fwhm=fwhm)
    frame, _ = expose(optics, rng, 0, gap=gap)
    found = errors(fit_psf(frame, find_stars(frame)), optics)
    assert np.median(found) < 0.005
    assert np.quantile(found, 0.9) < 0.012


def test_weights_that_follow_the_noise_do_no_harm(rng):
    optics = Optics(vary=0.0, ellipticity=0.0)
    frame, _ = expose(optics, rng, 0, from_data=True, gap=24.0)
    psf = fit_psf(frame, find_stars(frame))
    true = optics.at(320, 320, psf.size // 2)
    image = psf.at(320, 320).astype(float)
    # the flux that a star of unit flux would get
    assert (image * true).sum() / (image**2).sum() == pytest.approx(1.0, abs=0.004)
    assert psf.order <= 1


def test_sum_is_one_beyond_the_image(rng):
    optics = Optics(beta=2.3, vary=0.0, ellipticity=0.0)
    frame, _ = expose(optics, rng, 0, gap=26.0)
    stars = find_stars(frame)
    for size in (15, 41):
        psf = fit_psf(frame, stars, size=size)
        assert psf.size == size
        inside = float(optics.at(320, 320, size // 2).sum())
        assert psf.at(320, 320).sum() == pytest.approx(1 - psf.wings, abs=1e-5)
        assert 1 - psf.wings == pytest.approx(inside, abs=0.006)


def test_stars_subtracted_leave_little_more_than_photon_noise(rng):
    optics = Optics(fwhm=2.6)
    frame, (x, y, flux) = expose(optics, rng, 0, gap=24.0)
    psf = fit_psf(frame, find_stars(frame))
    fits = psf_fluxes(frame.data, frame.variance, frame.mask, psf=psf, x=x, y=y)
    empty = frame.replace(data=np.zeros_like(frame.data))
    left = frame.data - inject_stars(empty, x, y, np.maximum(fits.flux, 0), psf).data
    excess = []
    for px, py, f in zip(x, y, flux, strict=True):
        window = (slice(max(round(py) - 3, 0), round(py) + 4), slice(max(round(px) - 3, 0), round(px) + 4))
        if f > 5_000 and not frame.mask[window].any():
            excess.append(np.mean(left[window] ** 2 / frame.variance[window]))
    assert len(excess) > 100
    assert np.sqrt(np.median(excess)) < 1.06


def test_flux_does_not_depend_on_the_place_within_a_pixel(rng):
    optics = Optics(fwhm=1.6, vary=0.0)
    frame, (x, y, flux) = expose(optics, rng, 0, gap=22.0)
    psf = fit_psf(frame, find_stars(frame))
    assert psf.fine is not None
    assert psf.fine_at(320, 320)[:: psf.oversampling, :: psf.oversampling] == pytest.approx(psf.at(320, 320), abs=1e-6)
    fits = psf_fluxes(frame.data, frame.variance, frame.mask, psf=psf, x=x, y=y)
    bright = (flux > 20_000) & (fits.bits == 0)
    away = np.hypot(x - np.rint(x), y - np.rint(y))
    ratio = fits.flux / flux
    assert np.median(ratio[bright & (away < 0.3)]) == pytest.approx(1, abs=0.006)
    assert np.median(ratio[bright & (away > 0.45)]) == pytest.approx(1, abs=0.006)


def test_what_is_no_moffat_profile_is_seen(rng):
    broad, narrow = Optics(fwhm=5.5, vary=0.0, ellipticity=0.0), Optics(fwhm=3.0, vary=0.0, ellipticity=0.0)

    class Double(Optics):
        def at(self, x, y, half, dx=0.0, dy=0.0):
            return 0.7 * narrow.at(x, y, half, dx, dy) + 0.3 * broad.at(x, y, half, dx + 1.2, dy)

    frame, _ = expose(Double(), rng, 0, gap=26.0)
    model = fit_model(frame, find_stars(frame))
    assert np.abs(model.deviation).max() > 0.003
    alone = dataclasses.replace(model, deviation=np.zeros_like(model.deviation))
    true = [Double().at(320, 320, 15, dx, 0.0) for dx in np.arange(-0.5, 0.55, 0.02)]
    both, profile = (m.draw(320, 320, 15) for m in (model, alone))
    nearest = [min(np.abs(image - one).max() for one in true) / true[25].max() for image in (both, profile)]
    assert nearest[0] < 0.02
    assert nearest[0] < 0.6 * nearest[1]


def test_few_stars_and_their_lack(rng):
    frame, _ = expose(Optics(ellipticity=0.0, vary=0.0), rng, 8)
    stars = find_stars(frame)
    psf = fit_psf(frame, stars)
    assert psf.order == 0
    assert errors(psf, Optics(ellipticity=0.0, vary=0.0)).max() < 0.06
    with pytest.raises(TooFewStars):
        fit_psf(frame, stars[:2])


def test_inputs_stay_and_threads_do_not_matter(rng):
    frame, _ = expose(Optics(), rng, 120)
    stars = find_stars(frame)
    before = frame.data.copy(), stars.copy()
    one, two = fit_psf(frame, stars, threads=1), fit_psf(frame, stars, threads=2)
    assert np.array_equal(frame.data, before[0])
    assert np.array_equal(stars, before[1])
    assert one.terms == pytest.approx(two.terms, abs=1e-6)


def test_as_good_as_photutils(rng):
    optics = Optics(shape=(420, 420), fwhm=3.2, vary=0.0, ellipticity=0.1)
    frame, (x, y, flux) = expose(optics, rng, 0, gap=30.0)
    psf = fit_psf(frame, find_stars(frame))
    bright = np.argsort(flux)[::-1][:60]
    inside = (x > 20) & (x < 400) & (y > 20) & (y < 400)
    chosen = bright[inside[bright]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cut = extract_stars(NDData(frame.data.astype(float)), Table({"x": x[chosen], "y": y[chosen]}), size=21)
        builder = EPSFBuilder(oversampling=2, maxiters=6, progress_bar=False)
        theirs, _ = builder(cut)
    pixel = np.arange(-10.0, 11.0)
    px, py = np.meshgrid(pixel, pixel)
    image = theirs.evaluate(px, py, flux=1.0, x_0=0.0, y_0=0.0)
    ours = psf.at(210, 210).astype(float)
    half = psf.size // 2
    ours = ours[half - 7 : half + 8, half - 7 : half + 8] / ours[half - 7 : half + 8, half - 7 : half + 8].sum()
    image = image[3:18, 3:18] / image[3:18, 3:18].sum()
    true = optics.at(210, 210, 7)
    true /= true.sum()
    assert np.abs(ours - image).max() < 0.03 * true.max()
    assert np.abs(ours - true).max() < 0.5 * np.abs(image - true).max()
