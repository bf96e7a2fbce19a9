"""Planted faults and clean nights: how soon the drift monitor raises its alarm, and how many alarms are false.

    python benchmarks/drift/alarms.py --nights FOLDER --out FOLDER

Judges the nights that ``nights.py`` made, by the code of `nightsift monitor`; ``--keep FILE`` stores what is read of
them, and judges from it where it exists.

*False alarms*: the nights of each unit are parted at random into a calibration set and nights to be judged, several
times; the first parting is that of service, the first nights in time. *Faults*: the calibration set of service, the
clean nights before, then the nights with the fault in one unit while the others are clean; the delay is that of the
first alarm, counted in nights. A cloud may also be named as weather; that is counted apart.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.drift.alarms_figure import draw
from benchmarks.drift.nights import CLEAN, FAULTS, FAULTY, REFERENCE, STRENGTHS

BEFORE = 4
"""Clean nights before a fault that stand in the windows of the tests."""


def read_archive(folder: Path, clean: Path) -> list[Any]:
    """Nights of one unit, in order."""
    from nightsift.archive.paths import Archive
    from nightsift.archive.survey import load_survey
    from tasks.monitor import read_night

    survey = load_survey(clean / "nightsift.toml")
    unit = survey.load_unit(survey.sources[0].unit)
    archive = Archive(folder / "archive")
    return [read_night(archive, unit, night) for night in archive.nights()]


def read_all(nights: Path) -> tuple[dict[str, list[Any]], dict[tuple[str, str, str], list[Any]]]:
    """Clean nights by unit, and nights with a fault by fault, strength and unit."""
    clean: dict[str, list[Any]] = {}
    faulty = {}
    for home in sorted(nights.glob("unit-*")):
        if not (home / "clean" / "done").is_file():
            continue
        clean[home.name] = read_archive(home / "clean", home / "clean")
        for fault in FAULTS:
            for strength in STRENGTHS:
                folder = home / f"{fault}-{strength}"
                if (folder / "done").is_file():
                    faulty[fault, strength, home.name] = read_archive(folder, home / "clean")
    return clean, faulty


def read_nights(nights: Path | None, keep: Path | None) -> tuple[dict[str, list[Any]], dict[Any, list[Any]]]:
    """The nights, from the stored file where it exists; it is written where it does not."""
    if keep is not None and keep.is_file():
        return unpack(keep)
    if nights is None:
        raise SystemExit("name --nights, or a --keep that exists")
    clean, faulty = read_all(nights)
    if keep is not None:
        pack(keep, clean, faulty)
    return clean, faulty


def pack(path: Path, clean: dict[str, list[Any]], faulty: dict[Any, list[Any]]) -> None:
    """Store nights as one file of plain arrays; features as float32, which is what they were."""
    arrays: dict[str, np.ndarray] = {}
    whole = [(("", "", unit), nights) for unit, nights in clean.items()] + list(faulty.items())
    for (fault, strength, unit), nights in whole:
        for one in nights:
            key = "/".join((unit, f"{fault}-{strength}" if fault else "clean", one.night))
            arrays |= {f"{key}/inputs/{name}": np.asarray(values) for name, values in one.inputs.items()}
            arrays[f"{key}/logits"], arrays[f"{key}/exposures"] = one.logits, np.asarray(one.exposures, dtype=np.str_)
            arrays[f"{key}/features"] = one.features.astype(np.float32)
            arrays[f"{key}/counts"] = np.array([one.injected, one.recovered])
            arrays[f"{key}/unit"] = np.array(one.unit)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)


def unpack(path: Path) -> tuple[dict[str, list[Any]], dict[Any, list[Any]]]:
    """Read what `pack` wrote."""
    from models.drift.night_channels import NightData

    parts: dict[tuple[str, str, str], dict[str, np.ndarray]] = {}
    with np.load(path, allow_pickle=False) as stored:
        for name in stored.files:
            unit, kind, night, what = name.split("/", 3)
            parts.setdefault((unit, kind, night), {})[what] = stored[name]
    clean: dict[str, list[Any]] = {}
    faulty: dict[Any, list[Any]] = {}
    for (unit, kind, night), one in sorted(parts.items()):
        inputs = {name.removeprefix("inputs/"): values for name, values in one.items() if name.startswith("inputs/")}
        data = NightData(
            str(one["unit"]), night, inputs, one["logits"], one["features"].astype(np.float64), one["exposures"],
            int(one["counts"][0]), int(one["counts"][1]),
        )  # fmt: skip
        if kind == "clean":
            clean.setdefault(unit, []).append(data)
        else:
            faulty.setdefault((*kind.split("-"), unit), []).append(data)
    return clean, faulty


def parting(count: int, number: int, reference: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the calibration set and rows to be judged; parting 0 is that of service."""
    order = np.arange(count) if number == 0 else np.random.default_rng(number).permutation(count)
    return np.sort(order[:reference]), np.sort(order[reference:])


