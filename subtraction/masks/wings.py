"""What a kernel leaves of the wings of bright and saturated stars, measured and taken off ring by ring.

See docs/algorithms.md, section 6.
"""

from __future__ import annotations

import numba as nb
import numpy as np
import numpy.typing as npt

from nightsift.core.flags import HARD, Mask
from nightsift.core.frames import FloatImage, MaskImage
from nightsift.core.psf import polynomial_terms
from nightsift.core.robust import MAD_TO_SIGMA, MEDIAN_ERROR
from subtraction.fields import n_terms
from subtraction.masks.saturated_stars import find_blobs, find_cores, gather_ring

Float64 = npt.NDArray[np.float64]

INNER, OUTER = 2.0, 8.0
"""Where the wings begin and how far they are followed (FWHM)."""

ORDER = 2
"""Highest order of the change over the frame."""

FAINTEST = 0.3
"""Least light on a ring that counts (sigma of a pixel)."""

PRICE = 4.0
"""Fall of chi-square that each coefficient has to earn."""

CLIP = 4.0
"""Pixels that stand out by more belong to something else (sigma)."""

HARMONICS = 5
"""Round part, and two parts each of twofold and fourfold symmetry."""

PROVEN = 2.5
"""Least median of a ring that is a halo, in units of its error."""

FEWEST = 24
"""Fewest usable pixels of a ring."""


def subtract_wings(
    data: FloatImage,
    variance: FloatImage,
    model: FloatImage,
    *,
    mask: MaskImage,
    saturated: MaskImage,
    x: Float64,
    y: Float64,
    fwhm: float,
) -> Float64:
    """Take off a difference what the kernel leaves of the wings of bright stars, in place.

    The difference of two linear images of one star is a fixed part of the star's light, at each distance and angle,
    that changes smoothly over the frame. In the wings, beyond the reach of the kernel and of the stamps to which it is
    fitted, it is round or elongated: ``D = M_r (a + b cos 2t + c sin 2t + d cos 4t + e sin 4t)`` on a ring of radius r
    with the light M_r of the matched template, t the angle, a to e polynomials of the position. They are fitted to all
    stars that shine there, saturated ones included, ring by ring, so that a transient on one counts for little.

    Parameters
    ----------
    data : ndarray of float32, shape (ny, nx)
        Difference (ADU), changed on usable pixels.
    variance, model : ndarray of float32, shape (ny, nx)
        Its variance, and the matched template.
    mask : ndarray of uint16, shape (ny, nx)
        Mask of the difference.
    saturated : ndarray of uint16, shape (ny, nx)
        Mask of both frames as they were given.
    x, y : ndarray of float64, shape (n,)
        Unsaturated stars (pixel).
    fwhm : float
        Seeing (pixel).

    Returns
    -------
    ndarray of float64, shape (n_rings, 5)
        Coefficients of each ring at the centre of the frame, 0 where nothing is proven.
    """
    cores = find_cores(*find_blobs(saturated, Mask.SATURATED.value))
    peak = model[np.rint(y).astype(np.int64), np.rint(x).astype(np.int64)]
    first, last = max(int(np.ceil(INNER * fwhm)), 2), int(np.ceil(OUTER * fwhm))
    bad = np.uint16(HARD)
    rings = np.zeros((len(cores), last - first))
    _light(variance, model, mask, bad, cores[:, 1].copy(), cores[:, 0].copy(), first, FAINTEST, rings)
    # The light of a star falls outwards; where it does not it is a neighbour's.
    known = np.minimum.accumulate(np.where(rings > 0, rings, np.inf), axis=1)
    saturated_light = np.where(rings > 0, known, 0.0)
    whole_light = _usual_light(variance, model, mask, bad=bad, x=x, y=y, peak=peak, first=first, last=last)
    light = np.concatenate((whole_light, saturated_light))
    x, y = np.concatenate((x, cores[:, 1])), np.concatenate((y, cores[:, 0]))
    shining = light.max(axis=1, initial=0.0) > 0
    x, y, light = x[shining], y[shining], light[shining]
    terms = polynomial_terms(x, y, data.shape, ORDER)
    parts = np.zeros((*light.shape, HARMONICS))
    for _ in range(2):
        normal, right = np.zeros((*light.shape, HARMONICS, HARMONICS)), np.zeros(parts.shape)
        _moments(data, variance, mask, bad, x, y, first, light, parts, CLIP, normal, right)
        coefficients = np.stack([_fit_ring(terms, normal[:, k], right[:, k]) for k in range(last - first)])
        parts = np.einsum("st,kht->skh", terms, coefficients)
    _take_off(data, mask, bad, x, y, first, np.ascontiguousarray(parts * light[:, :, None]))
    return np.ascontiguousarray(coefficients[:, :, 0])


