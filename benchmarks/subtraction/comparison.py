"""Our methods and every other code that can be called, side by side on the same pairs: speed, memory, quality.

    python benchmarks/subtraction/comparison.py [--kinds empty crowded] [--shape 2048 2048] [--methods hotpants zogy]

Each method runs in a process of its own on two threads, after its compiled code was warmed up by a small pair; the cost
is that of the subtraction with variance, whitening and score where it has them, without reading the pair. Names of
peers carry a tilde. Those without a score get a matched filter with the true PSF and their own noise map, scaled to
unit width (marked *). What the columns mean stands in `quality`. Set NIGHTSIFT_PEER_PYTHON to the interpreter that has
the Python peers, NIGHTSIFT_HOTPANTS to the program.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks.subtraction import fields, quality
from benchmarks.subtraction.peers import true_psf
from benchmarks.subtraction.peers.child import cost
from nightsift.core.flags import Mask
from subtraction.api.pairs import method_names, subtract_pair

ROOT = Path(__file__).resolve().parents[2]

PEERS = ("hotpants", "delta", "sfft", "pyzogy", "stdpipe_zogy", "properimage")
COLUMNS = {
    "wall s": ("wall_s", "{:.2f}"),
    "CPU s": ("cpu_s", "{:.2f}"),
    "GB": ("peak_gb", "{:.2f}"),
    "residual": ("residual", "{:.3f}"),
    "S/N>500": ("residual_500", "{:.3f}"),
    "false +": ("false_plus", "{:.2f}"),
    "false -": ("false_minus", "{:.2f}"),
    "near +": ("false_plus_near", "{:.2f}"),
    "near -": ("false_minus_near", "{:.2f}"),
    "found": ("found_of", "{}"),
    "loss mag": ("limit_loss_mag", "{:+.3f}"),
    "core mag": ("limit_loss_mag_core", "{:+.3f}"),
    "flux %": ("flux_percent", "{:+.2f}"),
    "aperture %": ("aperture_percent", "{:+.2f}"),
    "scatter": ("flux_scatter", "{:.2f}"),
    "pull": ("pull_sigma", "{:.2f}"),
    "sky sigma": ("sky_sigma", "{:.3f}"),
    "KS p": ("sky_ks_p", "{:.2g}"),
    "masked %": ("masked_percent", "{:.1f}"),
}


class ConstantPsf:
    """One PSF image for the whole frame, as `quality` asks for it."""

    def __init__(self, image: np.ndarray) -> None:
        self.image = image

    def at(self, x: float, y: float) -> np.ndarray:
        """The image, normalised."""
        return self.image / self.image.sum()


def own(method: str, path: Path, small: Path, threads: int, cost_only: bool) -> dict[str, Any]:
    """Cost and quality of a method of ours, in this process."""
    import resource

    subtract_pair(fields.load(small)[0], method, {"threads": threads})
    pair, truth = fields.load(path)
    began = cost()
    difference = subtract_pair(pair, method, {"threads": threads})
    ended = cost()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    spent = {"wall_s": ended[0] - began[0], "cpu_s": ended[1] - began[1], "peak_gb": peak}
    if cost_only:
        return spent
    return {**spent, **quality.measure(difference, pair, truth), "verdict": difference.verdict}


def peer(name: str, path: Path, small: Path, threads: int, cost_only: bool) -> dict[str, Any]:
    """Cost and quality of another code, which runs in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "products.npz"
        if name == "sfft":
            child(name, small, out, threads)
        spent = child(name, path, out, threads)
        if spent["reason"] or cost_only:
            return spent
        with np.load(out) as file:
            products = {key: file[key] for key in file.files}
    pair, truth = fields.load(path)
    psf = ConstantPsf(products["psf"]) if "psf" in products else None
    score = products.get("score")
    if score is None:
        with np.load(path) as given:
            wide = "science" if spent["convolved"] == "template" else "template"
            score = true_psf.score(given, products["difference"], products["variance"], products["mask"], wide)
        spent["score_by"] = "matched filter"
    mask = np.where(products["mask"], Mask.NO_DATA.value, 0).astype(np.uint16)
    finite = np.isfinite(products["difference"]) & np.isfinite(products["variance"]) & np.isfinite(score)
    mask[~finite] = Mask.NO_DATA.value
    arrays = [
        np.where(finite, one, 0).astype(np.float32) for one in (products["difference"], products["variance"], score)
    ]
    shown = SimpleNamespace(data=arrays[0], variance=arrays[1], mask=mask, score=arrays[2], psf=psf)
    shown.variance[~finite] = 1
    return {**spent, **quality.measure(shown, pair, truth)}


