"""Synthetic pairs with known truth, drawn analytically so that no code under test makes its own test data."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

import subtraction
from nightsift.core.flags import HARD, Mask
from nightsift.core.frames import Difference, Frame, Meta, Pair


@dataclass(frozen=True)
class Seeing:
    """An elliptical Moffat PSF whose parameters may change over the frame.

    `images` are further images of each star as (dx, dy, weight): a doubled, trailed or defocused exposure. `wobble` is
    the amplitude of shifts that change over the frame faster than a low polynomial follows, `jitter` the rms of random
    shifts from star to star.
    """

    fwhm: float = 3.5
    ellipticity: float = 0.0
    angle: float = 0.0
    growth: float = 0.0
    beta: float = 4.0
    dx: float = 0.0
    dy: float = 0.0
    images: tuple[tuple[float, float, float], ...] = ((0.0, 0.0, 1.0),)
    wobble: float = 0.0
    jitter: float = 0.0

    def draw(self, x: float, y: float, shape: tuple[int, int], half: int) -> tuple[slice, slice, np.ndarray]:
        """Pixels and values (sum one over the plane) of a star at a position."""
        ny, nx = shape
        u, v = 2 * x / (nx - 1) - 1, 2 * y / (ny - 1) - 1
        fwhm = self.fwhm * (1 + self.growth * (u * u + v * v + 0.5 * u))
        wave = 2 * np.pi * 1.7
        shake = np.random.default_rng(int(1e4 * abs(x)) + int(1e8 * abs(y))).normal(0, self.jitter, 2)
        x += self.dx + self.wobble * np.sin(wave * v + 1.0) + shake[0]
        y += self.dy + self.wobble * np.sin(wave * u + 2.0) + shake[1]
        rows = slice(min(max(0, round(y) - half), ny), max(0, min(ny, round(y) + half + 1)))
        columns = slice(min(max(0, round(x) - half), nx), max(0, min(nx, round(x) + half + 1)))
        yy, xx = np.mgrid[rows, columns]
        c, s = np.cos(self.angle), np.sin(self.angle)
        q = 1.0 - self.ellipticity
        alpha = fwhm / (2 * np.sqrt(2 ** (1 / self.beta) - 1))
        light = np.zeros(xx.shape)
        for right, up, weight in self.images:
            along, across = xx - x - right, yy - y - up
            a, b = along * c + across * s, -along * s + across * c
            light += weight * (1 + (a * a * q + b * b / q) / alpha**2) ** -self.beta
        return rows, columns, (self.beta - 1) / (np.pi * alpha**2) / sum(one[2] for one in self.images) * light


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
    bright: tuple[tuple[float, float, float], ...] = ()
    """Further stars on both frames: x, y, flux."""
    galaxies: tuple[tuple[float, float, float, float], ...] = ()
    science_flux: float = 1.0
    template_depth: float = 8.0
    sky: float = 200.0
    gain: float = 1.5
    read_noise: float = 6.0
    gradient: float = 0.0
    saturation: float = 50_000.0
    template_noise: bool = True
    veil: float = 0.0
    """Loss of light of the science frame from its left to its right side."""
    clouds: float = 0.0
    """Loss of light of the science frame in patches."""
    colour: float = 0.0
    """Scatter of the stars' flux ratios (natural logarithm), as between two bands."""
    wrong_gain: float = 1.0
    """Factor on all variances told."""
    seed: int = 1
    template_seed: int = 0
    """Another field for the template, 0 for the same."""


