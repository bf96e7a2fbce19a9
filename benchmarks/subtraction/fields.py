"""Draw pairs of a survey's frames whose truth is known to the last photon.

    python benchmarks/subtraction/fields.py KIND NY NX --out FOLDER

The drawing shares no code with what is measured on it: stars are elliptical Moffat profiles integrated over each
pixel by quadrature, of sub-pixel positions, with a width and ellipticity that vary over the frame; galaxies are Sersic
profiles sampled by points, so that both frames show the same light through their own PSFs. A survey like GOTO is the
model: 1.24 arcsec a pixel, seeing of 2.3 to 3.5 pixels, 2,000 stars per square degree with a signal-to-noise ratio over
20, 80 saturated ones. The template is the mean of ten exposures on the grid of the science frame.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.subtraction.optics import Optics
from benchmarks.subtraction.transients import draw_transients, local_variances, perfect_score, snr_per_flux
from benchmarks.subtraction.truth import (
    BRIGHTEST,
    CUT,
    FAINTEST,
    GAIN,
    GALAXY,
    PIXEL_SCALE,
    READ_NOISE,
    SATURATION,
    SKY,
    SLOPE,
    STAR,
    STARS_SNR20,
    TEMPLATE_FRAMES,
    TEMPLATE_SCALE,
    TEMPLATE_SKY,
    TRANSIENT,
    Truth,
    variance_of,
)
from nightsift.core.flags import Mask
from nightsift.core.frames import Frame, Meta, Pair


@dataclass(frozen=True)
class Kind:
    """What makes a kind of field."""

    science: dict[str, float]
    template: dict[str, float]
    star_factor: float = 1.0
    galaxies_per_mpix: float = 25.0
    on_galaxies: float = 0.15


_S = {
    "fwhm": 2.9, "beta": 3.3, "slope_x": 0.04, "slope_y": -0.03, "bowl": 0.06,
    "e1": 0.03, "e2": 0.02, "twist1": 0.04, "twist2": -0.03,
}  # fmt: skip
_T = {
    "fwhm": 2.5, "beta": 3.1, "slope_x": -0.02, "slope_y": 0.02, "bowl": 0.05,
    "e1": 0.01, "e2": -0.02, "twist1": -0.02, "twist2": 0.02,
}  # fmt: skip
KINDS = {
    "empty": Kind(_S, _T),
    "crowded": Kind(_S, _T, star_factor=6.0),
    "galaxies": Kind(_S, _T, galaxies_per_mpix=200.0, on_galaxies=0.6),
    "elongated": Kind({**_S, "e1": 0.16, "e2": 0.08, "twist1": 0.08, "twist2": 0.06, "bend": 0.05}, _T),
    "worse-template": Kind({**_S, "fwhm": 2.4}, {**_T, "fwhm": 3.2}),
    "worse-science": Kind({**_S, "fwhm": 3.45}, {**_T, "fwhm": 2.3}),
}


def draw(kind: str, shape: tuple[int, int] = (2048, 2048), seed: int = 1) -> tuple[Pair, Truth]:
    """Draw a pair of a kind of field, and its truth."""
    rng = np.random.default_rng([seed, *kind.encode()])
    what = KINDS[kind]
    science, template = Optics(shape, **what.science), Optics(shape, **what.template)
    sky = (variance_of(SKY, 1), variance_of(TEMPLATE_SKY, TEMPLATE_FRAMES))
    unit = 1.0 / snr_per_flux(science, template, shape[1] / 2, shape[0] / 2, *sky)
    stars = _draw_stars(rng, shape, unit, what.star_factor)
    galaxies = _draw_galaxies(rng, shape, unit, what.galaxies_per_mpix)
    points = _galaxy_points(galaxies)
    static = []
    for optics, scale in ((science, 1.0), (template, TEMPLATE_SCALE)):
        light = np.zeros(shape)
        optics.add(light, stars["x"], stars["y"], scale * stars["flux"], CUT * np.sqrt(sky[1]))
        optics.add(light, points[0], points[1], scale * points[2], 0.1 * CUT * np.sqrt(sky[1]))
        static.append(light)
    _note_saturated(stars, static[0])
    truth = Truth(kind, seed, stars, galaxies, np.zeros(0, TRANSIENT), science, template, TEMPLATE_SCALE, sky)
    transients = draw_transients(rng, truth, static, what.on_galaxies)
    local = [local_variances(truth, static, one["x"], one["y"]) for one in transients]
    still = [light.copy() for light in static]
    rose, faded = transients["flux"] > 0, transients["flux"] < 0
    for optics, light, chosen, scale in ((science, static[0], rose, 1.0), (template, static[1], faded, TEMPLATE_SCALE)):
        new = transients[chosen]
        optics.add(light, new["x"], new["y"], scale * np.abs(new["flux"]), CUT * np.sqrt(sky[1]))
    exposed = (
        _expose(rng, static[0], stars, 1.0, SKY, 1, "science"),
        _expose(rng, static[1], stars, TEMPLATE_SCALE, TEMPLATE_SKY, TEMPLATE_FRAMES, "template"),
    )
    noise = [f.data - light - left for (f, left), light in zip(exposed, still, strict=True)]
    for i, one in enumerate(transients):
        transients["perfect"][i] = perfect_score(truth, noise, one["x"], one["y"], *local[i])
    return Pair(exposed[0][0], exposed[1][0]), dataclasses.replace(truth, transients=transients)


def _draw_stars(rng: np.random.Generator, shape: tuple[int, int], unit: float, factor: float) -> np.ndarray:
    area = shape[0] * shape[1] * (PIXEL_SCALE / 3600) ** 2
    n = rng.poisson(factor * STARS_SNR20 * area * (FAINTEST / 20.0) ** -SLOPE)
    # A power law between two bounds, by the inverse of its distribution.
    low, high = FAINTEST**-SLOPE, BRIGHTEST**-SLOPE
    stars = np.zeros(n, STAR)
    stars["flux"] = unit * (low + rng.uniform(size=n) * (high - low)) ** (-1 / SLOPE)
    stars["x"], stars["y"] = rng.uniform(-20, shape[1] + 19, n), rng.uniform(-20, shape[0] + 19, n)
    return stars


def _draw_galaxies(rng: np.random.Generator, shape: tuple[int, int], unit: float, per_mpix: float) -> np.ndarray:
    n = rng.poisson(per_mpix * shape[0] * shape[1] / 1e6)
    galaxies = np.zeros(n, GALAXY)
    # Counts of a Euclidean sky, S/N 10 (as a point source) to 5,000; brighter ones are larger.
    snr = (10.0**-1.5 + rng.uniform(size=n) * (5000.0**-1.5 - 10.0**-1.5)) ** (-1 / 1.5)
    galaxies["flux"] = unit * snr
    galaxies["radius"] = np.clip(1.2 * (snr / 10) ** 0.35 * rng.lognormal(0, 0.3, n), 0.8, 25.0)
    galaxies["sersic"] = rng.choice([1.0, 2.0, 4.0], n, p=[0.5, 0.25, 0.25])
    galaxies["q"], galaxies["angle"] = rng.uniform(0.3, 1.0, n), rng.uniform(0, np.pi, n)
    galaxies["x"], galaxies["y"] = rng.uniform(0, shape[1] - 1, n), rng.uniform(0, shape[0] - 1, n)
    return galaxies


def _galaxy_points(galaxies: np.ndarray, n: int = 160) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points of equal flux on a golden spiral, at the quantiles of each galaxy's light."""
    from scipy.special import gammainccinv, gammaincinv

    part, turn = (np.arange(n) + 0.5) / n, np.arange(n) * np.pi * (3 - np.sqrt(5))
    out = [np.zeros((0, 3))]
    for g in galaxies:
        b = gammaincinv(2 * g["sersic"], 0.5)
        r = g["radius"] * (gammainccinv(2 * g["sersic"], 1 - 0.97 * part) / b) ** g["sersic"]
        dx, dy = r * np.cos(turn) / np.sqrt(g["q"]), r * np.sin(turn) * np.sqrt(g["q"])
        c, s = np.cos(g["angle"]), np.sin(g["angle"])
        out.append(np.stack([g["x"] + c * dx - s * dy, g["y"] + s * dx + c * dy, np.full(n, g["flux"] / n)], axis=1))
    x, y, flux = np.concatenate(out).T
    return x, y, flux


