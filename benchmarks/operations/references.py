"""Our sky mesh, stars and resampling beside sep, photutils and reproject, on exposures whose truth is known.

    python benchmarks/operations/references.py [sky stars halos apertures resampling] [--size 1024] [--seeds 3]

Exposures are drawn by the optics of `benchmarks.subtraction`. Levels and errors are in units of the noise of a sky
pixel, costs in CPU seconds on one thread after a first call; completeness counts stars by the signal-to-noise ratio
that they would have alone. sep measures at its defaults with meshes of ours; its extraction is SExtractor's (1.5
sigma, at least 3 pixels, the same Gaussian filter).
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Callable
from typing import Any

os.environ["NUMBA_NUM_THREADS"] = os.environ.get("NUMBA_NUM_THREADS", "1")

import numpy as np
import sep
from astropy.stats import SigmaClip
from astropy.wcs import WCS
from photutils.background import Background2D, SExtractorBackground
from reproject import reproject_interp
from scipy.spatial import cKDTree

from benchmarks.subtraction.optics import Optics
from benchmarks.subtraction.truth import CUT, GAIN, PIXEL_SCALE, READ_NOISE, SATURATION, SLOPE, STARS_SNR20, variance_of
from nightsift.core.flags import Mask
from nightsift.core.frames import Frame, Meta
from nightsift.images.background.background import subtract_background
from nightsift.images.registration.align import node_grid
from nightsift.images.resampling.warp import resample
from nightsift.images.stars.moments import moments
from nightsift.images.stars.stars import NO_LIGHT, circle_fluxes, find_stars

MESH, LEVEL, FWHM = 64, 400.0, 2.9
STAR = np.dtype([(name, "f8") for name in ("x", "y", "snr", "flux")])
FIELDS = {"plain": 1.0, "crowd x6": 6.0, "crowd x15": 15.0, "crowd x30": 30.0, "galaxy": 1.0}
SKIES = (("flat", 0), ("linear", 5), ("linear", 20), ("bowl", 5), ("bowl", 20), ("vignette", 5), ("vignette", 20),
         ("moon", 5), ("moon", 20), ("waves", 5))  # fmt: skip
BINS = ((5, 10), (10, 20), (20, 50), (50, 1e9))
SATURATED = Mask.SATURATED.value


def steep(kind: str, height: float, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A sky of some height from its darkest to its brightest point."""
    v, u = np.mgrid[: shape[0], : shape[1]] / np.array(shape)[:, None, None] * 2 - 1
    angle, (a, b) = rng.uniform(0, 2 * np.pi), rng.uniform(-0.3, 0.3, 2)
    along = u * np.cos(angle) + v * np.sin(angle)
    sky = {
        "flat": 0 * u,
        "linear": along,
        "bowl": along**2 + 0.3 * along,
        "vignette": -((u - a) ** 2 + (v - b) ** 2),
        "moon": np.exp(-np.hypot(u - 1, v + 1) / 0.6),
        "waves": np.sin(2.5 * u + a) * np.cos(2 * v + b),
    }[kind]
    return np.asarray(height * sky / max(float(np.ptp(sky)), 1e-9))


