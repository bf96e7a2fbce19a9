"""From raw pixels to a Frame: masks first, then bias, dark and flat, and the variance that follows from them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.wcs import WCS
from numba import njit

from nightsift.core.errors import BlankFrame
from nightsift.core.flags import Mask
from nightsift.core.frames import FloatImage, Frame, MaskImage, Meta
from nightsift.core.parallel import over_rows

# plain numbers for the compiled pass
SATURATED, NONFINITE, DEFECT = int(Mask.SATURATED), int(Mask.NONFINITE), int(Mask.DEFECT)
_TILE = 64  # rows
MIN_GOOD_FRACTION = 0.01  # of the pixels, below which nothing can be measured


@dataclass(frozen=True, slots=True, eq=False)
class Masters:
    """Calibration frames of a unit; None where it has none.

    Attributes
    ----------
    bias : ndarray of float32, shape (ny, nx), or None
        Bias (ADU).
    dark : ndarray of float32, shape (ny, nx), or None
        Dark current, bias removed (ADU/s).
    flat : ndarray of float32, shape (ny, nx), or None
        Flat, normalised to a median of one.
    bad_pixels : ndarray of bool, shape (ny, nx), or None
        True where the detector is unreliable.
    flat_min : float
        Pixels whose flat is below it are defects.
    """

    bias: FloatImage | None = None
    dark: FloatImage | None = None
    flat: FloatImage | None = None
    bad_pixels: npt.NDArray[np.bool_] | None = None
    flat_min: float = 0.2

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the masters that exist, by name."""
        named = {"bias": self.bias, "dark": self.dark, "flat": self.flat, "bad_pixels": self.bad_pixels}
        return {name: array.shape for name, array in named.items() if array is not None}


def make_frame(
    raw: FloatImage,
    meta: Meta,
    masters: Masters | None = None,
    *,
    bayer: str = "",
    wcs: WCS | None = None,
    sky: float = 0.0,
    pedestal: float = 0.0,
) -> Frame:
    """Calibrate raw pixels and give them variance and mask.

    With d the pixel after pedestal, bias and dark, f the flat, g the gain (electron/ADU) and r the read noise
    (electron): data = d / f, variance = (max(d + dark + sky, 0) / g + (r / g)^2) / f^2. Pixels that saturate are
    found on the raw values. Of a colour camera, each 2x2 cell becomes one pixel, the mean of its four.

    Parameters
    ----------
    raw : ndarray of float32, shape (ny, nx)
        Pixels as read (ADU); NaN allowed.
    meta : Meta
        Facts of the raw frame.
    masters : Masters, optional
        Calibration frames.
    bayer : str, optional
        Colour pattern of a raw colour camera; empty for none.
    wcs : astropy.wcs.WCS, optional
        Coordinates of the resulting pixels.
    sky : float, optional
        Sky level that was removed before (ADU): its noise is still there.
    pedestal : float, optional
        Constant bias level (ADU).

    Returns
    -------
    Frame
        With `meta` of the resulting pixels: of a colour camera the pixel scale is doubled, and gain and read noise
        are those of the mean. Masked pixels without a value hold the median of the good ones.

    Raises
    ------
    BlankFrame
        If (nearly) all pixels are saturated or not finite, or all are equal.
    ValueError
        If a master has another shape.
    """
    masters = masters or Masters()
    for name, shape in masters.shapes().items():
        if shape != raw.shape:
            sizes = f"{' x '.join(map(str, shape[::-1]))} pixels, the frame {' x '.join(map(str, raw.shape[::-1]))}"
            raise ValueError(f"the master {name} has {sizes}")
    data, variance = np.empty(raw.shape, np.float32), np.empty(raw.shape, np.float32)
    mask = np.empty(raw.shape, np.uint16)
    read_variance = (meta.read_noise / meta.gain) ** 2
    levels = (masters.flat_min, meta.saturation, meta.exposure_s, pedestal, sky)
    numbers = (*levels, 1.0 / meta.gain, read_variance)
    planes = (masters.bias, masters.dark, masters.flat)
    given: list[Any] = [_plain(one, np.float32) for one in (raw, *planes)]
    given += [_plain(masters.bad_pixels, np.bool_), np.array(numbers, dtype=np.float32)]
    one_pass: Any = _calibrate
    over_rows(lambda first, last: one_pass(*given, first, last, data, variance, mask), len(raw), _TILE)
    if bayer:
        data, variance, mask = superpixels(data, variance, mask)
        # the mean of four pixels: noise of a detector with four times the gain and twice the read noise
        meta = dataclasses.replace(
            meta, gain=4.0 * meta.gain, read_noise=2.0 * meta.read_noise, pixel_scale=2.0 * meta.pixel_scale
        )
    parts: list[tuple[int, float, float, int]] = []
    over_rows(lambda first, last: parts.append(_summary(data, variance, mask, first, last)), len(data), _TILE)
    n_good, n_hollow = sum(part[0] for part in parts), sum(part[3] for part in parts)
    low, high = min(part[1] for part in parts), max(part[2] for part in parts)
    _check_structure(data, mask, meta, n_good=n_good, low=low, high=high)
    if n_hollow:
        _fill(data, variance, mask)
    return Frame(data, variance, mask, meta, wcs=wcs)


