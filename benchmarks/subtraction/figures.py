"""Draw the figures of docs/algorithms.md.

    python benchmarks/subtraction/figures.py --pairs FOLDER [--comparison table.json] --out docs/figures

Pairs of known truth that are in FOLDER are not drawn again. The figure of completeness shows every code in a table that
``comparison.py --out`` wrote, peers included; without one it is left as it is.
"""

from __future__ import annotations

import argparse
import gc
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from scipy import ndimage, stats

import subtraction
from benchmarks.subtraction import fields, quality
from benchmarks.subtraction.detections import box_around
from benchmarks.subtraction.ideal import HALF, expected_variance
from nightsift.images.stars.stars import find_stars
from nightsift.report.plots import COLOURS, STYLE
from subtraction.psf.fit import fit_psf

METHODS = ("hotpants", "zogy", "sfft")
WIDTH, DPI = 9.2, 110
GRID, CROP = 5, 6
"""Places along each side of the maps, and half width of what is shown of an image there (pixel)."""
NONE = 0.1
"""Where no false detection at all is drawn on a logarithmic axis."""
LOOKS = {
    "hotpants": (COLOURS[0], "o"), "zogy": (COLOURS[1], "s"), "sfft": (COLOURS[2], "^"),
    "~hotpants": (COLOURS[3], "D"), "~delta": (COLOURS[4], "v"), "~sfft": (COLOURS[5], "P"),
    "~pyzogy": (COLOURS[6], "X"), "~stdpipe_zogy": (COLOURS[7], "<"), "~properimage": ("#777777", ">"),
}  # fmt: skip
NAMES = {
    "~hotpants": "HOTPANTS", "~delta": "delta", "~sfft": "SFFT", "~pyzogy": "PyZOGY", "~stdpipe_zogy": "stdpipe ZOGY",
    "~properimage": "properimage",
}  # fmt: skip


def montage(images: np.ndarray) -> np.ndarray:
    """Small images on a grid as one image, rows from low y upwards, a blank line between them."""
    side = images.shape[-1] + 1
    out = np.full((images.shape[0] * side + 1, images.shape[1] * side + 1), np.nan)
    for j, i in np.ndindex(*images.shape[:2]):
        out[j * side + 1 : (j + 1) * side, i * side + 1 : (i + 1) * side] = images[j, i]
    return out


def crop(image: np.ndarray) -> np.ndarray:
    """The middle of an image, padded where it is smaller."""
    spare = image.shape[-1] // 2 - CROP
    if spare < 0:
        return np.pad(image, -spare)
    return image[spare : image.shape[0] - spare, spare : image.shape[1] - spare]


def places(shape: tuple[int, int]) -> list[list[tuple[float, float]]]:
    """Centres of the cells of the grid, rows from low y."""
    unit = (np.arange(GRID) + 0.5) / GRID
    return [[(float(u * shape[1]), float(v * shape[0])) for u in unit] for v in unit]


def draw_maps(path: Path, panels: Mapping[str, tuple[np.ndarray, float, str]], bent: bool) -> None:
    """Maps side by side: title -> (map, half of its range, what the bar says); `bent` stretches the faint part."""
    figure = Figure(figsize=(WIDTH, WIDTH / len(panels) + 0.35), layout="constrained")
    for axis, (title, (image, limit, label)) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        positive = bool(np.nanmin(image) > -1e-3 * limit)
        norm: Any = matplotlib.colors.Normalize(0.0 if positive else -limit, limit)
        if bent:
            norm = matplotlib.colors.AsinhNorm(linear_width=limit / 30, vmin=-limit, vmax=limit)
        shown = axis.imshow(
            image, origin="lower", cmap="Blues" if positive else "RdBu_r", norm=norm, interpolation="nearest"
        )
        axis.set(xticks=[], yticks=[], title=title)
        axis.grid(False)
        for side in axis.spines.values():
            side.set_visible(False)
        bar = figure.colorbar(shown, ax=axis, orientation="horizontal", shrink=0.8, pad=0.02, aspect=30)
        ticks = [-limit, -limit / 10, 0, limit / 10, limit] if bent else [norm.vmin, (norm.vmin + limit) / 2, limit]
        bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
        bar.ax.minorticks_off()
        bar.outline.set_visible(False)  # type: ignore[operator]
        bar.set_label(label)
    save(figure, path)


