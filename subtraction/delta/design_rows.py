"""The reference under a kernel at scattered pixels: convolved there, or as rows of a design matrix.

See docs/algorithms.md, section 14.
"""

from __future__ import annotations

import numba as nb
import numpy as np


@nb.njit(cache=True, nogil=True, fastmath=True)
def convolve_at(flat, index, offsets, kernel, out):  # type: ignore[no-untyped-def]
    """Add a convolution at some pixels.

    Parameters
    ----------
    flat : ndarray of float32, shape (n_all,)
        The image, row after row.
    index : ndarray of int64, shape (n,)
        Flat indices of the pixels.
    offsets : ndarray of int64, shape (k,)
        Flat offsets of the pixels that the kernel's pixels multiply.
    kernel : ndarray of float32, shape (k,)
        The kernel.
    out : ndarray of float32, shape (n,)
        Added to.
    """
    for p in range(index.shape[0]):
        total = np.float32(0)
        base = index[p]
        for k in range(offsets.shape[0]):
            total += kernel[k] * flat[base + offsets[k]]
        out[p] += total


@nb.njit(cache=True, nogil=True)
def gather(flat, index, offsets, root, design):  # type: ignore[no-untyped-def]
    """Rows of the design matrix: the reference under the kernel, over the standard deviation of the pixel.

    Parameters
    ----------
    flat : ndarray of float32, shape (n_all,)
        The image, row after row.
    index : ndarray of int64, shape (n,)
        Flat indices of the pixels.
    offsets : ndarray of int64, shape (k,)
        Flat offsets of the pixels under the kernel.
    root : ndarray of float32, shape (n,)
        One over the standard deviation of each pixel.
    design : ndarray of float32, shape (n, k)
        Written.
    """
    n = offsets.shape[0]
    start = 0
    # Offsets come in runs of neighbours; each run is one slice of memory.
    while start < n:
        stop = start + 1
        while stop < n and offsets[stop] == offsets[stop - 1] + 1:
            stop += 1
        for p in range(index.shape[0]):
            base = index[p] + offsets[start]
            source = flat[base : base + stop - start]
            line = design[p, start:stop]
            r = root[p]
            for k in range(stop - start):
                line[k] = r * source[k]
        start = stop
