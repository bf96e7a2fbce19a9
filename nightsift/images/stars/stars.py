"""Find stars: positions to a few hundredths of a pixel, flux, shape, and which of them can be trusted."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit
from scipy.spatial import cKDTree

from nightsift.core.errors import BlankFrame, TooFewStars
from nightsift.core.flags import Mask
from nightsift.core.frames import FloatImage, Frame, MaskImage, StarTable
from nightsift.core.parallel import over_rows
from nightsift.core.robust import mad_sigma
from nightsift.images.stars.moments import moments, stand_out
from nightsift.images.stars.star_peaks import find_star_peaks

_FINE = 5  # parts a side into which a pixel on the rim is divided

STAR_DTYPE = np.dtype(
    [
        ("x", "f8"),
        ("y", "f8"),
        ("flux", "f4"),
        ("flux_err", "f4"),
        ("peak", "f4"),
        ("snr", "f4"),
        ("fwhm", "f4"),
        ("a", "f4"),
        ("b", "f4"),
        ("theta", "f4"),
        ("flag", "i4"),
    ]
)
"""A star: position (pixel), aperture flux, its error and peak above the sky (ADU), signal-to-noise ratio of the
matched filter, FWHM and Gaussian axes (pixel, a >= b), position angle (rad, from x towards y), `Mask` bits of the
core."""

_FWHM = 2.0 * np.sqrt(2.0 * np.log(2.0))
_MOST = 200_000  # stars: a bound of memory (12 MB); where stars fill a frame of 4k, it has a third of that
_FILTER_SIGMA = 1.2  # px, of the first matched filter; the signal-to-noise ratio depends on it only weakly
_SHARPEST = 0.9  # px FWHM; no optics and detector make a sharper image, so it is a cosmic ray or hot pixel

# Saturated stars and halos are real light and stay detectable; everything else masked is not light from the sky.
NO_LIGHT = np.uint16(0xFFFF & ~(Mask.SATURATED.value | Mask.BRIGHT_STAR.value))


@njit(cache=True, nogil=True, error_model="numpy")
def circle_fluxes(
    data: FloatImage,
    variance: FloatImage,
    mask: MaskImage,
    dark: np.uint16,
    xs: npt.NDArray[np.float64],
    ys: npt.NDArray[np.float64],
    radius: float,
    out: npt.NDArray[np.float64],
) -> None:
    """Sum an image within circles; what is hidden there is taken to be as bright as the rest.

    Parameters
    ----------
    data, variance : ndarray of float32, shape (ny, nx)
        Background-subtracted image (ADU) and its variance (ADU^2).
    mask : ndarray of uint16, shape (ny, nx)
        Mask bits.
    dark : uint16
        Bits of pixels to leave out.
    xs, ys : ndarray of float64, shape (n,)
        Centres (pixel).
    radius : float
        Radius (pixel).
    out : ndarray of float64, shape (n, 2)
        Filled with the fluxes and their standard deviations; NaN where nothing is seen.
    """
    ny, nx = data.shape
    inside, outside = max(radius - 0.7072, 0.0) ** 2, (radius + 0.7072) ** 2
    for k in range(len(xs)):
        x, y = xs[k], ys[k]
        flux = noise = seen = whole = 0.0
        for j in range(max(0, int(y - radius - 0.5)), min(ny, int(y + radius + 1.5) + 1)):
            for i in range(max(0, int(x - radius - 0.5)), min(nx, int(x + radius + 1.5) + 1)):
                square = (i - x) ** 2 + (j - y) ** 2
                if square > outside:
                    continue
                part = 1.0
                if square > inside:
                    count = 0
                    for b in range(_FINE):
                        dy = j - y + (b + 0.5) / _FINE - 0.5
                        for a in range(_FINE):
                            dx = i - x + (a + 0.5) / _FINE - 0.5
                            count += 1 if dx * dx + dy * dy < radius * radius else 0
                    part = count / (_FINE * _FINE)
                whole += part
                if mask[j, i] & dark:
                    continue
                flux += part * data[j, i]
                noise += part * variance[j, i]
                seen += part
        if seen > 0.0:
            out[k, 0], out[k, 1] = flux * whole / seen, np.sqrt(noise * whole / seen)
        else:
            out[k, 0], out[k, 1] = np.nan, np.nan


def find_stars(frame: Frame, threshold: float = 5.0, minimum: int = 3, *, limit: int = _MOST) -> StarTable:
    """Find and measure the stars (and galaxies) of a background-subtracted frame.

    Detection on the signal-to-noise image of a Gaussian matched filter; positions and shapes from Gaussian-weighted
    moments of the image itself (Bertin's windowed centroids; weights removed as in Bernstein & Jarvis 2002, eq. 3-12
    for a Gaussian star). Single hot pixels and cosmic rays, sharper than the stars of the frame, are left out, and so
    is noise on halos, ghosts and spikes.

    Parameters
    ----------
    frame : Frame
        Background-subtracted frame.
    threshold : float, optional
        Lowest signal-to-noise ratio in the filtered image.
    minimum : int, optional
        Fewest stars to be content with.
    limit : int, optional
        Most stars returned: the brightest. Those who need few take the first themselves.

    Returns
    -------
    StarTable
        Structured array of `STAR_DTYPE`, sorted by decreasing flux.

    Raises
    ------
    BlankFrame
        If no pixel is usable.
    TooFewStars
        If fewer than `minimum` are found.
    """
    where = frame.meta.path or frame.meta.exposure_id
    columns, rows, snr = find_star_peaks(
        frame.data, frame.variance, frame.mask, dark=NO_LIGHT, sigma=_FILTER_SIGMA, threshold=threshold
    )
    if len(snr) == 0 and not bool(((frame.mask & NO_LIGHT) == 0).any()):
        raise BlankFrame(where=where, what="no pixel is usable")
    stars = _measure_all(frame, snr[: 2 * limit], columns[: 2 * limit], rows=rows[: 2 * limit])
    stars = stars[_is_light(stars)][:limit]
    if len(stars) < minimum:
        raise TooFewStars(found=len(stars), needed=minimum, where=where)
    return stars


def clean_stars(
    stars: StarTable, shape: tuple[int, int], isolation: float = 4.0, *, snr: float = 20.0
) -> npt.NDArray[np.bool_]:
    """Tell the stars that a fit may rest on: unmasked, isolated, bright, inside, and shaped like the others.

    Parameters
    ----------
    stars : StarTable
        Stars of one frame.
    shape : tuple of int
        ``(ny, nx)`` of the frame.
    isolation : float, optional
        No neighbour with more than a tenth of the flux within this many FWHM.
    snr : float, optional
        Lowest signal-to-noise ratio.

    Returns
    -------
    ndarray of bool, shape (n,)
        True for a clean star.
    """
    if len(stars) == 0:
        return np.zeros(0, dtype=np.bool_)
    fwhm = typical_fwhm(stars)
    margin = 1.5 * fwhm
    keep = (stars["flag"] & ~Mask.BRIGHT_STAR.value) == 0
    keep &= (stars["snr"] >= snr) & (stars["flux"] > 0) & np.isfinite(stars["fwhm"])
    keep &= (stars["x"] > margin) & (stars["x"] < shape[1] - 1 - margin)
    keep &= (stars["y"] > margin) & (stars["y"] < shape[0] - 1 - margin)
    keep &= ~_crowded(stars, isolation * fwhm)
    return np.asarray(keep & _on_locus(stars, keep), dtype=np.bool_)


def typical_fwhm(stars: StarTable) -> float:
    """Median FWHM of the brighter unmasked stars, galaxies and blends clipped.

    Parameters
    ----------
    stars : StarTable
        Stars of one frame.

    Returns
    -------
    float
        FWHM (pixel); NaN without stars.
    """
    good = stars[(stars["flag"] == 0) & np.isfinite(stars["fwhm"]) & (stars["snr"] > 10)]
    if len(good) < 5:
        good = stars[np.isfinite(stars["fwhm"])]
    if len(good) == 0:
        return float("nan")
    values = good["fwhm"][: max(20, len(good) // 3)].astype(np.float64)
    for _ in range(3):
        centre = float(np.median(values))
        spread = mad_sigma(values, centre)
        values = values[np.abs(values - centre) <= 3.0 * spread + 1e-6]
    return float(np.median(values))


def _measure_all(
    frame: Frame,
    snr: npt.NDArray[np.float32],
    columns: npt.NDArray[np.int64],
    *,
    rows: npt.NDArray[np.int64],
) -> StarTable:
    if len(snr) == 0:
        return np.zeros(0, dtype=STAR_DTYPE)

    def real(window: float, most: int | None = None) -> npt.NDArray[np.bool_]:
        i, j, peak = columns[:most], rows[:most], snr[:most]
        planes = (frame.data, frame.variance, frame.mask)
        return stand_out(*planes, dark=NO_LIGHT, columns=i, rows=j, snr=peak, fwhm=_FWHM * window)

    window = 2.0
    few = real(window, 500)
    x, y = columns.astype(np.float64), rows.astype(np.float64)
    first = moments(frame.data, frame.mask, NO_LIGHT, x[:500][few], y[:500][few], window, 2.0)
    sizes = first[:, 2][np.isfinite(first[:, 2]) & (first[:, 8] == 0) & (first[:, 2] > _SHARPEST / _FWHM)]
    if len(sizes) >= 3:
        window = float(np.clip(np.median(sizes), 0.8, 8.0))
    good = real(window)
    x, y, snr = x[good], y[good], snr[good]
    core, radius = max(1.0, window * _FWHM / 2.0), 1.5 * window * _FWHM
    m, sums = np.empty((len(x), 9)), np.empty((len(x), 2))

    def some(begin: int, end: int) -> None:
        m[begin:end] = moments(frame.data, frame.mask, NO_LIGHT, x[begin:end], y[begin:end], window, core)
        place = (m[begin:end, 0].copy(), m[begin:end, 1].copy())
        circle_fluxes(frame.data, frame.variance, frame.mask, NO_LIGHT, *place, radius, sums[begin:end])

    over_rows(some, len(x), 64)
    stars = np.zeros(len(x), dtype=STAR_DTYPE)
    stars["x"], stars["y"] = m[:, 0], m[:, 1]
    stars["fwhm"] = _FWHM * m[:, 2]
    stars["a"], stars["b"], stars["theta"] = m[:, 3], m[:, 4], m[:, 5]
    stars["peak"], stars["flag"] = m[:, 7], m[:, 8].astype(np.int32)
    stars["flux"], stars["flux_err"], stars["snr"] = sums[:, 0], sums[:, 1], snr
    good = np.isfinite(stars["flux"]) & (stars["flux"] > 0) & np.isfinite(stars["flux_err"])
    return _without_twins(stars[good][np.argsort(stars["flux"][good])[::-1]])


def _without_twins(stars: StarTable) -> StarTable:
    """Two detections whose windowed centroids ran together are one star: keep the brighter."""
    if len(stars) < 2:
        return stars
    pairs = cKDTree(np.column_stack((stars["x"], stars["y"]))).query_pairs(1.0, output_type="ndarray")
    keep = np.ones(len(stars), dtype=np.bool_)
    keep[pairs.max(axis=1)] = False
    return stars[keep]


def _is_light(stars: StarTable) -> npt.NDArray[np.bool_]:
    """False for what is sharper than the optics allow: hot pixels and cosmic rays."""
    size = stars["fwhm"]
    sharp = ~np.isfinite(size) | (size < _SHARPEST)
    typical = typical_fwhm(stars[~sharp])
    if np.isfinite(typical):
        sharp |= (_FWHM * stars["b"] < 0.5 * typical) & (stars["flag"] & Mask.SATURATED.value == 0)
    return np.asarray(~sharp)


def _crowded(stars: StarTable, radius: float) -> npt.NDArray[np.bool_]:
    crowded = np.zeros(len(stars), dtype=np.bool_)
    pairs = cKDTree(np.column_stack((stars["x"], stars["y"]))).query_pairs(radius, output_type="ndarray")
    if len(pairs):
        first, second = pairs[:, 0], pairs[:, 1]
        flux = stars["flux"]
        crowded[first[flux[second] > 0.1 * flux[first]]] = True
        crowded[second[flux[first] > 0.1 * flux[second]]] = True
    return crowded


def _on_locus(stars: StarTable, keep: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Sizes within four robust sigma (at least 10 %) of a plane in position: the PSF may grow towards a corner."""
    index = np.flatnonzero(keep)
    ok = np.ones(len(stars), dtype=np.bool_)
    if len(index) < 5:
        return ok
    x, y, size = (stars[name].astype(np.float64) for name in ("x", "y", "fwhm"))
    terms = np.column_stack((np.ones_like(x), x - x.mean(), y - y.mean()))
    if len(index) >= 60:
        terms = np.column_stack((terms, terms[:, 1] ** 2, terms[:, 1] * terms[:, 2], terms[:, 2] ** 2))
    elif len(index) < 20:
        terms = terms[:, :1]
    # The start is the median, so that a tail of galaxies does not drag the plane along.
    centre = float(np.median(size[index]))
    inside = index[np.abs(size[index] - centre) < 0.35 * centre]
    limit = np.full(len(stars), 0.35 * centre)
    model = np.full(len(stars), centre)
    for _ in range(4):
        if len(inside) < 2 * terms.shape[1]:
            break
        model = terms @ np.linalg.lstsq(terms[inside], size[inside], rcond=None)[0]
        spread = mad_sigma(size[inside], model[inside])
        limit = np.maximum(4.0 * spread, 0.1 * np.abs(model))
        inside = index[np.abs(size[index] - model[index]) <= limit[index]]
    ok &= np.abs(size - model) <= limit
    return ok