def draw_kernels(path: Path, differences: Mapping[str, Any]) -> None:
    """Kernel of each method over the frame."""
    titles = {"hotpants": "hotpants: kernel", "zogy": "zogy: filter of the template", "sfft": "sfft: kernel"}
    panels = {}
    for name, difference in differences.items():
        if difference.kernel_map is not None:
            images = np.array([[crop(one) for one in row] for row in difference.kernel_map])
            panels[titles[name]] = (montage(images / images.max()), 1.0, "of the highest pixel (asinh scale)")
    draw_maps(path, panels, bent=True)


def draw_psf(path: Path, pair: Any, truth: fields.Truth) -> None:
    """PSF of the science frame over the frame: truth, model, and what the model is wrong by."""
    model = fit_psf(pair.science, find_stars(pair.science))
    where = places(pair.science.shape)
    true = np.array([[crop(truth.science.stamp(x, y, HALF)) for x, y in row] for row in where])
    seen = np.array([[crop(model.at(x, y).astype(np.float64)) for x, y in row] for row in where])
    peak = true.max()
    panels = {
        "Truth": (montage(true / peak), 1.0, "of the highest pixel"),
        "Model": (montage(seen / peak), 1.0, "of the highest pixel"),
        "Model less truth": (montage(100 * (seen - true) / peak), 1.0, "per cent of the highest pixel"),
    }
    draw_maps(path, panels, bent=False)


def sky_scores(difference: Any, pair: Any, truth: fields.Truth) -> np.ndarray:
    """Score of pixels without a source, away from saturated stars and masks."""
    sky, near, hard = quality._regions(difference, pair, truth)
    return np.asarray(difference.score[sky & ~near & ~hard])


