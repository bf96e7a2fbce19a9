"""HOTPANTS 5.1.11 (Becker 2015), a program: the option list of a survey that tuned it.

Noise and mask images of both frames are given. Its default Gaussians of 0.7, 1.5 and 3 pixels (widths of 0.5, 1 and 2
times the one that matches the seeings, as its manual advises, left residuals five times larger on these pairs),
kernel half width 2.5 times the wider FWHM, order 2 over the frame, background order 2, 3 stars in each cell of about
150 pixels (cells of 100 pixels were worse). The cost includes its FITS files. It has no score.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.subtraction.peers.products import Products, bad, pair_facts


def _program() -> str:
    return os.environ.get("NIGHTSIFT_HOTPANTS", "hotpants")


def available() -> str:
    """Why it cannot be called, empty if it can."""
    return "" if shutil.which(_program()) else f"no program {_program()!r} (set NIGHTSIFT_HOTPANTS)"


def options(planes: Any) -> list[str]:
    """The options without the files."""
    facts = pair_facts(planes)
    half = int(np.ceil(2.5 * max(facts[name]["fwhm"] for name in ("science", "template"))))
    ny, nx = planes["science_data"].shape
    given = {
        "-iu": facts["science"]["saturation"],
        "-tu": facts["template"]["saturation"],
        "-il": -1000,
        "-tl": -1000,
        "-r": half,
        "-rss": half + 6,
        "-ko": 2,
        "-bgo": 2,
        "-nsx": max(5, nx // 150),
        "-nsy": max(5, ny // 150),
        "-nss": 3,
        "-n": "i",
    }
    return [str(part) for pair in given.items() for part in pair]


def run(planes: Any, threads: int) -> Products:
    """Write the frames, call the program, read its images."""
    from astropy.io import fits

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = {}
        for frame, letter in (("science", "i"), ("template", "t")):
            usable = ~bad(planes, frame)
            images = {
                "data": planes[f"{frame}_data"],
                "noise": np.sqrt(planes[f"{frame}_variance"]).astype(np.float32),
                "mask": (~usable).astype(np.int16),
            }
            for kind, image in images.items():
                files[letter, kind] = str(folder / f"{frame}-{kind}.fits")
                fits.writeto(files[letter, kind], image)
        out = {kind: folder / f"out-{kind}.fits" for kind in ("data", "noise", "mask")}
        command = [
            _program(), "-inim", files["i", "data"], "-ini", files["i", "noise"], "-imi", files["i", "mask"],
            "-tmplim", files["t", "data"], "-tni", files["t", "noise"], "-tmi", files["t", "mask"],
            "-outim", str(out["data"]), "-oni", str(out["noise"]), "-omi", str(out["mask"]), *options(planes),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"hotpants failed: {(done.stdout + done.stderr)[-500:]}")
        data, noise, mask = (fits.getdata(path).astype(np.float32) for path in out.values())
    # 0x8000: not to be used in the output, 0x80: nor as input.
    wrong = ((mask.astype(np.int64) & 0x8080) != 0) | ~(noise > 0) | (abs(data) < 1e-20)
    convolved = "science" if "Convolving IMAGE" in done.stdout + done.stderr else "template"
    return Products(data, noise**2, wrong, convolved=convolved)