def draw(
    field: str, seed: int, size: int, *, sky: tuple[str, float] = ("flat", 0), bright: int = 0
) -> tuple[Frame, np.ndarray, np.ndarray]:
    """An exposure, its sky, and its stars; `bright` saturated ones with halo, ghost and spikes on top."""
    rng, shape = np.random.default_rng([seed, size, bright]), (size, size)
    optics = Optics(shape, FWHM, 3.3, 0.04, -0.03, 0.06, 0.03, 0.02, 0.04, -0.03)
    noise = float(np.sqrt(variance_of(LEVEL, 1)))
    unit = noise / float(np.sqrt((optics.stamp(size / 2, size / 2, 12) ** 2).sum()))
    area = (size * PIXEL_SCALE / 3600) ** 2
    n = rng.poisson(FIELDS[field] * STARS_SNR20 * area * (1.5 / 20) ** -SLOPE)
    low, high = 1.5**-SLOPE, (3e4 if bright else 7e5) ** -SLOPE
    stars = np.zeros(n + bright, STAR)
    stars["x"], stars["y"] = rng.uniform(0, size, (2, n + bright))
    stars["snr"] = (low + rng.uniform(size=n + bright) * (high - low)) ** (-1 / SLOPE)
    stars["snr"][n:] = 10 ** rng.uniform(6.2, 8.0, bright) / unit
    stars["flux"] = unit * stars["snr"]
    light = np.zeros(shape)
    optics.add(light, stars["x"], stars["y"], stars["flux"], CUT * noise)
    for star in stars[n:]:
        add_halo(light, star, rng.uniform(30, 60))
    if field == "galaxy":
        y, x = np.mgrid[:size, :size]
        a, b = rng.uniform(0.2, 0.8, 2) * size
        light += 35 * noise * np.exp(-np.hypot(x - a, (y - b) / 0.6) / rng.choice([25, 50, 80]))
    level = LEVEL + np.maximum(steep(sky[0], sky[1] * noise, shape, rng), -0.8 * LEVEL)
    total = light + level
    data = (rng.poisson(total * GAIN) + READ_NOISE * rng.standard_normal(shape)) / GAIN
    mask = np.where(total >= SATURATION, SATURATED, 0).astype(np.uint16)
    data[mask != 0] = SATURATION
    meta = Meta("bench", "field", "L", "2026-11-20", "bench", 61000.0, 60.0, GAIN, READ_NOISE, SATURATION, PIXEL_SCALE)
    return Frame(data.astype(np.float32), variance_of(total, 1).astype(np.float32), mask, meta), level, stars


def add_halo(light: np.ndarray, star: np.void, radius: float) -> None:
    """An aureole, a ghost with a bright rim, and four spikes."""
    y, x = np.mgrid[: light.shape[0], : light.shape[1]]
    dx, dy = x - star["x"], y - star["y"]
    r = np.hypot(dx, dy)
    light += star["flux"] * 7e-4 / (r**2 + 16) / (1 + (r / 150) ** 4)
    light += star["flux"] * 4e-3 * ((np.abs(r - radius) < 0.08 * radius) + (r < radius)) / radius**2
    for turn in (0.3, 0.3 + np.pi / 2):
        along, across = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
        light += star["flux"] * 2e-4 * np.exp(-(across**2) / 3.4) / (np.abs(along) + 12)


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    """What a function gives, and its CPU seconds: the least of three calls after a first, unless that one is slow."""
    start = time.process_time()
    given, seconds = function(), [time.process_time() - start]
    if seconds[0] < 5.0:
        seconds.clear()
    for _ in range(0 if seconds else 3):
        start = time.process_time()
        function()
        seconds.append(time.process_time() - start)
    return given, min(seconds)


def sep_mesh(frame: Frame) -> np.ndarray:
    """The mesh of sep."""
    return np.asarray(sep.Background(frame.data, mask=frame.mask != 0, bw=MESH, bh=MESH, fw=3, fh=3).back())


def photutils_mesh(frame: Frame) -> np.ndarray:
    """The mesh of photutils, as SExtractor's."""
    mesh = Background2D(
        frame.data, MESH, mask=frame.mask != 0, filter_size=3, exclude_percentile=90,
        sigma_clip=SigmaClip(3.0, maxiters=10), bkg_estimator=SExtractorBackground(),
    )  # fmt: skip
    return np.asarray(mesh.background)


def compare_sky(size: int, seeds: int) -> None:
    """Error (rms), bias and cost of the sky."""
    print("field      sky            ours: rms   bias  CPU s   sep: rms   bias  CPU s   photutils: rms   bias  CPU s")
    codes = (lambda f: f.data - subtract_background(f, MESH).data, sep_mesh, photutils_mesh)
    for field in FIELDS:
        for sky in SKIES:
            rows = np.zeros((seeds, len(codes), 3))
            for seed in range(seeds):
                frame, level, _ = draw(field, seed, size, sky=sky)
                noise = np.sqrt(variance_of(LEVEL, 1))
                for k, code in enumerate(codes):
                    found, seconds = timed(lambda code=code, frame=frame: code(frame))
                    off = (found - level) / noise
                    rows[seed, k] = np.sqrt(np.mean(off**2)), off.mean(), seconds
            numbers = "        ".join("{:9.3f} {:+6.3f} {:6.3f}".format(*row) for row in rows.mean(axis=0))
            print(f"{field:10s} {sky[0]:9s} {sky[1]:3d} {numbers}", flush=True)


