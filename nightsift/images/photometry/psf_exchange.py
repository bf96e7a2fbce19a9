"""Our PSF as a PSF model of photutils, and theirs as ours; files of PSF grids as photutils and STPSF write them.

Both conventions are the same: a sample is the light in a whole pixel, at an offset from the star, and a stride of the
oversampling sums to the light within the image. What lies beyond the image is the wings of ours; theirs know it as a
sum below one.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nightsift.core.psf import Psf, polynomial_terms
from nightsift.images.photometry.psf_grid import LANCZOS, shift_psf

if TYPE_CHECKING:
    from photutils.psf import GriddedPSFModel

Values = npt.NDArray[np.float64]

OVERSAMPLING = 4
"""Samples a pixel of a model for photutils, whose splines need them."""

FINE_BELOW = 2.6
"""FWHM (pixel) below which a PSF of ours needs more than one sample a pixel, and how many."""

FINE = 3

FOLLOWED = 1e-3
"""Error, as a part of the peak, with which grid and polynomials follow each other where they can."""

REFUSED = 0.03
"""Error beyond which a model is refused: no polynomial that its grid determines follows it."""

MOST_NODES, HIGHEST, LARGEST_HALF = 33, 5, 60


def to_photutils(psf: Psf, shape: tuple[int, int] | None = None) -> GriddedPSFModel:
    """Return a PSF as a PSF model of photutils.

    Parameters
    ----------
    psf : Psf
        The PSF of a frame or of a difference.
    shape : tuple of int, optional
        ``(ny, nx)`` over which the grid spreads; the shape of the PSF's frame if not given.

    Returns
    -------
    photutils.psf.GriddedPSFModel
        With as many nodes as make its bilinear interpolation follow the polynomial to a thousandth of the peak (at
        most 33 a side), each sampled four times a pixel by the interpolation that our own PSF fluxes use. Its flux is
        the total one, light beyond the image included.

    Examples
    --------
    Measure the sources of a difference with photutils:

    >>> model = to_photutils(difference.psf)  # doctest: +SKIP
    >>> model.x_0.fixed = model.y_0.fixed = True  # doctest: +SKIP
    >>> fit = PSFPhotometry(model, fit_shape=(15, 15))  # doctest: +SKIP
    >>> error = np.sqrt(difference.variance)  # doctest: +SKIP
    >>> fit(difference.data, error=error, mask=difference.mask > 0, init_params=positions)  # doctest: +SKIP
    """
    from astropy.nddata import NDData
    from photutils.psf import GriddedPSFModel

    ny, nx = psf.shape if shape is None else shape
    sides = 1 if psf.order == 0 else 2
    while True:
        xs, ys = _spread(nx, sides), _spread(ny, sides)
        nodes = np.stack([psf.at(float(x), float(y)) for y in ys for x in xs])
        if sides == 1 or 2 * sides - 1 > MOST_NODES or _interpolation_error(psf, nodes, xs, ys=ys) <= FOLLOWED:
            break
        sides = 2 * sides - 1
    places = [(float(x), float(y)) for y in ys for x in xs]
    images = np.stack([_resampled(psf, *place) for place in places])
    return GriddedPSFModel(NDData(images, meta={"grid_xypos": places, "oversampling": OVERSAMPLING}))


def from_photutils(model: Any, shape: tuple[int, int]) -> Psf:
    """Return a PSF model of photutils as a PSF.

    Parameters
    ----------
    model : photutils.psf.GriddedPSFModel, photutils.psf.ImagePSF or another model with flux, x_0 and y_0
        The model; the light of a star of unit flux, as photutils asks for. One of the instantaneous light (such as
        ``MoffatPSF``) must be integrated over pixels first; ``CircularGaussianPRF`` is.
    shape : tuple of int
        ``(ny, nx)`` of the frame that it belongs to.

    Returns
    -------
    Psf
        With polynomials of the lowest order that follows the nodes of a grid to a thousandth of the peak; where the
        sum of an image is below one, the rest is its wings.

    Raises
    ------
    ValueError
        If the model is none of a star, its flux is not near one, or its grid varies in a way that no polynomial
        follows.
    """
    if not {"flux", "x_0", "y_0"} <= set(getattr(model, "param_names", ())):
        raise ValueError(f"a PSF model of photutils has flux, x_0 and y_0; got {type(model).__name__}")
    half = _half_of(model)
    places = _nodes_of(model, shape)
    middle = _drawn(model, (float(places[:, 0].mean()), float(places[:, 1].mean())), half, step=8)
    fwhm = float(2.0 * np.sqrt((middle > 0.5 * middle.max()).sum() / np.pi) / 8)
    k = FINE if fwhm < FINE_BELOW else 1
    images = np.stack([_drawn(model, (float(x), float(y)), half, step=k) for x, y in places])
    light = images[:, ::k, ::k].sum(axis=(1, 2))
    if not (light.min() > 0.5 and light.max() < 1.05):
        raise ValueError(
            f"a PSF model of unit flux holds 0.5 to 1.05 of the light in its image, got {light.min():.4g} to "
            f"{light.max():.4g}; photutils wants images that sum to the product of their oversampling factors"
        )
    wings = float(np.clip(1.0 - np.median(light), 0.0, 0.49))
    terms, order = _polynomials(images / light[:, None, None] * (1.0 - wings), places, shape)
    coarse, fine = (terms, None) if k == 1 else (np.ascontiguousarray(terms[:, ::k, ::k]), terms)
    return Psf(coarse, order, shape, fwhm, wings, fine)


def write_psf(path: str | Path, psf: Psf) -> Path:
    """Write a PSF as a FITS file of a grid, as STPSF does.

    Parameters
    ----------
    path : str or Path
        The file; one that is there is replaced.
    psf : Psf
        The PSF.

    Returns
    -------
    Path
        The file, which ``photutils.psf.GriddedPSFModel.read(path, format="webbpsf")`` reads.
    """
    from astropy.io import fits

    model = to_photutils(psf)
    header = fits.Header()
    header["OVERSAMP"] = (OVERSAMPLING, "samples a pixel along each axis")
    header["NUM_PSFS"] = (len(model.data), "positions")
    for k, (x, y) in enumerate(model.grid_xypos):
        # The reader takes the first number for x, whatever the name of the card says.
        header[f"DET_YX{k}"] = (f"({x}, {y})", "position (pixel)")
    fits.PrimaryHDU(np.asarray(model.data, dtype=np.float32), header).writeto(path, overwrite=True)
    return Path(path)


def read_psf(path: str | Path, shape: tuple[int, int]) -> Psf:
    """Read a FITS file of a PSF grid (STDPSF, WebbPSF or STPSF, or one of ours).

    Parameters
    ----------
    path : str or Path
        The file.
    shape : tuple of int
        ``(ny, nx)`` of the frame that it belongs to.

    Returns
    -------
    Psf
        The PSF (`from_photutils`).

    Raises
    ------
    ValueError
        If the file holds no grid that photutils knows, or one that cannot be taken (`from_photutils`).
    """
    from astropy.io.registry import IORegistryError
    from photutils.psf import GriddedPSFModel

    try:
        model = GriddedPSFModel.read(str(path))
    except IORegistryError:
        raise ValueError(f"{path} is no PSF grid that photutils reads: a STDPSF, WebbPSF or STPSF file") from None
    return from_photutils(model, shape)


def _spread(length: int, count: int) -> Values:
    return np.linspace(0.0, length - 1.0, count) if count > 1 else np.array([(length - 1) / 2.0])


def _interpolation_error(psf: Psf, nodes: npt.NDArray[np.float32], xs: Values, *, ys: Values) -> float:
    """Largest error at the middles of the cells, as a part of the peak."""
    grid = nodes.reshape(len(ys), len(xs), psf.size, psf.size)
    worst = 0.0
    for j in range(len(ys) - 1):
        for i in range(len(xs) - 1):
            true = psf.at(float(xs[i : i + 2].mean()), float(ys[j : j + 2].mean()))
            worst = max(worst, float(np.abs(grid[j : j + 2, i : i + 2].mean(axis=(0, 1)) - true).max() / true.max()))
    return worst


def _resampled(psf: Psf, x: float, y: float) -> Values:
    """PSF at a position, `OVERSAMPLING` samples a pixel."""
    size, fine = psf.size, OVERSAMPLING * (psf.size - 1) + 1
    image, out = psf.fine_at(x, y), np.zeros((fine, fine))
    work, weights = np.empty((len(image), size), np.float32), np.empty(2 * LANCZOS + 1)
    star = np.empty((size, size), np.float32)
    for b in range(OVERSAMPLING):
        for a in range(OVERSAMPLING):
            # A star moved by -a/k has its samples at whole pixels at offsets of a/k.
            i, j = (part if part <= OVERSAMPLING // 2 else part - OVERSAMPLING for part in (a, b))
            move = (-i / OVERSAMPLING, -j / OVERSAMPLING)
            shift_psf(image, psf.oversampling, 1.0 - psf.wings, *move, work, weights, star)
            rows, columns = (np.arange(size) * OVERSAMPLING + part for part in (j, i))
            inside = np.ix_((rows >= 0) & (rows < fine), (columns >= 0) & (columns < fine))
            out[np.ix_(rows[(rows >= 0) & (rows < fine)], columns[(columns >= 0) & (columns < fine)])] = star[inside]
    return out


def _half_of(model: Any) -> int:
    """Half width (pixel) of the image of a model: what its samples cover."""
    data = getattr(model, "data", None)
    if data is None:
        (low, high), _ = model.bounding_box.bounding_box()
        return int(np.clip(np.ceil((high - low) / 2.0), 5, LARGEST_HALF))
    step = np.broadcast_to(np.asarray(model.oversampling), (2,))
    widths = (np.array(np.shape(data)[-2:]) - 1) / 2.0 / step
    return int(np.clip(np.floor(widths.min() + 1e-9), 1, LARGEST_HALF))


def _nodes_of(model: Any, shape: tuple[int, int]) -> Values:
    places = getattr(model, "grid_xypos", None)
    middle = [[(shape[1] - 1) / 2.0, (shape[0] - 1) / 2.0]]
    return np.atleast_2d(np.asarray(middle if places is None or len(places) == 1 else places, dtype=np.float64))


def _drawn(model: Any, place: tuple[float, float], half: int, *, step: int) -> Values:
    """Star of unit flux at a position, `step` samples a pixel."""
    offsets = np.arange(-half * step, half * step + 1) / step
    x, y = np.meshgrid(place[0] + offsets, place[1] + offsets)
    star = model.copy()
    star.flux, star.x_0, star.y_0 = 1.0, place[0], place[1]
    return np.asarray(star(x, y), dtype=np.float64)


def _polynomials(images: Values, places: Values, shape: tuple[int, int]) -> tuple[npt.NDArray[np.float32], int]:
    """Polynomial images of the lowest order that follows images at positions."""
    flat, peak, error = images.reshape(len(images), -1), float(images.max()), np.inf
    for order in range(HIGHEST + 1):
        design = polynomial_terms(places[:, 0], places[:, 1], shape, order)
        if order > 0 and np.linalg.matrix_rank(design) < design.shape[1]:
            break
        fitted = np.linalg.lstsq(design, flat, rcond=None)[0]
        error = float(np.abs(design @ fitted - flat).max()) / peak
        best = fitted.reshape(-1, *images.shape[1:]).astype(np.float32), order
        if error <= FOLLOWED:
            break
    if error > REFUSED:
        raise ValueError(
            f"the PSF grid of {len(places)} positions varies by more than polynomials follow: {error:.1%} of the peak "
            f"is left, at most {REFUSED:.0%} allowed; give a finer grid, or the part of it that the frame covers"
        )
    return best