def expose(scene: Scene, rng: np.random.Generator) -> tuple[Pair, dict[str, Any]]:
    """Draw a pair; the template has `template_depth` times the exposure of the science frame."""
    ny, nx = scene.shape
    place = np.random.default_rng(scene.seed)
    x, y = place.uniform(-5, nx + 5, scene.n_stars), place.uniform(-5, ny + 5, scene.n_stars)
    low, high = np.log10(scene.faintest), np.log10(scene.brightest)
    # Counts rise threefold per magnitude, as towards the poles of the Galaxy.
    flux = 10 ** (low + (high - low) * (1 - place.uniform(0, 1, scene.n_stars) ** 0.45))
    more = np.array(scene.bright, dtype=float).reshape(-1, 3)
    x, y, flux = np.append(x, more[:, 0]), np.append(y, more[:, 1]), np.append(flux, more[:, 2])
    ratio = np.exp(place.normal(0, scene.colour, len(flux)))
    planes = []
    for seeing, scale, depth, is_science in (
        (scene.science, scene.science_flux, 1.0, True),
        (scene.template, 1.0, scene.template_depth, False),
    ):
        light = np.zeros(scene.shape)
        objects = list(zip(x, y, flux, strict=True))
        if scene.template_seed and not is_science:
            other = np.random.default_rng(scene.template_seed)
            objects = list(zip(other.uniform(0, nx, len(x)), other.uniform(0, ny, len(x)), flux, strict=True))
        if is_science:
            objects = [(a, b, c * r * _transmission(scene, a, b)) for (a, b, c), r in zip(objects, ratio, strict=True)]
            objects += list(scene.transients)
        for ox, oy, f in objects:
            rows, columns, values = seeing.draw(ox, oy, scene.shape, 60 if f > 500_000 else 40 if f > 20_000 else 25)
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
        if not scene.template_noise and not is_science:
            raw = light + scene.sky
        read_variance = (scene.read_noise / scene.gain) ** 2 / depth
        variance = np.maximum(light + scene.sky, 1) / (scene.gain * depth) + read_variance
        planes.append((raw, variance * scene.wrong_gain))
    gradient = scene.gradient * (np.linspace(-1, 1, nx)[None, :] + 0.5 * np.linspace(-1, 1, ny)[:, None] ** 2)
    facts = (scene.gain, scene.read_noise, scene.saturation, 1.0)
    meta = Meta("test", "field", "V", "2026-11-20", "test-0", 61000.0, 60.0, *facts)
    frames = []
    for (raw, variance), extra in zip(planes, (gradient, 0.0), strict=True):
        mask = np.where(raw >= scene.saturation, np.uint16(Mask.SATURATED.value), np.uint16(0))
        data = np.minimum(raw, scene.saturation) - scene.sky + extra
        frames.append(Frame(data.astype(np.float32), variance.astype(np.float32), mask, meta))
    return Pair(frames[0], frames[1]), {"x": x, "y": y, "flux": flux, "scene": scene}


def _transmission(scene: Scene, x: float, y: float) -> float:
    """Part of the light that comes through."""
    ny, nx = scene.shape
    patches = 0.5 + 0.5 * np.sin(9.0 * x / nx + 1.0) * np.sin(11.0 * y / ny + 2.0)
    return float((1.0 - scene.veil * x / nx) * (1.0 - scene.clouds * patches))


@pytest.fixture(scope="session")
def drawn_pairs() -> dict[Any, Any]:
    """Pairs already drawn: every method is shown the same ones."""
    return {}


@pytest.fixture
def make_pair(rng: np.random.Generator, drawn_pairs: dict[Any, Any]) -> Callable[..., tuple[Pair, dict[str, Any]]]:
    """``make_pair(**changes)`` draws a pair of a `Scene` with some attributes changed."""

    def make(**changes: Any) -> tuple[Pair, dict[str, Any]]:
        scene = dataclasses.replace(Scene(), **changes)
        key = (scene, str(rng.bit_generator.state))
        if key not in drawn_pairs:
            if len(drawn_pairs) >= 48:
                drawn_pairs.pop(next(iter(drawn_pairs)))
            drawn_pairs[key] = (*expose(scene, rng), rng.bit_generator.state)
        pair, truth, rng.bit_generator.state = drawn_pairs[key]
        return pair, truth

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


def far_from_all(difference: Difference, truth: dict[str, Any], radius: float = 12.0) -> np.ndarray:
    """Pixels far from every star, galaxy, transient and masked pixel."""
    scene = truth["scene"]
    sky = ndimage.distance_transform_edt(difference.mask == 0) > 0.5 * radius
    places = [(x, y, radius) for x, y in zip(truth["x"], truth["y"], strict=True)]
    places += [(x, y, radius) for x, y, _ in scene.transients]
    places += [(x, y, 7 * size) for x, y, _, size in scene.galaxies]
    for x, y, reach in places:
        rows = slice(max(0, int(y - reach)), max(0, int(y + reach + 2)))
        columns = slice(max(0, int(x - reach)), max(0, int(x + reach + 2)))
        yy, xx = np.mgrid[rows, columns]
        part = sky[rows, columns]
        part &= (np.hypot(xx - x, yy - y) > reach)[: part.shape[0], : part.shape[1]]
    return sky


