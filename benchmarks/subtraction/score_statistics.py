"""Whether the score is normal on source-free sky, and what it costs where it is not.

    python benchmarks/subtraction/score_statistics.py --pairs FOLDER --methods hotpants zogy --kinds empty galaxies

On pairs whose truth is known: mean, sigma and tails of the score on source-free sky; peaks of noise at 3.5 to 5 sigma
against the Gaussian expectation (Kaiser; DMTN-006), and false detections per square degree at 5 sigma away from
saturated stars and near them, those without a flag of the mask apart; the 50 % limit against perfect knowledge, in
empty sky and on the cores of galaxies. Fields that are in FOLDER are not drawn again.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage, stats

import subtraction
from benchmarks.subtraction import fields, quality
from subtraction.quality.verdict import expected_peaks, matched_sigma

LEVELS = (3.5, 4.0, 4.5, 5.0)


def measure(difference: Any, pair: Any, truth: fields.Truth) -> dict[str, Any]:
    """All figures of one difference."""
    sky, near, hard = quality._regions(difference, pair, truth)
    sky &= ~near & ~hard
    # Peaks are counted where no source comes within the filter's reach.
    clear = ndimage.binary_erosion(sky, iterations=2)
    values = difference.score[sky]
    step = int(np.ceil(3 * truth.science.fwhm))
    apart = difference.score[::step, ::step][sky[::step, ::step]]
    size = np.abs(difference.score)
    tops = (size == ndimage.maximum_filter(size, size=3)) & clear
    sigma = matched_sigma(difference.psf)
    out: dict[str, Any] = {
        "mean": values.mean(), "sigma": values.std(), "ks_p": stats.kstest(apart, "norm").pvalue, "ks_n": len(apart),
        "beyond_3": float((np.abs(apart) > 3).mean() / (2 * stats.norm.sf(3))), "clear_mpix": clear.sum() / 1e6,
    }  # fmt: skip
    for level in LEVELS:
        found = int((size[tops] > level).sum())
        out[f"peaks_{level}"] = (found, 2 * expected_peaks(level, sigma) * float(clear.sum()))
    measured = quality.measure(difference, pair, truth)
    wanted = ("false_plus", "false_minus", "false_plus_near", "false_minus_near", "residual",
              "limit_loss_mag", "limit_loss_mag_sky", "limit_loss_mag_core")  # fmt: skip
    out.update({name: measured[name] for name in wanted if name in measured})
    per_degree = (3600.0 / fields.PIXEL_SCALE) ** 2 / 1e6
    out["false_per_deg2"] = (measured["false_plus"] + measured["false_minus"]) * per_degree
    out["gauss_per_deg2"] = 2e6 * expected_peaks(5.0, sigma) * per_degree
    out["verdict"] = (difference.verdict, difference.reasons)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--methods", nargs="+", default=["hotpants"])
    parser.add_argument("--kinds", nargs="+", default=list(fields.KINDS))
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = []
    for kind in arguments.kinds:
        for seed in arguments.seeds:
            pair, truth = fields.load(fields.cached(arguments.pairs, kind, (arguments.size, arguments.size), seed))
            for method in arguments.methods:
                start = time.process_time()
                difference = subtraction.subtract_pair(pair, method)
                seconds = time.process_time() - start
                row = {
                    "kind": kind,
                    "seed": seed,
                    "method": method,
                    "cpu_s": seconds,
                    **measure(difference, pair, truth),
                }
                rows.append(row)
                print(" ".join(f"{key}={_short(value)}" for key, value in row.items()), flush=True)
    for method in arguments.methods:
        mine = [row for row in rows if row["method"] == method]
        for level in LEVELS:
            found, expected = np.sum([row[f"peaks_{level}"] for row in mine], axis=0)
            print(f"{method}: {found:.0f} peaks beyond {level} sigma on clear sky, {expected:.1f} expected")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1, default=float))


def _short(value: Any) -> str:
    if isinstance(value, float | np.floating):
        return f"{value:.4g}"
    if isinstance(value, tuple) and value and isinstance(value[1], float):
        return f"{value[0]}/{value[1]:.1f}"
    return str(value)


if __name__ == "__main__":
    main()
