"""Monitoring of a night of a unit: its network features, injected sources, the inputs and the rows of its verdict."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from prefect import task
from prefect.cache_policies import NO_CACHE
from scipy.spatial import cKDTree

from models.calibration.metrics import TINY
from models.drift.alarm import NightVerdict
from models.drift.exposure_inputs import COLUMNS
from models.drift.night_channels import NightData
from models.network.classifier import pooled, trunk_features
from models.network.store import NO_MODEL, load, model_id
from models.training.examples import read_rows
from nightsift import __version__
from nightsift.archive import ledger
from nightsift.archive.paths import Archive
from nightsift.core import provenance, tables
from nightsift.core.frames import Frame
from nightsift.core.monitoring_tables import INJECTIONS, MONITORING
from nightsift.core.random import generator
from nightsift.core.rows import LedgerRow, MonitoringRow
from nightsift.core.tables import CANDIDATES, Column, schema, table
from nightsift.images.detection.extract import extract
from nightsift.images.injection import inject_stars
from nightsift.io.parquet import read_table, read_tables, write_table
from nightsift.io.sources import checksum, local_copy
from nightsift.unit.units import Unit, load_unit
from tasks.classify import model_of, score
from tasks.finish import committed
from tasks.record import key_of, opening_row
from tasks.reduce import Reduction, to_difference
from tasks.references import CalibrationSet
from tasks.steps import cut_stamps

EMBEDDINGS = schema(
    (
        Column("candidate_id", pa.string(), "", "identity of the candidate", "tasks.monitor"),
        Column("features", pa.list_(pa.float32()), "", "features of the trunk, mean over places", "tasks.monitor"),
    ),
    "embeddings",
)
JUDGED = ("done", "refused")
"""States of exposures that say something of the unit; failed is the machine's, waiting the template's."""

SNR = (5.0, 50.0)
"""Range of the signal-to-noise ratio of injected sources, by the limiting magnitude of the exposure."""
PIXELS_A_SOURCE = 5000
MOST = 100
"""Sources injected into one exposure: one in so many pixels, at most so many."""
APART = 12.0
"""Smallest distance to another source or candidate (pixel)."""
RADIUS = 2.5
"""A detection within this radius is the injected source (pixel)."""
MARGIN = 12


def _embed_night(archive: Archive, unit: Unit, night: str) -> tuple[pa.Table, npt.NDArray[np.float32]]:
    """Return the candidates of a night of a unit and their network features, shape (n, d), computed once."""
    candidates = committed(archive, ledger.read(archive, night, unit.name).to_pylist())
    if unit.model.name == NO_MODEL or not candidates.num_rows:
        return candidates, np.empty((candidates.num_rows, 0), dtype=np.float32)
    path = archive.embeddings(night, unit.name, model_id(unit.model.name))
    ids = candidates["candidate_id"].to_pylist()
    if path.is_file():
        stored = read_table(path, EMBEDDINGS)
        if stored["candidate_id"].to_pylist() == ids:
            return candidates, _as_rows(stored["features"])
    classifier = load(unit.model.name)
    stamps = read_rows(archive, candidates, np.arange(len(ids)), size=classifier.recipe.size)
    features = pooled(trunk_features(stamps, candidates["sign"].to_numpy(), classifier))
    write_table(path, table({"candidate_id": ids, "features": list(features)}, EMBEDDINGS))
    return candidates, features


def _as_rows(lists: pa.ChunkedArray) -> npt.NDArray[np.float32]:
    """Return lists of equal length as rows, float32 of shape (n, d)."""
    n = len(lists)
    if not n:
        return np.empty((0, 0), dtype=np.float32)
    return np.concatenate([chunk.flatten().to_numpy() for chunk in lists.chunks]).astype(np.float32).reshape(n, -1)


@task(name="inject", task_run_name="inject {row[exposure_id]}", persist_result=False, cache_policy=NO_CACHE)
def inject_exposure(row: LedgerRow, unit: str, archive: str, folders: Sequence[str] = ()) -> int:
    """Inject sources into the exposure of a ledger row, write which were recovered, and return their number."""
    place = Archive(Path(archive))
    injected = recover_injected(row, load_unit(unit, [Path(folder) for folder in folders]), place)
    write_table(place.injections(row["night"], row["unit"], row["exposure_id"]), injected)
    return int(injected.num_rows)


def recover_injected(row: LedgerRow, unit: Unit, archive: Archive, *, seed: int = 0) -> pa.Table:
    """Inject point sources into a recorded exposure and reduce it again; of the archive nothing changes.

    They are added to the science frame once its PSF is known, with their photon noise, at random good pixels away from
    what was detected there. Magnitudes are even in the logarithm of the signal-to-noise ratio.

    Parameters
    ----------
    row : mapping
        Ledger row of an exposure that is done.
    unit : Unit
        The unit that took it.
    archive : Archive
        Where its template and candidates are read.
    seed : int, optional
        Seed; the same exposure gets the same sources.

    Returns
    -------
    pyarrow.Table
        Schema `nightsift.core.monitoring_tables.INJECTIONS`, one row per source; empty where the ledger has no depth.

    Raises
    ------
    NightsiftError
        If the exposure is gone or can no longer be reduced.
    """
    if row["limiting_mag"] is None or row["zero_point"] is None:
        return INJECTIONS.empty_table()
    known = read_table(archive.candidates(row["night"], row["unit"], row["exposure_id"]), CANDIDATES)
    taken = np.stack([known["x"].to_numpy(), known["y"].to_numpy()], axis=1)
    rng = generator(seed, "injection", row["exposure_id"])
    flux_of_5 = 10.0 ** (-0.4 * (row["limiting_mag"] - row["zero_point"]))
    injected: dict[str, npt.NDArray[np.float64]] = {}

    def change(frame: Frame) -> Frame:
        assert frame.psf is not None
        x, y = draw_places(frame.mask != 0, taken, rng)
        snr = draw_snr(len(x), rng)
        injected.update(x=x, y=y, snr=snr, flux=snr / 5.0 * flux_of_5)
        return inject_stars(frame, x, y, injected["flux"], frame.psf, rng) if len(x) else frame

    reduction = Reduction(opening_row(unit.name, row["night"], row["url"]))
    with local_copy(row["url"]) as path:
        reduction.row["checksum"] = checksum(Path(path))
        template_id, zero = to_difference(reduction, Path(path), unit, archive=archive, change=change)
    pair, difference = reduction.pair, reduction.difference
    assert pair is not None
    assert difference is not None
    candidates = extract(difference, pair, unit, zero_point=zero, template_id=template_id)
    candidates = score(cut_stamps(pair, difference, candidates, unit=unit), candidates, unit)
    found = match_injected(candidates, injected["x"], injected["y"], threshold=unit.model.threshold)
    n = len(injected["x"])
    pixels = tuple(np.rint(injected[name]).astype(int) for name in ("y", "x"))
    found["searched"] = difference.mask[pixels] == 0
    constant: dict[str, Any] = {"exposure_id": row["exposure_id"], "unit": row["unit"], "night": row["night"]}
    model = model_of(unit)
    constant |= {"model_id": model, "provenance": pipeline_of(unit, model), "threshold": unit.model.threshold}
    mag = row["zero_point"] - 2.5 * np.log10(np.maximum(injected["flux"], 1e-30))
    columns: dict[str, Any] = {name: [value] * n for name, value in constant.items()}
    return tables.table({**columns, **injected, "mag": mag, **found}, INJECTIONS)


def pipeline_of(unit: Unit, model_id: str) -> str:
    """Return the provenance of recovered injections: those of the same pipeline can be compared.

    Parameters
    ----------
    unit : Unit
        The unit. The threshold of its model has no part in it: it can be applied to the scores at any time.
    model_id : str
        Identity of model and calibration.

    Returns
    -------
    str
        SHA-256 in hexadecimal: of the code that injects, recovers and scores, the options and the model.
    """
    code = provenance.code_of("injection")
    inputs = {"pixels": key_of("", "", unit, code=code), "model": model_id}
    return provenance.key(inputs, {"samples": unit.model.samples}, code)


def draw_snr(n: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Draw signal-to-noise ratios, shape (n,), one in each of n equal steps of the logarithm of `SNR`, shuffled."""
    place = (rng.permutation(n) + rng.random(n)) / max(n, 1)
    return np.asarray(SNR[0] * (SNR[1] / SNR[0]) ** place, dtype=np.float64)


