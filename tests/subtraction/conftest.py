"""Synthetic pairs with known truth, drawn analytically so that no code under test makes its own test data."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from nightsift.flags import Mask
from nightsift.frames import Difference, Frame, Meta, Pair
from subtraction.masks import HARD


@dataclass(frozen=True)
class Seeing:
    """An elliptical Moffat PSF whose parameters may change over the frame."""

    fwhm: float = 3.5
    ellipticity: float = 0.0
    angle: float = 0.0
    growth: float = 0.0
    beta: float = 4.0
    dx: float = 0.0
    dy: float = 0.0

    def draw(self, x: float, y: float, shape: tuple[int, int], half: int) -> tuple[slice, slice, np.ndarray]:
        """Pixels and values (sum one over the plane) of a star at a position."""
        ny, nx = shape
        u, v = 2 * x / (nx - 1) - 1, 2 * y / (ny - 1) - 1
        fwhm = self.fwhm * (1 + self.growth * (u * u + v * v + 0.5 * u))
        x, y = x + self.dx, y + self.dy
        rows = slice(max(0, round(y) - half), min(ny, round(y) + half + 1))
        columns = slice(max(0, round(x) - half), min(nx, round(x) + half + 1))
        yy, xx = np.mgrid[rows, columns]
        c, s = np.cos(self.angle), np.sin(self.angle)
        a, b = (xx - x) * c + (yy - y) * s, -(xx - x) * s + (yy - y) * c
        q = 1.0 - self.ellipticity
        alpha = fwhm / (2 * np.sqrt(2 ** (1 / self.beta) - 1))
        r2 = (a * a * q + b * b / q) / alpha**2
        return rows, columns, (self.beta - 1) / (np.pi * alpha**2) * (1 + r2) ** -self.beta


@dataclass(frozen=True)
class Scene:
    """What is drawn and how it is observed."""

    shape: tuple[int, int] = (400, 400)
    n_stars: int = 150
    brightest: float = 60_000.0
    faintest: float = 300.0
    science: Seeing = field(default_factory=lambda: Seeing(4.2))
    template: Seeing = field(default_factory=lambda: Seeing(3.2))
    transients: tuple[tuple[float, float, float], ...] = ()
    galaxies: tuple[tuple[float, float, float, float], ...] = ()
    science_flux: float = 1.0
    template_depth: float = 8.0
    sky: float = 200.0
    gain: float = 1.5
    read_noise: float = 6.0
    gradient: float = 0.0
    saturation: float = 50_000.0
    template_noise: bool = True
    seed: int = 1


def expose(scene: Scene, rng: np.random.Generator) -> tuple[Pair, dict[str, Any]]:
    """Draw a pair; the template has `template_depth` times the exposure of the science frame."""
    ny, nx = scene.shape
    place = np.random.default_rng(scene.seed)
    x, y = place.uniform(-5, nx + 5, scene.n_stars), place.uniform(-5, ny + 5, scene.n_stars)
    low, high = np.log10(scene.faintest), np.log10(scene.brightest)
    # Counts rise threefold per magnitude, as towards the poles of the Galaxy.
    flux = 10 ** (low + (high - low) * (1 - place.uniform(0, 1, scene.n_stars) ** 0.45))
    planes = []
    for seeing, scale, depth in ((scene.science, scene.science_flux, 1.0), (scene.template, 1.0, scene.template_depth)):
        light = np.zeros(scene.shape)
        objects = list(zip(x, y, flux, strict=True))
        if seeing is scene.science:
            objects += list(scene.transients)
        for ox, oy, f in objects:
            rows, columns, values = seeing.draw(ox, oy, scene.shape, 40 if f > 20_000 else 25)
            light[rows, columns] += f * scale * values
        for gx, gy, f, radius in scene.galaxies:
            # A galaxy as many point sources: the same object under both seeings.
            spread = np.random.default_rng(7)
            r, t = radius * spread.gamma(2.0, 1.0, 1500), spread.uniform(0, 2 * np.pi, 1500)
            for ox, oy in zip(gx + r * np.cos(t), gy + 0.6 * r * np.sin(t), strict=True):
                rows, columns, values = seeing.draw(ox, oy, scene.shape, 20)
                light[rows, columns] += f / 1500 * scale * values
        # Light and sky are in ADU of the science exposure; a template of n exposures has n times the electrons.
        electrons = rng.poisson((light + scene.sky) * scene.gain * depth)
        read = rng.normal(0, scene.read_noise * np.sqrt(depth), scene.shape)
        raw = (electrons + read) / (scene.gain * depth)
        if not scene.template_noise and seeing is scene.template:
            raw = light + scene.sky
        read_variance = (scene.read_noise / scene.gain) ** 2 / depth
        variance = np.maximum(light + scene.sky, 1) / (scene.gain * depth) + read_variance
        planes.append((raw, variance))
    gradient = scene.gradient * (np.linspace(-1, 1, nx)[None, :] + 0.5 * np.linspace(-1, 1, ny)[:, None] ** 2)
    facts = (scene.gain, scene.read_noise, scene.saturation, 1.0)
    meta = Meta("test", "field", "V", "2026-11-20", "test-0", 61000.0, 60.0, *facts)
    frames = []
    for (raw, variance), extra in zip(planes, (gradient, 0.0), strict=True):
        mask = np.where(raw >= scene.saturation, np.uint16(Mask.SATURATED.value), np.uint16(0))
        data = np.minimum(raw, scene.saturation) - scene.sky + extra
        frames.append(Frame(data.astype(np.float32), variance.astype(np.float32), mask, meta))
    return Pair(frames[0], frames[1]), {"x": x, "y": y, "flux": flux, "scene": scene}


@pytest.fixture
def make_pair(rng: np.random.Generator) -> Callable[..., tuple[Pair, dict[str, Any]]]:
    """``make_pair(**changes)`` draws a pair of a `Scene` with some attributes changed."""

    def make(**changes: Any) -> tuple[Pair, dict[str, Any]]:
        return expose(dataclasses.replace(Scene(), **changes), rng)

    return make


@pytest.fixture
def seeing() -> type[Seeing]:
    """The class of PSFs of the synthetic pairs."""
    return Seeing


def psf_flux(difference: Difference, x: float, y: float) -> tuple[float, float]:
    """Best linear PSF flux at a known position and its error, from the difference's own PSF and variance."""
    image = difference.psf.at(x, y).astype(np.float64)
    half = image.shape[0] // 2
    column, row = round(x), round(y)
    moved = ndimage.shift(image, (y - row, x - column), order=5)
    window = (slice(row - half, row + half + 1), slice(column - half, column + half + 1))
    good = (difference.mask[window] & HARD) == 0
    weight = np.where(good, 1.0 / difference.variance[window], 0.0)
    power = float((weight * moved * moved).sum())
    return float((weight * moved * difference.data[window]).sum()) / power, power**-0.5


@pytest.fixture
def flux_at() -> Callable[[Difference, float, float], tuple[float, float]]:
    """Forced PSF photometry on a difference."""
    return psf_flux


def grid_of_transients(shape: tuple[int, int], flux: float, step: int = 80, seed: int = 9) -> tuple[Any, ...]:
    """Transients on a jittered grid, away from the edges."""
    jitter = np.random.default_rng(seed)
    return tuple(
        (x + jitter.uniform(-8, 8), y + jitter.uniform(-8, 8), flux)
        for y in range(60, shape[0] - 50, step)
        for x in range(60, shape[1] - 50, step)
    )


@pytest.fixture
def transients() -> Callable[..., tuple[Any, ...]]:
    """``transients(shape, flux)`` gives positions and fluxes for a `Scene`."""
    return grid_of_transients