def draw_scores(path: Path, scores: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Histograms of the score on the sky against the unit Gaussian."""
    figure = Figure(figsize=(WIDTH, 3.3), layout="constrained")
    edges = np.arange(-6.5, 6.51, 0.25)
    middle = 0.5 * (edges[1:] + edges[:-1])
    for axis, (kind, found) in zip(figure.subplots(1, len(scores), sharey=True), scores.items(), strict=True):
        count = max(len(values) for values in found.values())
        axis.plot(middle, count * np.diff(stats.norm.cdf(edges)), color="#1b222a", linewidth=1.0, label="unit Gaussian")
        for name, values in found.items():
            colour, marker = LOOKS[name]
            heights = np.histogram(values, edges)[0] * (count / len(values))
            label = f"{name}: {values.mean():+.3f}, {values.std():.3f}"
            axis.plot(middle, np.where(heights > 0, heights, np.nan), color=colour, marker=marker, markersize=3.2,
                      linestyle="none", alpha=0.8, markeredgewidth=0, label=label)  # fmt: skip
        axis.set(yscale="log", ylim=(0.5, 2 * count), xlim=(-6.5, 6.5), xlabel="Score on source-free sky (sigma)")
        axis.set_title(f"{kind}: {count / 1e6:.1f} Mpix of sky; mean, sigma")
        axis.legend(loc="lower center", handletextpad=0.3)
    figure.axes[0].set_ylabel("Pixels per quarter sigma")
    save(figure, path)


def star_residuals(difference: Any, pair: Any, truth: fields.Truth) -> tuple[np.ndarray, np.ndarray]:
    """S/N of unsaturated stars away from transients, and the mean squared residual of each over that of the sky."""
    hard = (difference.mask & quality.HARD) != 0
    sky, near, _ = quality._regions(difference, pair, truth)
    blocked = hard | near
    for one in truth.transients:
        blocked[box_around(one, round(4 * truth.science.fwhm))] = True
    reach = int(truth.science.fwhm)
    blocked = ndimage.maximum_filter(blocked, size=2 * reach + 1)
    blocked[: HALF + 1] = blocked[-HALF - 1 :] = blocked[:, : HALF + 1] = blocked[:, -HALF - 1 :] = True
    core = np.hypot(*np.mgrid[-HALF : HALF + 1, -HALF : HALF + 1]) <= truth.science.fwhm
    noise = 5 * np.sqrt(truth.sky_variance[0])
    ny, nx = hard.shape

    def ratio(j: int, i: int) -> float:
        box = slice(j - HALF, j + HALF + 1), slice(i - HALF, i + HALF + 1)
        return float((difference.data[box][core] ** 2 / expected_variance(pair, truth, i, j, True)[core]).mean())

    rows = []
    for star in truth.stars[(truth.stars["flux"] > 20 * noise) & ~truth.stars["saturated"]]:
        j, i = round(star["y"]), round(star["x"])
        if 0 <= j < ny and 0 <= i < nx and not blocked[j, i]:
            rows.append((star["flux"] / noise, ratio(j, i)))
    places = np.argwhere(ndimage.minimum_filter(sky & ~blocked, size=2 * reach + 1))
    chosen = places[np.random.default_rng(0).choice(len(places), min(1000, len(places)), replace=False)]
    level = np.mean([ratio(int(j), int(i)) for j, i in chosen])
    snr, found = np.array(rows).T
    return snr, found / level


def draw_residuals(path: Path, found: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]]) -> None:
    """Root mean square of the residual at stars over its expectation, by their S/N."""
    figure = Figure(figsize=(WIDTH, 3.0), layout="constrained")
    edges = np.geomspace(20, 5000, 9)
    for axis, (kind, methods) in zip(figure.subplots(1, len(found), sharey=True), found.items(), strict=True):
        for k, (name, (snr, ratio)) in enumerate(methods.items()):
            colour, marker = LOOKS[name]
            bins = np.digitize(snr, edges)
            chosen = [b for b in range(1, len(edges)) if (bins == b).sum() >= 5]
            mean = np.array([ratio[bins == b].mean() for b in chosen])
            error = np.array([ratio[bins == b].std() / np.sqrt((bins == b).sum()) for b in chosen])
            centre = np.sqrt(edges[:-1] * edges[1:])[np.array(chosen) - 1] * 1.05 ** (k - 1)
            axis.errorbar(centre, np.sqrt(mean), 0.5 * error / np.sqrt(mean), color=colour, marker=marker,
                          markersize=4.2, linewidth=1.0, elinewidth=0.8, label=name)  # fmt: skip
        axis.axhline(1.0, color="#1b222a", linewidth=0.8)
        axis.set(xscale="log", xlabel="Star's S/N on the science frame", title=kind)
        axis.legend(loc="upper left")
    figure.axes[0].set_ylabel("Residual rms / photon noise")
    save(figure, path)


def draw_peers(path: Path, results: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
    """Completeness by S/N against perfect knowledge, and residual at bright stars against false detections."""
    names = [name for name in LOOKS if all("completeness" in found.get(name, {}) for found in results.values())]
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    sums = {name: sum_completeness([found[name]["completeness"] for found in results.values()]) for name in names}
    for i, (n, perfect, _) in enumerate(next(iter(sums.values())).values()):
        label = "perfect knowledge" if i == 0 else None
        left.plot([i - 0.42, i + 0.42], [perfect / n] * 2, color="#1b222a", linewidth=1.2, label=label)
    for k, name in enumerate(names):
        colour, marker = LOOKS[name]
        look: dict[str, Any] = {"color": colour, "marker": marker, "linestyle": "none", "markeredgewidth": 0}
        place = np.arange(len(sums[name])) + 0.11 * (k - (len(names) - 1) / 2)
        left.plot(
            place, [f / n for n, _, f in sums[name].values()], markersize=4.6, label=NAMES.get(name, name), **look
        )
        false = [found[name]["false_plus"] + found[name]["false_minus"] for found in results.values()]
        rest = [found[name]["residual_500"] for found in results.values()]
        right.plot(np.maximum(false, NONE), rest, markersize=5, alpha=0.85, **look)
    left.set_xticks(np.arange(len(sums[names[0]])), labels=list(sums[names[0]]))
    left.set(xlabel="S/N of perfect knowledge", ylabel="Part found beyond 5 sigma", ylim=(0, 1.05),
             title=f"Completeness, {len(results)} kinds of fields")  # fmt: skip
    left.legend(loc="lower right")
    right.axhline(1.0, color="#1b222a", linewidth=0.8)
    right.set(xscale="log", yscale="log", xlabel="False detections a megapixel, saturated stars apart, both signs",
              ylabel="Residual rms / photon noise", title="Stars of S/N > 500, a point for each kind")  # fmt: skip
    right.xaxis.set_major_formatter(lambda value, _: "none" if value <= NONE else f"{value:g}")
    low, high = right.get_ylim()
    right.yaxis.set_ticks([tick for tick in (0.9, 1.0, 1.1, 1.2, 1.5, 2.0, 3.0, 5.0, 10.0) if low < tick < high])
    right.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    right.yaxis.set_minor_locator(matplotlib.ticker.NullLocator())
    save(figure, path)


def sum_completeness(tables: list[Mapping[str, list[int]]]) -> dict[str, np.ndarray]:
    """Injected, found by perfect knowledge and found, by S/N over all tables; everything above 10 in one."""
    sums: dict[str, np.ndarray] = {}
    for one in tables:
        for name, counts in one.items():
            low, high = name.split("-")
            label = "> 10" if float(low) >= 10 else f"{low}\u2013{high}"
            sums[label] = sums.get(label, np.zeros(3, int)) + np.array(counts)
    return {label: counts for label, counts in sums.items() if counts[0]}


def save(figure: Figure, path: Path) -> None:
    """Write a PNG whose bytes depend on nothing but what it shows."""
    figure.savefig(path, dpi=DPI, metadata={"Software": None})
    print(path, f"{path.stat().st_size / 1000:.0f} kB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=Path, default=Path("pairs"))
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--comparison", type=Path, help="table.json of comparison.py")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parents[2] / "docs" / "figures")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    scores: dict[str, dict[str, np.ndarray]] = {"empty": {}, "crowded": {}}
    residuals: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {"empty": {}, "elongated": {}}
    with matplotlib.rc_context({**STYLE, "figure.facecolor": "white", "savefig.facecolor": "white"}):
        for kind in dict.fromkeys([*scores, *residuals]):
            path = fields.cached(chosen.pairs, kind, (chosen.size, chosen.size), chosen.seed)
            pair, truth = fields.load(path)
            for_kernels = {}
            for name in METHODS:
                difference = subtraction.subtract_pair(pair, name)
                if kind in scores:
                    scores[kind][name] = sky_scores(difference, pair, truth)
                if kind in residuals:
                    residuals[kind][name] = star_residuals(difference, pair, truth)
                for_kernels[name] = difference if kind == "elongated" else None
            if kind == "elongated":
                draw_kernels(chosen.out / "kernels.png", for_kernels)
                draw_psf(chosen.out / "psf.png", pair, truth)
            del pair, truth, for_kernels, difference
            gc.collect()
        draw_scores(chosen.out / "scores.png", scores)
        draw_residuals(chosen.out / "residuals.png", residuals)
        if chosen.comparison:
            draw_peers(chosen.out / "peers.png", json.loads(chosen.comparison.read_text()))


if __name__ == "__main__":
    main()
