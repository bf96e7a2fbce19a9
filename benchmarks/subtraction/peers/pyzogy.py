"""PyZOGY (Guevel and Hosseinzadeh 2017): proper subtraction with one PSF for each frame, its own statistic corrected.

It is given the true PSFs of the centre of the frame and the true ratio of the fluxes, which no user has, the masks and
the saturation levels. Noise maps: the variances of sky and sources in the units of its difference.
"""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.subtraction.peers.products import Products, bad, grown, pair_facts
from benchmarks.subtraction.peers.true_psf import true_psf


def available() -> str:
    """Why it cannot be called, empty if it can."""
    return "" if importlib.util.find_spec("PyZOGY") else "the package 'PyZOGY' is not installed"


def run(planes: Any, threads: int) -> Products:
    """Write the frames, subtract, read its difference and corrected statistic."""
    from astropy.io import fits
    from PyZOGY.subtract import run_subtraction

    facts = pair_facts(planes)
    wrong = bad(planes, "science") | bad(planes, "template")
    with tempfile.TemporaryDirectory() as name:
        files: dict[str, str] = {}
        for key in ("science", "template"):
            images = {
                "data": planes[f"{key}_data"].astype(np.float64),
                "psf": true_psf(planes, key, 24),
                "mask": bad(planes, key).astype(np.int16),
            }
            for kind, image in images.items():
                files[f"{key}_{kind}"] = str(Path(name) / f"{key}-{kind}.fits")
                fits.writeto(files[f"{key}_{kind}"], image)
        found = str(Path(name) / "score.fits")
        difference, _ = run_subtraction(
            files["science_data"],
            files["template_data"],
            files["science_psf"],
            files["template_psf"],
            science_mask=files["science_mask"],
            reference_mask=files["template_mask"],
            science_saturation=facts["science"]["saturation"],
            reference_saturation=facts["template"]["saturation"],
            science_variance=planes["science_variance"].astype(np.float64),
            reference_variance=planes["template_variance"].astype(np.float64),
            gain_ratio=1.0 / facts["scale"],
            normalization="science",
            matched_filter=found,
            corrected=True,
        )
        score = fits.getdata(found).astype(np.float32)
    difference = np.real(np.asarray(difference)).astype(np.float32)
    variance = planes["science_variance"] + planes["template_variance"] / np.float32(facts["scale"] ** 2)
    mask = grown(wrong, 6)
    return Products(difference, variance, mask, np.where(mask, 0, score).astype(np.float32), convolved="both")