def superpixels(data: FloatImage, variance: FloatImage, mask: MaskImage) -> tuple[FloatImage, FloatImage, MaskImage]:
    """Join each 2x2 cell of a colour camera to one pixel of luminance.

    Every cell holds the same four filters, so the means form an image without a colour pattern.

    Parameters
    ----------
    data, variance : ndarray of float32, shape (ny, nx)
        Pixels and their variance.
    mask : ndarray of uint16, shape (ny, nx)
        Mask bits.

    Returns
    -------
    data, variance : ndarray of float32, shape (ny // 2, nx // 2)
        Mean of the four, and its variance.
    mask : ndarray of uint16, shape (ny // 2, nx // 2)
        Union of the four masks.
    """
    ny, nx = (length // 2 * 2 for length in data.shape)
    quarters = [(slice(j, ny, 2), slice(i, nx, 2)) for j in (0, 1) for i in (0, 1)]
    mean, var, union = data[quarters[0]].copy(), variance[quarters[0]].copy(), mask[quarters[0]].copy()
    for quarter in quarters[1:]:
        mean += data[quarter]
        var += variance[quarter]
        union |= mask[quarter]
    mean *= np.float32(0.25)
    var *= np.float32(0.0625)
    return mean, var, union


def _plain(array: npt.NDArray[Any] | None, dtype: Any) -> npt.NDArray[Any]:
    """An array of the one kind that the compiled pass is made for; an empty one where there is none."""
    return np.zeros((0, 0), dtype) if array is None else np.require(array, dtype, ["C", "W"])


@njit(cache=True, nogil=True)
def _calibrate(
    raw: FloatImage,
    bias: FloatImage,
    dark: FloatImage,
    flat: FloatImage,
    bad: npt.NDArray[np.bool_],
    numbers: FloatImage,
    first: int,
    last: int,
    data: FloatImage,
    variance: FloatImage,
    mask: MaskImage,
) -> None:
    """One pass over some rows, step by step along each; NaN is looked for, so no fastmath."""
    flat_min, saturation, exposure, pedestal, sky, inverse_gain, read_variance = numbers
    tiny = np.float32(1e-12)
    zero = np.float32(0.0)
    for j in range(first, last):
        line, level, noise, bits = raw[j], data[j], variance[j], mask[j]
        for i in range(len(line)):
            finite = line[i] - line[i] == zero
            bits[i] = (SATURATED if line[i] >= saturation else 0) | (0 if finite else NONFINITE)
            level[i] = line[i] - pedestal
        if bias.size:
            for i in range(len(line)):
                level[i] -= bias[j, i]
        for i in range(len(line)):  # of what fell on the pixel, dark current included
            noise[i] = max(level[i] + sky, zero) * inverse_gain + read_variance
        if dark.size:
            for i in range(len(line)):
                level[i] -= dark[j, i] * exposure
        if flat.size:
            for i in range(len(line)):
                response = flat[j, i] if flat[j, i] > flat_min else np.float32(1.0)
                bits[i] |= 0 if flat[j, i] > flat_min else DEFECT
                level[i] /= response
                noise[i] /= response * response
        if bad.size:
            for i in range(len(line)):
                bits[i] |= DEFECT if bad[j, i] else 0
        for i in range(len(line)):  # a pixel may lack a value because a master does
            bits[i] |= DEFECT if level[i] - level[i] != zero and bits[i] == 0 else 0
            noise[i] = max(noise[i], tiny)


@njit(cache=True, nogil=True)
def _summary(
    data: FloatImage, variance: FloatImage, mask: MaskImage, first: int, last: int
) -> tuple[int, float, float, int]:
    """Number of good pixels, their extremes, and the number of pixels without a value, of some rows."""
    n_good, n_hollow = 0, 0
    low, high = np.float32(np.inf), np.float32(-np.inf)
    for j in range(first, last):
        line, noise, bits = data[j], variance[j], mask[j]
        good, hollow = 0, 0
        for i in range(len(line)):
            whole = (line[i] - line[i]) + (noise[i] - noise[i]) == np.float32(0.0)
            good += 1 if bits[i] == 0 else 0
            hollow += 1 if bits[i] != 0 and not whole else 0
            low = min(low, line[i] if bits[i] == 0 else np.float32(np.inf))
            high = max(high, line[i] if bits[i] == 0 else np.float32(-np.inf))
        n_good += good
        n_hollow += hollow
    return n_good, float(low), float(high), n_hollow


def _check_structure(data: FloatImage, mask: MaskImage, meta: Meta, *, n_good: int, low: float, high: float) -> None:
    where = meta.path or meta.exposure_id
    if n_good == 0 or n_good < MIN_GOOD_FRACTION * data.size:
        bits = (Mask.NONFINITE, Mask.SATURATED, Mask.DEFECT)
        counts = {bit.name: int(np.count_nonzero(mask & bit.value)) for bit in bits}
        shares = ", ".join(f"{count / data.size:.1%} {name}" for name, count in counts.items() if count)
        raise BlankFrame(where=where, what=f"only {n_good} of {data.size} pixels are good ({shares})")
    if low == high:
        raise BlankFrame(where=where, what=f"all its good pixels have the value {low:g}")


def _fill(data: FloatImage, variance: FloatImage, mask: MaskImage) -> None:
    """Give pixels without a value the median of the good ones, so that they cannot spoil what touches them."""
    hollow = ~(np.isfinite(data) & np.isfinite(variance))
    step = 4 if (mask[::4, ::4] == 0).any() else 1
    sample = mask[::step, ::step] == 0
    data[hollow] = np.median(data[::step, ::step][sample])
    variance[hollow] = np.median(variance[::step, ::step][sample])