def _usual_light(
    variance: FloatImage,
    model: FloatImage,
    mask: MaskImage,
    *,
    bad: np.uint16,
    x: Float64,
    y: Float64,
    peak: FloatImage,
    first: int,
    last: int,
) -> Float64:
    """Light of whole stars on the rings: that of their peaks, by the usual profile, which the brighter ones give."""
    out = np.zeros((len(x), last - first))
    if not len(x):
        return out
    bright = peak >= max(float(np.quantile(peak, 0.75)), 1e-30)
    rings = np.zeros((int(bright.sum()), last - first))
    _light(variance, model, mask, bad, x[bright], y[bright], first, FAINTEST, rings)
    profile = np.array([np.median(one[one > 0]) if (one > 0).any() else 0.0 for one in (rings / peak[bright, None]).T])
    out[:] = np.maximum(peak, 0.0)[:, None] * profile
    noise = float(np.sqrt(np.median(variance[16::32, 16::32])))
    out[out < FAINTEST * noise] = 0.0
    return out


def _fit_ring(terms: Float64, normal: Float64, right: Float64) -> Float64:
    """Coefficients of a ring, shape (5, n_terms), of the order that earns most; zero where none earns its price."""
    count = terms.shape[1]
    matrix = np.einsum("st,shg,su->htgu", terms, normal, terms, optimize=True)
    vector = np.einsum("st,sh->ht", terms, right)
    best, chosen = 0.0, np.zeros((HARMONICS, count))
    for order in range(ORDER + 1):
        size = n_terms(order)
        some, wanted = matrix[:, :size, :, :size].reshape(HARMONICS * size, -1), vector[:, :size].ravel()
        if np.linalg.matrix_rank(some, hermitian=True) < len(wanted):
            break
        solved = np.linalg.solve(some, wanted)
        earned = float(wanted @ solved) - PRICE * len(wanted)
        if earned > best:
            best, chosen = earned, np.zeros((HARMONICS, count))
            chosen[:, :size] = solved.reshape(HARMONICS, size)
    return chosen


@nb.njit(cache=True, nogil=True)
def _light(variance, model, mask, bad, x, y, first, faintest, light):  # type: ignore[no-untyped-def]
    """Median light of the template on each ring of each star, 0 where it is faint or too few pixels are usable."""
    ny, nx = model.shape
    rings = light.shape[1]
    reach = first + rings
    values, noise = np.empty((rings, 8 * (reach + 2)), np.float32), np.zeros(rings)
    count = np.zeros(rings, np.int64)
    for s in range(len(x)):
        count[:], noise[:] = 0, 0.0
        row, column = round(y[s]), round(x[s])
        for j in range(max(0, row - reach), min(ny, row + reach + 1)):
            for i in range(max(0, column - reach), min(nx, column + reach + 1)):
                k = int(np.sqrt((j - y[s]) ** 2 + (i - x[s]) ** 2) + 0.5) - first
                if k < 0 or k >= rings or (mask[j, i] & bad) != 0:
                    continue
                values[k, count[k]] = model[j, i]
                noise[k] += variance[j, i]
                count[k] += 1
        for k in range(rings):
            if count[k] < 2 * (first + k):
                continue
            middle = np.median(values[k, : count[k]])
            if middle > faintest * np.sqrt(noise[k] / count[k]):
                light[s, k] = middle


