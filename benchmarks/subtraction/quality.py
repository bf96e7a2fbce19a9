"""Quality of a difference of a pair whose truth is known.

    python benchmarks/subtraction/quality.py PAIR.npz --method hotpants

Definitions, the same for every method and peer:

- **residual at stars**: rms of the difference over its expected noise within one FWHM of unsaturated stars of S/N
  above 50, away from transients and saturated stars, divided by the same rms on source-free sky. The expected noise
  follows from the true PSFs and true variances, carried through the filters of the optimal subtraction
  (``v_s * a_s^2 + v_t * a_t^2``): those of the white (proper) difference for a white difference, those of Alard and
  Lupton for one that is not. The noise map of the method plays no part.
- **false detections**: peaks of the score beyond 5 sigma, by sign, that belong to no transient: away from saturated
  stars per million usable pixels; near them (within five FWHM, or where their light is above a tenth of sigma on either
  frame) per million pixels of the whole frame, beside the part of that area that is masked.
- **completeness**: transients whose score, the largest of the 3 x 3 pixels around the truth, is beyond 5 sigma, against
  the optimal statistic on the same draw of the noise. The 50 % limit is the S/N of perfect knowledge at which half are
  found, by the fit of ``Phi(a snr - 5)``; its loss against perfect knowledge is in magnitudes. Masked ones are lost.
- **flux**: fit of the method's own PSF at the true position, over the true flux and the part of the optimal
  difference's PSF within that stamp, for S/N above 50; its scatter in units of the photon noise of the optimum; pulls
  by the method's variance; and, free of any PSF model, the sum within 2.5 FWHM over that of the true PSF, above 80.
- **sky**: the score where both frames show no source: mean, sigma, KS test of pixels three FWHM apart, correlation of
  the difference with its neighbours, and the largest step between bands of rows or columns, in sigma (seams).
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage, stats

from benchmarks.subtraction import fields
from benchmarks.subtraction.detections import box_around, completeness, false_detections
from benchmarks.subtraction.ideal import HALF, expected_variance, moved, true_psf
from nightsift.core.flags import Mask
from nightsift.core.frames import Pair
from nightsift.core.robust import mad_sigma
from subtraction.api.pairs import subtract_pair

HARD = np.uint16(0xFFFF & ~Mask.BRIGHT_STAR.value)


def measure(difference: Any, pair: Pair, truth: fields.Truth, white: bool | None = None) -> dict[str, Any]:
    """Measure everything; `difference` has data, variance, mask, score (or None) and psf (or None for the true one)."""
    sky, near, hard = _regions(difference, pair, truth)
    out: dict[str, Any] = {"masked": float(hard.mean())}
    out.update(_whiteness(difference, sky & ~near & ~hard))
    if white is None:
        white = bool(abs(out["neighbour_x"]) < 0.05 and abs(out["neighbour_y"]) < 0.05)
    out["white"] = white
    out.update(_residuals(difference, pair, truth, sky, near, hard, white))
    if difference.score is not None:
        out.update(_sky(difference, sky & ~near & ~hard, truth))
        out.update(false_detections(difference, truth, near, hard))
        out.update(completeness(difference, truth))
    out.update(_fluxes(difference, truth, hard, white))
    return out


def _regions(difference: Any, pair: Pair, truth: fields.Truth) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Source-free pixels, surroundings of saturated stars, unusable pixels."""
    hard = (difference.mask & HARD) != 0
    sky = np.ones(hard.shape, bool)
    for frame, level in zip((pair.science, pair.template), truth.sky_variance, strict=True):
        sky &= frame.variance < 1.03 * level
    for one in truth.transients:
        reach = round(4 * truth.science.fwhm)
        sky[box_around(one, reach)] = False
    near = np.zeros(hard.shape, bool)
    for star in truth.stars[truth.stars["saturated"]]:
        reach = _light_reach(star["flux"], truth)
        box = box_around(star, reach)
        y, x = (np.arange(part.start, min(part.stop, n)) for part, n in zip(box, hard.shape, strict=True))
        near[box] |= np.hypot(x - star["x"], y[:, None] - star["y"]) <= reach
    return sky, near, hard


def _light_reach(flux: float, truth: fields.Truth) -> int:
    best = 5 * truth.science.fwhm
    for optics, variance in ((truth.science, truth.sky_variance[0]), (truth.template, truth.sky_variance[1])):
        alpha2 = optics.fwhm**2 / (4 * (2 ** (1 / optics.beta) - 1))
        ratio = flux * (optics.beta - 1) / (np.pi * alpha2) / (0.1 * np.sqrt(variance))
        best = max(best, np.sqrt(alpha2 * max(ratio ** (1 / optics.beta) - 1, 0)))
    return int(np.ceil(best))