def _note_saturated(stars: np.ndarray, light: np.ndarray) -> None:
    ny, nx = light.shape
    i, j = np.rint(stars["y"]).astype(int).clip(0, ny - 1), np.rint(stars["x"]).astype(int).clip(0, nx - 1)
    inside = (abs(stars["y"] - i) <= 0.5) & (abs(stars["x"] - j) <= 0.5)
    stars["saturated"] = inside & (light[i, j] + SKY >= SATURATION)


def _expose(
    rng: np.random.Generator, light: np.ndarray, stars: np.ndarray, scale: float, sky: float, frames: int, name: str
) -> tuple[Frame, np.ndarray]:
    """A frame, and what is left of its background."""
    light += sky
    ny, nx = light.shape
    data = rng.poisson(light * (GAIN * frames)).astype(np.float32)
    data += rng.standard_normal(light.shape, dtype=np.float32) * np.float32(READ_NOISE * np.sqrt(frames))
    data /= np.float32(GAIN * frames)
    variance = variance_of(light, frames).astype(np.float32)
    mask = np.where(light >= SATURATION, Mask.SATURATED.value, 0).astype(np.uint16)
    _bleed(light, mask, stars, scale)
    data[mask != 0] = SATURATION
    data -= np.float32(sky)
    # What is left of the background after its subtraction: a hundredth of a percent to a tenth of a sigma.
    u, v = np.linspace(-1, 1, nx, dtype=np.float32), np.linspace(-1, 1, ny, dtype=np.float32)[:, None]
    c = (0.05 * np.sqrt(variance_of(sky, frames)) * rng.uniform(-1, 1, 5)).astype(np.float32)
    left = c[0] * u + c[1] * v + c[2] * u * v + c[3] * (u**2 - 0.5) + c[4] * (v**2 - 0.5)
    data += left
    data[mask != 0] = SATURATION - sky
    meta = Meta(
        "bench", "field", "L", "2026-11-20", f"bench-{name}", 61000.0 - 100 * (name == "template"), 60.0,
        GAIN * frames, READ_NOISE * float(np.sqrt(frames)), SATURATION, PIXEL_SCALE,
    )  # fmt: skip
    return Frame(data, variance, mask, meta, sky=sky), left