@nb.njit(cache=True, nogil=True)
def _moments(data, variance, mask, bad, x, y, first, light, parts, clip, normal, right):  # type: ignore[no-untyped-def]
    """Normal equations of each star's rings, of the pixels that do not stand out of the parts known so far."""
    ny, nx = data.shape
    stars, rings = light.shape
    reach = first + rings
    wave = np.ones(5)
    for s in range(stars):
        for j in range(max(0, int(y[s]) - reach), min(ny, int(y[s]) + reach + 2)):
            for i in range(max(0, int(x[s]) - reach), min(nx, int(x[s]) + reach + 2)):
                dx, dy = i - x[s], j - y[s]
                square = dx * dx + dy * dy
                k = int(np.sqrt(square) + 0.5) - first
                if k < 0 or k >= rings or light[s, k] <= 0 or (mask[j, i] & bad) != 0:
                    continue
                m = light[s, k]
                wave[1], wave[2] = (dx * dx - dy * dy) / square, 2.0 * dx * dy / square
                wave[3], wave[4] = wave[1] * wave[1] - wave[2] * wave[2], 2.0 * wave[1] * wave[2]
                known = 0.0
                for h in range(5):
                    known += m * parts[s, k, h] * wave[h]
                if (data[j, i] - known) ** 2 > clip * clip * variance[j, i]:
                    continue
                weight = m / variance[j, i]
                for h in range(5):
                    right[s, k, h] += weight * wave[h] * data[j, i]
                    for g in range(5):
                        normal[s, k, h, g] += weight * m * wave[h] * wave[g]


@nb.njit(cache=True, nogil=True)
def _take_off(data, mask, bad, x, y, first, amounts):  # type: ignore[no-untyped-def]
    """Subtract the amounts of each star's rings, linear between them and falling to zero on either side."""
    ny, nx = data.shape
    stars, rings = amounts.shape[:2]
    reach = first + rings
    for s in range(stars):
        if not amounts[s].any():
            continue
        for j in range(max(0, int(y[s]) - reach), min(ny, int(y[s]) + reach + 2)):
            for i in range(max(0, int(x[s]) - reach), min(nx, int(x[s]) + reach + 2)):
                dx, dy = i - x[s], j - y[s]
                square = dx * dx + dy * dy
                place = np.sqrt(square) - first
                if place <= -1.0 or place >= rings or (mask[j, i] & bad) != 0:
                    continue
                k = int(np.floor(place))
                part = place - k
                cosine, sine = (dx * dx - dy * dy) / max(square, 1.0), 2.0 * dx * dy / max(square, 1.0)
                value = 0.0
                for ring, share in ((k, 1.0 - part), (k + 1, part)):
                    if 0 <= ring < rings:
                        one = amounts[s, ring]
                        value += share * (one[0] + one[1] * cosine + one[2] * sine)
                        value += share * (one[3] * (cosine * cosine - sine * sine) + one[4] * 2.0 * cosine * sine)
                data[j, i] -= np.float32(value)


