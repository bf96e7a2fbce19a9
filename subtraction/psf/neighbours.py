"""Neighbours of the stars that carry a PSF: fitted, those too faint or too close to be in the list found, taken away.

See docs/algorithms.md, section 7.
"""

from __future__ import annotations

import dataclasses

import numba as nb
import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from nightsift.core.flags import HARD
from nightsift.core.frames import Frame, StarTable
from nightsift.core.parallel import over_rows
from nightsift.core.psf import Psf
from nightsift.images.photometry.psf_grid import LANCZOS, psf_grid, shift_psf
from subtraction.psf.stars import Cutouts, copy_stamps

Float64 = npt.NDArray[np.float64]

MOST = 48
"""Sources in and around one stamp."""

SWEEPS = 14
"""Rounds in which each source is fitted with the light of all others taken away."""

SEARCHES = 4
"""How often what is left is searched for more."""

FOUND = 5.0
"""Signal-to-noise ratio from which a peak of the residual is a source."""

TRUSTED = 0.03
"""Part of the light of a neighbour that its subtraction may leave."""

CLOSEST = 0.6
"""Distance (FWHM) below which two sources look like one."""

BLENDED, BLEND = 1.3, 0.05
"""A star with a companion this close (FWHM) that has this part of its light does not count."""


def without_neighbours(
    frame: Frame, cut: Cutouts, stars: StarTable, *, psf: Psf, threads: int = 0
) -> tuple[Cutouts, npt.NDArray[np.bool_]]:
    """Take the light of all neighbours out of the stamps of stars (in the manner of Stetson 1987, PASP 99, 191).

    Each source in a stamp is fitted in turn, flux and position, with the light of the others taken away; peaks of what
    is left that stand out of the noise and of the doubt in the PSF join them. Faint neighbours lie everywhere, so that
    what they add on average looks like a wing of every star.

    Parameters
    ----------
    frame : Frame
        Background-subtracted.
    cut : Cutouts
        Stamps of stars, with a first fit of each (`own`).
    stars : StarTable
        All known stars.
    psf : Psf
        Present PSF of the frame.
    threads : int, optional
        Number of threads, 0 for all cores.

    Returns
    -------
    cut : Cutouts
        The same stars without their neighbours; pixels where the light taken away is doubtful do not count.
    clean : ndarray of bool, shape (n,)
        False for stars with a close companion.
    """
    n, half = len(cut), cut.data.shape[1] // 2
    margin = int(np.ceil(1.5 * psf.fwhm))
    wide = half + margin
    columns, rows = np.rint(cut.x).astype(np.int64), np.rint(cut.y).astype(np.int64)
    size = 2 * wide + 1
    data, noise = np.zeros((n, size, size), np.float32), np.zeros((n, size, size), np.float32)
    good = np.zeros((n, size, size), np.bool_)
    copy_stamps(frame.data, frame.variance, frame.mask, np.uint16(HARD), columns, rows, data, noise, good)
    sources, counts = _known(cut, columns, rows, stars=stars, wide=wide)
    grid = psf_grid(psf, frame.shape)
    node = grid.nodes(cut.x, cut.y)
    inner = (slice(None), slice(margin, size - margin), slice(margin, size - margin))
    left, usable = data[inner].copy(), good[inner].copy()
    clean = np.ones(n, np.bool_)
    level = np.ascontiguousarray(cut.own[:, 3])  # a column of one row has another type for numba, a copy has not

    def some(first: int, last: int) -> None:
        part = slice(first, last)
        _separate(
            data[part], good[part], cut.sky_variance[part], cut.photon_variance, level[part], sources[part],
            counts[part], grid.images, node[part], grid.size, grid.step, grid.total, psf.fwhm, left[part],
            usable[part], clean[part],
        )  # fmt: skip

    over_rows(some, n, 8, threads=threads)
    return dataclasses.replace(cut, data=left, good=usable), clean