def _whiteness(difference: Any, sky: np.ndarray) -> dict[str, float]:
    pull = np.where(sky, difference.data / np.sqrt(np.where(sky, difference.variance, 1)), 0)
    out = {"pixel_mean": float(pull[sky].mean()), "pixel_sigma": float(pull[sky].std())}
    for name, both, product in (
        ("neighbour_x", sky[:, 1:] & sky[:, :-1], pull[:, 1:] * pull[:, :-1]),
        ("neighbour_y", sky[1:] & sky[:-1], pull[1:] * pull[:-1]),
        ("neighbour_xy", sky[1:, 1:] & sky[:-1, :-1], pull[1:, 1:] * pull[:-1, :-1]),
    ):
        out[name] = float(product[both].mean() / out["pixel_sigma"] ** 2)
    return out


def _residuals(
    difference: Any, pair: Pair, truth: fields.Truth, sky: np.ndarray, near: np.ndarray, hard: np.ndarray, white: bool
) -> dict[str, float]:
    ny, nx = hard.shape
    radius = truth.science.fwhm
    y, x = np.mgrid[-HALF : HALF + 1, -HALF : HALF + 1]
    core = np.hypot(x, y) <= radius
    sigma = 5 * np.sqrt(truth.sky_variance[0])
    busy = np.zeros(hard.shape, bool)
    for one in truth.transients:
        busy[box_around(one, round(4 * radius))] = True
    blocked = ndimage.maximum_filter(hard, size=2 * int(radius) + 1) | near | busy
    stars = truth.stars[(truth.stars["flux"] > 50 * sigma) & ~truth.stars["saturated"]]
    rows, columns = np.rint(stars["y"]).astype(int), np.rint(stars["x"]).astype(int)
    inside = (rows > HALF) & (rows < ny - HALF - 1) & (columns > HALF) & (columns < nx - HALF - 1)
    stars, rows, columns = stars[inside], rows[inside], columns[inside]
    free = ~blocked[rows, columns]
    stars, rows, columns = stars[free][:2000], rows[free][:2000], columns[free][:2000]

    def chi2(places: zip[Any]) -> np.ndarray:
        found = []
        for j, i in places:
            box = slice(j - HALF, j + HALF + 1), slice(i - HALF, i + HALF + 1)
            found.append(
                float((difference.data[box][core] ** 2 / expected_variance(pair, truth, i, j, white)[core]).mean())
            )
        return np.array(found)

    at_stars = chi2(zip(rows, columns, strict=True))
    clear = ndimage.minimum_filter(sky & ~near & ~hard, size=2 * int(radius) + 1)
    clear[: HALF + 1] = clear[-HALF - 1 :] = clear[:, : HALF + 1] = clear[:, -HALF - 1 :] = False
    places = np.argwhere(clear)
    rng = np.random.default_rng(0)
    at_sky = chi2(zip(*places[rng.choice(len(places), min(2000, len(places)), replace=False)].T, strict=True))
    level = at_sky.mean()
    bright = stars["flux"] > 500 * sigma
    faint_rms = float(np.sqrt(at_stars[~bright].mean() / level)) if (~bright).any() else np.nan
    return {
        "stars": len(stars),
        "residual": float(np.sqrt(at_stars.mean() / level)),
        "residual_median": float(np.sqrt(np.median(at_stars) / np.median(at_sky))),
        "residual_50_500": faint_rms,
        "residual_500": float(np.sqrt(at_stars[bright].mean() / level)) if bright.any() else float("nan"),
    }


def _sky(difference: Any, sky: np.ndarray, truth: fields.Truth) -> dict[str, float]:
    step = int(np.ceil(3 * truth.science.fwhm))
    sample = difference.score[::step, ::step][sky[::step, ::step]]
    values = difference.score[sky]
    row = _steps(difference.score, sky, 0)
    column = _steps(difference.score, sky, 1)
    return {
        "sky_mean": float(values.mean()),
        "sky_sigma": float(values.std()),
        "sky_n": len(sample),
        "sky_ks_p": float(stats.kstest(sample, "norm").pvalue),
        "seam": max(row, column),
    }


