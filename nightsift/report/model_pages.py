"""Pages on models, each one HTML file that needs nothing else: the evaluation of models, and the drift of a night."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from functools import partial
from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt

from nightsift import __version__
from nightsift.core.flags import names
from nightsift.core.frames import Stamps
from nightsift.core.probabilities import LEGEND, log_odds_text, probability_text
from nightsift.report import drift_plots
from nightsift.report import evaluation_plots as plots
from nightsift.report.pictures import number, page_template, strip, utc_minute

EVALUATION_TEMPLATE = "evaluation.html.j2"
MOST_UNITS = 16
REDUCTIONS = {"standard": "", "careless": "reduced badly on purpose"}
RATES = ("missed", "FPR", "TPR")
LEARNING = (
    "Networks of the same architecture and recipe, trained on growing parts of the units of the training part and "
    "judged on the same test part."
)

_four_digits = partial(number, form=".4f")
DRIFT_TEMPLATE = "drift.html.j2"
INSTRUMENT = {
    "seeing": "Poor seeing of the site shows in all of its units.",
    "focus": "Focus: the cores of stars are flatter or sharper than this seeing makes them.",
    "elongation": "Tracking, wind shake or collimation: stars are longer than usual.",
    "tilt": "Tilt of the camera or collimation: focus changes over the frame.",
    "sky": "Moonlight, twilight or stray light, or a pedestal that the unit file does not mention.",
    "noise": "Gain, read noise or flat field: compare with the header; take new flats; correct the unit file.",
    "zero_point": "Clouds, dew, a dirty or shaded mirror, or another gain.",
    "depth": "The subtraction loses depth: templates, PSF and kernel; look at <code>nightsift show --exposure</code>.",
    "stars": "Clouds, another pointing or field, or star finding.",
    "candidates": "More or fewer detections: masks of bad pixels, threshold, templates.",
    "unflagged": "Flags changed their part: detector defects, saturation, template coverage.",
    "accepted": "The accepted part changed: more false candidates, or real ones lost.",
    "residual": "Stars subtract worse: PSF, kernel, registration, templates.",
    "alignment": "Registration with the templates: distortion, rotation, another camera.",
    "refused": "Frames are refused: their reasons stand in the night's report.",
}

NETWORK = ("scores", "embedding", "classifier")
Rows = Sequence[Mapping[str, Any]]


def render_evaluation(
    models: Sequence[Mapping[str, Any]],
    stamps: Stamps,
    about: str,
    *,
    notes: Sequence[str] = (),
    made: dt.datetime | None = None,
) -> str:
    """Write the page.

    Parameters
    ----------
    models : sequence of mapping
        One per model, the one that matters first: ``name``, ``threshold``, ``headline``, ``curves``, ``recovery`` (by
        column), ``reliability`` (before, after), ``risk``, ``units``, ``confusion``, ``examples`` (``labels``,
        ``scores``, ``spread``, ``columns``), ``worst`` and ``learning``: what `models.training.evaluation` gives.
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
    page = page_template(
        EVALUATION_TEMPLATE, number=_four_digits, percent=_percent, odds=log_odds_text, probability=probability_text
    )
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
        legend=LEGEND,
        galleries=[
            ("Real examples with the lowest scores", _cards(first, stamps, "missed")),
            ("Bogus examples with the highest scores", _cards(first, stamps, "accepted")),
        ],
        version=__version__,
        made=utc_minute(made),
    )


def _percent(value: float | None) -> str:
    """Return a part as percent, a dash where there is none."""
    return "–" if value is None or not np.isfinite(value) else f"{100 * value:.2f} %"


def _figures(models: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for place, row in enumerate(models[0]["headline"]):
        show = _percent if any(word in row["name"] for word in RATES) else _four_digits
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
    return {**counts, **{name: _percent(k / n if n else None) for name, (k, n) in parts.items()}}


def _cards(one: Mapping[str, Any], stamps: Stamps, which: str) -> list[dict[str, Any]]:
    cards, columns = [], one["examples"]["columns"]
    for row in one["worst"][which]:

        def cell(name: str, form: str = "{}", row: int = row) -> str:
            value = columns[name][row] if name in columns else None
            return "" if value is None else form.format(value)

        what = [
            cell("kind"), "" if cell("source") == cell("kind") else cell("source"),
            cell("snr", "S/N {:.1f}"), cell("mag", "{:.1f} mag"),
            cell("host_offset", "{:.1f} light radii"), cell("label_doubt", "label doubt {:.2f}"),
            ", ".join(flag.lower().replace("_", " ") for flag in names(int(cell("flags") or 0))),
        ]  # fmt: skip
        reduction = cell("reduction")
        candidate = cell("example_id").removeprefix(f"{reduction}/")
        reduction = REDUCTIONS.get(reduction, reduction)
        cards.append(
            {
                "score": float(one["examples"]["scores"][row]),
                "spread": float(one["examples"]["spread"][row]),
                "picture": strip(Stamps(stamps.data[row : row + 1], stamps.mask[row : row + 1])),
                "what": ", ".join(part.replace("_", " ") for part in what if part),
                "where": " · ".join(part for part in (cell("unit"), reduction, candidate) if part),
            }
        )
    return cards


def render_drift(
    night: str,
    history: Rows,
    titles: Mapping[str, str],
    *,
    logits: Mapping[str, tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]]],
    injections: Mapping[str, tuple[Rows, Rows]],
    survey: str,
    models: str,
    rate: float,
    problems: Sequence[str] = (),
    made: dt.datetime | None = None,
) -> str:
    """Write the page of a night.

    Parameters
    ----------
    night : str
        Night label.
    history : sequence of mapping
        Rows of the table of monitoring (schema `MONITORING`) of this night and those before.
    titles : mapping of str to str
        What each channel is.
    logits : mapping of str to (ndarray, ndarray)
        By unit, logits of the scores of this night and of its calibration set.
    injections : mapping of str to (sequence, sequence)
        By unit, rows of the table of injections of this night and of its calibration set.
    survey : str
        Survey file, for the commands that are proposed.
    models : str
        Folder of the models that have served.
    rate : float
        False alarms per unit-night that are accepted.
    problems : sequence of str, optional
        What went wrong.
    made : datetime, optional
        When the page was made; now by default.

    Returns
    -------
    str
        A complete HTML document.
    """
    whole = [row for row in history if row["channel"] == "all"]
    tonight = sorted((row for row in whole if row["night"] == night), key=lambda row: row["unit"])
    cards = [_card(row, history, titles, logits=logits, injections=injections, survey=survey) for row in tonight]
    drifted = [one for one in cards if one["state"] == "drifted"]
    page = page_template(DRIFT_TEMPLATE, number=partial(number, form=".3g"), small=_p_value)
    unjudged = sum(one["state"] == "unjudged" for one in cards)
    return page.render(
        night=night,
        grade="bad" if drifted else "fair" if unjudged else "good",
        sentence=drift_sentence(tonight),
        problems=problems,
        units=cards,
        rate=f"{rate:g}",
        fleet=drift_plots.fleet(whole),
        drifted=drifted,
        others=[one for one in cards if one["state"] != "drifted"],
        models=models,
        version=__version__,
        made=utc_minute(made),
    )


