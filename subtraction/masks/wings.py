"""What a kernel leaves of the wings of bright stars, measured on all of them together and taken off.

See docs/algorithms.md, section 6.
"""

from __future__ import annotations

import numba as nb
import numpy as np
import numpy.typing as npt

from nightsift.flags import Mask
from nightsift.frames import FloatImage, MaskImage
from nightsift.psf import polynomial_terms
from subtraction.kernel.spatial import n_terms
from subtraction.masks.saturated_stars import find_blobs, find_cores
from subtraction.masks.union import HARD

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

HARMONICS = 3
"""Round part, and the two parts of an ellipse."""


def subtract_wings(
    data: FloatImage,
    variance: FloatImage,
    model: FloatImage,
    mask: MaskImage,
    saturated: MaskImage,
    x: Float64,
    y: Float64,
    fwhm: float,
) -> Float64:
    """Take off a difference what the kernel leaves of the wings of bright stars, in place.

    The difference of two linear images of one star is a fixed part of the star's light, at each distance and angle,
    that changes smoothly over the frame. In the wings, beyond the reach of the kernel and of the stamps to which it is
    fitted, it is round or elongated: ``D = M_r (a_r + b_r cos 2 theta + c_r sin 2 theta)`` on a ring of radius r with
    the light M_r of the matched template, a, b and c polynomials of the position. They are fitted to all stars that
    shine there, saturated ones included, ring by ring, so that a transient on one of them counts for little.

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
    ndarray of float64, shape (n_rings, 3)
        Coefficients a, b and c of each ring at the centre of the frame, 0 where nothing is proven.
    """
    cores = find_cores(*find_blobs(saturated, Mask.SATURATED.value))
    x, y = np.concatenate((x, cores[:, 1])), np.concatenate((y, cores[:, 0]))
    first, last = max(int(np.ceil(INNER * fwhm)), 2), int(np.ceil(OUTER * fwhm))
    light = np.zeros((len(x), last - first))
    bad = np.uint16(HARD)
    _light(variance, model, mask, bad, x, y, first, FAINTEST, light)
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


def _fit_ring(terms: Float64, normal: Float64, right: Float64) -> Float64:
    """Coefficients of a ring, shape (3, n_terms), of the order that earns most; zero where none earns its price."""
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
        if _is_dark(variance, model, mask, bad, row, column, first, faintest):
            continue
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
def _is_dark(variance, model, mask, bad, row, column, radius, faintest):  # type: ignore[no-untyped-def]
    """Whether sixteen pixels of a circle show too little light, as around most stars."""
    light = noise = 0.0
    used = 0
    for k in range(16):
        j = row + round(radius * np.sin(k * np.pi / 8))
        i = column + round(radius * np.cos(k * np.pi / 8))
        if 0 <= j < model.shape[0] and 0 <= i < model.shape[1] and (mask[j, i] & bad) == 0:
            light += model[j, i]
            noise += variance[j, i]
            used += 1
    return used > 8 and light < faintest * np.sqrt(noise * used)


@nb.njit(cache=True, nogil=True)
def _moments(data, variance, mask, bad, x, y, first, light, parts, clip, normal, right):  # type: ignore[no-untyped-def]
    """Normal equations of each star's rings, of the pixels that do not stand out of the parts known so far."""
    ny, nx = data.shape
    stars, rings = light.shape
    reach = first + rings
    wave = np.ones(3)
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
                known = m * (parts[s, k, 0] + parts[s, k, 1] * wave[1] + parts[s, k, 2] * wave[2])
                if (data[j, i] - known) ** 2 > clip * clip * variance[j, i]:
                    continue
                weight = m / variance[j, i]
                for h in range(3):
                    right[s, k, h] += weight * wave[h] * data[j, i]
                    for g in range(3):
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
                data[j, i] -= np.float32(value)
