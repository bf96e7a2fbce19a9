"""Sources of an image by `sep.extract`: buffers as large as the image needs, and no image that it cannot bear.

The deblending of sep takes time in proportion to the pixels of a connected area times the sources in it. A frame whose
sky is off by some sigma is one area of millions of pixels and would take minutes to hours: areas of more than
`LARGEST_AREA` pixels are therefore one source each.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import numpy.typing as npt
import sep

from nightsift.core.errors import DetectionFailed
from nightsift.core.frames import FloatImage

# Connected pixels above the threshold beyond which an area is no longer divided.
LARGEST_AREA = 20_000

# Part of an image above the threshold from which such areas are looked for before any is divided.
CROWDED = 0.02

# Sources in one area: the default of sep, and the most that it can number (it counts in 16 bits).
_SUB_OBJECTS, _MOST_SUB_OBJECTS = 1024, 32_767

# The sizes of its buffers are globals of the library: whoever sets them must also be who extracts next.
_LOCK = threading.Lock()

Sources = npt.NDArray[np.void]
Labels = npt.NDArray[np.int32]


def segment(
    data: FloatImage,
    threshold: float,
    *,
    n_above: int,
    where: str,
    min_pixels: int = 1,
    contrast: float,
    largest_area: int = LARGEST_AREA,
    noise: FloatImage | None = None,
    mask: npt.NDArray[np.uint8] | None = None,
    kernel: FloatImage | None = None,
    clean: bool = False,
) -> tuple[Sources, Labels]:
    """Find sources, divide those that touch, and say which pixels belong to which.

    Parameters
    ----------
    data : ndarray of float32, shape (ny, nx)
        Image without background, finite.
    threshold : float
        Least value of a pixel of a source, in units of `noise` where that is given.
    n_above : int
        How many pixels exceed the threshold, for the buffers; an estimate will do.
    where : str
        What the image is, for errors.
    min_pixels : int, optional
        Least number of connected pixels.
    contrast : float
        Least part of an area's flux that a source of its own has above the saddle to its neighbour.
    largest_area : int, optional
        Connected pixels beyond which an area is one source.
    noise : ndarray of float32, shape (ny, nx), optional
        Standard deviation of each pixel.
    mask : ndarray of uint8, shape (ny, nx), optional
        Pixels that hold nothing, not 0.
    kernel : ndarray of float32, optional
        Filter to detect with; with `noise` the threshold is that of the filtered image.
    clean : bool, optional
        Whether sources are left out that the wings of a brighter one account for.

    Returns
    -------
    sources : structured ndarray
        As `sep.extract` gives them.
    labels : ndarray of int32, shape (ny, nx)
        Number of the source that a pixel belongs to, from 1 on in the order of `sources`; 0 outside of all.

    Raises
    ------
    DetectionFailed
        If sep cannot do it.
    """
    data = np.ascontiguousarray(data, dtype=np.float32)  # also of native byte order
    options: dict[str, Any] = {"minarea": min_pixels, "err": noise, "mask": mask, "filter_kernel": kernel}
    divided = {**options, "deblend_cont": contrast, "clean": clean}
    if n_above <= CROWDED * data.size:
        try:
            return _extract(data, threshold, n_above, where=where, sub_objects=_SUB_OBJECTS, **divided)
        except DetectionFailed as error:
            if "deblending overflow" not in error.facts["what"]:
                raise
    areas, within = _extract(
        data, threshold, n_above, where=where, sub_objects=1, deblend_nthresh=1, clean=False, **options
    )
    large = areas["npix"] > largest_area
    data = np.where(np.concatenate([[False], large])[within], np.float32(0.0), data) if large.any() else data
    sources, labels = _extract(data, threshold, n_above, where=where, sub_objects=_MOST_SUB_OBJECTS, **divided)
    if large.any():
        number = np.zeros(len(areas) + 1, np.int32)
        number[1:][large] = len(sources) + 1 + np.arange(large.sum())
        labels = np.where(number[within] > 0, number[within], labels)
    return np.concatenate([sources, areas[large]]), labels


def _extract(
    data: FloatImage, threshold: float, n_above: int, *, where: str, sub_objects: int, **options: Any
) -> tuple[Sources, Labels]:
    """Extract, with a longer list of pixels where one proves too short."""
    pixels = n_above + 1024
    while True:
        try:
            with _LOCK:
                return _extract_alone(data, threshold, pixels, where=where, sub_objects=sub_objects, **options)
        except DetectionFailed as error:
            if "pixel buffer full" not in error.facts["what"] or pixels > data.size:
                raise
        pixels *= 4


def _extract_alone(
    data: FloatImage, threshold: float, pixels: int, *, where: str, sub_objects: int, **options: Any
) -> tuple[Sources, Labels]:
    before = sep.get_extract_pixstack(), sep.get_sub_object_limit()
    sep.set_extract_pixstack(pixels)
    sep.set_sub_object_limit(sub_objects)
    try:
        sources, labels = sep.extract(data, threshold, segmentation_map=True, **options)
    except Exception as error:
        if type(error) is Exception:  # sep has no class of its own for what it cannot do
            raise DetectionFailed(where=where, what=str(error)) from error
        raise
    finally:
        sep.set_extract_pixstack(before[0])
        sep.set_sub_object_limit(before[1])
    return sources, labels
