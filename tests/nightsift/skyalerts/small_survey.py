"""A small survey with a grid of fields, and exposures put into its archive without reducing anything."""

from __future__ import annotations

import numpy as np
import pytest

from nightsift.archive import ledger
from nightsift.archive.candidates import write_candidates
from nightsift.archive.survey import load_survey
from nightsift.core.frames import Stamps
from nightsift.core.tables import CANDIDATES, table
from nightsift.io.parquet import write_stamps

T0 = 61364.0416667  # 2026-11-20T01:00 UTC
EVENT = "S261120ab"


def ledger_row(name, mjd, ra=150.0, dec=2.0, n=1, unit="decam", night="2026-11-19"):
    texts = {"reason": "", "message": "", "facts": "{}", "stage_seconds": "{}", "provenance": "p", "version": "0"}
    numbers = {"area": 4.0, "seconds": 1.5, "n_candidates": n, "mjd": mjd, "ra": ra, "dec": dec, "limiting_mag": 20.5}
    return {"exposure_id": name, "unit": unit, "night": night, "url": f"/{name}.fits", "state": "done",
            "checksum": "0" * 64, **texts, **numbers}  # fmt: skip


def detection(name, number, mjd, ra, dec, night="2026-11-19", **changes):
    return {
        "candidate_id": f"{name}-{number}", "exposure_id": name, "unit": "decam", "night": night, "field": "f",
        "band": "r", "mjd": mjd, "x": 10.0, "y": 10.0, "ra": ra, "dec": dec, "sign": 1, "snr": 9.0, "n_pixels": 5,
        "elongation": 1.0, "flux": 9.0, "flux_err": 1.0, "flux_aperture": 9.0, "flux_aperture_err": 1.0, "dipole": 0.0,
        "masked_fraction": 0.0, "flags": 0, "template_id": "t", "stamp_index": number, "score": 0.99, "mag": 19.0,
        "mag_err": 0.1, **changes,
    }  # fmt: skip


def add(archive, name, mjd, rows, night="2026-11-19", **where):
    found = [detection(name, k, mjd, night=night, **row) for k, row in enumerate(rows)]
    write_candidates(archive, night, "decam", name, table(found, CANDIDATES) if found else CANDIDATES.empty_table())
    planes = np.random.default_rng(3).normal(size=(len(found), 11, 11, 3)).astype(np.float32)
    path = archive.stamps(night, "decam", name)
    write_stamps(path, [one["candidate_id"] for one in found], Stamps(planes, np.zeros(planes.shape[:3], dtype=bool)))
    ledger.record(archive, ledger_row(name, mjd, n=len(found), night=night, **where))


@pytest.fixture
def survey(tmp_path):
    """A survey with one grid, a variable star and an active nucleus."""
    fields = [f"f{k} {ra:.2f} {dec:.2f}" for k, (ra, dec) in enumerate(
        (ra, dec) for dec in (-2, 0, 2, 4, 6) for ra in (146, 148, 150, 152, 154))]  # fmt: skip
    (tmp_path / "g.txt").write_text("\n".join(fields))
    (tmp_path / "vsx.csv").write_text("ra,dec\n150.6,2.2\n")
    (tmp_path / "agn.csv").write_text("ra,dec\n150.7,2.2\n")
    (tmp_path / "s.toml").write_text(
        'name = "small"\narchive = "archive"\n[[source]]\nunit = "decam"\nframes = "frames"\n'
        '[alert]\nhours = 48\nstars = ["vsx.csv"]\nnuclei = ["agn.csv"]\nworkers = 0\n'
        '[[alert.tiling]]\nname = "g"\nfile = "g.txt"\nwidth = 2.1\n'
    )
    return load_survey(tmp_path / "s.toml")
