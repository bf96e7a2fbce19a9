"""The PSF of a frame evaluated once on a coarse grid, and shifted to sub-pixel positions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit

from nightsift.frames import FloatImage
from nightsift.psf import Psf

# Half-width of the Lanczos kernel that shifts a PSF; wide, because PSFs of small telescopes are undersampled.
LANCZOS = 5


@dataclass(frozen=True, slots=True, eq=False)
class PsfGrid:
    """PSF images at the nodes of a coarse grid over the frame.

    Attributes
    ----------
    images : ndarray of float32, shape (n_nodes, size, size)
        Each normalised to a sum of one.
    columns, rows : int
        Number of nodes along x and y.
    shape : tuple of int
        ``(ny, nx)`` of the frame.
    """

    images: FloatImage
    columns: int
    rows: int
    shape: tuple[int, int]

    def nodes(self, x: npt.ArrayLike, y: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Index of the node nearest to each position.

        Parameters
        ----------
        x, y : ndarray, shape (n,)
            Positions (pixel).

        Returns
        -------
        ndarray of int64, shape (n,)
            Index into `images`.
        """
        column = np.clip(np.asarray(x) * self.columns / self.shape[1], 0, self.columns - 1).astype(np.int64)
        row = np.clip(np.asarray(y) * self.rows / self.shape[0], 0, self.rows - 1).astype(np.int64)
        return np.asarray(row * self.columns + column, dtype=np.int64)


def psf_grid(psf: Psf, shape: tuple[int, int], step: int = 256) -> PsfGrid:
    """Evaluate a PSF at the centres of cells of about `step` pixels.

    Parameters
    ----------
    psf : Psf
        The PSF.
    shape : tuple of int
        ``(ny, nx)`` of the frame.
    step : int, optional
        Width of a cell (pixel); a constant PSF gets one cell.

    Returns
    -------
    PsfGrid
        The images.
    """
    rows, columns = (1, 1) if psf.order == 0 else (max(1, round(n / step)) for n in shape)
    images = [
        psf.at((column + 0.5) * shape[1] / columns - 0.5, (row + 0.5) * shape[0] / rows - 0.5)
        for row in range(rows)
        for column in range(columns)
    ]
    return PsfGrid(np.ascontiguousarray(images, dtype=np.float32), columns, rows, shape)


@njit(cache=True, nogil=True)
def _lanczos_weights(shift: float, out: npt.NDArray[np.float64]) -> None:
    """Weights at offsets ``-LANCZOS .. LANCZOS`` of an image moved by `shift` (within half a pixel), sum one."""
    total = 0.0
    for i in range(2 * LANCZOS + 1):
        t = i - LANCZOS - shift
        if abs(t) >= LANCZOS:
            value = 0.0
        elif abs(t) < 1e-9:
            value = 1.0
        else:
            a = math.pi * t
            value = LANCZOS * math.sin(a) * math.sin(a / LANCZOS) / (a * a)
        out[i] = value
        total += value
    for i in range(2 * LANCZOS + 1):
        out[i] /= total


@njit(cache=True, nogil=True, fastmath=True)
def shift_psf(
    image: FloatImage, dx: float, dy: float, work: FloatImage, weights: npt.NDArray[np.float64], out: FloatImage
) -> None:
    """Move a PSF image and normalise it to a sum of one.

    Separable Lanczos interpolation; pixels outside the image count as zero.

    Parameters
    ----------
    image : ndarray of float32, shape (size, size)
        The PSF.
    dx, dy : float
        Shift (pixel), each within half a pixel.
    work : ndarray of float32, shape (size, size)
        Overwritten.
    weights : ndarray of float64, shape (2 LANCZOS + 1,)
        Overwritten.
    out : ndarray of float32, shape (size, size)
        Receives the shifted PSF.
    """
    size = image.shape[0]
    _lanczos_weights(dx, weights)
    for j in range(size):
        for i in range(size):
            first = max(0, i - LANCZOS)
            last = min(size, i + LANCZOS + 1)
            total = np.float32(0.0)
            for k in range(first, last):
                total += image[j, k] * np.float32(weights[i - k + LANCZOS])
            work[j, i] = total
    _lanczos_weights(dy, weights)
    whole = 0.0
    for j in range(size):
        out[j, :] = np.float32(0.0)
        for k in range(max(0, j - LANCZOS), min(size, j + LANCZOS + 1)):
            weight = np.float32(weights[j - k + LANCZOS])
            for i in range(size):
                out[j, i] += work[k, i] * weight
        for i in range(size):
            whole += out[j, i]
    scale = np.float32(1.0 / whole)
    for j in range(size):
        for i in range(size):
            out[j, i] *= scale
