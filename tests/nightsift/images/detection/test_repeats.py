"""The same detector pixel firing over dithered exposures is told from the same source on the sky."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from nightsift.core.flags import Flag
from nightsift.images.photometry.candidate_flags import flag_repeated_pixels, repeated_pixels

SCALE = 1.2 / 3600


def night(rng, dithers, hot=((300.0, 400.0),), stars=((50.0, 60.0),), with_wcs=True, noise=20, flags=0):
    rows = {name: [] for name in ("exposure_id", "x", "y", "ra", "dec", "sign", "flags", "kind")}
    for k, (dx, dy) in enumerate(dithers):
        spots = [(x, y, "hot") for x, y in hot] + [(x - dx, y - dy, "star") for x, y in stars]
        spots += [(*rng.uniform(0, 2000, 2), "noise") for _ in range(noise)]
        for x, y, kind in spots:
            px, py = x + rng.normal(0, 0.1), y + rng.normal(0, 0.1)
            rows["exposure_id"].append(f"e{k}")
            rows["x"].append(px)
            rows["y"].append(py)
            rows["ra"].append((0.001 + (px + dx) * SCALE) % 360 if with_wcs else None)
            rows["dec"].append((py + dy) * SCALE if with_wcs else None)
            rows["sign"].append(1)
            rows["flags"].append(flags)
            rows["kind"].append(kind)
    rows["flags"] = pa.array(rows["flags"], type=pa.int32())
    return pa.table(rows)


def test_hot_pixel_over_dithered_exposures_is_flagged_and_a_transient_is_not(rng):
    table = night(rng, [(0, 0), (20, 5), (-14, 30), (40, -10)], stars=((500.0, 600.0), (900.0, 100.0)))
    repeated = repeated_pixels(table)
    kinds = np.array(table["kind"].to_pylist())
    assert repeated[kinds == "hot"].all()
    assert not repeated[kinds != "hot"].any()


def test_without_dither_or_wcs_nothing_is_flagged(rng):
    assert not repeated_pixels(night(rng, [(0, 0), (0.3, 0.2), (-0.4, 0.1), (0.2, 0.6)])).any()
    assert not repeated_pixels(night(rng, [(0, 0), (20, 5), (-14, 30), (40, -10)], with_wcs=False)).any()


def test_two_exposures_are_not_enough(rng):
    assert not repeated_pixels(night(rng, [(0, 0), (20, 5)])).any()


def test_a_night_full_of_candidates_does_not_flag_itself(rng):
    dithers = rng.uniform(-50, 50, (40, 2))
    table = night(rng, dithers, hot=((300.0, 400.0),), noise=1500)
    repeated = repeated_pixels(table)
    kinds = np.array(table["kind"].to_pylist())
    assert repeated[kinds == "hot"].all()
    assert repeated[kinds == "noise"].mean() < 1e-3


def test_flags_are_set_and_taken_back(rng):
    bit = Flag.REPEATED_PIXEL.value
    table = night(rng, [(0, 0), (20, 5), (-14, 30)], flags=bit | Flag.EDGE.value)
    flags = flag_repeated_pixels(table)["flags"].to_numpy()
    hot = np.array(table["kind"].to_pylist()) == "hot"
    assert (flags[hot] == bit | Flag.EDGE.value).all()
    assert (flags[~hot] == Flag.EDGE.value).all()
    assert len(repeated_pixels(table.slice(0, 0))) == 0