def false_alarms(clean: dict[str, list[Any]], partings: int, reference: int, rate: float) -> dict[str, Any]:
    """Alarms on clean nights."""
    from models.drift.alarm import judge_night, judge_unit, priors
    from models.drift.night_channels import learn_reference, night_values

    judged, alarms, by_parting, reasons, p = 0, 0, [], Counter(), []
    for number in range(partings):
        rows = {unit: parting(len(nights), number, reference) for unit, nights in clean.items()}
        references = {unit: learn_reference([clean[unit][i] for i in rows[unit][0]]) for unit in clean}
        prior = priors(list(references.values()))
        values = {unit: [night_values(clean[unit][i], references[unit]) for i in rows[unit][1]] for unit in clean}
        here, weather = [0, 0], 0
        for place in range(max(len(one) for one in values.values())):
            units = [
                judge_unit(references[unit], values[unit][max(0, place - BEFORE) : place + 1], prior)
                for unit in clean
                if place < len(values[unit])
            ]
            for one in judge_night(units, rate):
                here = [here[0] + 1, here[1] + one.drifted]
                weather += bool(np.isfinite(one.clouds)) and not one.drifted
                p.append(one.p)
                if one.drifted:
                    reasons.update(one.reasons[:1])
        by_parting.append({"judged": here[0], "alarms": here[1], "weather": weather})
        judged, alarms = judged + here[0], alarms + here[1]
    return {
        "judged": judged, "alarms": alarms, "per_100": 100.0 * alarms / max(judged, 1), "partings": by_parting,
        "reasons": dict(reasons), "p": p,
    }  # fmt: skip