@pytest.fixture
def clear_sky() -> Callable[..., np.ndarray]:
    """``clear_sky(difference, truth, radius)`` tells pixels far from everything that was drawn."""
    return far_from_all


FLUX = 20_000.0
"""Flux of the transients of the shared scenes; S/N about 130."""

SCENES: dict[str, dict[str, Any]] = {
    "template sharper": {},
    "science sharper": {"science": Seeing(3.2), "template": Seeing(4.2)},
    "equal seeing": {"science": Seeing(3.6), "template": Seeing(3.6)},
    "varying": {"science": Seeing(4.0, growth=0.15, ellipticity=0.1), "template": Seeing(3.2, growth=0.1)},
    "elongated": {"science": Seeing(4.0, ellipticity=0.3, angle=0.7)},
    "whole pixels off": {"template": Seeing(3.2, dx=2.0, dy=-1.0)},
    "parts of a pixel off": {"template": Seeing(3.2, dx=0.4, dy=-0.6)},
    "another scale": {"science_flux": 0.4},
    "noisy template": {"template_depth": 0.7},
    "deep template": {"template_depth": 60.0},
    "gradient": {"gradient": 12.0},
    "bright sky": {"sky": 3000.0, "gradient": -40.0, "n_stars": 180},
    "crowded": {"n_stars": 1370},
}
"""Scenes that fluxes, noise, background and verdict are tested on; each is subtracted once by each method."""


@dataclass(frozen=True)
class Shared:
    """A scene with transients, subtracted."""

    pair: Pair
    difference: Difference
    truth: dict[str, Any]
    edge: tuple[tuple[float, float], ...]
    grid: tuple[tuple[float, float], ...]


def places(shape: tuple[int, int], step: int = 80) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Centre, corners, sides close to the edge, and a grid between them."""
    ny, nx = shape
    near = 22
    edge = [(near, near), (nx - near, near), (near, ny - near), (nx - near, ny - near)]
    edge += [(nx / 2 + 0.3, near), (nx / 2, ny - near), (near, ny / 2 + 0.4), (nx - near, ny / 2)]
    shift = np.random.default_rng(5).uniform(-4, 4, (2, 100))
    grid = [
        (x + shift[0, k % 100], y + shift[1, k % 100])
        for k, (x, y) in enumerate((x, y) for y in range(70, ny - 60, step) for x in range(70, nx - 60, step))
    ]
    return tuple(edge), tuple(grid)


@pytest.fixture(scope="session")
def shared() -> Callable[[str, str], Shared]:
    """``shared(method, scene)`` is one of `SCENES` with transients on it, subtracted once in a session."""
    pairs: dict[str, Any] = {}
    done: dict[tuple[str, str], Shared] = {}

    def make(method: str, name: str) -> Shared:
        edge, grid = places((480, 480))
        if name not in pairs:
            transients = tuple((x, y, FLUX) for x, y in edge + grid)
            changes = {"shape": (480, 480), "n_stars": 140, "transients": transients, **SCENES[name]}
            pairs[name] = expose(dataclasses.replace(Scene(), **changes), np.random.default_rng(20261120))
        if (method, name) not in done:
            pair, truth = pairs[name]
            done[method, name] = Shared(pair, subtraction.subtract_pair(pair, method), truth, edge, grid)
        return done[method, name]

    return make


@pytest.fixture(params=subtraction.method_names())
def method(request: pytest.FixtureRequest) -> str:
    """Every method that has a file in `subtraction.methods`."""
    return str(request.param)


@pytest.fixture(params=[name for name in subtraction.method_names() if name != "auto"])
def own_method(request: pytest.FixtureRequest) -> str:
    """Every method that subtracts itself; ``auto`` hands on what these make, so that once is enough."""
    return str(request.param)


@pytest.fixture
def worst(clear_sky: Any) -> Callable[..., float]:
    """``worst(difference, around, radius)`` is the largest absolute score away from some positions."""

    def largest(difference: Difference, around: tuple[Any, ...] = (), radius: float = 20.0) -> float:
        score = np.abs(difference.score)
        for x, y, *_ in around:
            rows = slice(max(0, int(y - radius)), int(y + radius + 1))
            score[rows, max(0, int(x - radius)) : int(x + radius + 1)] = 0
        return float(score.max())

    return largest
