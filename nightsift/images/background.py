"""Sky background: a smooth surface under the sources, and a variance that agrees with the noise really seen."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import sep
from scipy import ndimage

from nightsift.errors import BlankFrame
from nightsift.flags import Mask
from nightsift.frames import FloatImage, Frame

BoolImage = npt.NDArray[np.bool_]

_BIN = 4  # px; sources are found on an image binned this much: wings and galaxies stand out of the noise there
_FIRST_PASS = 4  # the first mesh is wider by this factor, so that it follows galaxies less
_USABLE = np.uint16(~Mask.BRIGHT_STAR.value & 0xFFFF)  # halos are handled by the source mask, not thrown away


def subtract_background(frame: Frame, mesh: int = 128) -> Frame:
    """Subtract a smooth sky background and make the variance agree with the noise of the sky.

    Two passes of a clipped, median-filtered mesh (Bertin & Arnouts 1996, section 3). The first, on a mesh four
    times wider, only serves to find sources; these are masked for the second, so that galaxies and bright stars
    as large as a mesh are not taken for sky.

    Parameters
    ----------
    frame : Frame
        Frame with its sky (ADU), or one from which the sky was already subtracted.
    mesh : int, optional
        Width of a mesh cell (pixel); made smaller on frames with fewer than two cells a side.

    Returns
    -------
    Frame
        Same mask; `data` without background, `sky` the median of the background subtracted (ADU), `variance`
        raised where the sky is noisier than it says, never lowered (see `true_variance`).

    Raises
    ------
    BlankFrame
        If no pixel is usable, or if all of them hold the same value.
    """
    bad = (frame.mask & _USABLE) != 0
    _require_structure(frame, bad)
    cell = max(8, min(mesh, min(frame.shape) // 2))
    data = np.ascontiguousarray(np.where(bad, np.float32(0.0), frame.data))
    wide = sep.Background(data, mask=bad, bw=_FIRST_PASS * cell, bh=_FIRST_PASS * cell, fw=3, fh=3)
    sources = find_sources(data - wide.back(dtype=np.float32), bad)
    final = sep.Background(data, mask=bad | sources, bw=cell, bh=cell, fw=3, fh=3)
    surface = final.back(dtype=np.float32)
    sky = float(np.median(surface[:: _BIN * 2, :: _BIN * 2]))
    flat = np.where(np.isfinite(frame.data), frame.data - surface, frame.data)
    variance = true_variance(flat, frame.variance, bad | sources, sky, frame.meta.gain)
    return frame.replace(data=flat, variance=variance, sky=sky)


def find_sources(flat: FloatImage, bad: BoolImage) -> BoolImage:
    """Mask the light of sources: what is connected, well above the noise, to a core that is clearly a source.

    Parameters
    ----------
    flat : ndarray of float32, shape (ny, nx)
        Image without its large-scale background; 0 where bad.
    bad : ndarray of bool, shape (ny, nx)
        True where a pixel must not be used.

    Returns
    -------
    ndarray of bool, shape (ny, nx)
        True on sources. In a crowded frame the limit rises until half of the pixels stay free; where that is not to
        be had, nothing is masked and the clipping of the mesh has to do.
    """
    small = _binned(np.where(bad, np.float32(0.0), flat))
    free = small[_binned(bad.astype(np.float32)) < 0.5]
    if free.size < 16:
        return np.zeros(flat.shape, dtype=np.bool_)
    centre = float(np.median(free))
    sigma = 1.4826 * float(np.median(np.abs(free - centre)))
    if not sigma > 0.0:
        return np.zeros(flat.shape, dtype=np.bool_)
    grown = np.zeros(small.shape, dtype=np.bool_)
    for threshold in (2.5, 4.0, 8.0, 16.0):
        labels, count = ndimage.label(small > centre + threshold * sigma)
        # A gradient that the mesh has not followed has no core; a star or galaxy has.
        core = ndimage.maximum(small, labels, index=np.arange(count + 1)) > centre + max(8.0, threshold) * sigma
        core[0] = False
        grown = ndimage.binary_dilation(core[labels], iterations=2)
        if grown.mean() < 0.5:
            return _unbinned(grown, flat.shape)
    return np.zeros(flat.shape, dtype=np.bool_)


def true_variance(flat: FloatImage, variance: FloatImage, excluded: BoolImage, sky: float, gain: float) -> FloatImage:
    """Raise a variance that is smaller than the noise seen on free sky.

    Where the sky level accounts for most of the variance expected, the gain is at fault and the variance is scaled.
    Where it
    does not, as in frames that come with their sky subtracted, the noise of the missing sky is added: scaling
    would then make stars far too noisy.

    Parameters
    ----------
    flat, variance : ndarray of float32, shape (ny, nx)
        Background-subtracted data (ADU) and its expected variance (ADU^2).
    excluded : ndarray of bool, shape (ny, nx)
        Sources and bad pixels.
    sky : float
        Sky level that was subtracted (ADU).
    gain : float
        Gain (electron/ADU).

    Returns
    -------
    ndarray of float32, shape (ny, nx)
        Variance; nowhere lower than before.
    """
    step = max(1, int(np.sqrt(flat.size / 4e6)))
    free = ~excluded[::step, ::step]
    if int(free.sum()) < 64:
        return variance
    values = flat[::step, ::step][free]
    expected = float(np.median(variance[::step, ::step][free]))
    centre, low = (float(one) for one in np.percentile(values, (50.0, 15.8655)))
    # Stars too faint to be masked widen the bright side; they cancel in a difference and are no noise.
    seen = min(1.4826 * float(np.median(np.abs(values - centre))), centre - low) ** 2
    if not seen > expected:
        return variance
    if sky / gain > 0.5 * expected:
        return np.asarray(variance * np.float32(seen / expected), dtype=np.float32)
    return np.asarray(variance + np.float32(seen - expected), dtype=np.float32)


def _require_structure(frame: Frame, bad: BoolImage) -> None:
    where = frame.meta.path or frame.meta.exposure_id
    good = ~bad
    n_good = int(good.sum())
    if n_good < 64:
        raise BlankFrame(where=where, what=f"{n_good} of {bad.size} pixels are usable")
    values = frame.data[good]
    if float(values.min()) == float(values.max()):
        raise BlankFrame(where=where, what=f"all {n_good} usable pixels hold the value {float(values[0]):g}")


def _binned(image: FloatImage) -> FloatImage:
    """Mean over blocks; rows and columns left over at the end join no block and repeat the last one."""
    ny, nx = (size // _BIN for size in image.shape)
    blocks = image[: ny * _BIN, : nx * _BIN].reshape(ny, _BIN, nx, _BIN)
    return np.asarray(blocks.mean(axis=(1, 3), dtype=np.float32), dtype=np.float32)


def _unbinned(small: BoolImage, shape: tuple[int, int]) -> BoolImage:
    large = np.repeat(np.repeat(small, _BIN, axis=0), _BIN, axis=1)
    return np.pad(large, ((0, shape[0] - large.shape[0]), (0, shape[1] - large.shape[1])), mode="edge")
