"""Star fields rendered with pixel-integrated Gaussians: exact positions and fluxes, exact noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import erf

from nightsift.core.frames import Frame, Meta

Array = npt.NDArray[Any]
MakeFrame = Callable[..., Frame]


def render_stars(x: Array, y: Array, flux: Array, shape: tuple[int, int], sigma: float) -> Array:
    """Noiseless image of Gaussian stars, integrated over pixels."""
    image = np.zeros(shape, dtype=np.float64)
    reach = int(6 * sigma) + 2
    for x0, y0, f in zip(x, y, flux, strict=True):
        i = np.arange(max(0, round(x0) - reach), min(shape[1], round(x0) + reach + 1))
        j = np.arange(max(0, round(y0) - reach), min(shape[0], round(y0) + reach + 1))
        if len(i) and len(j):
            across, along = (
                0.5 * (erf((p + 0.5 - c) / sigma / 2**0.5) - erf((p - 0.5 - c) / sigma / 2**0.5))
                for p, c in ((i, x0), (j, y0))
            )
            image[j[0] : j[-1] + 1, i[0] : i[-1] + 1] += f * np.outer(along, across)
    return image


def make_meta(**changes: Any) -> Meta:
    """Plain facts of a made-up exposure."""
    facts: dict[str, Any] = {
        "unit": "made-up",
        "field": "f1",
        "band": "r",
        "night": "2026-11-20",
        "exposure_id": "made-up-1",
        "mjd": 61000.0,
        "exposure_s": 60.0,
        "gain": 1.5,
        "read_noise": 8.0,
        "saturation": 60000.0,
        "pixel_scale": 1.0,
    }
    return Meta(**(facts | changes))


@pytest.fixture
def make_frame(rng: np.random.Generator) -> MakeFrame:
    """Return a function that renders a noisy frame of stars at given positions."""

    def make(
        x: Array,
        y: Array,
        flux: Array,
        shape: tuple[int, int] = (256, 256),
        sigma: float = 1.5,
        sky: float = 300.0,
        subtracted: bool = True,
        wcs: Any = None,
        extra: Array | None = None,
        **facts: Any,
    ) -> Frame:
        meta = make_meta(**facts)
        clean = render_stars(np.atleast_1d(x), np.atleast_1d(y), np.atleast_1d(flux), shape, sigma)
        clean += sky if extra is None else sky + extra
        variance = clean / meta.gain + (meta.read_noise / meta.gain) ** 2
        data = clean + rng.normal(size=shape) * np.sqrt(variance)
        if subtracted:
            data -= sky
        return Frame(
            data.astype(np.float32),
            variance.astype(np.float32),
            np.zeros(shape, dtype=np.uint16),
            meta,
            wcs=wcs,
            sky=sky if subtracted else np.nan,
        )

    return make


@pytest.fixture
def star_list(rng: np.random.Generator) -> Callable[..., tuple[Array, Array, Array]]:
    """Return a function that draws positions and fluxes, no two stars closer than a given distance."""

    def draw(
        n: int, shape: tuple[int, int] = (256, 256), faint: float = 3.3, bright: float = 5.0, apart: float = 0.0
    ) -> tuple[Array, Array, Array]:
        kept: list[Array] = [] if apart > 0 else list(rng.uniform((8.0, 8.0), (shape[1] - 9.0, shape[0] - 9.0), (n, 2)))
        for _ in range(200 * n):
            if len(kept) >= n:
                break
            new = rng.uniform((8.0, 8.0), (shape[1] - 9.0, shape[0] - 9.0))
            if all(np.hypot(*(new - old)) > apart for old in kept):
                kept.append(new)
        x, y = np.array(kept).T
        return x, y, 10 ** rng.uniform(faint, bright, len(x))

    return draw
