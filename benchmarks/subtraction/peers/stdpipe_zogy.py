"""The ZOGY of stdpipe (Karpov 2022), with PSFs that it measures by SExtractor and PSFEx, in tiles of 1,024 pixels.

Masks and noise maps are given, flux ratio and shift are fitted by its defaults. Its S_corr is taken as it is.
"""

from __future__ import annotations

import importlib.util
import shutil
from typing import Any

import numpy as np

from benchmarks.subtraction.peers.products import Products, bad, grown, pair_facts


def available() -> str:
    """Why it cannot be called, empty if it can."""
    if not importlib.util.find_spec("stdpipe"):
        return "the package 'stdpipe' is not installed"
    missing = [name for name in ("psfex", "source-extractor") if not shutil.which(name)]
    return f"no program {' or '.join(missing)}" if missing else ""


def run(planes: Any, threads: int) -> Products:
    """Subtract arrays."""
    from stdpipe.subtraction import run_zogy

    facts = pair_facts(planes)
    ny, nx = planes["science_data"].shape
    wrong = bad(planes, "science") | bad(planes, "template")
    difference, statistic, *_ = run_zogy(
        planes["science_data"].astype(np.float64),
        planes["template_data"].astype(np.float64),
        mask=bad(planes, "science"),
        template_mask=bad(planes, "template"),
        err=np.sqrt(planes["science_variance"]).astype(np.float64),
        template_err=np.sqrt(planes["template_variance"]).astype(np.float64),
        image_gain=facts["science"]["gain"],
        template_gain=facts["template"]["gain"],
        image_fwhm=facts["science"]["fwhm"],
        template_fwhm=facts["template"]["fwhm"],
        nx=max(1, round(nx / 1024)),
        ny=max(1, round(ny / 1024)),
        get_psf=True,
        nthreads=threads,
    )
    mask = grown(wrong, 6) | ~np.isfinite(difference) | ~np.isfinite(statistic)
    variance = planes["science_variance"] + planes["template_variance"] / np.float32(facts["scale"] ** 2)
    score = np.where(mask, 0, statistic).astype(np.float32)
    return Products(difference.astype(np.float32), variance, mask, score, convolved="both")
