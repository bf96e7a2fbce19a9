"""The evaluation of models as one HTML page that needs nothing else."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from nightsift import __version__
from nightsift.flags import names
from nightsift.frames import Stamps
from nightsift.report import evaluation_plots as plots
from nightsift.report.pictures import strip
from nightsift.report.style import number, page_template, utc_minute

TEMPLATE = "evaluation.html.j2"
MOST_UNITS = 16
RATES = ("missed", "FPR", "TPR")
LEARNING = (
    "Networks of the same architecture and recipe, trained on growing parts of the units of the training part and "
    "judged on the same test part."
)

_four_digits = partial(number, form=".4f")


def render(
    models: Sequence[Mapping[str, Any]],
    stamps: Stamps,
    about: str,
    notes: Sequence[str] = (),
    made: dt.datetime | None = None,
) -> str:
    """Write the page.

    Parameters
    ----------
    models : sequence of mapping
        One a model, the one that matters first: ``name``, ``threshold``, ``headline``, ``curves``, ``recovery`` (by
        column), ``reliability`` (before, after), ``risk``, ``units``, ``confusion``, ``examples`` (``labels``,
        ``scores``, ``spread``, ``columns``), ``worst`` and ``learning``: what `models.evaluation` gives.
    stamps : Stamps
        Those of the examples, for the gallery.
    about : str
        One sentence on the set.
    notes : sequence of str, optional
        What the reader must know of it.
    made : datetime, optional
        When the page was made; now by default.

    Returns
    -------
    str
        A complete HTML document.
    """
    page = page_template(TEMPLATE, number=_four_digits, percent=percent)
    first, by_name = models[0], {one["name"]: one for one in models}
    return page.render(
        names=list(by_name),
        sentence=about,
        notes=notes,
        figures=_figures(models),
        thresholds={name: one["threshold"] for name, one in by_name.items()},
        curves=plots.threshold_curves(
            {name: one["curves"] for name, one in by_name.items()},
            {name: one["threshold"] for name, one in by_name.items()},
        ),
        has_synthetic=any(len(bins) > 1 for one in models for bins in one["recovery"].values()),
        recoveries=[
            (title, plots.recovery({name: one["recovery"][column] for name, one in by_name.items()}, label, log))
            for title, column, label, log in (
                ("By magnitude", "mag", "magnitude (mag)", False),
                ("By distance from the host", "host_offset", "offset from the host (effective radii)", False),
                ("By signal-to-noise ratio", "snr", "signal-to-noise ratio of the detection", True),
            )
        ],
        confusions=[{"name": one["name"], **_confusion(one["confusion"])} for one in models],
        reliability=plots.reliability({name: one["reliability"] for name, one in by_name.items()}),
        risk=plots.risk({name: one["risk"] for name, one in by_name.items()}),
        units=first["units"][:MOST_UNITS],
        hidden_units=max(0, len(first["units"]) - MOST_UNITS),
        unit_picture=plots.units(first["units"]),
        learning=plots.learning_curve(first["learning"]),
        learning_note=LEARNING,
        galleries=[
            ("Real examples with the lowest scores", _cards(first, stamps, "missed")),
            ("Bogus examples with the highest scores", _cards(first, stamps, "accepted")),
        ],
        version=__version__,
        made=utc_minute(made),
    )


def percent(value: float | None) -> str:
    """Part as percent, a dash where there is none.

    Parameters
    ----------
    value : float or None
        The part.

    Returns
    -------
    str
        Text for a table cell.
    """
    return "–" if value is None or not np.isfinite(value) else f"{100 * value:.2f} %"


def _figures(models: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for place, row in enumerate(models[0]["headline"]):
        show = percent if any(word in row["name"] for word in RATES) else _four_digits
        cells = []
        for one in models:
            own = one["headline"][place]
            known = np.isfinite(own["low"])
            cells.append(
                {"value": show(own["value"]), "range": f"{show(own['low'])} … {show(own['high'])}" if known else ""}
            )
        rows.append({"name": row["name"], "cells": cells, "note": row["note"]})
    return rows


def _confusion(counts: Mapping[str, int]) -> dict[str, Any]:
    real = counts["real_accepted"] + counts["real_rejected"]
    bogus = counts["bogus_accepted"] + counts["bogus_rejected"]
    parts = {
        "tpr": (counts["real_accepted"], real), "fnr": (counts["real_rejected"], real),
        "fpr": (counts["bogus_accepted"], bogus), "tnr": (counts["bogus_rejected"], bogus),
    }  # fmt: skip
    return {**counts, **{name: percent(k / n if n else None) for name, (k, n) in parts.items()}}


def _cards(one: Mapping[str, Any], stamps: Stamps, which: str) -> list[dict[str, Any]]:
    cards, columns = [], one["examples"]["columns"]
    for row in one["worst"][which]:

        def told(name: str, form: str = "{}", row: int = row) -> str:
            value = columns[name][row] if name in columns else None
            return "" if value is None else form.format(value)

        what = [
            told("kind"), told("source"), told("snr", "S/N {:.1f}"), told("mag", "{:.1f} mag"),
            told("host_offset", "{:.1f} light radii"), told("label_doubt", "label doubt {:.2f}"),
            ", ".join(flag.lower().replace("_", " ") for flag in names(int(told("flags") or 0))),
        ]  # fmt: skip
        cards.append(
            {
                "score": float(one["examples"]["scores"][row]),
                "spread": float(one["examples"]["spread"][row]),
                "picture": strip(Stamps(stamps.data[row : row + 1], stamps.mask[row : row + 1])),
                "what": ", ".join(part for part in what if part),
                "where": " · ".join(part for part in (told("unit"), told("reduction"), told("example_id")) if part),
            }
        )
    return cards
