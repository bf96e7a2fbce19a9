"""Labelled stamps: in memory, on disk, weighed, and read from the stamps of an archive's candidates."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from models.network.card import render
from models.synthesis.placement import GALAXY_PIXEL, PLACED
from models.training.labels import BOGUS, REAL
from nightsift.archive.paths import Archive
from nightsift.core.errors import BadTable
from nightsift.core.frames import Stamps
from nightsift.core.provenance import code_version
from nightsift.core.tables import Column, schema
from nightsift.io.atomic import atomic
from nightsift.io.parquet import read_stamps, read_table, write_stamps, write_table

TABLE = "examples.parquet"  # written last: where it is, the set is complete
SHARD = 20000  # stamps in one file
_ME = "models.training.examples"
SYNTHETIC = ("transplanted", "injected")
"""Sources of examples that were put together rather than observed."""
SOURCES = ("detected", "minor_planet", *SYNTHETIC, "random", "galaxy_residual", GALAXY_PIXEL)
CLASSES = ("transient", "variable", "mover", "bogus")
EXAMPLES = schema(
    (
        Column("example_id", pa.string(), "", "candidate_id in the archive that it came from", _ME),
        Column("reduction", pa.string(), "", "standard, or careless: with the guards of the pipeline lowered", _ME),
        Column("survey", pa.string(), "", "survey that it came from", _ME),
        Column("unit", pa.string(), "", "survey and telescope unit", _ME),
        Column("night", pa.string(), "", "local date of the evening", _ME),
        Column("field", pa.string(), "", "survey and sky field", _ME),
        Column("exposure_id", pa.string(), "", "identity of the exposure", _ME),
        Column("object_id", pa.string(), "", "survey and identity of the object, null for bogus", _ME, True),
        Column("kind", pa.string(), "", "kind of object of the truth, or bogus", _ME),
        Column("label", pa.int8(), "", "1 real, 0 bogus", _ME),
        Column("sign", pa.int8(), "", "+1 brighter, -1 fainter than the template", _ME),
        Column("snr", pa.float32(), "", "peak of the signal-to-noise map", _ME),
        Column("flags", pa.int32(), "", "bits of nightsift.core.flags.Flag", _ME),
        Column("split", pa.string(), "", "train, validation, test, or aside: in no part, so that nothing leaks", _ME),
        Column("source", pa.string(), "", f"where the example came from: {', '.join(SOURCES)}", _ME, True),
        Column("class", pa.string(), "", f"what it is: {', '.join(CLASSES)}", _ME, True),
        Column("mag", pa.float32(), "mag", "magnitude measured on the difference, for real and bogus alike", _ME, True),
        Column("true_mag", pa.float32(), "mag", "magnitude simulated or injected; not to be learnt from", _ME, True),
        Column("host_id", pa.string(), "", "survey and identity of the galaxy at or under it", _ME, True),
        Column("host_offset", pa.float32(), "", "distance from that galaxy (effective radii)", _ME, True),
        Column("neighbour_distance", pa.float32(), "pixel", "distance to the next source of the template", _ME, True),
        Column("star_galaxy", pa.float32(), "", "shape of that source: 0 a star, 1 a galaxy", _ME, True),
        Column(
            "label_doubt", pa.float32(), "", "0 to 1, see models.training.subsets; null where not measured", _ME, True
        ),
    ),
    "examples",
)
OF_ONE_SET = ("set_id", "examples", "exposures", "counts", "parts", "label_noise")
"""Entries of a card about the very examples of a set, which do not hold where it is joined with others."""


@dataclass(frozen=True, slots=True, eq=False)
class TrainingSet:
    """Labelled stamps.

    Attributes
    ----------
    stamps : Stamps
        Raw stamps, one per example.
    table : pyarrow.Table
        Schema `EXAMPLES`, in the order of the stamps.
    card : dict
        Counts and options: where the examples came from, what was left out and why.
    """

    stamps: Stamps
    table: pa.Table
    card: dict[str, Any]

    def __len__(self) -> int:
        return len(self.stamps)

    @property
    def labels(self) -> npt.NDArray[np.int8]:
        """1 real, 0 bogus, shape (n,)."""
        return np.asarray(self.table["label"], dtype=np.int8)

    @property
    def sign(self) -> npt.NDArray[np.int8]:
        """+1 or -1, shape (n,)."""
        return np.asarray(self.table["sign"], dtype=np.int8)

    def part(self, name: str) -> TrainingSet:
        """Examples of one split: ``"train"``, ``"validation"`` or ``"test"``."""
        return self.take(np.flatnonzero(np.asarray(self.table["split"]) == name))

    def take(self, rows: npt.NDArray[np.int64]) -> TrainingSet:
        """Examples by row number."""
        stamps = Stamps(self.stamps.data[rows], self.stamps.mask[rows])
        return TrainingSet(stamps, self.table.take(pa.array(rows)), self.card)


def join(parts: Sequence[TrainingSet]) -> TrainingSet:
    """Join the sets of several surveys.

    Parameters
    ----------
    parts : sequence of TrainingSet
        At least one; stamps of one size.

    Returns
    -------
    TrainingSet
        All examples, counts added up.
    """
    stamps = Stamps(
        np.concatenate([part.stamps.data for part in parts]), np.concatenate([part.stamps.mask for part in parts])
    )
    table = pa.concat_tables([part.table for part in parts])
    counts: dict[str, dict[str, int]] = {}
    for name in ("left_out", "synthetic", "refused"):
        total: Counter[str] = Counter()
        for part in parts:
            total.update(part.card.get(name, {}))
        counts[name] = dict(total)
    shared = {name: entry for name, entry in parts[0].card.items() if name not in OF_ONE_SET}
    return TrainingSet(stamps, table, {**shared, "surveys": len(table["survey"].unique()), **counts})


def empty(size: int) -> TrainingSet:
    """Return a set without examples, of stamps `size` pixels wide."""
    stamps = Stamps(np.zeros((0, size, size, 3), np.float32), np.zeros((0, size, size), np.bool_))
    return TrainingSet(stamps, EXAMPLES.empty_table(), {"surveys": 0, "left_out": {}})


def weights(labels: npt.NDArray[np.int8], prevalence: float = 0.5) -> npt.NDArray[np.float32]:
    """Return weights (n,) of mean one, with the part `prevalence` on real examples: the prior that the scores mean.

    Parameters
    ----------
    labels : ndarray of int8, shape (n,)
        1 real, 0 bogus; both must be there.
    prevalence : float, optional
        Part of the weight that real examples get.

    Returns
    -------
    ndarray of float32, shape (n,)
        The weights.

    Raises
    ------
    ValueError
        If a class is absent or the prevalence is not between 0 and 1.
    """
    real = int((labels == REAL).sum())
    bogus = int((labels == BOGUS).sum())
    if not real or not bogus or not 0 < prevalence < 1:
        raise ValueError(f"both classes are needed, got {real} real and {bogus} bogus at a prevalence of {prevalence}")
    n = len(labels)
    return np.where(labels == REAL, prevalence * n / real, (1 - prevalence) * n / bogus).astype(np.float32)


def write(folder: Path, examples: TrainingSet) -> None:
    """Write a set: ``examples.parquet``, ``stamps-*.parquet`` with stamps and masks, ``card.json`` and ``card.md``.

    Parameters
    ----------
    folder : Path
        Where to; made when absent. Stamps of an older set there are removed.
    examples : TrainingSet
        The set; its card is written with the identity of the set, its provenance and what it holds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in (folder / TABLE, folder / "stamps.npy", folder / "mask.npy", *folder.glob("stamps-*.parquet")):
        old.unlink(missing_ok=True)
    names = examples.table["example_id"].to_pylist()
    for number, start in enumerate(range(0, len(examples), SHARD)):
        rows = slice(start, start + SHARD)
        part = Stamps(examples.stamps.data[rows], examples.stamps.mask[rows])
        write_stamps(folder / f"stamps-{number:03d}.parquet", names[rows], part)
    card = {**examples.card, **identity_of(examples)}
    with atomic(folder / "card.json") as temporary:
        temporary.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    with atomic(folder / "card.md") as temporary:
        temporary.write_text(render({"name": card["set_id"], **card}, "Data set"), encoding="utf-8")
    write_table(folder / TABLE, examples.table)


