"""What a score map finds of the transients of a pair whose truth is known, and what else: see `quality`."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from scipy import ndimage, optimize, stats

from benchmarks.subtraction import fields

THRESHOLD = 5.0
BINS = (3, 4, 5, 6, 7, 10, 20, 50, 200)


def box_around(one: Any, half: int) -> tuple[slice, slice]:
    """Square of a frame around a source."""
    x, y = round(float(one["x"])), round(float(one["y"]))
    return slice(max(0, y - half), max(0, y + half + 1)), slice(max(0, x - half), max(0, x + half + 1))


def false_detections(difference: Any, truth: fields.Truth, near: np.ndarray, hard: np.ndarray) -> dict[str, float]:
    """Peaks beyond `THRESHOLD` that belong to no transient, away from saturated stars and near them."""
    size = abs(difference.score)
    peaks = (size > THRESHOLD) & (size == ndimage.maximum_filter(size, size=5)) & ~hard
    known = np.zeros(hard.shape, bool)
    for one in truth.transients:
        known[box_around(one, round((2.0 if one["snr"] < 30 else 5.0) * truth.science.fwhm))] = True
    usable = ~hard & ~known
    out = {}
    for place, chosen, area in (("", ~near, usable & ~near), ("_near", near, np.ones(hard.shape, bool))):
        mpix = area.sum() / 1e6
        for sign, name in ((1, "plus"), (-1, "minus")):
            found = (peaks & usable & chosen & (np.sign(difference.score) == sign)).sum()
            out[f"false_{name}{place}"] = float(found / mpix) if mpix > 0 else float("nan")
    # The price of few false peaks there: the area that masks take away.
    out["near_masked"] = float((hard & near).sum() / max(near.sum(), 1))
    return out


def completeness(difference: Any, truth: fields.Truth) -> dict[str, Any]:
    """Transients found, and the limits at which half are found, against perfect knowledge."""
    one = truth.transients
    sign = np.sign(one["flux"])
    score = np.array([_largest(difference.score, t) for t in one])
    found, perfect = sign * score > THRESHOLD, sign * one["perfect"] > THRESHOLD
    table = {}
    for low, high in itertools.pairwise(BINS):
        chosen = (one["snr"] >= low) & (one["snr"] < high)
        table[f"{low}-{high}"] = [int(chosen.sum()), int(perfect[chosen].sum()), int(found[chosen].sum())]
    out: dict[str, Any] = {"completeness": table, "found": int(found.sum()), "findable": int(perfect.sum())}
    for name, chosen in (
        ("", np.ones(len(one), bool)),
        ("_sky", one["where"] == "sky"),
        ("_core", one["where"] == "core"),
        ("_arm", one["where"] == "arm"),
        ("_bright", one["where"] == "bright"),
        ("_fading", one["flux"] < 0),
    ):
        weak = chosen & (one["snr"] < 20)
        if weak.sum() < 8:
            continue
        limits = [THRESHOLD / _sensitivity(what[weak], one["snr"][weak]) for what in (found, perfect)]
        out[f"limit_loss_mag{name}"] = float(2.5 * np.log10(limits[0] / limits[1]))
        out[f"limit_snr{name}"] = limits[0]
        unmasked = chosen & (score != 0) & (one["snr"] > 5) & (one["snr"] < 15)
        out[f"score_ratio{name}"] = float(np.median(score[unmasked] / one["perfect"][unmasked]))
    return out


def _largest(score: np.ndarray, one: Any) -> float:
    x, y = round(float(one["x"])), round(float(one["y"]))
    near = score[y - 1 : y + 2, x - 1 : x + 2].ravel()
    return float(near[np.argmax(abs(near))])


def _sensitivity(found: np.ndarray, snr: np.ndarray) -> float:
    """Factor on the S/N of perfect knowledge that explains which transients were found, some lost for other reasons."""

    def cost(parameters: np.ndarray) -> float:
        a, top = np.exp(parameters[0]), 1 / (1 + np.exp(-parameters[1]))
        p = np.clip(top * stats.norm.cdf(a * snr - THRESHOLD), 1e-6, 1 - 1e-6)
        return float(-(np.log(p[found]).sum() + np.log(1 - p[~found]).sum())) + 0.01 * (parameters[1] - 4) ** 2

    return float(np.exp(optimize.minimize(cost, [0.0, 4.0], method="Nelder-Mead").x[0]))