def _bleed(light: np.ndarray, mask: np.ndarray, stars: np.ndarray, scale: float) -> None:
    """Charge of the brightest stars fills their columns."""
    ny, nx = light.shape
    bits = np.uint16(Mask.SATURATED.value | Mask.BLEED.value)
    for star in stars[scale * stars["flux"] > 100 * SATURATION * 2]:
        x, y = round(star["x"]), round(star["y"])
        length = int(8 * np.sqrt(scale * star["flux"] / (100 * SATURATION)))
        mask[max(0, y - length) : max(0, min(ny, y + length + 1)), max(0, x - 1) : max(0, min(nx, x + 2))] |= bits


def save(path: Path, pair: Pair, truth: Truth) -> None:
    """Write a pair with its truth (npz, not compressed)."""
    facts = {
        "kind": truth.kind, "seed": truth.seed, "scale": truth.scale, "sky_variance": truth.sky_variance,
        "optics": [dataclasses.asdict(o) for o in (truth.science, truth.template)],
        "meta": [dataclasses.asdict(f.meta) for f in (pair.science, pair.template)],
        "sky": [pair.science.sky, pair.template.sky],
    }  # fmt: skip
    planes = {
        f"{name}_{plane}": getattr(frame, plane)
        for name, frame in (("science", pair.science), ("template", pair.template))
        for plane in ("data", "variance", "mask")
    }
    tables = {"stars": truth.stars, "galaxies": truth.galaxies, "transients": truth.transients}
    np.savez(path, told=np.array(json.dumps(facts)), **planes, **tables)


def load(path: Path | str) -> tuple[Pair, Truth]:
    """Read a pair with its truth."""
    with np.load(path) as file:
        facts = json.loads(str(file["told"]))
        frames = [
            Frame(*(file[f"{name}_{plane}"] for plane in ("data", "variance", "mask")), Meta(**meta), sky=sky)
            for name, meta, sky in zip(("science", "template"), facts["meta"], facts["sky"], strict=True)
        ]
        optics = [Optics(**{**one, "shape": tuple(one["shape"])}) for one in facts["optics"]]
        tables = [file[name] for name in ("stars", "galaxies", "transients")]
    known = (facts["scale"], tuple(facts["sky_variance"]))
    return Pair(*frames), Truth(facts["kind"], facts["seed"], *tables, *optics, *known)


def cached(folder: Path, kind: str, shape: tuple[int, int], seed: int = 1) -> Path:
    """Path of a pair, drawn if it is not there yet."""
    path = folder / f"{kind}-{shape[0]}x{shape[1]}-{seed}.npz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".part.npz")
        save(partial, *draw(kind, shape, seed))
        partial.replace(path)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=[*KINDS, "all"])
    parser.add_argument("ny", type=int)
    parser.add_argument("nx", type=int)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("pairs"))
    chosen = parser.parse_args()
    for kind in KINDS if chosen.kind == "all" else [chosen.kind]:
        print(cached(chosen.out, kind, (chosen.ny, chosen.nx), chosen.seed), flush=True)


if __name__ == "__main__":
    main()
