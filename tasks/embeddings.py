"""What a network makes of the candidates of a night, computed once and kept: the embedding that drift tests compare."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from prefect import task
from prefect.cache_policies import NO_CACHE

from models.features import pooled, trunk_features
from models.store import NO_MODEL, load, model_id
from models.stored_stamps import read_rows
from nightsift import ledger
from nightsift.io.parquet import read_table, write_table
from nightsift.io.paths import Archive
from nightsift.tables import Column, schema, table
from nightsift.units import Unit
from tasks.finish import committed

EMBEDDINGS = schema(
    (
        Column("candidate_id", pa.string(), "", "identity of the candidate", "tasks.embeddings"),
        Column("features", pa.list_(pa.float32()), "", "features of the trunk, mean over places", "tasks.embeddings"),
    ),
    "embeddings",
)


@task(name="embed", task_run_name="embed {unit.name} {night}", persist_result=False, cache_policy=NO_CACHE)
def embed_night(archive: Archive, unit: Unit, night: str) -> tuple[pa.Table, npt.NDArray[np.float32]]:
    """Candidates of a night of one unit, and the features of the unit's network, from disk where they are there.

    Parameters
    ----------
    archive : Archive
        The archive.
    unit : Unit
        The unit, with its model.
    night : str
        Night label.

    Returns
    -------
    candidates : pyarrow.Table
        Schema `nightsift.tables.CANDIDATES`, of the exposures that are done.
    features : ndarray of float32, shape (n, d)
        One row a candidate.

    Raises
    ------
    ModelMismatch
        If the model cannot be loaded.
    BadTable
        If stamps are missing or damaged.
    """
    candidates = committed(archive, ledger.read(archive, night, unit.name).to_pylist())
    if unit.model.name == NO_MODEL or not candidates.num_rows:
        return candidates, np.empty((candidates.num_rows, 0), dtype=np.float32)
    path = archive.embeddings(night, unit.name, model_id(unit.model.name))
    ids = candidates["candidate_id"].to_pylist()
    if path.is_file():
        kept = read_table(path, EMBEDDINGS)
        if kept["candidate_id"].to_pylist() == ids:
            return candidates, as_rows(kept["features"])
    classifier = load(unit.model.name)
    stamps = read_rows(archive, candidates, np.arange(len(ids)), classifier.recipe.size)
    features = pooled(trunk_features(stamps, candidates["sign"].to_numpy(), classifier))
    write_table(path, table({"candidate_id": ids, "features": list(features)}, EMBEDDINGS))
    return candidates, features


def as_rows(lists: pa.ChunkedArray) -> npt.NDArray[np.float32]:
    """Lists of equal length as rows.

    Parameters
    ----------
    lists : pyarrow.ChunkedArray
        Lists of float32.

    Returns
    -------
    ndarray of float32, shape (n, d)
        The rows.
    """
    n = len(lists)
    if not n:
        return np.empty((0, 0), dtype=np.float32)
    return np.concatenate([chunk.flatten().to_numpy() for chunk in lists.chunks]).astype(np.float32).reshape(n, -1)