def draw_places(
    bad: npt.NDArray[np.bool_], taken: npt.NDArray[np.float64], rng: np.random.Generator
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Draw places on good pixels, apart from each other and from what is there.

    Parameters
    ----------
    bad : ndarray of bool, shape (ny, nx)
        Pixels where nothing is to be put.
    taken : ndarray, shape (m, 2)
        Places (x, y) to keep away from.
    rng : numpy.random.Generator
        Draws them.

    Returns
    -------
    x, y : ndarray of float64, shape (n,)
        Places; fewer than wanted where there is no room.
    """
    ny, nx = bad.shape
    wanted = min(MOST, ny * nx // PIXELS_A_SOURCE)
    places = [(float(x), float(y)) for x, y in taken]
    chosen: list[tuple[float, float]] = []
    for _ in range(20 * wanted):
        if len(chosen) == wanted or min(nx, ny) <= 2 * MARGIN:
            break
        x, y = float(rng.uniform(MARGIN, nx - 1 - MARGIN)), float(rng.uniform(MARGIN, ny - 1 - MARGIN))
        if bad[round(y), round(x)] or any((x - a) ** 2 + (y - b) ** 2 < APART**2 for a, b in places):
            continue
        places.append((x, y))
        chosen.append((x, y))
    out = np.array(chosen, dtype=np.float64).reshape(-1, 2)
    return out[:, 0], out[:, 1]


def match_injected(
    candidates: pa.Table, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], *, threshold: float
) -> dict[str, Any]:
    """Match injected sources with candidates: which were found, and which accepted.

    Parameters
    ----------
    candidates : pyarrow.Table
        Schema `nightsift.core.tables.CANDIDATES`, scored.
    x, y : ndarray, shape (n,)
        Where sources were injected.
    threshold : float
        Score from which a candidate counts as accepted; without scores every unflagged one does.

    Returns
    -------
    dict
        ``detected``, ``accepted`` and ``score``, each of length n.
    """
    n = len(x)
    found: dict[str, Any] = {"detected": np.zeros(n, bool), "accepted": np.zeros(n, bool), "score": [None] * n}
    brighter = np.flatnonzero(candidates["sign"].to_numpy() > 0)
    if not n or not len(brighter):
        return found
    places = np.stack([candidates[name].to_numpy()[brighter] for name in ("x", "y")], axis=1)
    distance, nearest = cKDTree(places).query(np.stack([x, y], axis=1))
    scores, flags = candidates["score"].to_pylist(), candidates["flags"].to_numpy()
    for place in np.flatnonzero(distance <= RADIUS):
        row = int(brighter[nearest[place]])
        value = scores[row]
        found["detected"][place] = True
        found["accepted"][place] = bool(flags[row] == 0 and (value is None or value >= threshold))
        found["score"][place] = value
    return found


def read_night(archive: Archive, unit: Unit, night: str) -> NightData:
    """Read what is monitored of a night of one unit.

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
    NightData
        Inputs of its exposures, scores and features of its candidates, what was recovered of injected sources.

    Raises
    ------
    ModelMismatch
        If the model cannot be loaded.
    BadTable
        If tables or stamps are damaged.
    """
    rows = [row for row in ledger.read(archive, night, unit.name).to_pylist() if row["state"] in JUDGED]
    inputs: dict[str, Any] = {
        name: np.array([np.nan if row[name] is None else row[name] for row in rows], dtype=np.float64)
        for name in COLUMNS
    }
    inputs["refused"] = np.array([row["state"] == "refused" for row in rows], dtype=np.float64)
    inputs["good"] = np.array([row["verdict"] == "good" for row in rows], dtype=np.float64)
    inputs["field"] = np.array([f"{row['field']}/{row['band']}" for row in rows], dtype=np.str_)
    candidates, features = _embed_night(archive, unit, night)
    score = np.array([np.nan if one is None else one for one in candidates["score"].to_pylist()], dtype=np.float64)
    scored = np.isfinite(score)
    p = np.clip(score[scored], TINY, 1.0 - TINY)
    injected = injected_by(archive, unit.name, [night], pipeline=pipeline_of(unit, model_of(unit)))
    searched = injected["searched"].to_numpy(zero_copy_only=False).astype(bool)
    recovered = searched & scored_above(injected, unit.model.threshold)
    return NightData(
        unit.name, night, inputs, np.log(p) - np.log1p(-p),
        features[scored].astype(np.float64), np.asarray(candidates["exposure_id"].to_pylist(), dtype=np.str_)[scored],
        int(searched.sum()), int(recovered.sum()),
    )  # fmt: skip


def scored_above(injected: pa.Table, threshold: float) -> npt.NDArray[np.bool_]:
    """Return which injected sources were found and scored above the threshold, whatever their flags, shape (n,).

    Without scores, all that were found; flags have a channel of their own.
    """
    score = np.array([np.inf if one is None else one for one in injected["score"].to_pylist()], dtype=np.float64)
    return np.asarray((score >= threshold) & injected["detected"].to_numpy(zero_copy_only=False).astype(bool))


def injected_by(archive: Archive, unit: str, nights: Sequence[str], *, pipeline: str) -> pa.Table:
    """Return the sources (schema `INJECTIONS`) injected into nights of a unit by its present pipeline (`pipeline_of`).

    What a pipeline of other code, options or model recovered does not count, and is injected anew
    (`rows_to_inject`): the difference between two pipelines is no drift.
    """
    paths = [path for night in nights for path in archive.tables("injections", night, unit)]
    injected = read_tables(paths, INJECTIONS)
    return injected.filter(pc.equal(injected["provenance"], pipeline))


def rows_to_inject(archive: Archive, unit: str, night: str, *, exposures: int, pipeline: str) -> list[LedgerRow]:
    """Return the exposures of a night that sources are to be injected into.

    Parameters
    ----------
    archive : Archive
        The archive.
    unit, night : str
        Which night.
    exposures : int
        How many of them, spread evenly over the night.
    pipeline : str
        From `tasks.monitor.pipeline_of`.

    Returns
    -------
    list of dict
        Ledger rows of those where that was not done yet, or another pipeline recovered what was injected.
    """
    if exposures < 1:
        return []
    rows = [row for row in ledger.read(archive, night, unit).to_pylist() if row["state"] == "done"]
    chosen = [rows[place] for place in np.unique(np.linspace(0, len(rows) - 1, exposures).astype(int))] if rows else []
    return [row for row in chosen if not _is_injected(archive, row, pipeline)]


def _is_injected(archive: Archive, row: LedgerRow, pipeline: str) -> bool:
    path = archive.injections(row["night"], row["unit"], row["exposure_id"])
    return path.is_file() and set(read_table(path, INJECTIONS)["provenance"].to_pylist()) <= {pipeline}


def scored_by(archive: Archive, unit: str, night: str) -> set[str]:
    """Return the identities of the models that gave the scores of a night; empty where no candidate has a score."""
    column = read_tables(archive.tables("candidates", night, unit), pa.schema([pa.field("model_id", pa.string())]))
    return {one for one in column["model_id"].unique().to_pylist() if one is not None}


def verdict_rows(
    night: NightData,
    verdict: NightVerdict | None,
    state: str,
    *,
    message: str,
    reference: CalibrationSet | None,
    model: str,
) -> list[MonitoringRow]:
    """Return the rows of the monitoring table of a night.

    Parameters
    ----------
    night : NightData
        The night.
    verdict : NightVerdict or None
        What is said of it; None for a night that was not judged.
    state, message : str
        State of the night as a whole, and why.
    reference : CalibrationSet or None
        What it was compared with.
    model : str
        Identity of model and calibration.

    Returns
    -------
    list of dict
        Columns of `nightsift.core.monitoring_tables.MONITORING`: first the night as a whole, then its channels.
    """
    base: MonitoringRow = {
        "unit": night.unit, "night": night.night, "exposures": len(night.inputs["refused"]),
        "candidates": len(night.logits), "reference_nights": len(reference.nights) if reference else 0,
        "reference_id": reference.reference_id if reference else "", "model_id": model, "version": __version__,
        "recorded_at": datetime.now(UTC),
    }  # fmt: skip
    whole: MonitoringRow = {**base, "channel": "all", "state": state, "message": message}
    if verdict is None:
        return [whole]
    rows: list[MonitoringRow] = [{**whole, "p_value": _known(verdict.p), "q_value": _known(verdict.q)}]
    for one in verdict.channels:
        channel_state = "unjudged" if not np.isfinite(one.p) else "drifted" if one.named else "steady"
        row: MonitoringRow = {
            **base, "channel": one.channel, "state": state if state == "reference" else channel_state, "message": "",
            "value": _known(one.value), "reference_mean": _known(one.mean), "reference_std": _known(one.deviation),
            "departure": _known(one.t), "p_value": _known(one.p), "window": one.window or None,
        }  # fmt: skip
        rows.append(row)
    return rows


def write_verdict(archive: Archive, rows: Sequence[MonitoringRow]) -> Path:
    """Write the rows of the verdict on a night of one unit (`verdict_rows`) in place of an earlier one."""
    path = archive.monitoring(rows[0]["night"], rows[0]["unit"])
    write_table(path, table([dict(row) for row in rows], MONITORING))
    return path


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
