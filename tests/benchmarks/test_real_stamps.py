"""Readers of real stamps: the quirks of each survey undone, on files made here and on the real ones where they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest

from benchmarks.transfer.real_stamps import (
    distance_to_nearest,
    read_atlas,
    read_btsbot,
    read_pgir,
    read_ztf,
    restore_scale,
    share_of_change,
)
from models.training.examples import EXAMPLES
from nightsift.core.frames import Stamps


def _source(size: int, flux: float, x: float = 0.0) -> np.ndarray:
    yy, xx = np.mgrid[:size, :size] - size // 2
    return flux * np.exp(-0.5 * ((xx - x) ** 2 + yy**2) / 1.5**2)


def _ztf(folder: Path) -> Path:
    """Four alerts: a minor planet, a variable fading, one that models call bogus, one that they cannot tell."""
    data = np.random.default_rng(0).normal(100, 1, (4, 63, 63, 3)).astype(np.float32)
    data[..., 2] -= 100
    for k in range(4):
        data[k, ..., 1 if k == 1 else 0] += _source(63, 50)
        data[k, ..., 2] += _source(63, 50)  # bright at the centre, whatever the sign
    data[3, 50:] = np.nan
    data[3, :2, :, 1] = -np.finfo(np.float32).max
    np.savez(folder / "triplets.npz", triplets=data)
    columns = {
        "stamp_index": [0, 1, 2, 3], "candid": [10, 11, 12, 13], "rcid": [3, 3, 4, 63], "field": [1, 1, 2, 2],
        "pid": [1, 1, 2, 2], "objectId": ["a", "b", "c", "d"], "isdiffpos": ["t", "f", "t", "t"],
        "is_asteroid": [True, False, False, False], "tns": [None, None, "", None],
        "ra": [10.0, 20.0, 30.0, 40.0], "dec": [0.0, 60.0, 0.0, 0.0],
        "pseudo_label": ["uncertain", "uncertain", "bogus", "uncertain"],
        "jd": [2458451.7, 2458451.8, 2458452.7, 2458452.7], "scorr": [10.0, 20.0, 6.0, 7.0],
        "magpsf": [18.0, 19.0, 20.0, 20.0], "braai_d6_m9": [0.9, 0.8, 0.1, 0.5],
    }  # fmt: skip
    pq.write_table(pa.table(columns), folder / "index.parquet")
    return folder


def test_ztf_has_a_signed_difference_and_labels_with_their_evidence(tmp_path: Path) -> None:
    variables = np.array([[20.0 + 1.5 / 3600 / np.cos(np.radians(60)), 60.0], [200.0, 0.0]])
    found = read_ztf(_ztf(tmp_path), variables)
    assert found.sign.tolist() == [1, -1, 1, 1]
    centre = found.stamps.data[:, 31, 31, 2]
    assert (np.sign(centre) == found.sign).all()
    assert found.stamps.mask[3, 55].all()
    assert found.stamps.mask[3, :2].all()
    assert not found.stamps.mask[:3].any()
    assert found.column("evidence").tolist() == ["ephemeris", "catalogue", "models", None]
    assert (share_of_change(found.stamps, found.sign)[:3] > 0.9).all()
    assert found.column("class").tolist() == ["mover", "variable", "bogus", None]
    np.testing.assert_array_equal(found.column("label"), [1, 1, 0, np.nan])
    assert read_ztf(tmp_path).column("evidence")[1] is None, "no catalogue, no label from it"


def test_what_fades_where_nothing_was_is_bogus_whatever_classifiers_say(tmp_path: Path) -> None:
    folder = _ztf(tmp_path)
    index = pq.read_table(folder / "index.parquet").to_pydict()
    index["isdiffpos"][2], index["pseudo_label"][2] = "f", "real"  # its flux is in the science frame
    pq.write_table(pa.table(index), folder / "index.parquet")
    found = read_ztf(folder)
    assert found.column("evidence")[2] == "physics"
    assert found.column("label")[2] == 0
    index["is_asteroid"][2] = True
    pq.write_table(pa.table(index), folder / "index.parquet")
    assert read_ztf(folder).column("evidence")[2] == "ephemeris"


def test_share_of_the_change() -> None:
    data = np.random.default_rng(5).normal(0, 0.1, (5, 63, 63, 3)).astype(np.float32)
    data[0, ..., [0, 2]] += _source(63, 50)  # new
    data[1, ..., [1]] += _source(63, 150)  # fading to a third
    data[1, ..., [0]] += _source(63, 50)
    data[1, ..., 2] -= _source(63, 100)
    data[2, ..., [0, 2]] -= _source(63, 50)  # a hole in the science frame
    data[3, ..., 2] += _source(63, 50)
    data[4] = data[0]
    mask = np.zeros((5, 63, 63), dtype=bool)
    mask[4, 31, 31] = True
    share = share_of_change(Stamps(data, mask), [1, -1, -1, -1, 1])
    np.testing.assert_allclose(share[:3], [1, 1.5, 0], atol=0.05)
    assert np.isnan(share[3]), "the difference has not the sign of the candidate"
    assert np.isnan(share[4]), "a bad pixel in the aperture"


def test_labelled_rows_become_examples(tmp_path: Path) -> None:
    examples, rows = read_ztf(_ztf(tmp_path)).labelled()
    assert rows.tolist() == [0, 2]
    assert examples.labels.tolist() == [1, 0]
    assert set(EXAMPLES.names) == set(examples.table.column_names)
    assert examples.card["left_out"] == {"unlabelled": 2}
    assert examples.table["unit"].to_pylist() == ["ZTF/channel-03", "ZTF/channel-04"]


def test_pgir_masks_what_was_not_subtracted(tmp_path: Path) -> None:
    data = np.random.default_rng(1).normal(0, 5, (3, 61, 61, 3)).astype(np.float32)
    data[1, 40:, :, 2] = 0
    np.save(tmp_path / "pgir_stamps_f32.npy", data)
    columns = {
        "stamp_index": [0, 1, 2], "candid": ["1", "2", "3"], "objectId": ["a", "b", "b"], "field": [1, 1, 2],
        "quadpos": [0, 1, 1], "subquadpos": [2, 2, 2], "jd": [2459394.7] * 3, "drb": [0.9, 0.1, 0.2],
        "ssnamenr": ["NONE", "NONE", "2008 HQ75"], "scorr": [7.0, 8.0, 9.0], "magpsf": [10.0, 11.0, 12.0],
    }  # fmt: skip
    pq.write_table(pa.table(columns), tmp_path / "pgir_stamps_index.parquet")
    found = read_pgir(tmp_path)
    assert found.stamps.mask[1, 40:].all()
    assert found.stamps.mask.sum() == 21 * 61
    np.testing.assert_array_equal(found.column("label"), [1, 0, 1])
    assert found.column("evidence").tolist() == ["models", "models", "ephemeris"]


@pytest.mark.parametrize("template", ["difference", "absent"])
def test_atlas_without_a_template(tmp_path: Path, template: str) -> None:
    data = np.random.default_rng(2).normal(100, 5, (3, 61, 61, 2)).astype(np.float32)
    data[0, :4, :, 1] = -31415
    np.save(tmp_path / "atlas_stamps_f32.npy", data)
    scores = {name: [0.0, 0.0, 0.0] for name in ("Pmv", "Pkn", "Pbn", "Pcr", "Pxt")}
    columns = {
        "stamp_index": [0, 1, 2], "candid": ["x_1", "x_2", "y_1"], "objectId": ["a", "b", "c"], "mjd": [59543.2] * 3,
        "Mag": [18.0, -12.0, 15.0], "Dmag": [0.1, 0.05, 0.01], "Pvr": [900.0, 0.0, 0.0], "Ptr": [0.0, 0.0, 300.0],
        "Pno": [100.0, 0.0, 0.0], "Psc": [0.0, 0.0, 600.0], **scores,
    }  # fmt: skip
    pq.write_table(pa.table(columns), tmp_path / "atlas_stamps_index.parquet")
    found = read_atlas(tmp_path, template)
    assert found.sign.tolist() == [1, -1, 1]
    assert found.stamps.mask[0, :4].all()
    np.testing.assert_array_equal(found.column("label"), [1, np.nan, 0])
    assert found.column("class").tolist() == ["variable", None, "bogus"]
    np.testing.assert_allclose(found.column("peer"), [0.9, np.nan, 1 / 3])
    planes = found.stamps.data[1]
    if template == "absent":
        assert np.isnan(found.stamps.data[..., 1]).all()
    else:
        np.testing.assert_allclose(planes[..., 0] - planes[..., 1], planes[..., 2], atol=1e-3)


def test_planes_normalised_one_by_one_get_a_common_scale_again() -> None:
    rng = np.random.default_rng(3)
    host, neighbour, change = _source(63, 400), _source(63, 900, 12), _source(63, 300)
    science = host + neighbour + change + rng.normal(0, 2, (63, 63)) + 200
    template = host + neighbour + rng.normal(0, 1, (63, 63)) + 200
    planes = np.stack([science, template, change + rng.normal(0, 2, (63, 63))], axis=-1)
    normed = (planes / np.linalg.norm(planes, axis=(0, 1))).astype(np.float32)[None]
    found = restore_scale(normed)[0]
    in_science, in_template, in_difference = (found[31, 31, k] - np.median(found[..., k]) for k in range(3))
    assert in_difference / in_science == pytest.approx(300 / 700, rel=0.05)
    assert in_template / in_science == pytest.approx(400 / 700, rel=0.05)


def test_a_lone_source_keeps_its_flux_when_scales_cannot_be_told() -> None:
    change = _source(63, 300)
    noise = np.random.default_rng(4).normal(0, 2, (63, 63, 2))
    planes = np.stack([change + noise[..., 0], np.zeros((63, 63)), change + noise[..., 1]], axis=-1)
    found = restore_scale(planes.astype(np.float32)[None])[0]
    assert found[31, 31, 2] / found[31, 31, 0] == pytest.approx(1, abs=0.1)


def test_distances_over_the_pole_and_the_meridian() -> None:
    place = np.array([[359.9999, 0.0], [10.0, 89.9999], [50.0, 0.0]])
    others = np.array([[0.0001, 0.0], [190.0, 89.9999]])
    distance = distance_to_nearest(place, others)
    np.testing.assert_allclose(distance[:2], 0.72, rtol=1e-3)
    assert distance[2] > 1e5
    assert np.isinf(distance_to_nearest(place, np.zeros((0, 2)))).all()


def test_real_sets_keep_their_conventions(data_dir: Path) -> None:
    folder = data_dir / "stamps"
    ztf, pgir, atlas = read_ztf(folder / "ztf"), read_pgir(folder / "pgir"), read_atlas(folder / "atlas")
    centre = np.nan_to_num(ztf.stamps.data[:, 29:34, 29:34, 2]).sum(axis=(1, 2))
    assert (np.sign(centre) == ztf.sign).mean() > 0.99
    assert len(set(ztf.column("unit"))) == 64
    assert (ztf.column("evidence") == "ephemeris").sum() == 145
    share = share_of_change(ztf.stamps, ztf.sign)
    assert not ((share > 0.3) & (share < 0.6)).any(), "what is impossible stands apart from what is not"
    assert (share[ztf.column("evidence") == "ephemeris"] > 0.9).all()
    assert pgir.stamps.mask[6].sum() > 1000
    assert atlas.stamps.mask[6].sum() > 1000
    assert np.abs(ztf.stamps.data[~ztf.stamps.mask]).max() < 1e6


def test_the_example_of_btsbot_gets_back_its_fluxes(data_dir: Path) -> None:
    folder = data_dir / "stamps" / "btsbot_example"
    found = read_btsbot(folder)
    index = pc.read_csv(folder / "usage_candidates.csv")
    data = found.stamps.data
    yy, xx = np.mgrid[:63, :63] - 31
    aperture = (xx**2 + yy**2 < 25)[None, ..., None]
    flux = (aperture * (data - np.median(data, axis=(1, 2), keepdims=True))).sum(axis=(1, 2))
    bright = index["magpsf"].to_numpy() < 18
    ratio = flux[bright, 0] / (flux[bright, 1] + flux[bright, 2])
    assert np.median(np.abs(ratio - 1)) < 0.1, "science is template and difference together"