def read(folder: Path) -> TrainingSet:
    """Read a set that `write` has written, also one of older versions.

    Older versions have ``stamps.npy``, and call the highest pixels of galaxies without a detection ``galaxy_residual``.

    Parameters
    ----------
    folder : Path
        Where it lies.

    Returns
    -------
    TrainingSet
        The set.

    Raises
    ------
    BadTable
        If stamps are missing or do not belong to the table.
    """
    table = mark_galaxy_pixels(read_table(folder / TABLE, EXAMPLES))
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    if (folder / "stamps.npy").is_file():
        return TrainingSet(Stamps(np.load(folder / "stamps.npy"), np.load(folder / "mask.npy")), table, card)
    stamps, names = empty(int(card.get("size", 1))).stamps, table["example_id"].to_pylist()
    row = 0
    for path in sorted(folder.glob("stamps-*.parquet")):
        ids, part = read_stamps(path)
        if row == 0:
            shape = (len(names), *part.data.shape[1:])
            stamps = Stamps(np.empty(shape, np.float32), np.empty(shape[:3], np.bool_))
        if ids != names[row : row + len(part)]:
            raise BadTable(path=str(path), what="its stamps are not those of the examples beside it")
        stamps.data[row : row + len(part)], stamps.mask[row : row + len(part)] = part.data, part.mask
        row += len(part)
    if row != len(names):
        raise BadTable(path=str(folder), what=f"it holds stamps of {row} of {len(names)} examples")
    return TrainingSet(stamps, table, card)


