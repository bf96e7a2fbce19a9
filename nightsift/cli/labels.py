"""``nightsift calibrate``: what a unit's scores mean; ``nightsift ask``: candidates that are worth a label."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from nightsift.cli.console import text
from nightsift.core.errors import ConfigurationError

WORDS = {"real": 1, "1": 1, "true": 1, "bogus": 0, "0": 0, "false": 0}


def calibrate(
    where: Annotated[Path, typer.Argument(metavar="SURVEY.toml", help="Survey file.")],
    unit: Annotated[str, typer.Option(help="Unit whose scores are calibrated.")],
    labels: Annotated[
        Path, typer.Option(help="CSV or parquet file with the columns candidate_id and label (real or bogus).")
    ],
    out: Annotated[
        Path | None, typer.Option(help="File to write; UNIT.calibration.json beside the unit file by default.")
    ] = None,
    rule: Annotated[str, typer.Option(help='What the threshold may cost: "FPR 1e-2" or "miss 1%".')] = "FPR 1e-2",
    prevalence: Annotated[
        float | None, typer.Option(min=1e-6, max=0.999, help="Part of the candidates that is real in service.")
    ] = None,
) -> None:
    """Calibrate the scores of one unit on labelled candidates, and resolve its threshold."""
    from models.transfer.unit_calibration import Threshold, carry_over, learn_calibration, parse_rule
    from nightsift.archive.paths import Archive
    from nightsift.archive.survey import load_survey
    from nightsift.core.probabilities import threshold_text
    from nightsift.io.atomic import atomic

    parse_rule(rule, "command line")
    survey = load_survey(where)
    loaded = survey.load_unit(unit)
    labelled = read_labels(labels)
    found, threshold = learn_calibration(Archive(survey.archive), loaded, labelled, rule=rule, prevalence=prevalence)
    typer.echo(f"{unit}: {found.real} real and {found.bogus} bogus labels, map: {found.method}")
    unknown = len(labelled) - found.real - found.bogus
    if unknown:
        typer.echo(f"  {unknown} of {len(labelled)} labels are of no stored candidate of {unit} and were passed over")
    if found.method == "none" and found.figures.keys() - {"nll_none", "ece_before", "ece_after"}:
        typer.echo("  no map is better than none: the scores hold as they are")
    for reason in found.reasons:
        typer.echo(f"  not tried: {reason}")
    for name, value in found.figures.items():
        typer.echo(f"  {name.replace('_', ' ')} {text(value)}")
    path = out or Path(loaded.file).parent / f"{unit}.calibration.json"
    with atomic(path) as temporary:
        temporary.write_text(found.to_json(), encoding="utf-8")
    typer.echo(f"written: {path}")
    typer.echo("put into the unit file:\n\n[model]")
    typer.echo(f'calibration = "{path.name}"')
    if isinstance(threshold, Threshold):
        counted = f"{threshold.low:.2%} to {threshold.high:.2%} on {threshold.examples} labels"
        typer.echo(f"threshold = {threshold_text(threshold.value)}     # {threshold.rule}: {counted}")
    elif threshold is not None:
        typer.echo(f"# threshold: {threshold}")
        if not loaded.model.calibration:
            carried = carry_over(loaded.model.threshold, found)
            typer.echo(f"threshold = {threshold_text(carried)}     # what it was, in these scores")
    for name in sorted(rules_asked_by(labels) - {"random"}):
        typer.echo(
            f"# asked for by the rule {name}, these labels are no fair draw: ask with --rule random to calibrate"
        )


def read_labels(path: Path) -> dict[str, int]:
    """Labels by candidate_id, from CSV or parquet; rows whose label is still empty have none."""
    rows = _rows(path, ["candidate_id", "label"])
    found: dict[str, int] = {}
    for row in rows:
        word = "" if row["label"] is None else str(row["label"]).strip().lower()
        if not word:
            continue
        if word not in WORDS:
            raise _wrong(path, f"{row['label']!r} of {row['candidate_id']} is no label")
        if found.setdefault(str(row["candidate_id"]), WORDS[word]) != WORDS[word]:
            raise _wrong(path, f"{row['candidate_id']} is called real and bogus")
    if not found:
        raise _wrong(path, f"no label is filled in, of {len(rows)} rows")
    return found


def rules_asked_by(path: Path) -> set[str]:
    """Rules by which `nightsift ask` chose the labelled rows; empty where the table does not say."""
    try:
        rows = _rows(path, ["label", "rule"])
    except ConfigurationError:
        return set()
    return {str(row["rule"]) for row in rows if row["label"] and row["rule"]}


def _rows(path: Path, columns: list[str]) -> list[dict[str, Any]]:
    import pyarrow.csv as csv
    import pyarrow.parquet as pq
    from pyarrow import ArrowException

    try:
        table = pq.read_table(path) if path.suffix == ".parquet" else csv.read_csv(path)
        rows: list[dict[str, Any]] = table.select(columns).to_pylist()
    except (OSError, KeyError, ArrowException) as error:
        raise _wrong(path, f"cannot be read: {error}") from error
    return rows


def _wrong(path: Path, what: str) -> ConfigurationError:
    return ConfigurationError(
        file=str(path), table="labels", key="label", what=what,
        advice="give a table with the columns candidate_id and label, the latter real or bogus",
    )  # fmt: skip


def ask(
    where: Annotated[Path, typer.Argument(metavar="SURVEY.toml", help="Survey file.")],
    unit: Annotated[str, typer.Option(help="Unit whose candidates are looked at.")],
    out: Annotated[Path, typer.Option(help="CSV file to write; the page to label on is beside it, as .html.")],
    count: Annotated[int, typer.Option(min=1, help="How many candidates.")] = 50,
    rule: Annotated[str, typer.Option(help="batch, bald, entropy or random.")] = "batch",
    labels: Annotated[Path | None, typer.Option(help="Labels that are there already; these are not asked for.")] = None,
    seed: Annotated[int, typer.Option(help="Everything random depends on it.")] = 0,
) -> None:
    """Write a list of the candidates whose labels would teach a unit's model most, and a page to label them on."""
    import pyarrow.csv as csv

    from models.transfer.active import RULES, questions
    from nightsift.archive.paths import Archive
    from nightsift.archive.survey import load_survey
    from nightsift.core.errors import ConfigurationError
    from nightsift.io.atomic import atomic
    from nightsift.report.pictures import render_labelling

    if rule not in RULES:
        raise ConfigurationError(
            file="command line", table="ask", key="--rule", what=f"there is no rule '{rule}'",
            advice=f"give one of {', '.join(RULES)}",
        )  # fmt: skip
    survey = load_survey(where)
    known = read_labels(labels) if labels else {}
    found, bias, stamps = questions(
        Archive(survey.archive), survey.load_unit(unit), count, rule=rule, known=known, seed=seed
    )
    with atomic(out) as temporary:
        csv.write_csv(found, temporary)
    page, labelled = out.with_suffix(".html"), f"{out.stem}-labelled.csv"
    step = "calibrate" if rule == "random" else f"transfer models/{unit} --survey"
    command = f"nightsift {step} {where} --unit {unit} --labels {labelled}"
    with atomic(page) as temporary:
        temporary.write_text(
            render_labelling(unit, found.to_pylist(), stamps, table=labelled, next_step=command), encoding="utf-8"
        )
    typer.echo(f"{found.num_rows} candidates of {unit} written to {out}")
    typer.echo(f"label them in a browser: {page} (or fill in the column label of the table: real or bogus)")
    for line in _skewed_shares(bias):
        typer.echo(line)
    if rule != "random":
        typer.echo("these are no fair draw: rates and calibrations from them hold for what was asked, not for the unit")


def _skewed_shares(bias: list[dict[str, Any]]) -> list[str]:
    """Parts asked for less than half or more than twice as often as in a fair draw, unless chance explains it."""
    return [
        f"  {row['name']} {part['part']}: {part['asked']:.0%} of those asked for, {part['pool']:.0%} of all"
        for row in bias
        if row["p"] < 0.01
        for part in row["shares"]
        if part["ratio"] is not None and not 0.5 <= part["ratio"] <= 2.0
    ]
