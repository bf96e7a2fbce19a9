"""What a peer gives back, and what all adapters need of a pair."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np

BAD = 0xFFFF & ~128
"""Bits of pixels that hold no usable value (the halo of a bright star does)."""


@dataclass
class Products:
    """Difference on the science frame's flux scale, its variance, mask (True is bad), score if the peer has one."""

    difference: np.ndarray
    variance: np.ndarray
    mask: np.ndarray
    score: np.ndarray | None = None
    psf: np.ndarray | None = None
    convolved: str = "template"
    seconds: dict[str, float] = field(default_factory=dict)


def pair_facts(planes: Any) -> dict[str, Any]:
    """Meta data of a pair: true flux ratio, and of each frame seeing, gain, read noise, saturation above the sky."""
    raw = json.loads(str(planes["told"]))
    out: dict[str, Any] = {"scale": raw["scale"]}
    for name, meta, sky, optics in zip(("science", "template"), raw["meta"], raw["sky"], raw["optics"], strict=True):
        out[name] = {
            "gain": meta["gain"],
            "read_noise": meta["read_noise"],
            "saturation": meta["saturation"] - sky,
            "fwhm": optics["fwhm"],
        }
    return out


def bad(planes: Any, name: str) -> np.ndarray:
    """Bad pixels of a frame."""
    return (planes[f"{name}_mask"] & BAD) != 0


def grown(mask: np.ndarray, radius: int) -> np.ndarray:
    """A mask grown by a square."""
    from scipy import ndimage

    return ndimage.maximum_filter(mask, size=2 * radius + 1)
