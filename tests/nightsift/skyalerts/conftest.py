"""Notices with real sky maps in them, and a survey with two tile grids."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable

import numpy as np
import pytest
from astropy.io import fits
from astropy_healpix import healpix_to_xyz, level_ipix_to_uniq


@pytest.fixture
def blob() -> Callable[..., bytes]:
    """Make a multi-order sky map: a blob around a position, with distances."""

    def make(ra: float = 150.0, dec: float = 2.0, width: float = 3.0, level: int = 5, mpc: float = 200.0) -> bytes:
        pixel = np.arange(12 * 4**level)
        vectors = np.stack(healpix_to_xyz(pixel, 2**level, order="nested"), axis=-1)
        a, d = np.radians(ra), np.radians(dec)
        axis = np.array([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)])
        density = np.exp((vectors @ axis - 1.0) / np.radians(width) ** 2)
        density /= density.sum() * 4 * np.pi / len(pixel)
        sigma = 40.0
        columns = {"PROBDENSITY": density, "DISTMU": np.full(len(pixel), mpc), "DISTSIGMA": np.full(len(pixel), sigma),
                   "DISTNORM": np.full(len(pixel), 1.0 / (mpc**2 + sigma**2))}  # fmt: skip
        parts = [fits.Column("UNIQ", "K", array=level_ipix_to_uniq(level, pixel))]
        hdu = fits.BinTableHDU.from_columns([*parts, *(fits.Column(n, "D", array=v) for n, v in columns.items())])
        out = io.BytesIO()
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(out)
        return out.getvalue()

    return make


@pytest.fixture
def notice(blob: Callable[..., bytes]) -> Callable[..., bytes]:
    """Make a notice of LIGO-Virgo-KAGRA with its sky map."""

    def make(
        kind: str = "PRELIMINARY",
        minute: int = 5,
        event: str = "S261120ab",
        skymap: bytes | None = None,
        **changes: object,
    ) -> bytes:
        inner: dict[str, object] | None = {
            "time": "2026-11-20T01:00:00.000Z", "far": 1e-9, "significant": True, "instruments": ["H1", "L1"],
            "group": "CBC", "pipeline": "gstlal", "search": "AllSky", "classification": {"BNS": 0.9, "BBH": 0.1},
            "properties": {"HasNS": 1.0}, "skymap": base64.b64encode(skymap or blob()).decode(), **changes,
        }  # fmt: skip
        if kind == "RETRACTION":
            inner = None
        record = {"alert_type": kind, "time_created": f"2026-11-20T01:{minute:02d}:00Z", "superevent_id": event,
                  "urls": {}, "event": inner, "external_coinc": None}  # fmt: skip
        return json.dumps(record).encode()

    return make
