"""Sky background: a smooth surface under the sources, and a variance that agrees with the noise really seen."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
from numba import njit
from scipy import ndimage

from nightsift.core.errors import BlankFrame
from nightsift.core.flags import Mask
from nightsift.core.frames import FloatImage, Frame, MaskImage
from nightsift.core.parallel import over_rows
from nightsift.core.robust import mad_sigma
from nightsift.images.background.mesh import Surface, evaluate, fit_surface

BoolImage = npt.NDArray[np.bool_]

_BIN = 4  # px; sources are found on an image binned this much: wings and galaxies stand out of the noise there
_WIDE = 4  # cells over which the first mesh is averaged, so that it follows galaxies less
_SKIP = np.uint16(~Mask.BRIGHT_STAR.value & 0xFFFF)  # halos are handled by the source mask, not thrown away
_LARGE = 64  # binned pixels; from there on a source is grown by half its radius
_HIDDEN = np.uint16(1)  # mark of a binned pixel with too few usable ones
_SAMPLES = 1e6  # pixels on which the noise is measured


def subtract_background(frame: Frame, mesh: int = 128) -> Frame:
    """Subtract a smooth sky background and make the variance agree with the noise of the sky.

    Two passes of a clipped, filtered mesh (Bertin & Arnouts 1996, section 3). The first, on the binned image and
    averaged over many cells, serves to find sources; these are masked for the second, so that galaxies and bright
    stars as large as a mesh are not taken for sky. The second measures what the first has left: the sky may be steep.

    Parameters
    ----------
    frame : Frame
        Frame with its sky (ADU), or one from which the sky was already subtracted.
    mesh : int, optional
        Width of a mesh cell (pixel), about; made smaller on frames with fewer than two cells a side.

    Returns
    -------
    Frame
        Same mask; `data` without background, `sky` the median of the background subtracted (ADU), `variance`
        raised where the sky is noisier than it says, never lowered.

    Raises
    ------
    BlankFrame
        If no pixel is usable, or if all of them hold the same value.
    """
    cell = max(8, min(mesh, min(frame.shape) // 2))
    small, hidden = _checked_bins(frame)
    stride = 1 if small.size < 1e6 else 2
    wide = fit_surface(small, hidden, _HIDDEN, cell=max(2, cell // _BIN), stride=stride, reach=_WIDE)
    rows, columns = (np.arange(size) for size in small.shape)
    sources = _sources(small - wide.at(rows, columns), hidden == 0)
    stride = 2 if cell >= 64 else 1
    trend = dataclasses.replace(wide, shape=frame.shape)
    surface = fit_surface(
        frame.data, frame.mask, _SKIP, cell=cell, stride=stride, sources=sources, binning=_BIN, trend=trend
    )
    sky, factor, extra = _sky_and_noise(frame, surface, sources)
    data = np.empty_like(frame.data)
    changed = factor != 1.0 or extra != 0.0
    variance = np.empty_like(frame.variance) if changed else frame.variance

    def band(first: int, last: int) -> None:
        pieces = surface.pieces(np.arange(first, last))
        _subtract(frame.data, pieces, first, data)
        if changed:
            np.multiply(frame.variance[first:last], np.float32(factor), out=variance[first:last])
            variance[first:last] += np.float32(extra)

    over_rows(band, frame.shape[0], 64)
    return frame.replace(data=data, variance=variance, sky=sky)


def find_sources(flat: FloatImage, bad: BoolImage) -> BoolImage:
    """Return True on sources: pixels connected, well above the noise, to a core that is clearly a source.

    `flat` is the image without its large-scale background; no pixel that is `bad` is used. In a crowded frame the limit
    rises until half of the pixels stay free; where it cannot, nothing is masked and clipping by the mesh has to do.
    """
    small, hidden, _, _, _ = _binned(np.ascontiguousarray(flat), bad.astype(np.uint16))
    large = np.repeat(np.repeat(_sources(small, hidden == 0), _BIN, axis=0), _BIN, axis=1)
    return np.pad(large, [(0, full - part) for full, part in zip(flat.shape, large.shape, strict=True)], mode="edge")


def _sources(small: FloatImage, free: BoolImage) -> BoolImage:
    """Sources on a binned image without its large-scale background."""
    nothing = np.zeros(small.shape, dtype=np.bool_)
    step = max(1, int(np.sqrt(small.size / 5e5)))
    values = small[::step, ::step][free[::step, ::step]]
    if values.size < 16:
        return nothing
    centre = float(np.median(values))
    sigma = mad_sigma(values, centre)
    if not sigma > 0.0:
        return nothing
    for threshold in (2.5, 4.0, 8.0, 16.0):
        labels, count = ndimage.label((small > centre + threshold * sigma) & free)
        # A gradient that the mesh has not followed has no core; a star or galaxy has.
        core = np.zeros(count + 1, dtype=np.bool_)
        core[labels[(small > centre + max(8.0, threshold) * sigma) & free]] = True
        core[0] = False
        grown = np.asarray(ndimage.binary_dilation(core[labels], iterations=2), dtype=np.bool_)
        if grown.mean() < 0.5:
            return _with_wings(grown, labels, core)
    return nothing


def _with_wings(grown: BoolImage, labels: npt.NDArray[np.int32], core: BoolImage) -> BoolImage:
    """Grow large sources by half their radius: what they hold below the limit adds up over a cell of the mesh."""
    area = np.bincount(labels.ravel(), minlength=len(core))
    boxes = ndimage.find_objects(labels)
    wide = grown.copy()
    for number in np.flatnonzero(core & (area > _LARGE)):
        reach = int(np.ceil(0.5 * np.sqrt(area[number] / np.pi)))
        place = tuple(slice(max(0, side.start - reach), side.stop + reach) for side in boxes[number - 1])
        wide[place] |= ndimage.distance_transform_edt(labels[place] != number) <= reach
    return wide if wide.mean() < 0.5 else grown


def _sky_and_noise(frame: Frame, surface: Surface, sources: BoolImage) -> tuple[float, float, float]:
    """Median of the surface, and what the variance is to be multiplied with and raised by to be that of free sky.

    Where the sky level accounts for most of the variance expected, the gain is at fault and the variance is scaled.
    Where it does not, as in frames that come with their sky subtracted, the noise of the missing sky is added:
    scaling would then make stars far too noisy.
    """
    step = max(1, int(np.sqrt(frame.data.size / _SAMPLES)))
    rows, columns = (np.arange(0, size, step) for size in frame.shape)
    level = surface.at(rows, columns)
    sky = float(np.median(level))
    lattice = np.ix_(np.minimum(rows // _BIN, sources.shape[0] - 1), np.minimum(columns // _BIN, sources.shape[1] - 1))
    free = ((frame.mask[::step, ::step] & _SKIP) == 0) & ~sources[lattice]
    if int(free.sum()) < 64:
        return sky, 1.0, 0.0
    values = (frame.data[::step, ::step] - level)[free]
    expected = float(np.median(frame.variance[::step, ::step][free]))
    centre, low = (float(one) for one in np.percentile(values, (50.0, 15.8655)))
    # Stars too faint to be masked widen the bright side; they cancel in a difference and are no noise.
    seen = min(mad_sigma(values, centre), centre - low) ** 2
    if not seen > expected:
        return sky, 1.0, 0.0
    if sky / frame.meta.gain > 0.5 * expected:
        return sky, seen / expected, 0.0
    return sky, 1.0, seen - expected


def _checked_bins(frame: Frame) -> tuple[FloatImage, MaskImage]:
    """Binned image and its mask of a frame that is not blank."""
    where = frame.meta.path or frame.meta.exposure_id
    small, hidden, number, low, high = _binned(frame.data, frame.mask & _SKIP)
    if number < 64:
        raise BlankFrame(where=where, what=f"{number} of {frame.mask.size} pixels are usable")
    if low == high:
        raise BlankFrame(where=where, what=f"all {number} usable pixels hold the value {low:g}")
    return small, hidden


def _binned(data: FloatImage, mask: MaskImage) -> tuple[FloatImage, MaskImage, int, float, float]:
    """Mean over the good pixels of blocks, its mask, and number and extremes of the good pixels.

    Rows and columns left over at the end join no block.
    """
    shape = (max(1, data.shape[0] // _BIN), max(1, data.shape[1] // _BIN))
    small, hidden = np.empty(shape, dtype=np.float32), np.empty(shape, dtype=np.uint16)
    found: list[tuple[int, float, float]] = []
    over_rows(lambda first, last: found.append(_bin(data, mask, first, last, small, hidden)), shape[0], 8)
    number, low, high = zip(*found, strict=True)
    return small, hidden, sum(number), min(low), max(high)


@njit(cache=True, nogil=True)
def _bin(
    data: FloatImage, mask: MaskImage, first: int, last: int, small: FloatImage, hidden: MaskImage
) -> tuple[int, float, float]:
    number, low, high = 0, np.float32(np.inf), np.float32(-np.inf)
    ny, nx = data.shape
    width = small.shape[1]
    total, used = np.empty(width, np.float32), np.empty(width, np.int32)
    for j in range(first, last):
        total[:], used[:] = 0.0, 0
        end = ny if j == small.shape[0] - 1 else (j + 1) * _BIN
        for y in range(j * _BIN, end):
            row, bits = data[y], mask[y]
            for x in range(nx):
                if bits[x] == 0:
                    value, i = row[x], x // _BIN
                    number += 1
                    low, high = min(low, value), max(high, value)
                    if i < width and y < (j + 1) * _BIN:
                        total[i] += value
                        used[i] += 1
        for i in range(width):
            enough = 2 * used[i] > _BIN * _BIN
            small[j, i] = total[i] / np.float32(used[i]) if enough else np.float32(0.0)
            hidden[j, i] = 0 if enough else _HIDDEN
    return number, float(low), float(high)


@njit(cache=True, nogil=True, fastmath={"contract", "nsz"})
def _subtract(data: FloatImage, pieces: npt.NDArray[np.float32], first: int, out: FloatImage) -> None:
    level = np.empty(data.shape[1], np.float32)
    for k in range(len(pieces)):
        evaluate(pieces[k], level)
        row, target = data[first + k], out[first + k]
        for x in range(len(row)):
            target[x] = row[x] - level[x]