def sep_stars(frame: Frame) -> np.ndarray:
    """The objects of sep."""
    sep.set_extract_pixstack(10_000_000)
    sep.set_sub_object_limit(100_000)
    filter_ = np.exp(-np.add.outer(np.arange(-4, 5) ** 2, np.arange(-4, 5) ** 2) / (2 * 1.2**2))
    found = sep.extract(
        frame.data, 1.5, err=np.sqrt(frame.variance), minarea=3, filter_kernel=filter_, filter_type="conv",
        mask=(frame.mask & NO_LIGHT) != 0,
    )  # fmt: skip
    return np.asarray(found)


def compare_stars(size: int, seeds: int, fields: tuple[str, ...], bright: int = 0) -> None:
    """Completeness, false detections, error of positions, and cost of stars."""
    head = "  ".join(f"S/N {low}-{high:g}" for low, high in BINS)
    print(f"field      code   found  {head}  near bright  false a Mpix  px   CPU s")
    for field in fields:
        for name, code in (("ours", find_stars), ("sep", sep_stars)):
            rows, near, false, found, seconds, apart = [], [], 0, 0, 0.0, []
            for seed in range(seeds):
                frame, _, stars = draw(field, seed, size, bright=bright)
                frame = subtract_background(frame, MESH)
                table, cost = timed(lambda code=code, frame=frame: code(frame))
                seconds += cost
                found += len(table)
                places, truth = (np.column_stack((one["x"], one["y"])) for one in (table, stars))
                distance = cKDTree(places).query(truth)[0]
                full = stars["flux"] > SATURATION
                hit, usable = distance < 1.5, ~full & (np.abs(truth - size / 2) < size / 2 - 5).all(axis=1)
                rows.append(
                    [
                        (hit & usable & (stars["snr"] > a) & (stars["snr"] < b)).sum()
                        / (usable & (stars["snr"] > a) & (stars["snr"] < b)).sum()
                        for a, b in BINS
                    ]
                )
                apart.append(np.median(distance[hit & usable & (stars["snr"] > 10) & (stars["snr"] < 200)]))
                giants = truth[stars["flux"] > 1e6]
                if len(giants):
                    beside = usable & (stars["snr"] > 30) & (cKDTree(giants).query(truth)[0] < 100)
                    near += hit[beside].tolist()
                    places = places[cKDTree(giants).query(places)[0] > 6]
                false += int((cKDTree(truth[stars["snr"] > 3]).query(places)[0] > 2.5).sum())
            per = seeds * size * size / 1e6
            parts = "  ".join(f"{one:8.3f}" for one in np.mean(rows, axis=0))
            print(
                f"{field:10s} {name:5s} {found / seeds:7.0f}  {parts}  {sum(near):5d} of {len(near):<5d}"
                f" {false / per:8.1f}   {np.mean(apart):.3f} {seconds / seeds:6.3f}",
                flush=True,
            )


def compare_apertures(size: int) -> None:
    """Sums in 12,000 circles, and windowed centres, of one exposure."""
    frame, _, _ = draw("crowd x6", 1, size)
    frame = subtract_background(frame, MESH)
    stars = find_stars(frame)
    x, y = (np.resize(np.ascontiguousarray(stars[axis]), 12_000) for axis in ("x", "y"))
    radius, out = 1.5 * 1.2 * FWHM, np.empty((len(x), 2))
    _, ours = timed(lambda: circle_fluxes(frame.data, frame.variance, frame.mask, NO_LIGHT, x, y, radius, out))

    def theirs(parts: int) -> Any:
        bad = (frame.mask & NO_LIGHT) != 0
        return sep.sum_circle(frame.data, x, y, radius, var=frame.variance, mask=bad, subpix=parts)

    (total, error, _), seconds = timed(lambda: theirs(5))
    exact, exact_seconds = timed(lambda: theirs(0))
    off = np.nanpercentile(np.abs(out[:, 0] - total) / error, 99)
    rim = np.nanpercentile(np.abs(out[:, 0] - exact[0]) / error, 50)
    print(f"12,000 circles: ours {ours:.3f}, sep with its mask {seconds:.3f} (exact {exact_seconds:.3f}) CPU s")
    print(f"   99 % within {off:.4f} sigma of sep at equal sampling; median {rim:.4f} sigma from its exact sums")
    found, ours = timed(lambda: moments(frame.data, frame.mask, NO_LIGHT, x, y, 0.5 * FWHM, 2.0))
    (px, py, flag), seconds = timed(lambda: sep.winpos(frame.data, x, y, 0.5 * FWHM, mask=(frame.mask & NO_LIGHT) != 0))
    clear = flag == 0
    apart = np.median(np.hypot(found[:, 0] - px, found[:, 1] - py)[clear])
    print(
        f"12,000 windowed centres: ours {ours:.3f} (and shapes), sep {seconds:.3f} CPU s; median {apart:.5f} px apart"
    )


