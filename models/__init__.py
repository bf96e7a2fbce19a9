"""Real or bogus: networks that score candidates, their training, measures and storage. The only user of Keras."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from astropy.table import Table

SMALLEST = 21
"""Least width of a stamp (pixel): less shows too little of what surrounds a source."""

CORE = 2
"""Half width of the square about the centre whose sum in the difference tells brighter from fainter (pixel)."""


def score(
    science: npt.ArrayLike,
    template: npt.ArrayLike | None,
    difference: npt.ArrayLike | None,
    mask: npt.ArrayLike | None = None,
    *,
    model: str = "base",
    sign: npt.ArrayLike | None = None,
    samples: int = 20,
    seed: int = 0,
    calibration: str | PathLike[str] | None = None,
) -> Table:
    """Score stamps: the probability of each to show a real transient.

    Parameters
    ----------
    science, template, difference : array_like, shape (n, ny, nx) or (ny, nx)
        Stamps with their sky subtracted, on one flux scale; the candidate lies on pixel ``(ny // 2, nx // 2)``, which
        of an odd size is the middle. From 21 pixels on any size does: what is larger than the network's input is cut,
        what is smaller is padded, and the padding masked. NaN is masked. None for a plane that a survey lacks.
    mask : array_like of bool, optional
        True where a pixel is bad; of the same shape.
    model : str, optional
        Name of a model, or its folder.
    sign : array_like of int, optional
        +1 for a candidate brighter than in the template, -1 for a fainter one; by default as the sum of the difference
        about the centre says.
    samples, seed : int, optional
        Dropout samples, and the seed that they are drawn from; the defaults are those of the pipeline.
    calibration : str or Path, optional
        File that ``nightsift calibrate`` wrote for the unit that took the stamps.

    Returns
    -------
    astropy.table.Table
        One row a stamp: ``score`` (probability to be real, at equal numbers of real and bogus), ``score_std`` (its
        standard deviation over the dropout samples), ``confidence`` (1 sure, 0 a coin toss) and ``sign``; its meta
        names the model.

    Raises
    ------
    ValueError
        If the stamps have no shape that can be scored, or do not fit together.
    ModelMismatch
        If there is no such model, or the calibration is for another one.
    """
    from models.calibration.calibrate import Calibration
    from models.network.store import load, predict
    from nightsift.core.errors import ModelMismatch
    from nightsift.core.frames import Stamps

    planes, bad = _planes((science, template, difference), mask)
    signs = _signs(planes[..., 2], bad) if sign is None else np.broadcast_to(np.asarray(sign, np.int8), len(planes))
    classifier = load(model)
    learnt = None
    if calibration is not None:
        learnt = Calibration.from_json(Path(calibration).read_text(encoding="utf-8"), str(calibration))
        if learnt.model_id != classifier.model_id:
            what = f"the calibration {calibration} was learnt for {learnt.model_id}"
            raise ModelMismatch(model=classifier.model_id, what=what)
    stamps = Stamps(*_centred(planes, bad, classifier.recipe.size))
    found = predict(stamps, signs, classifier, samples=samples, seed=seed, calibration=learnt)
    return _table(found, signs)


def _planes(
    given: tuple[npt.ArrayLike | None, ...], mask: npt.ArrayLike | None
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Stamps (n, ny, nx, 3), NaN where a plane is not given, and what is bad of them (n, ny, nx)."""
    shapes = {np.shape(one) for one in given if one is not None}
    if len(shapes) != 1:
        raise ValueError(f"science, template and difference must have one shape, got {sorted(shapes) or 'none'}")
    (shape,) = shapes
    if len(shape) not in (2, 3) or min(shape[-2:]) < SMALLEST:
        raise ValueError(f"stamps must have the shape (n, ny, nx), {SMALLEST} pixels wide at least, got {shape}")
    full = shape if len(shape) == 3 else (1, *shape)
    planes = np.full((*full, 3), np.nan, dtype=np.float32)
    bad = np.zeros(full, dtype=np.bool_)
    if mask is not None:
        if np.shape(mask) != shape:
            raise ValueError(f"the mask must have the shape of the stamps {shape}, got {np.shape(mask)}")
        bad |= (np.asarray(mask) != 0).reshape(full)
    for k, one in enumerate(given):
        if one is not None:
            planes[..., k] = np.ma.getdata(one).reshape(full)
            bad |= np.ma.getmaskarray(np.ma.asarray(one)).reshape(full)
    return planes, bad


def _signs(difference: npt.NDArray[np.float32], bad: npt.NDArray[np.bool_]) -> npt.NDArray[np.int8]:
    """+1 where the difference is positive about the centre or not given, else -1."""
    j, i = (length // 2 for length in difference.shape[1:])
    core = (slice(None), slice(j - CORE, j + CORE + 1), slice(i - CORE, i + CORE + 1))
    total = np.where(bad[core], np.float32(0), np.nan_to_num(difference[core])).sum(axis=(1, 2))
    return np.where(total < 0, -1, 1).astype(np.int8)


def _centred(
    planes: npt.NDArray[np.float32], bad: npt.NDArray[np.bool_], size: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Stamps of one odd size whose middle is the pixel ``(ny // 2, nx // 2)``: cut, or padded and masked."""
    data = np.zeros((len(planes), size, size, 3), dtype=np.float32)
    mask = np.ones((len(planes), size, size), dtype=np.bool_)
    into, out_of = [], []
    for length in planes.shape[1:3]:
        first = length // 2 - size // 2
        begin, end = max(first, 0), min(first + size, length)
        out_of.append(slice(begin, end))
        into.append(slice(begin - first, end - first))
    data[:, into[0], into[1]] = planes[:, out_of[0], out_of[1]]
    mask[:, into[0], into[1]] = bad[:, out_of[0], out_of[1]]
    seen = np.isfinite(planes).any(axis=(1, 2), keepdims=True)
    data = np.where(seen, data, np.float32(np.nan))
    return data, mask


def _table(found: dict[str, Any], signs: npt.NDArray[np.int8]) -> Table:
    from astropy.table import Column, Table

    from nightsift.core.to_astropy import SCORES

    texts = {
        "score": "probability to be real, 0 bogus to 1 real",
        "score_std": "standard deviation of the score over dropout samples",
        "confidence": "1 - mean binary entropy of the samples (bit)",
    }
    columns = [Column(found[name], name, description=text, format=SCORES[name]) for name, text in texts.items()]
    columns.append(Column(signs, "sign", description="+1 brighter, -1 fainter than the template"))
    identity = str(found["model_id"][0]) if len(signs) else ""
    return Table(columns, meta={"model_id": identity})
