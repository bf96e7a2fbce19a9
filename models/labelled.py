"""Labelled candidates of an archive as a stamp set."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.examples import EXAMPLES, TrainingSet
from models.stored_stamps import read_rows
from nightsift.errors import ConfigurationError
from nightsift.io.parquet import read_candidates
from nightsift.io.paths import Archive
from nightsift.tables import table


def labelled_candidates(
    archive: Archive, labels: Mapping[str, int], size: int, unit: str | None = None, survey: str = ""
) -> TrainingSet:
    """Read the stamps of labelled candidates.

    Parameters
    ----------
    archive : Archive
        Where candidates and stamps are stored.
    labels : mapping of str to int
        1 real or 0 bogus by candidate_id; the card counts those that are not in the archive or of another unit.
    size : int
        Width to which stamps are cropped (pixel, odd).
    unit : str, optional
        Only candidates of this unit.
    survey : str, optional
        Name of the survey.

    Returns
    -------
    TrainingSet
        One example a label, all of the part ``"train"``; the object of a candidate is not known and stays null.

    Raises
    ------
    ConfigurationError
        If no label belongs to a stored candidate.
    """
    candidates = read_candidates(archive, unit=unit) if unit else read_candidates(archive)
    wanted = pa.array(list(labels), pa.string())
    rows = np.flatnonzero(np.asarray(pc.is_in(candidates["candidate_id"], wanted)))
    if not len(rows):
        raise ConfigurationError(
            file="labels", table="labels", key="candidate_id",
            what=f"none of the {len(labels)} labels belongs to a candidate of {unit or 'any unit'} in {archive.root}",
            advice="give labels of candidates of this archive",
        )  # fmt: skip
    chosen = candidates.take(pa.array(rows))
    n, label = len(rows), np.array([labels[one] for one in chosen["candidate_id"].to_pylist()], dtype=np.int8)
    columns = {
        "example_id": chosen["candidate_id"].to_pylist(),
        "reduction": ["standard"] * n,
        "survey": [survey] * n,
        "unit": chosen["unit"].to_pylist(),
        "night": chosen["night"].to_pylist(),
        "field": chosen["field"].to_pylist(),
        "exposure_id": chosen["exposure_id"].to_pylist(),
        "kind": np.where(label == 1, "real", "bogus").tolist(),
        "label": label,
        "sign": np.asarray(chosen["sign"]),
        "snr": np.asarray(chosen["snr"]),
        "flags": np.asarray(chosen["flags"]),
        "split": ["train"] * n,
    }
    absent = {field.name: [None] * n for field in EXAMPLES if field.name not in columns and field.nullable}
    card = {"surveys": 1, "left_out": {"labels_without_candidate": len(labels) - n}}
    return TrainingSet(read_rows(archive, candidates, rows, size), table({**columns, **absent}, EXAMPLES), card)