def compare_resampling(size: int) -> None:
    """An exposure drawn twice, on two grids, without noise: what resampling makes of the one against the other."""
    optics, rng = Optics((size, size), FWHM, 3.3), np.random.default_rng(3)
    n = size * size // 4000
    x, y = rng.uniform(20, size - 20, (2, n))
    flux = 10 ** rng.uniform(3, 5, n)
    grids = [WCS(naxis=2) for _ in range(2)]
    for wcs, angle, shift in zip(grids, (0.0, 0.8), (0.0, 2.37), strict=True):
        wcs.wcs.ctype, wcs.wcs.crval = ["RA---TAN", "DEC--TAN"], [150.0, 20.0]
        wcs.wcs.crpix = np.array([0.5, 0.5]) * size + shift
        c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
        wcs.wcs.cd = np.array([[-c, s], [s, c]]) * PIXEL_SCALE / 3600
    first, wanted = np.zeros((size, size)), np.zeros((size, size))
    optics.add(first, x, y, flux, 1e-3)
    optics.add(wanted, *grids[1].all_world2pix(*grids[0].all_pix2world(x, y, 0), 0), flux, 1e-3)
    data, mask = first.astype(np.float32), np.zeros(first.shape, np.uint16)
    through = lambda xy: grids[0].all_world2pix(grids[1].all_pix2world(xy, 0), 0)  # noqa: E731
    shape = (size, size)

    def ours() -> np.ndarray:
        return resample(data, np.ones_like(data), mask, *node_grid(through, shape), shape)[0]

    codes: dict[str, Callable[[], np.ndarray]] = {"ours, with variance and mask": ours}
    for order in ("bilinear", "bicubic"):
        codes[f"reproject_interp {order}"] = lambda order=order: reproject_interp(
            (data, grids[0]), grids[1], shape_out=shape, order=order, return_footprint=False
        )
    inner = (slice(50, -50), slice(50, -50))
    stars = wanted[inner] > 20
    for name, code in codes.items():
        found, seconds = timed(code)
        off = (found[inner] - wanted[inner])[stars] / wanted[inner][stars]
        print(f"{name:30s} {seconds:7.2f} CPU s; a pixel of a star is {100 * np.std(off):.2f} % off (rms)", flush=True)


def main() -> None:
    """Compare what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="*", default=["sky", "stars", "halos", "apertures", "resampling"])
    parser.add_argument("--size", type=int, default=1024, help="pixels a side")
    parser.add_argument("--seeds", type=int, default=3, help="exposures of each kind")
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    for what in chosen.what:
        print(f"\n{what}")
        if what == "sky":
            compare_sky(chosen.size, chosen.seeds)
        elif what == "stars":
            compare_stars(chosen.size, chosen.seeds, tuple(FIELDS)[:-1])
        elif what == "halos":
            compare_stars(chosen.size, chosen.seeds, ("plain", "crowd x6"), bright=6)
        elif what == "apertures":
            compare_apertures(chosen.size)
        elif what == "resampling":
            compare_resampling(chosen.size)
        else:
            parser.error(f"nothing is called {what}: sky, stars, halos, apertures, resampling")


if __name__ == "__main__":
    main()