def subtract_halos(
    data: FloatImage, variance: FloatImage, mask: MaskImage, *, saturated: MaskImage, fwhm: float, limit: float = 12.0
) -> npt.NDArray[np.float64]:
    """Take the round part of what saturated stars leave outside their masks off a difference, in place.

    A kernel ends where the wings of a saturated star do not, and there it leaves the difference of both wings, of one
    sign all round. It is measured star by star as the median in rings, from the mask outwards as far as it stands out
    of the noise; a transient, which fills a small part of a ring, keeps its light.

    Parameters
    ----------
    data : ndarray of float32, shape (ny, nx)
        Difference (ADU), changed on usable pixels.
    variance : ndarray of float32, shape (ny, nx)
        Its variance.
    mask : ndarray of uint16, shape (ny, nx)
        Mask of the difference.
    saturated : ndarray of uint16, shape (ny, nx)
        Mask of both frames as they were given.
    fwhm : float
        Seeing (pixel).
    limit : float, optional
        Farthest ring outside a saturated core, in units of `fwhm`.

    Returns
    -------
    ndarray of float64, shape (n,)
        Radius to which each star's halo was taken off (pixel), 0 where there was none.
    """
    runs, starts = find_blobs(saturated, Mask.SATURATED.value)
    cores = find_cores(runs, starts)
    # The largest first: its halo lies under those of the others.
    cores = cores[np.argsort(-cores[:, 2], kind="stable")]
    reached = np.zeros(len(cores))
    _subtract(data, variance, mask, np.uint16(HARD), cores, int(np.ceil(limit * fwhm)), PROVEN, FEWEST, reached)
    return reached


@nb.njit(cache=True, nogil=True)
def _subtract(data, variance, mask, bad, cores, limit, proven, fewest, reached):  # type: ignore[no-untyped-def]
    none = np.float32(0)
    for k in range(len(cores)):
        y, x, core = int(cores[k, 0]), int(cores[k, 1]), cores[k, 2]
        size = int(np.ceil(core)) + limit
        values = np.empty(8 * (size + 2), np.float32)
        level, error = np.zeros(size + 2), np.full(size + 2, np.inf)
        first, last = -1, size
        for r in range(int(core), size + 1):
            count = gather_ring(data, variance, mask, bad, y, x, r, np.float32(1), none, values)
            if count < fewest:
                if first >= 0:
                    last = r - 1
                    break
                continue
            first = r if first < 0 else first
            middle = np.median(values[:count])
            level[r] = middle
            error[r] = MEDIAN_ERROR * MAD_TO_SIGMA * np.median(np.abs(values[:count] - middle)) / np.sqrt(count)
            # The first rings lie partly under the mask: none of them decides alone.
            if r < first + 2:
                continue
            light, noise = _mean(level, error, r - 2, r + 1)
            if abs(light) < proven * noise:
                last = r - 2 if r > first + 2 else first - 1
                break
        if first < 0 or last < first:
            continue
        profile = np.zeros(size + 3)
        for r in range(first, last + 1):
            # As many rings on either side, so that the slope does no harm.
            reach = min(1, r - first, last - r)
            profile[r] = _mean(level, error, r - reach, r + reach + 1)[0]
        _take_off_halos(data, mask, bad, y, x, first, last, profile)
        reached[k] = last + 1


@nb.njit(cache=True, nogil=True)
def _mean(level, error, start, stop):  # type: ignore[no-untyped-def]
    """Mean of rings by their errors, and its error."""
    total = weight = 0.0
    for k in range(start, stop):
        w = 1.0 / (error[k] * error[k] + 1e-30)
        total += w * level[k]
        weight += w
    return total / weight, 1.0 / np.sqrt(weight)


@nb.njit(cache=True, nogil=True)
def _take_off_halos(data, mask, bad, y, x, first, last, profile):  # type: ignore[no-untyped-def]
    ny, nx = data.shape
    outer = last + 1
    for row in range(max(0, y - outer), min(ny, y + outer + 1)):
        for column in range(max(0, x - outer), min(nx, x + outer + 1)):
            if (mask[row, column] & bad) != 0:
                continue
            # Rings are those at r <= distance < r + 1: their middle is at r + 1/2.
            r = np.sqrt(float((row - y) ** 2 + (column - x) ** 2)) - 0.5
            if r >= outer:
                continue
            inner = int(np.floor(max(r, float(first))))
            part = max(r, float(first)) - inner
            value = (1.0 - part) * profile[inner] + part * profile[inner + 1]
            data[row, column] -= np.float32(value)