def mark_galaxy_pixels(table: pa.Table) -> pa.Table:
    """Return a table of `EXAMPLES` in which pixels of galaxies without a detection have the source ``galaxy_pixel``.

    Sets of older versions call them ``galaxy_residual``.
    """
    placed = pc.match_substring(table["example_id"], PLACED)
    source = pc.if_else(placed, GALAXY_PIXEL, table["source"]).cast(pa.string())
    return table.set_column(table.schema.get_field_index("source"), table.schema.field("source"), source)


def identity_of(examples: TrainingSet) -> dict[str, Any]:
    """Identity, provenance and contents of a set, for its card.

    Parameters
    ----------
    examples : TrainingSet
        The set.

    Returns
    -------
    dict
        ``set_id`` (digest of labels and stamps, so that the same examples have the same identity wherever they were
        made), version of the code, size of a stamp, and counts by label, source, class, reduction and split.
    """
    digest = hashlib.sha256()
    for name in ("example_id", "label", "split"):
        digest.update("\n".join(map(str, examples.table[name].to_pylist())).encode())
    for start in range(0, len(examples), SHARD):
        digest.update(np.ascontiguousarray(examples.stamps.data[start : start + SHARD]).data)
    counted = ("label", "source", "class", "kind", "reduction", "split")
    counts = {
        name: {str(key): number for key, number in Counter(examples.table[name].to_pylist()).most_common()}
        for name in counted
    }
    return {
        "set_id": f"set-{digest.hexdigest()[:12]}",
        "code": code_version(),
        "size": int(examples.stamps.data.shape[1]),
        "examples": len(examples),
        "exposures": len(examples.table["exposure_id"].unique()),
        "counts": counts,
    }


def read_rows(archive: Archive, candidates: pa.Table, rows: npt.NDArray[np.int64], *, size: int) -> Stamps:
    """Read the stamps of some candidates, cropped to one size.

    Parameters
    ----------
    archive : Archive
        The archive.
    candidates : pyarrow.Table
        Schema `nightsift.core.tables.CANDIDATES`.
    rows : ndarray of int64, shape (n,)
        Rows wanted.
    size : int
        Width to which stamps are cropped (pixel, odd).

    Returns
    -------
    Stamps
        One a row, in their order.
    """
    exposures = np.asarray(candidates["exposure_id"])[rows]
    index = np.asarray(candidates["stamp_index"])[rows]
    data = np.zeros((len(rows), size, size, 3), dtype=np.float32)
    mask = np.ones((len(rows), size, size), dtype=np.bool_)
    for exposure in np.unique(exposures):
        here = np.flatnonzero(exposures == exposure)
        one = candidates.slice(int(rows[here[0]]), 1)
        path = archive.stamps(one["night"][0].as_py(), one["unit"][0].as_py(), str(exposure))
        _, stamps = read_stamps(path)
        low = (stamps.data.shape[1] - size) // 2
        inner = slice(low, low + size)
        data[here], mask[here] = stamps.data[index[here]][:, inner, inner], stamps.mask[index[here]][:, inner, inner]
    return Stamps(data, mask)


def detected(table: pa.Table) -> npt.NDArray[np.bool_]:
    """Tell which rows of a table of `EXAMPLES` the pipeline detected, shape (n,).

    The others are the highest pixel of a galaxy in which it detected nothing; they are easy, and no survey would ask
    about them.
    """
    return np.array([one != GALAXY_PIXEL for one in table["source"].to_pylist()], dtype=np.bool_)
