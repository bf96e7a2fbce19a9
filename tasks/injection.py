"""Sources of known place and flux, injected and looked for by the whole pipeline: truth without labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from prefect import task
from prefect.cache_policies import NO_CACHE
from scipy.spatial import cKDTree

from nightsift import provenance, tables
from nightsift.core.random import generator
from nightsift.frames import Frame
from nightsift.images.inject import inject_stars
from nightsift.io.parquet import read_table, write_table
from nightsift.io.paths import Archive, checksum, local_copy
from nightsift.tables import CANDIDATES, INJECTIONS
from nightsift.units import Unit, load_unit
from tasks.classify import model_of, score
from tasks.extract import find_candidates
from tasks.record import key_of, opening_row
from tasks.reduce import Reduction, to_difference
from tasks.stamp import cut_stamps

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


@task(name="inject", task_run_name="inject {row[exposure_id]}", persist_result=False, cache_policy=NO_CACHE)
def inject_exposure(row: Mapping[str, Any], unit: str, archive: str, folders: Sequence[str] = ()) -> int:
    """Inject sources into one exposure and write what became of them (see `recover_injected`).

    Parameters
    ----------
    row : mapping
        Its ledger row.
    unit, archive : str
        Name or file of its unit, folder of the archive.
    folders : sequence of str, optional
        Folders searched for the unit before those shipped.

    Returns
    -------
    int
        Number of sources.
    """
    place = Archive(Path(archive))
    injected = recover_injected(row, load_unit(unit, [Path(folder) for folder in folders]), place)
    write_table(place.injections(row["night"], row["unit"], row["exposure_id"]), injected)
    return int(injected.num_rows)


def recover_injected(row: Mapping[str, Any], unit: Unit, archive: Archive, seed: int = 0) -> pa.Table:
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
        Schema `nightsift.tables.INJECTIONS`, one row a source; empty where the ledger knows no depth.

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
        template_id, zero = to_difference(reduction, Path(path), unit, archive, change)
    pair, difference = reduction.pair, reduction.difference
    assert pair is not None
    assert difference is not None
    candidates = find_candidates.fn(difference, pair, unit, zero, template_id)
    candidates = score.fn(cut_stamps.fn(pair, difference, candidates, unit), candidates, unit)
    found = match_injected(candidates, injected["x"], injected["y"], unit.model.threshold)
    n = len(injected["x"])
    pixels = tuple(np.rint(injected[name]).astype(int) for name in ("y", "x"))
    found["searched"] = difference.mask[pixels] == 0
    constant = {"exposure_id": row["exposure_id"], "unit": row["unit"], "night": row["night"]}
    model = model_of(unit)
    constant |= {"model_id": model, "provenance": pipeline_of(unit, model), "threshold": unit.model.threshold}
    mag = row["zero_point"] - 2.5 * np.log10(np.maximum(injected["flux"], 1e-30))
    columns: dict[str, Any] = {name: [value] * n for name, value in constant.items()}
    return tables.table({**columns, **injected, "mag": mag, **found}, INJECTIONS)


def pipeline_of(unit: Unit, model_id: str) -> str:
    """Provenance of what becomes of injected sources: same pipeline, recoveries that can be compared.

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
    inputs = {"pixels": key_of("", "", unit, code), "model": model_id}
    return provenance.key(inputs, {"samples": unit.model.samples}, code)


def draw_snr(n: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Signal-to-noise ratios, one in each of n equal steps of the logarithm, in random order.

    Parameters
    ----------
    n : int
        How many.
    rng : numpy.random.Generator
        Draws them.

    Returns
    -------
    ndarray of float64, shape (n,)
        From `SNR[0]` to `SNR[1]`.
    """
    place = (rng.permutation(n) + rng.random(n)) / max(n, 1)
    return np.asarray(SNR[0] * (SNR[1] / SNR[0]) ** place, dtype=np.float64)


def draw_places(
    bad: npt.NDArray[np.bool_], taken: npt.NDArray[np.float64], rng: np.random.Generator
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Random places on good pixels, apart from each other and from what is there.

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
        Places; fewer than wished where there is no room.
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
    candidates: pa.Table, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], threshold: float
) -> dict[str, Any]:
    """Which injected sources were found, and which accepted.

    Parameters
    ----------
    candidates : pyarrow.Table
        Schema `nightsift.tables.CANDIDATES`, scored.
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
