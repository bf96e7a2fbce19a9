"""A point-spread function that varies as a polynomial over the frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True, eq=False)
class Psf:
    """A point-spread function that varies as a polynomial over the frame.

    Attributes
    ----------
    terms : ndarray of float32, shape (n_terms, size, size)
        One image per polynomial term, ``size`` odd; terms ordered by `polynomial_terms`.
    order : int
        Order of the polynomial; 0 is a constant PSF.
    shape : tuple of int
        ``(ny, nx)`` of the frame; coordinates are scaled to [-1, 1] over it.
    fwhm : float
        Full width at half maximum at the centre (pixel).
    wings : float
        Part of the light that lies beyond the image: its sum is one less this. Negative where a filter has left a
        negative ring there.
    fine : ndarray of float32, shape (n_terms, k (size - 1) + 1, k (size - 1) + 1), or None
        For a PSF too sharp to be shifted on the pixel grid, the same sampled `k` times a pixel; each sample is still
        the light in a whole pixel. None where `terms` suffice.
    """

    terms: npt.NDArray[np.float32]
    order: int
    shape: tuple[int, int]
    fwhm: float
    wings: float = 0.0
    fine: npt.NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        n_terms = (self.order + 1) * (self.order + 2) // 2
        if not (self.terms.ndim == 3 and self.terms.shape[0] == n_terms):
            raise ValueError(
                f"a PSF of order {self.order} needs {n_terms} terms, got an array of shape {self.terms.shape}"
            )
        if not (self.terms.shape[1] == self.terms.shape[2] and self.terms.shape[1] % 2 == 1):
            raise ValueError(f"PSF images must be square with an odd size, got {self.terms.shape[1:]}")
        if not -0.5 < self.wings < 0.5:
            raise ValueError(f"the part of the light beyond the PSF image must be -0.5 to 0.5, got {self.wings}")
        if self.fine is not None:
            k = self.oversampling
            if self.fine.shape != (n_terms, k * (self.size - 1) + 1, k * (self.size - 1) + 1):
                raise ValueError(f"fine PSF images must be {k} (size - 1) + 1 wide, got {self.fine.shape}")

    @property
    def size(self) -> int:
        """Width of the PSF image (pixel)."""
        return int(self.terms.shape[1])

    @property
    def oversampling(self) -> int:
        """Samples a pixel of `fine`; 1 without it."""
        return 1 if self.fine is None else max(1, (int(self.fine.shape[1]) - 1) // max(self.size - 1, 1))

    def at(self, x: float, y: float) -> npt.NDArray[np.float32]:
        """Return the PSF centred at a position (pixel), float32 of shape (size, size); its sum is ``1 - wings``."""
        weights = polynomial_terms(np.array([x]), np.array([y]), self.shape, self.order)[0]
        image = np.tensordot(weights.astype(np.float32), self.terms, axes=1)
        return np.asarray(image * ((1.0 - self.wings) / image.sum()), dtype=np.float32)

    def fine_at(self, x: float, y: float) -> npt.NDArray[np.float32]:
        """PSF at a position, sampled `oversampling` times a pixel.

        Parameters
        ----------
        x, y : float
            Position (pixel).

        Returns
        -------
        ndarray of float32, shape (k (size - 1) + 1, k (size - 1) + 1)
            Light in a whole pixel centred at each sample; every ``k``-th sample, from the first, is that of `at`.
        """
        if self.fine is None:
            return self.at(x, y)
        k = self.oversampling
        weights = polynomial_terms(np.array([x]), np.array([y]), self.shape, self.order)[0]
        image = np.tensordot(weights.astype(np.float32), self.fine, axes=1)
        return np.asarray(image * ((1.0 - self.wings) / image[::k, ::k].sum()), dtype=np.float32)


def polynomial_terms(
    x: npt.NDArray[np.floating], y: npt.NDArray[np.floating], shape: tuple[int, int], order: int
) -> npt.NDArray[np.float64]:
    """Polynomial terms ``u**i v**j`` with ``i + j <= order``, positions scaled to [-1, 1].

    Parameters
    ----------
    x, y : ndarray, shape (n,)
        Positions (pixel).
    shape : tuple of int
        ``(ny, nx)`` of the frame.
    order : int
        Highest total power.

    Returns
    -------
    ndarray of float64, shape (n, (order + 1) (order + 2) / 2)
        Terms ordered by total power, then by the power of y: 1, u, v, u2, uv, v2, ...
    """
    u = 2.0 * np.asarray(x, dtype=np.float64) / max(shape[1] - 1, 1) - 1.0
    v = 2.0 * np.asarray(y, dtype=np.float64) / max(shape[0] - 1, 1) - 1.0
    return np.stack([u ** (total - j) * v**j for total in range(order + 1) for j in range(total + 1)], axis=1)
