"""The PSF of a frame evaluated once on a coarse grid, and shifted to sub-pixel positions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit

from nightsift.core.frames import FloatImage
from nightsift.core.psf import Psf, polynomial_terms

# Half-width of the Lanczos kernel that shifts a PSF; wide, because PSFs of small telescopes are undersampled.
LANCZOS = 5


@dataclass(frozen=True, slots=True, eq=False)
class PsfGrid:
    """PSF images at the nodes of a coarse grid over the frame.

    Attributes
    ----------
    images : ndarray of float32, shape (n_nodes, size, size)
        Each normalised to the light within it.
    columns, rows : int
        Number of nodes along x and y.
    shape : tuple of int
        ``(ny, nx)`` of the frame.
    size : int
        Width of the PSF (pixel).
    step : int
        Samples a pixel of `images`.
    total : float
        Light within the image of a star of unit flux.
    """

    images: FloatImage
    columns: int
    rows: int
    shape: tuple[int, int]
    size: int
    step: int
    total: float

    def nodes(self, x: npt.ArrayLike, y: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Return the index into `images` of the node nearest to each position (pixel), int64 of shape (n,)."""
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
    y, x = np.mgrid[:rows, :columns].reshape(2, -1)
    places = (x + 0.5) * shape[1] / columns - 0.5, (y + 0.5) * shape[0] / rows - 0.5
    terms = psf.terms if psf.fine is None else psf.fine
    weights = polynomial_terms(*places, psf.shape, psf.order).astype(np.float32)
    images = (weights @ terms.reshape(len(terms), -1)).reshape(-1, *terms.shape[1:])
    k, total = psf.oversampling, 1.0 - psf.wings
    images *= (total / images[:, ::k, ::k].sum(axis=(1, 2), dtype=np.float64)).astype(np.float32)[:, None, None]
    return PsfGrid(images, columns, rows, shape, psf.size, k, total)


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
    image: FloatImage,
    step: int,
    total: float,
    dx: float,
    dy: float,
    work: FloatImage,
    weights: npt.NDArray[np.float64],
    out: FloatImage,
) -> None:
    """Move a PSF image and normalise it to the light within it.

    Separable Lanczos interpolation; pixels outside the image count as zero.

    Parameters
    ----------
    image : ndarray of float32, shape (step (size - 1) + 1, step (size - 1) + 1)
        The PSF.
    step : int
        Samples a pixel.
    total : float
        Light within the image.
    dx, dy : float
        Shift (pixel), each within half a pixel.
    work : ndarray of float32, shape (step (size - 1) + 1, size)
        Overwritten.
    weights : ndarray of float64, shape (2 LANCZOS + 1,)
        Overwritten.
    out : ndarray of float32, shape (size, size)
        Receives the shifted PSF.
    """
    size, fine = out.shape[0], image.shape[0]
    if dx == 0.0 and dy == 0.0:
        for j in range(size):
            for i in range(size):
                out[j, i] = image[j * step, i * step]
        return
    whole_x = math.floor(-dx * step + 0.5)
    _lanczos_weights(-dx * step - whole_x, weights)
    for j in range(fine):
        for i in range(size):
            middle = i * step + whole_x
            total_x = np.float32(0.0)
            for k in range(max(0, middle - LANCZOS), min(fine, middle + LANCZOS + 1)):
                total_x += image[j, k] * np.float32(weights[k - middle + LANCZOS])
            work[j, i] = total_x
    whole_y = math.floor(-dy * step + 0.5)
    _lanczos_weights(-dy * step - whole_y, weights)
    seen = 0.0
    for j in range(size):
        middle = j * step + whole_y
        out[j, :] = np.float32(0.0)
        for k in range(max(0, middle - LANCZOS), min(fine, middle + LANCZOS + 1)):
            weight = np.float32(weights[k - middle + LANCZOS])
            for i in range(size):
                out[j, i] += work[k, i] * weight
        for i in range(size):
            seen += out[j, i]
    scale = np.float32(total / seen)
    for j in range(size):
        for i in range(size):
            out[j, i] *= scale
