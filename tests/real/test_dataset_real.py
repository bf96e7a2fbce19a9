"""The factory on real frames: DECam, galaxies by the shapes of the template, no truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flows.training import make_dataset
from models.training import examples
from tests.real.test_nights_real import link, survey_of

pytestmark = pytest.mark.real


def test_real_frames_give_examples_that_a_set_can_be_made_of(data_dir: Path, tmp_path: Path) -> None:
    frames = data_dir / "images/decam_sfft"
    link(frames.glob("DEC-OBS18?.mini.fits.gz"), tmp_path / "templates")
    link(frames.glob("DEC-OBS04?.mini.fits.gz"), tmp_path / "night")
    made = make_dataset(tmp_path / "set", survey_of(tmp_path, "decam"), seed=2, workers=1, track=False)
    source = np.asarray(made.table["source"].to_pylist())
    assert (source == "injected").sum() >= 20
    assert (made.labels == 0).sum() >= 5
    snr = np.asarray(made.table["snr"], dtype=np.float64)
    bright = (source == "injected") & (snr > 20)
    off = np.asarray(made.table["mag"].to_pylist(), dtype=np.float64) - np.asarray(
        made.table["true_mag"].to_pylist(), dtype=np.float64
    )
    known = np.isfinite(off) & bright
    assert not known.any() or np.median(np.abs(off[known])) < 0.1
    assert examples.read(tmp_path / "set").card["set_id"]
