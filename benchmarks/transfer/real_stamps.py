"""Stamps of real surveys in one convention: ZTF alert triplets, Gattini-IR, ATLAS and the example of BTSbot.

Every survey has its own ways, undone here:

====== ==============================================================================================================
ZTF    63 px of 1". The difference of fading candidates comes negated, so that the centre is always bright. NaN
       outside the chip, and +-3.4e38 where a template has no data. Science and template carry their sky.
PGIR   61 px of 4.3". Parts that were not subtracted are exactly zero in the difference.
ATLAS  61 px of 1.9". No template plane; -31415 marks bad pixels; a negative magnitude is a fading detection.
BTSbot 63 px, ZTF, each plane divided by its own norm, sky included: the ratio of the fluxes of the planes is lost and
       has to be found again (`restore_scale`).
====== ==============================================================================================================

A label says on what it rests (column ``evidence``), because most labels of real stamps come from other classifiers:

``ephemeris``   a known minor planet within 1": real, and independent of any image classifier
``spectrum``    a transient with a spectroscopic type: real, independent
``catalogue``   a catalogued variable star within 2": real but for faults at its position, nearly independent
``people``      labelled by people
``physics``     fading, with nothing in the template that could have faded (`share_of_change`): bogus,
                independent
``models``      real or bogus because classifiers say so; agreement with it is agreement with them, not with the sky

What has brightened must be in the science frame, what has faded in the template.
A negative hole in one frame (a bad column, a reflected ghost, the trail of a subtraction inside the other) makes a
difference that looks like any point source, but its flux is in neither frame with the right sign. No classifier is
needed to call that bogus, so that such candidates are negatives that no classifier has chosen.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
from scipy.ndimage import uniform_filter
from scipy.spatial import cKDTree

from models.training.examples import EXAMPLES, TrainingSet
from nightsift.core.frames import Stamps
from nightsift.core.tables import Column, schema, table
from nightsift.sky.sphere import angle_of_chord, unit_vectors


def restore_scale(data: npt.NDArray[np.float32], box: int = 7) -> npt.NDArray[np.float32]:
    """Give planes that were normalised one by one a common scale again.

    Parameters
    ----------
    data : ndarray of float32, shape (n, size, size, 3)
        Science, template, difference, each of unknown scale and level; scales positive.
    box : int, optional
        Width of the mean that hides the difference of the PSFs (pixel).

    Returns
    -------
    ndarray of float32, shape (n, size, size, 3)
        Planes for which difference = science - template, as well as scales and levels allow.
    """
    out = data.copy()
    for one in out:
        smooth = [uniform_filter(one[..., k].astype(np.float64), box).ravel() for k in range(3)]
        basis = np.stack([smooth[0] - np.median(smooth[0]), np.median(smooth[1]) - smooth[1]], axis=1)
        wanted = smooth[2] - np.median(smooth[2])
        (a, b), *_ = np.linalg.lstsq(basis, wanted, rcond=None)
        if not a > 0 or not b > 0:  # one source only: its science flux must be that of template and difference
            a = b = max(float(wanted.max()), 1e-12) / max(float((basis[:, 0] + basis[:, 1]).max()), 1e-12)
        one[..., 0] = a * (one[..., 0] - np.median(one[..., 0]))
        one[..., 1] = b * (one[..., 1] - np.median(one[..., 1]))
    return out


IMPOSSIBLE = 0.3
"""A candidate with a smaller share is nothing that was or is in the sky."""


def share_of_change(
    stamps: Stamps, sign: npt.ArrayLike, radius: float = 3.0, sky: float = 12.0
) -> npt.NDArray[np.float64]:
    """Flux in the frame that must hold it, in units of the change.

    Parameters
    ----------
    stamps : Stamps
        Raw stamps.
    sign : array_like of int, shape (n,)
        +1 where brighter than in the template (the science frame must hold the flux), -1 where fainter (the template).
    radius : float, optional
        Radius of the aperture about the centre (pixel).
    sky : float, optional
        Pixels farther from the centre than this give the background (pixel).

    Returns
    -------
    ndarray of float64, shape (n,)
        About 1 for something alone, more on top of a star or galaxy, 0 or less where nothing is there; NaN where the
        aperture holds a bad pixel, there is no background, or the difference has another sign than the candidate.
    """
    size = stamps.data.shape[1]
    yy, xx = np.mgrid[:size, :size] - size // 2
    inside, outside = xx**2 + yy**2 <= radius**2, xx**2 + yy**2 > sky**2
    out = np.full(len(stamps), np.nan)
    for k, one in enumerate(np.asarray(sign)):
        good = ~stamps.mask[k] & np.isfinite(stamps.data[k]).all(axis=-1)
        if not good[inside].all() or not good[outside].any():
            continue
        plane = stamps.data[k, ..., 0 if one > 0 else 1].astype(np.float64)
        change = stamps.data[k, ..., 2].astype(np.float64)
        held, changed = (float((p[inside] - np.median(p[outside & good])).sum()) for p in (plane, change))
        if changed * one > 0:
            out[k] = held / abs(changed)
    return out


_ME = "benchmarks.transfer.real_stamps"
REAL_STAMPS = schema(
    (
        Column("example_id", pa.string(), "", "survey and identity of the alert", _ME),
        Column("survey", pa.string(), "", "survey", _ME),
        Column("unit", pa.string(), "", "survey and detector part, which stands for a telescope unit", _ME),
        Column("night", pa.string(), "", "survey and whole Julian day", _ME),
        Column("field", pa.string(), "", "survey and field", _ME),
        Column("exposure_id", pa.string(), "", "survey and exposure", _ME),
        Column("object_id", pa.string(), "", "survey and object", _ME),
        Column("sign", pa.int8(), "", "+1 brighter, -1 fainter than the template", _ME),
        Column("snr", pa.float32(), "", "signal-to-noise of the detection", _ME, True),
        Column("mag", pa.float32(), "mag", "magnitude of the change", _ME, True),
        Column("label", pa.int8(), "", "1 real, 0 bogus, null where nothing says so", _ME, True),
        Column("class", pa.string(), "", "transient, variable, mover or bogus; null where unknown", _ME, True),
        Column("evidence", pa.string(), "", "what the label rests on", _ME, True),
        Column("peer", pa.float32(), "", "score of the survey's or a published classifier on this alert", _ME, True),
    ),
    "real_stamps",
)
BAD_ATLAS = -31000.0
NO_DATA = 1e30
NAMED_VARIABLES = 2.0
"""Largest distance of a catalogued variable (arcsec)."""


@dataclass(frozen=True, slots=True, eq=False)
class RealSet:
    """Stamps of real alerts, some of them labelled.

    Attributes
    ----------
    stamps : Stamps
        Science, template, difference (positive where brighter than the template); masked where bad.
    table : pyarrow.Table
        Schema `REAL_STAMPS`, one row a stamp.
    """

    stamps: Stamps
    table: pa.Table

    def __len__(self) -> int:
        return len(self.stamps)

    def column(self, name: str) -> npt.NDArray[Any]:
        """One column as an array; null becomes NaN in numbers and None in text."""
        values = self.table[name].to_pylist()
        text = pa.types.is_string(self.table.schema.field(name).type)
        return np.array(values, dtype=object if text else np.float64)

    @property
    def sign(self) -> npt.NDArray[np.int8]:
        """+1 or -1, shape (n,)."""
        return np.asarray(self.table["sign"], dtype=np.int8)

    def take(self, rows: npt.NDArray[np.int64]) -> RealSet:
        """Stamps by row number."""
        return RealSet(Stamps(self.stamps.data[rows], self.stamps.mask[rows]), self.table.take(pa.array(rows)))

    def labelled(self) -> tuple[TrainingSet, npt.NDArray[np.int64]]:
        """The labelled stamps as examples to learn from, and their rows here."""
        rows = np.flatnonzero(np.isfinite(self.column("label")))
        some = self.take(rows)
        label = some.column("label").astype(np.int8)
        shared = ("example_id", "survey", "unit", "night", "field", "exposure_id", "object_id", "sign", "class")
        columns: dict[str, Any] = {name: some.table[name].to_pylist() for name in shared if name in EXAMPLES.names}
        columns |= {
            "reduction": ["standard"] * len(rows),
            "kind": [one or ("real" if y else "bogus") for one, y in zip(some.column("class"), label, strict=True)],
            "label": label,
            "snr": np.nan_to_num(some.column("snr")).astype(np.float32),
            "flags": np.zeros(len(rows), dtype=np.int32),
            "split": ["train"] * len(rows),
        }
        card = {"surveys": len(set(columns["survey"])), "left_out": {"unlabelled": len(self) - len(rows)}}
        return TrainingSet(some.stamps, table(columns, EXAMPLES), card), rows


def read_ztf(folder: Path, variables: npt.NDArray[np.float64] | None = None) -> RealSet:
    """Read ZTF alert triplets.

    Parameters
    ----------
    folder : Path
        With ``triplets.npz`` and ``index.parquet``.
    variables : ndarray of float64, shape (m, 2), optional
        Positions of catalogued variable stars (degree); alerts within `NAMED_VARIABLES` of one are labelled by it.

    Returns
    -------
    RealSet
        Peer: braai d6_m9. The class strings of the column ``cdsxmatch`` are not used: they were put there to test a
        broker's filters, and name one object a supernova in one night and a radio burst in another.
    """
    index = pq.read_table(folder / "index.parquet")
    with np.load(folder / "triplets.npz") as file:
        data = file["triplets"][index["stamp_index"].to_numpy()].astype(np.float32)
    sign = np.where(np.asarray(index["isdiffpos"].to_pylist()) == "t", 1, -1).astype(np.int8)
    data[..., 2] *= sign[:, None, None]
    asteroid = np.asarray(index["is_asteroid"].to_pylist(), dtype=bool)
    typed = np.array([bool(one) for one in index["tns"].to_pylist()])
    near = np.zeros(len(sign), dtype=bool)
    if variables is not None:
        place = np.stack([index["ra"].to_numpy(), index["dec"].to_numpy()], axis=1)
        near = distance_to_nearest(place, variables) <= NAMED_VARIABLES
    data[~(np.abs(data) < NO_DATA)] = np.nan
    mask = np.asarray(~np.isfinite(data).all(axis=-1))
    pseudo = np.array(index["pseudo_label"].to_pylist(), dtype=object)
    near &= ~typed & ~asteroid
    sure = asteroid | typed | near
    never = ~sure & (share_of_change(Stamps(data, mask), sign) < IMPOSSIBLE)
    pseudo[never] = "bogus"
    label = [1 if s else {"real": 1, "bogus": 0}.get(p) for s, p in zip(sure, pseudo, strict=True)]
    kind = np.select([asteroid, typed, near, pseudo == "bogus"], ["mover", "transient", "variable", "bogus"], "")
    evidence = np.select([asteroid, typed, near, never], ["ephemeris", "spectrum", "catalogue", "physics"], "models")
    evidence[[one is None for one in label]] = ""
    names = {name: index[name].to_pylist() for name in ("candid", "rcid", "field", "pid", "objectId")}
    channels = [f"channel-{int(one):02d}" for one in names["rcid"]]
    return _real_set(
        "ZTF", data, mask, sign, names["candid"], names["objectId"], channels,
        index["jd"].to_numpy(), names["field"], names["pid"], snr=np.abs(index["scorr"].to_numpy()),
        mag=index["magpsf"].to_numpy(), label=label, kind=kind, evidence=evidence, peer=index["braai_d6_m9"].to_numpy(),
    )  # fmt: skip


def read_pgir(folder: Path) -> RealSet:
    """Read Gattini-IR triplets; labels are those of its own classifier (at 0.5) and one minor planet.

    Parameters
    ----------
    folder : Path
        With ``pgir_stamps_f32.npy`` and ``pgir_stamps_index.parquet``.

    Returns
    -------
    RealSet
        Peer: the survey's deep real/bogus score.
    """
    index = pq.read_table(folder / "pgir_stamps_index.parquet")
    data = np.load(folder / "pgir_stamps_f32.npy")[index["stamp_index"].to_numpy()].astype(np.float32)
    score = index["drb"].to_numpy()
    asteroid = np.array([one != "NONE" for one in index["ssnamenr"].to_pylist()])
    names = {name: index[name].to_pylist() for name in ("candid", "objectId", "field", "quadpos", "subquadpos")}
    quadrants = [f"quadrant-{q}-{s}" for q, s in zip(names["quadpos"], names["subquadpos"], strict=True)]
    return _real_set(
        "PGIR", data, (data[..., 2] == 0) | ~np.isfinite(data).all(axis=-1), np.ones(len(score), np.int8),
        names["candid"], names["objectId"], quadrants, index["jd"].to_numpy(), names["field"], index["jd"].to_pylist(),
        snr=index["scorr"].to_numpy(), mag=index["magpsf"].to_numpy(), label=(asteroid | (score >= 0.5)).astype(int),
        kind=np.select([asteroid, score < 0.5], ["mover", "bogus"], ""),
        evidence=np.where(asteroid, "ephemeris", "models"), peer=score,
    )  # fmt: skip


def read_atlas(folder: Path, template: str = "difference") -> RealSet:
    """Read ATLAS stamps; labels are the largest of the survey's own class scores.

    Parameters
    ----------
    folder : Path
        With ``atlas_stamps_f32.npy`` and ``atlas_stamps_index.parquet``.
    template : str, optional
        ``"difference"`` fills the absent template plane with science minus difference, which is what was subtracted;
        ``"absent"`` leaves it NaN.

    Returns
    -------
    RealSet
        Peer: part of the class scores that speaks for real.
    """
    index = pq.read_table(folder / "atlas_stamps_index.parquet")
    planes = np.load(folder / "atlas_stamps_f32.npy")[index["stamp_index"].to_numpy()].astype(np.float32)
    bad = (planes <= BAD_ATLAS).any(axis=-1) | (planes[..., 0] == 0)
    subtracted = planes[..., 0] - planes[..., 1] if template == "difference" else np.full_like(planes[..., 0], np.nan)
    data = np.stack([planes[..., 0], subtracted, planes[..., 1]], axis=-1)
    scores = np.stack(
        [index[name].to_numpy() for name in ("Pvr", "Ptr", "Pmv", "Pkn", "Pno", "Pbn", "Pcr", "Pxt", "Psc")]
    )
    total, real = scores.sum(axis=0), scores[:4].sum(axis=0)
    best = scores.argmax(axis=0)
    names = np.array(["variable", "transient", "mover", "variable", *["bogus"] * 5])
    label = [None if t == 0 else int(b < 4) for t, b in zip(total, best, strict=True)]
    mag, candids = index["Mag"].to_numpy(), index["candid"].to_pylist()
    return _real_set(
        "ATLAS", data, bad, np.where(mag < 0, -1, 1).astype(np.int8), candids, index["objectId"].to_pylist(),
        ["camera"] * len(mag), index["mjd"].to_numpy() + 2400000.5, ["none"] * len(mag),
        [one.split("_")[0] for one in candids], snr=1.0857 / index["Dmag"].to_numpy(), mag=np.abs(mag),
        label=label, kind=np.where(total > 0, names[best], ""), evidence=np.where(total > 0, "models", ""),
        peer=np.where(total > 0, real / np.maximum(total, 1.0), np.nan),
    )  # fmt: skip


def read_btsbot(folder: Path) -> RealSet:
    """Read the example of BTSbot: alerts of two objects, labelled by people as bright supernova or not.

    Parameters
    ----------
    folder : Path
        With ``usage_triplets.npy`` and ``usage_candidates.csv``.

    Returns
    -------
    RealSet
        Every alert is of something real; the label of the set becomes the class (null for "not a bright supernova").
        Peer: ZTF's deep real/bogus score.
    """
    index = pc.read_csv(folder / "usage_candidates.csv")
    data = restore_scale(np.load(folder / "usage_triplets.npy").astype(np.float32))
    names = {name: index[name].to_pylist() for name in ("candid", "objectId", "field", "label", "jd")}
    n = len(data)
    return _real_set(
        "BTSbot", data, np.asarray(~np.isfinite(data).all(axis=-1)), np.ones(n, np.int8), range(n), names["objectId"],
        ["unknown"] * n, np.asarray(names["jd"]), names["field"], names["jd"], snr=index["scorr"].to_numpy(),
        mag=index["magpsf"].to_numpy(), label=[1] * n,
        kind=np.where(np.asarray(names["label"]) == 1, "transient", ""), evidence=np.full(n, "people"),
        peer=index["drb"].to_numpy(),
    )  # fmt: skip


def distance_to_nearest(place: npt.NDArray[np.float64], others: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the distance (arcsec) of each place to the nearest of others, infinite where there are none.

    Rows of right ascension and declination (degree).
    """
    if not len(others):
        return np.full(len(place), np.inf)
    lengths, _ = cKDTree(unit_vectors(*others.T)).query(unit_vectors(*place.T))
    return angle_of_chord(lengths)


def _real_set(
    survey: str, data: npt.NDArray[np.float32], mask: npt.NDArray[np.bool_], sign: npt.NDArray[np.int8], identity: Any,
    objects: Any, parts: Any, jd: npt.NDArray[np.float64], fields: Any, exposures: Any, **columns: Any,
) -> RealSet:  # fmt: skip
    """Put a survey's columns into the common table."""
    texts = {"class": columns.pop("kind"), "evidence": columns.pop("evidence")}
    rows: dict[str, Any] = {
        "example_id": [f"{survey}/{one}" for one in identity],
        "survey": [survey] * len(sign),
        "unit": [f"{survey}/{one}" for one in parts],
        "night": [f"{survey}/{int(np.floor(one))}" for one in jd],
        "field": [f"{survey}/{one}" for one in fields],
        "exposure_id": [f"{survey}/{one}" for one in exposures],
        "object_id": [f"{survey}/{one}" for one in objects],
        "sign": sign,
        **{name: [str(one) or None for one in values] for name, values in texts.items()},
        "label": columns.pop("label"),
        **{name: [None if not np.isfinite(one) else float(one) for one in values] for name, values in columns.items()},
    }
    return RealSet(Stamps(data, mask), table(rows, REAL_STAMPS))