def child(name: str, path: Path | str, out: Path, threads: int) -> dict[str, Any]:
    """Call a peer with the interpreter that has it."""
    python = os.environ.get("NIGHTSIFT_PEER_PYTHON", sys.executable)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
    command = [python, "-m", "benchmarks.subtraction.peers.child", name, str(path), str(out), str(threads)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [str(done.returncode)])[-1]
        return {"reason": f"failed: {last[-200:]}"}
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def one(name: str, path: Path, small: Path, threads: int, cost_only: bool) -> dict[str, Any]:
    """Cost and quality in a fresh process."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.subtraction.comparison",
        "--one",
        name,
        str(path),
        str(small),
        "--threads",
        str(threads),
    ]
    done = subprocess.run(command + ["--cost-only"] * cost_only, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        return {"reason": f"failed: {done.stderr.strip()[-300:]}"}
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def row(found: dict[str, Any]) -> list[str]:
    """Cells of the table."""
    if found.get("reason"):
        return ["-"] * len(COLUMNS)
    values = {
        **found,
        "found_of": f"{found.get('found', '-')}/{found.get('findable', '-')}",
        "flux_percent": 100 * found.get("flux_bias", np.nan),
        "aperture_percent": 100 * found.get("flux_bias_aperture", np.nan),
        "masked_percent": 100 * found.get("masked", np.nan),
    }
    return [form.format(values[key]) if key in values else "-" for key, form in COLUMNS.values()]


def table(results: dict[str, dict[str, dict[str, Any]]], shape: tuple[int, int]) -> str:
    """A table for each kind of field, and the completeness by S/N, in Markdown."""
    lines = []
    for kind, found in results.items():
        lines += [f"### {kind}, {shape[1]} x {shape[0]}", "", "| code | " + " | ".join(COLUMNS) + " |"]
        lines += ["|" + "---|" * (len(COLUMNS) + 1)]
        for name, values in found.items():
            star = "*" if values.get("score_by") else ""
            lines.append(f"| {name}{star} | " + " | ".join(row(values)) + " |")
        good = {name: values for name, values in found.items() if "completeness" in values}
        if good:
            bins = next(iter(good.values()))["completeness"]
            perfect = [f"{p / n:.2f}" if n else "-" for n, p, _ in bins.values()]
            lines += ["", "| completeness, S/N | " + " | ".join(bins) + " |", "|" + "---|" * (len(bins) + 1)]
            lines += ["| perfect knowledge | " + " | ".join(perfect) + " |"]
            for name, values in good.items():
                cells = [f"{f / n:.2f}" if n else "-" for n, _, f in values["completeness"].values()]
                lines.append(f"| {name} | " + " | ".join(cells) + " |")
        lines += [""] + [f"{name}: {values['reason']}" for name, values in found.items() if values.get("reason")] + [""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", nargs="*", default=list(fields.KINDS), choices=list(fields.KINDS))
    parser.add_argument("--shape", nargs=2, type=int, default=(1024, 1024), metavar=("NY", "NX"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--methods", nargs="*", help="ours by name, peers with a tilde before it; all by default")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pairs", type=Path, default=Path(tempfile.gettempdir()) / "nightsift-pairs")
    parser.add_argument("--out", type=Path, help="folder for table.md and table.json")
    parser.add_argument("--cost-only", action="store_true", help="measure no quality: for large frames")
    parser.add_argument("--one", nargs=3, metavar=("NAME", "PAIR", "SMALL"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        name, path, small = chosen.one
        call = peer if name.startswith("~") else own
        print(json.dumps(call(name.lstrip("~"), Path(path), Path(small), chosen.threads, chosen.cost_only)))
        return
    shape = tuple(chosen.shape)
    chosen.pairs = chosen.pairs.resolve()  # the children run in the root
    small = fields.cached(chosen.pairs, "empty", (512, 512))
    names = chosen.methods or [*method_names(), *(f"~{name}" for name in PEERS)]
    results: dict[str, dict[str, dict[str, Any]]] = {}
    for kind in chosen.kinds:
        path = fields.cached(chosen.pairs, kind, shape, chosen.seed)
        results[kind] = {}
        for name in names:
            results[kind][name] = one(name, path, small, chosen.threads, chosen.cost_only)
            print(
                kind, name, results[kind][name].get("reason") or row(results[kind][name]), file=sys.stderr, flush=True
            )
            if chosen.out:
                chosen.out.mkdir(parents=True, exist_ok=True)
                (chosen.out / "table.json").write_text(json.dumps(results, indent=1))
                (chosen.out / "table.md").write_text(table(results, shape))
    print(table(results, shape))


if __name__ == "__main__":
    main()