def _known(
    cut: Cutouts, columns: npt.NDArray[np.int64], rows: npt.NDArray[np.int64], *, stars: StarTable, wide: int
) -> tuple[Float64, npt.NDArray[np.int64]]:
    """Position in the stamp and flux of each star and its known neighbours, the brightest first; how many."""
    sources, counts = np.zeros((len(cut), MOST, 3)), np.ones(len(cut), np.int64)
    sources[:, 0, 0], sources[:, 0, 1] = cut.own[:, 1], cut.own[:, 2]
    sources[:, 0, 2] = cut.own[:, 0]
    everything = np.column_stack((stars["x"], stars["y"])).astype(np.float64)
    near = cKDTree(everything).query_ball_point(np.column_stack((cut.x, cut.y)), wide * np.sqrt(2.0))
    for s, found in enumerate(near):
        index = np.sort(np.asarray(found, dtype=np.int64))
        x, y = everything[index, 0] - columns[s], everything[index, 1] - rows[s]
        apart = np.hypot(everything[index, 0] - cut.x[s], everything[index, 1] - cut.y[s]) > 1.0
        use = np.flatnonzero(apart & (np.abs(x) < wide) & (np.abs(y) < wide))[: MOST // 2]
        counts[s] += len(use)
        sources[s, 1 : 1 + len(use)] = np.column_stack((x[use], y[use], stars["flux"][index[use]]))
    return sources, counts


@nb.njit(cache=True, nogil=True)
def _place(image, step, total, x, y, work, weights, star):  # type: ignore[no-untyped-def]
    """The PSF at a position: its image within half a pixel, and the pixel where its middle lies."""
    column, row = int(np.floor(x + 0.5)), int(np.floor(y + 0.5))
    shift_psf(image, step, total, x - column, y - row, work, weights, star)
    return column, row


@nb.njit(cache=True, nogil=True, fastmath=True)
def _add(plane, star, column, row, flux, first, last):  # type: ignore[no-untyped-def]
    """Add a source to the rows `first` to `last` of a plane whose middle is the origin."""
    half, reach = plane.shape[0] // 2, star.shape[0] // 2
    for j in range(max(first, half + row - reach), min(last, half + row + reach + 1)):
        begin, end = max(0, half + column - reach), min(plane.shape[1], half + column + reach + 1)
        values, line = star[j - half - row + reach], plane[j]
        for i in range(begin, end):
            line[i] += flux * values[i - half - column + reach]


@nb.njit(cache=True, nogil=True, fastmath=True)
def _refine(left, good, light, sky, photons, star, column, row, source, fwhm, move):  # type: ignore[no-untyped-def]
    """Improve flux and position of a source on what is left around it; False where too little is good."""
    half, reach = left.shape[0] // 2, star.shape[0] // 2
    radius = 1.0 * fwhm
    matrix, vector = np.zeros((3, 3)), np.zeros(3)
    r = int(radius) + 1
    weight_good = weight_all = 0.0
    for b in range(-min(r, reach - 1), min(r, reach - 1) + 1):
        for a in range(-min(r, reach - 1), min(r, reach - 1) + 1):
            if a * a + b * b > radius * radius:
                continue
            p = star[b + reach, a + reach]
            weight_all += p
            j, i = b + row + half, a + column + half
            if j < 0 or i < 0 or j >= left.shape[0] or i >= left.shape[0] or not good[j, i]:
                continue
            weight_good += p
            gx = 0.5 * source[2] * (star[b + reach, a + reach - 1] - star[b + reach, a + reach + 1])
            gy = 0.5 * source[2] * (star[b + reach - 1, a + reach] - star[b + reach + 1, a + reach])
            w = 1.0 / (sky + photons * max(light[j, i], 0.0) + (TRUSTED * light[j, i]) ** 2)
            d = left[j, i]
            matrix[0, 0] += w * p * p
            matrix[0, 1] += w * p * gx
            matrix[0, 2] += w * p * gy
            matrix[1, 1] += w * gx * gx
            matrix[1, 2] += w * gx * gy
            matrix[2, 2] += w * gy * gy
            vector[0] += w * p * d
            vector[1] += w * gx * d
            vector[2] += w * gy * d
    if weight_good < 0.3 * weight_all or not matrix[0, 0] > 0:
        return False
    if not move or matrix[0, 0] * source[2] * source[2] < 100.0 or weight_good < 0.8 * weight_all:
        source[2] = max(source[2] + vector[0] / matrix[0, 0], 0.0)
        return True
    matrix[1, 0], matrix[2, 0], matrix[2, 1] = matrix[0, 1], matrix[0, 2], matrix[1, 2]
    # A position is known to a tenth of a pixel beforehand: what is blended must not run away.
    matrix[1, 1] += 100.0
    matrix[2, 2] += 100.0
    step = np.linalg.solve(matrix, vector)
    source[2] = max(source[2] + step[0], 0.0)
    source[0] += min(max(step[1], -0.2), 0.2)
    source[1] += min(max(step[2], -0.2), 0.2)
    return True


@nb.njit(cache=True, nogil=True, fastmath=True)
def _search(left, good, light, sky, photons, star, fwhm, sources, count):  # type: ignore[no-untyped-def]
    """Peaks of the filtered residual that stand out of the noise and of the doubt in the light taken away."""
    size, reach = left.shape[0], star.shape[0] // 2
    half, r = size // 2, min(int(fwhm), reach)
    score = np.zeros((size, size))
    for j in range(r, size - r):
        for i in range(r, size - r):
            top = power = doubt = 0.0
            for b in range(-r, r + 1):
                for a in range(-r, r + 1):
                    if a * a + b * b <= fwhm * fwhm and good[j + b, i + a]:
                        p = star[b + reach, a + reach]
                        v = sky + photons * max(light[j + b, i + a], 0.0)
                        top += p * left[j + b, i + a] / v
                        power += p * p / v
                        doubt += p * TRUSTED * light[j + b, i + a] / v
            if power > 0 and good[j, i]:
                score[j, i] = top / np.sqrt(power + (doubt / FOUND) ** 2)
    for j in range(1, size - 1):
        for i in range(1, size - 1):
            s = score[j, i]
            if s < FOUND or count >= MOST:
                continue
            if s < score[j - 1 : j + 2, i - 1 : i + 2].max():
                continue
            nearest = 1e9
            for k in range(count):
                nearest = min(nearest, (sources[k, 0] - i + half) ** 2 + (sources[k, 1] - j + half) ** 2)
            if nearest < (CLOSEST * fwhm) ** 2:
                continue
            sources[count, 0], sources[count, 1] = i - half, j - half
            sources[count, 2] = max(left[j, i], 0.0) / star[reach, reach]
            count += 1
    return count


@nb.njit(cache=True, nogil=True, fastmath=True)
def _leave_out(light, own, data, sky, photons, found, count, fitted, fwhm, out, usable):  # type: ignore[no-untyped-def]
    """Take the neighbours' light off, and mark the pixels where it cannot be trusted."""
    inner = out.shape[0]
    margin = (data.shape[0] - inner) // 2
    for j in range(inner):
        for i in range(inner):
            other, mine = light[j + margin, i + margin], max(own[j + margin, i + margin], 0.0)
            out[j, i] = data[j + margin, i + margin] - other
            if photons * other + (TRUSTED * other) ** 2 > 0.5 * (sky + photons * mine):
                usable[j, i] = False
    for k in range(1, count):
        if fitted[k]:
            continue
        for j in range(inner):
            for i in range(inner):
                if np.hypot(i - inner // 2 - found[k, 0], j - inner // 2 - found[k, 1]) < 1.5 * fwhm:
                    usable[j, i] = False


@nb.njit(cache=True, nogil=True)
def _separate(  # type: ignore[no-untyped-def]
    data, good, sky, photons, level, sources, counts, images, node, psf_size, step, total, fwhm, out, usable, clean
):
    size = data.shape[1]
    work = np.empty((images.shape[1], psf_size), np.float32)
    star = np.empty((psf_size, psf_size), np.float32)
    middle = np.empty((psf_size, psf_size), np.float32)
    weights = np.empty(2 * LANCZOS + 1, np.float64)
    for s in range(len(data)):
        image, found = images[node[s]], sources[s]
        shift_psf(image, step, total, 0.0, 0.0, work, weights, middle)
        count, searched, added = counts[s], 0, True
        light, base = np.zeros((size, size), np.float32), level[s]
        for k in range(count):
            column, row = _place(image, step, total, found[k, 0], found[k, 1], work, weights, star)
            _add(light, star, column, row, found[k, 2], 0, size)
        fitted = np.ones(MOST, np.bool_)
        left = np.empty((size, size), np.float32)
        for sweep in range(SWEEPS):
            left[:] = data[s] - light - np.float32(base)
            total_left, n = 0.0, 0
            limit = 3.0 * np.sqrt(sky[s])
            for j in range(size):
                for i in range(size):
                    if good[s, j, i] and abs(left[j, i]) < limit + 0.1 * light[j, i] and light[j, i] < limit:
                        total_left += left[j, i]
                        n += 1
            base = (total_left + n * base) / (n + 11.0)
            if not added and sweep > 2 and count == 1:
                break
            for k in range(count):
                before = found[k].copy()
                column, row = _place(image, step, total, before[0], before[1], work, weights, star)
                fitted[k] = _refine(left, good[s], light, sky[s], photons, star, column, row, found[k], fwhm, sweep > 1)
                _add(light, star, column, row, -before[2], 0, size)
                _add(left, star, column, row, before[2], 0, size)
                column, row = _place(image, step, total, found[k, 0], found[k, 1], work, weights, star)
                _add(light, star, column, row, found[k, 2], 0, size)
                _add(left, star, column, row, -found[k, 2], 0, size)
            if sweep % 3 == 2 and searched < SEARCHES and added:
                new = _search(left, good[s], light, sky[s], photons, middle, fwhm, found, count)
                searched += 1
                added = new > count
                for k in range(count, new):
                    column, row = _place(image, step, total, found[k, 0], found[k, 1], work, weights, star)
                    _add(light, star, column, row, found[k, 2], 0, size)
                count = new
        column, row = _place(image, step, total, found[0, 0], found[0, 1], work, weights, star)
        _add(light, star, column, row, -found[0, 2], 0, size)
        own = np.zeros((size, size), np.float32)
        _add(own, star, column, row, found[0, 2], 0, size)
        _leave_out(light, own, data[s], sky[s], photons, found, count, fitted, fwhm, out[s], usable[s])
        for k in range(1, count):
            distance = np.sqrt((found[k, 0] - found[0, 0]) ** 2 + (found[k, 1] - found[0, 1]) ** 2)
            if distance < BLENDED * fwhm and found[k, 2] > BLEND * found[0, 2]:
                clean[s] = False
        counts[s] = count