def wilson(k: int, n: int) -> tuple[float, float]:
    """Range (95 %) of a rate."""
    z, part = 1.96, k / max(n, 1)
    middle = (part + z**2 / (2 * n)) / (1 + z**2 / n)
    width = z * np.sqrt(part * (1 - part) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return max(0.0, middle - width), middle + width


def delays(
    clean: dict[str, list[Any]], faulty: dict[tuple[str, str, str], list[Any]], rate: float
) -> list[dict[str, Any]]:
    """Nights from each fault to its alarm, and the channels that saw it."""
    from models.drift.alarm import judge_night, judge_unit, priors
    from models.drift.night_channels import learn_reference, night_values

    references = {unit: learn_reference(nights[:REFERENCE]) for unit, nights in clean.items()}
    prior = priors(list(references.values()))
    before = {
        unit: [night_values(one, references[unit]) for one in nights[REFERENCE : REFERENCE + BEFORE + FAULTY]]
        for unit, nights in clean.items()
    }
    rows = []
    for (fault, strength, sick), nights in faulty.items():
        values = [night_values(one, references[sick]) for one in nights]
        row: dict[str, Any] = {
            "fault": fault,
            "strength": strength,
            "unit": sick,
            "delay": None,
            "weather": None,
            "p": [],
            "reasons": [],
        }
        for place in range(len(values)):
            units = []
            for unit in clean:
                history = before[unit][: BEFORE + place + 1]
                if unit == sick:
                    history = before[unit][:BEFORE] + values[: place + 1]
                units.append(judge_unit(references[unit], history[-BEFORE - 1 :], prior))
            verdict = next(one for one in judge_night(units, rate) if one.unit == references[sick].unit)
            row["p"].append(verdict.p)
            if np.isfinite(verdict.clouds) and row["weather"] is None:
                row["weather"] = place + 1
            if verdict.drifted and row["delay"] is None:
                row["delay"], row["reasons"] = place + 1, list(verdict.reasons)
        row["t"] = {one.channel: one.t for one in verdict.channels}
        row["done"] = int(sum((one.inputs["refused"] == 0).sum() for one in nights))
        rows.append(row)
    return rows


def table(rows: list[dict[str, Any]]) -> list[str]:
    """What is printed of the faults."""
    lines = [
        f"{'fault':10s}{'strength':10s}{'units':>6s}{'1 night':>9s}{'2 nights':>9s}{'or weather':>11s}{'median p':>10s}"
        "  first reasons"
    ]
    for fault in FAULTS:
        for strength in STRENGTHS:
            own = [row for row in rows if (row["fault"], row["strength"]) == (fault, strength)]
            if not own:
                continue
            found = [sum(row["delay"] is not None and row["delay"] <= nights for row in own) for nights in (1, 2)]
            either = sum(seen_within(row, FAULTY) for row in own)
            reasons = Counter(reason for row in own for reason in row["reasons"]).most_common(4)
            named = ", ".join(f"{name} {count}" for name, count in reasons)
            p = np.median([row["p"][-1] for row in own])
            lines.append(
                f"{fault:10s}{strength:10s}{len(own):6d}{found[0]:9d}{found[1]:9d}{either:11d}{p:10.1e}  {named}"
            )
    return lines


def seen_within(row: dict[str, Any], nights: int) -> bool:
    """Whether an alarm was raised by then, or clouds were named where the fault is one."""
    nights_to = [row["delay"], row.get("weather") if row["fault"] == "cloud" else None]
    return any(one is not None and one <= nights for one in nights_to)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nights", type=Path, help="folder of nights.py")
    parser.add_argument("--keep", type=Path, help="file of what is read of the nights: made, or judged instead of them")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--partings", type=int, default=8)
    parser.add_argument("--reference", type=int, default=REFERENCE, help="nights of the calibration set")
    parser.add_argument("--rate", type=float, default=0.005)
    arguments = parser.parse_args()
    began = time.perf_counter()
    clean, faulty = read_nights(arguments.nights, arguments.keep)
    nights = sum(len(one) for one in clean.values())
    print(f"{len(clean)} units, {nights} clean nights, {REFERENCE + CLEAN} a unit, {len(faulty)} faults planted")
    alarms = false_alarms(clean, arguments.partings, arguments.reference, arguments.rate)
    for number, one in enumerate(alarms["partings"]):
        print(f"parting {number}: {one['alarms']} false alarms in {one['judged']}, {one['weather']} under clouds")
    service = alarms["partings"][0]  # partings share their nights: a range is given of one alone
    low, high = wilson(service["alarms"], service["judged"])
    part = 100 * service["alarms"] / max(service["judged"], 1)
    print(f"false alarms in 100 unit-nights, as in service: {part:.2f} ({100 * low:.2f} to {100 * high:.2f}, 95 %)")
    print(
        f"all partings: {alarms['per_100']:.2f}, {alarms['alarms']} in {alarms['judged']}, named first: "
        f"{alarms['reasons']}"
    )
    rows = delays(clean, faulty, arguments.rate)
    print("\n".join(table(rows)))
    strong = [row for row in rows if row["strength"] == "strong"]
    found = [sum(row["delay"] is not None and row["delay"] <= 2 for row in strong)]
    found.append(sum(seen_within(row, 2) for row in strong))
    print(
        f"strong faults found within 2 nights: {found[0]} of {len(strong)}, with clouds named as weather {found[1]};"
        f" {time.perf_counter() - began:.0f} s"
    )
    arguments.out.mkdir(parents=True, exist_ok=True)
    numbers = {"clean": {k: v for k, v in alarms.items() if k != "p"}, "faults": rows, "rate": arguments.rate}
    (arguments.out / "drift.json").write_text(json.dumps(numbers, indent=1, default=float))
    draw(rows, alarms, arguments.out / "drift.png", arguments.rate)


if __name__ == "__main__":
    main()