def _steps(score: np.ndarray, sky: np.ndarray, axis: int, width: int = 4) -> float:
    """Largest step between neighbouring bands of rows (or columns), in sigma of such steps."""
    other = 1 - axis
    n = np.maximum(sky.sum(axis=other), 1)
    mean = np.where(sky, score, 0).sum(axis=other) / n
    bands = np.convolve(mean, np.ones(width) / width, mode="valid")
    step = bands[width:] - bands[:-width]
    scatter = mad_sigma(step)
    return float(abs(step).max() / scatter) if scatter > 0 else float("nan")


def _fluxes(difference: Any, truth: fields.Truth, hard: np.ndarray, white: bool) -> dict[str, float]:
    rows, apertures = [], []
    reach = round(2.5 * truth.science.fwhm)
    disc = np.hypot(*np.mgrid[-reach : reach + 1, -reach : reach + 1]) <= reach
    for one in truth.transients[truth.transients["snr"] > 10]:
        x, y = float(one["x"]), float(one["y"])
        i, j, half = round(x), round(y), 7
        box = slice(j - half, j + half + 1), slice(i - half, i + half + 1)
        if hard[box].any():
            continue
        psf, true = _shown_psf(difference, x, y), true_psf(truth, x, y, white)
        psf = true if psf is None else psf
        middle = psf.shape[0] // 2
        # A PSF that counts its wings gives total fluxes, one that sums to one those within its stamp.
        part = float(true[HALF - middle : HALF + middle + 1, HALF - middle : HALF + middle + 1].sum() / psf.sum())
        psf = psf[middle - half : middle + half + 1, middle - half : middle + half + 1]
        flux = float((psf * difference.data[box]).sum() / (psf**2).sum())
        error = float(np.sqrt((psf**2 * difference.variance[box]).sum()) / (psf**2).sum())
        total = float(one["flux"]) * part
        wide = slice(j - reach, j + reach + 1), slice(i - reach, i + reach + 1)
        inside = true[HALF - reach : HALF + reach + 1, HALF - reach : HALF + reach + 1][disc].sum()
        apertures.append(difference.data[wide][disc].sum() / (one["flux"] * inside) if not hard[wide].any() else np.nan)
        miss = flux - total
        rows.append((flux / total, miss / error, miss / (one["sigma"] * part), one["snr"], total > 0))
    ratio, pull, excess, snr, rose = np.array(rows).T
    strong = snr > 50
    weight = snr[strong] ** 2 / (1 + (0.005 * snr[strong]) ** 2)
    bias = float((ratio[strong] * weight).sum() / weight.sum() - 1)
    return {
        "flux_n": int(strong.sum()),
        "flux_bias": bias,
        "flux_bias_aperture": float(np.nanmedian(np.array(apertures)[snr > 80]) - 1),
        "flux_bias_median": float(np.median(ratio[strong]) - 1),
        "flux_bias_fading": float(np.median(ratio[strong & (rose == 0)]) - 1),
        "flux_scatter": mad_sigma(excess[strong]),
        "pull_mean": float(np.median(pull)),
        "pull_sigma": mad_sigma(pull),
        "pull_std": float(np.std(np.clip(pull, -10, 10))),
    }


def _shown_psf(difference: Any, x: float, y: float) -> np.ndarray | None:
    """The method's PSF of a transient at its sub-pixel position; at most the stamp of the true one."""
    if difference.psf is None:
        return None
    psf = difference.psf.at(x, y).astype(float)
    spare = max(0, psf.shape[0] // 2 - HALF)
    psf = psf[spare : psf.shape[0] - spare, spare : psf.shape[1] - spare]
    return moved(psf, x - round(x), y - round(y))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pairs", nargs="+", type=Path)
    parser.add_argument("--method", default="hotpants")
    parser.add_argument("--set", nargs="*", default=[], metavar="OPTION=VALUE", help="JSON values")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    options = {key: json.loads(value) for key, value in (one.split("=", 1) for one in chosen.set)}
    for path in chosen.pairs:
        pair, truth = fields.load(path)
        began, cpu = time.perf_counter(), time.process_time()
        difference = subtract_pair(pair, chosen.method, options)
        cost = {"wall_s": time.perf_counter() - began, "cpu_s": time.process_time() - cpu}
        found = {**cost, **measure(difference, pair, truth), "verdict": difference.verdict}
        if chosen.json:
            print(json.dumps({"pair": path.name, "method": chosen.method, **found}))
            continue
        print(f"== {path.name}, {chosen.method} ({difference.verdict}: {'; '.join(difference.reasons)})")
        for name, value in found.items():
            print(f"{name:<26} {value:.4f}" if isinstance(value, float) else f"{name:<26} {value}")


if __name__ == "__main__":
    main()