def drift_sentence(tonight: Rows) -> str:
    """One night in one sentence.

    Parameters
    ----------
    tonight : sequence of mapping
        Rows of the night whose channel is ``all``.

    Returns
    -------
    str
        The sentence.
    """
    names = [row["unit"] for row in tonight if row["state"] == "drifted"]
    judged = sum(row["state"] in ("drifted", "steady") for row in tonight)
    clouded = sum(row["state"] == "weather" for row in tonight)
    rest = len(tonight) - judged - clouded
    tail = (f"; {clouded} under clouds all night" if clouded else "") + (f"; {rest} not judged" if rest else "")
    if names:
        units = "unit" if judged == 1 else "units"
        return f"{len(names)} of {judged} {units} drifted: {', '.join(names)}{tail}."
    if not judged and clouded:
        return f"No exposure was clear{tail}."
    if not judged:
        return "No unit could be judged; the table says why."
    one = "unit is like the nights of its calibration set"
    more = "units are like the nights of their calibration sets"
    return f"No drift: {judged} {one if judged == 1 else more}{tail}."


def _steps(reasons: Sequence[str], unit: str, survey: str) -> list[str]:
    """What to do about an alarm, in order.

    Parameters
    ----------
    reasons : sequence of str
        Channels that are named.
    unit : str
        The unit.
    survey : str
        Survey file.

    Returns
    -------
    list of str
        Steps, as HTML.
    """
    advice = [INSTRUMENT[name] for name in reasons if name in INSTRUMENT]
    where, who = escape(survey or "SURVEY.toml"), escape(unit)
    if not advice and "recovery" in reasons:
        advice.append("Real sources are lost, and the exposures look as ever: pipeline or model; compare versions.")
    if not advice and any(name in NETWORK for name in reasons):
        advice.append("Exposures look as ever, candidates do not: look at the best-scored ones in the night's report.")
    return [
        *advice,
        "A passing cause (weather): nothing more; the next nights will show. Until then read scores of this unit as an "
        "order, not as probabilities.",
        f"A lasting one: label some hundred candidates of the nights since, then <code>nightsift calibrate {where} "
        f"--unit {who} --labels LABELS.csv</code>, run <code>nightsift night</code> (it scores these nights again), "
        "and name them the new calibration set: "
        f"<code>nightsift monitor {where} --unit {who} --reference FIRST:LAST</code>.",
        "If the recovery of injected sources stays low after that: retrain, <code>nightsift train NAME</code>, under a "
        "new name. The model that has served stays in the archive with its completeness, so that the selection of the "
        "nights that it judged stays known.",
    ]


def _p_value(value: float | None) -> str:
    """Return a p-value with two digits, a dash where there is none."""
    return "–" if value is None else "< 1e−12" if value < 1e-12 else f"{value:.2g}".replace("-", "−")


def _card(
    row: Mapping[str, Any],
    history: Rows,
    titles: Mapping[str, str],
    *,
    logits: Mapping[str, tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]]],
    injections: Mapping[str, tuple[Rows, Rows]],
    survey: str,
) -> dict[str, Any]:
    unit, night = row["unit"], row["night"]
    own = [one for one in history if one["unit"] == unit and one["channel"] != "all"]
    named = [one for one in own if one["night"] == night and one["state"] == "drifted"]
    named = sorted(named, key=lambda one: one["p_value"])
    reasons = [one["channel"] for one in named]
    return {
        **row,
        "why": row["message"] or "",
        "named": [{**one, "title": titles.get(one["channel"], one["channel"])} for one in named],
        "steps": _steps(reasons, unit, survey),
        "channels": drift_plots.unit_channels(own, titles),
        "scores": drift_plots.scores(*logits[unit]) if unit in logits else "",
        "recovery": drift_plots.recovery(*injections[unit]) if unit in injections else "",
    }
