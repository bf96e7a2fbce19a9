"""SFFT 1.7.3 (Hu et al. 2022), NumPy backend, its customised packet: delta basis of order 2, in tiles.

It needs about 2.9 GB per million pixels, so that frames are cut in tiles of at most 1,000 pixels with a margin, each
solved on its own. As its sparse-field packet advises, all but squares around unsaturated stars is blanked for the
solution. The sharper frame is convolved. Noise is carried through by the variances alone; it has no score.
"""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.subtraction.peers.products import Products, bad, grown, pair_facts

TILE, MARGIN = 1000, 32


def available() -> str:
    """Why it cannot be called, empty if it can."""
    return "" if importlib.util.find_spec("sfft") else "the package 'sfft' is not installed"


def run(planes: Any, threads: int) -> Products:
    """Solve and subtract tile by tile."""
    facts = pair_facts(planes)
    convolved = "template" if facts["template"]["fwhm"] <= facts["science"]["fwhm"] else "science"
    half = max(6, round(2.0 * max(facts[name]["fwhm"] for name in ("science", "template"))))
    wrong = bad(planes, "science") | bad(planes, "template")
    frames = {name: np.where(bad(planes, name), 0, planes[f"{name}_data"]) for name in ("science", "template")}
    keep = _stars(frames["template"], planes["template_variance"], wrong, 2 * half)
    difference = np.zeros(wrong.shape, np.float32)
    ny, nx = wrong.shape
    rows, columns = (max(1, int(np.ceil(n / TILE))) for n in (ny, nx))
    for j in range(rows):
        for i in range(columns):
            inner = slice(j * ny // rows, (j + 1) * ny // rows), slice(i * nx // columns, (i + 1) * nx // columns)
            outer = tuple(
                slice(max(0, s.start - MARGIN), min(n, s.stop + MARGIN)) for s, n in zip(inner, (ny, nx), strict=True)
            )
            tile = _tile({k: v[outer] for k, v in frames.items()}, keep[outer], half, convolved, threads)
            start = inner[0].start - outer[0].start, inner[1].start - outer[1].start
            size = inner[0].stop - inner[0].start, inner[1].stop - inner[1].start
            difference[inner] = tile[start[0] : start[0] + size[0], start[1] : start[1] + size[1]]
    # The flux ratio, known from the bright pixels of the stars, brings a convolved science frame back to its scale.
    stars = keep & (frames["template"] > 50 * np.sqrt(planes["template_variance"]))
    ratio = float(frames["science"][stars].sum() / frames["template"][stars].sum())
    variance = planes["science_variance"] + planes["template_variance"] * np.float32(ratio**2 * 0.2)
    if convolved == "science":
        difference *= np.float32(ratio)
        variance = planes["science_variance"] * np.float32(0.2) + planes["template_variance"] * np.float32(ratio**2)
    return Products(difference, variance, grown(wrong, half), convolved=convolved)


def _stars(data: np.ndarray, variance: np.ndarray, wrong: np.ndarray, radius: int) -> np.ndarray:
    """Discs around stars bright enough to constrain a kernel and far from saturated ones."""
    from scipy import ndimage

    peaks = (data > 15 * np.sqrt(np.median(variance))) & (data == ndimage.maximum_filter(data, size=5))
    return grown(peaks & ~grown(wrong, 3 * radius), radius) & ~grown(wrong, 2 * radius)


def _tile(frames: dict[str, np.ndarray], keep: np.ndarray, half: int, convolved: str, threads: int) -> np.ndarray:
    from astropy.io import fits
    from sfft.CustomizedPacket import Customized_Packet

    with tempfile.TemporaryDirectory() as name:
        files = {}
        for key, image in frames.items():
            for masked in (False, True):
                files[key, masked] = str(Path(name) / f"{key}-{masked}.fits")
                fits.writeto(files[key, masked], np.where(keep, image, 0) if masked else image)
        done = Customized_Packet.CP(
            FITS_REF=files["template", False],
            FITS_SCI=files["science", False],
            FITS_mREF=files["template", True],
            FITS_mSCI=files["science", True],
            ForceConv="REF" if convolved == "template" else "SCI",
            GKerHW=half,
            FITS_DIFF=None,
            KerPolyOrder=2,
            BGPolyOrder=1,
            ConstPhotRatio=True,
            BACKEND_4SUBTRACT="Numpy",
            NUM_CPU_THREADS_4SUBTRACT=threads,
            VERBOSE_LEVEL=0,
        )
    return np.asarray(done[-1]).T
