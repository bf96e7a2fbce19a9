"""``nightsift template``: templates built from a survey's frames, and made of images from elsewhere."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from nightsift.cli.compilation import compile_first
from nightsift.cli.console import (
    LineProgress,
    RunnerKind,
    night_given,
    runner_asked,
    show_table,
    starting,
    survey_at,
    units_asked,
)
from nightsift.core.errors import ConfigurationError

if TYPE_CHECKING:
    from tasks.template import TemplateRow

TEMPLATE_HELP = """Build the templates of a survey from its best frames: nightsift template SURVEY.toml.

Or bring images of others onto a field: nightsift template import. Without the name of a command, it is build.
"""


class BuildByDefault(TyperGroup):
    """The commands of templates: what begins with a survey or an option is ``build``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the name of the command before arguments that have none."""
        if args and args[0] not in (*self.commands, *ctx.help_option_names):
            args = ["build", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(cls=BuildByDefault, help=TEMPLATE_HELP, no_args_is_help=True)


@app.command("build")
def build(
    where: Annotated[
        str, typer.Argument(metavar="SURVEY.toml|FOLDER", help="Survey file, or a folder of frames for templates.")
    ],
    unit: Annotated[list[str] | None, typer.Option(help="Unit; may be given several times; all by default.")] = None,
    archive: Annotated[Path | None, typer.Option(help="Archive of the templates (needed with a FOLDER).")] = None,
    until: Annotated[
        str | None, typer.Option(callback=night_given, help="Use frames up to this night only, as 2026-11-20.")
    ] = None,
    runner: Annotated[RunnerKind | None, typer.Option(help="How they are spread, instead of the survey's way.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Templates built at the same time.")] = None,
    redo: Annotated[bool, typer.Option("--redo", help="Build templates again that are up to date.")] = False,
    track: Annotated[bool, typer.Option(help="Let Prefect see the run; without, nothing is started or asked.")] = True,
) -> None:
    """Build the templates of every field, unit and band from the best frames found."""
    survey = survey_at(where, unit or [], archive, templates=where)
    compile_first(survey, units_asked(where, unit or []) or ())
    from flows.templates import build_templates
    from tasks.discover import explain_absence

    with LineProgress("templates", _template_line, starting(track)) as progress:
        summary = build_templates(
            survey,
            units=units_asked(where, unit or []),
            until=until,
            runner=runner_asked(survey, runner, workers),
            redo=redo,
            progress=progress,
            track=track,
        )
    for problem in summary.problems:
        typer.echo(f"problem: {problem}", err=True)
    made, units = {row.unit for row in summary.rows}, survey.load_units(units_asked(where, unit or []) or ())
    without = {name: one for name, one in units.items() if name not in made}
    for line in explain_absence(survey, without, until, templates=True) if without else ():
        typer.echo(f"no template: {line}", err=True)
    if not summary.rows:
        typer.echo("no template was built", err=True)
        raise typer.Exit(1)
    states = ", ".join(f"{number} {state}" for state, number in sorted(summary.states.items()))
    typer.echo(f"{len(summary.rows)} templates: {states}; {summary.seconds:.0f} s")
    raise typer.Exit(summary.exit_code)


@app.command("import")
def import_template(
    survey: Annotated[Path, typer.Argument(metavar="SURVEY.toml", help="Survey file.")],
    file: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="FITS images, HEALPix maps, or folders of HiPS tiles.")
    ],
    unit: Annotated[str, typer.Option(help="Unit whose template it becomes.")],
    field: Annotated[str, typer.Option(help="Field, as its exposures name it.")],
    band: Annotated[str, typer.Option(help="Band, as its exposures name it.")],
    like: Annotated[str, typer.Option(help="Exposure that gives grid and flux scale, instead of one found.")] = "",
    noise: Annotated[list[str] | None, typer.Option(help="File of the noise of each FILE, in their order.")] = None,
    noise_kind: Annotated[str, typer.Option(help="What they hold: variance, weight (its inverse) or sigma.")] = "",
    mask: Annotated[list[str] | None, typer.Option(help="File of the mask of each FILE; 0 is good.")] = None,
    ignore_bits: Annotated[int, typer.Option(min=0, help="Sum of the mask bits that do no harm.")] = 0,
    hdu: Annotated[str, typer.Option(help="Name or number of the image in each FILE; all of them by default.")] = "",
    gain: Annotated[
        float | None, typer.Option(help="Electrons in one unit of the images; from the header by default.")
    ] = None,
    zero_point: Annotated[
        float | None, typer.Option(help="Magnitude of one unit of the images; from the header by default.")
    ] = None,
) -> None:
    """Make a template of images of another survey or unit: any projection, pixel scale and orientation."""
    for key, given in (("--noise", noise), ("--mask", mask)):
        if given and len(given) != len(file):
            raise _wrong(key, f"{len(given)} files for {len(file)} images", f"give {key} for every FILE, in order")
    if noise_kind not in ("", "variance", "weight", "sigma"):
        raise _wrong("--noise-kind", f"{noise_kind!r} is unknown", "take variance, weight or sigma")
    from nightsift.archive.survey import load_survey
    from nightsift.io.outside_files import ImportOptions
    from tasks.outside_template import import_images

    loaded = load_survey(survey)
    one = next(iter(loaded.load_units([unit]).values()))
    numbers = (math.nan if value is None else value for value in (gain, zero_point))
    options = ImportOptions(tuple(noise or ()), noise_kind, tuple(mask or ()), ignore_bits, hdu, *numbers)
    made = import_images(loaded, file, one, field=field, band=band, options=options, like=like)
    template = made.template
    for name, why in template.refused:
        typer.echo(f"left out: {name}: {why}", err=True)
    lines = [
        ("grid", made.grid),
        ("images", f"{len(template.sources)} of {len(template.sources) + len(template.refused)}"),
        ("good pixels", f"{made.covered:.1%}"),
        ("flux scale", str(made.scale).removeprefix("flux scale ")),
        ("zero point", f"{template.zero_point:.3f}" if math.isfinite(template.zero_point) else "not known"),
        ("stars", f"{len(template.stars)}, FWHM {made.fwhm:.2f} px"),
        ("noise of 4 x 4 px", f"{made.correlation:.2f} of that of independent pixels"),
        ("file", str(made.path)),
    ]
    show_table(f"Template {template.template_id}", ("", ""), lines)
    typer.echo(f"it serves {one.name} {field} {band} from now on, as the newest; nightsift template --redo replaces it")


def _wrong(key: str, what: str, advice: str) -> ConfigurationError:
    return ConfigurationError(file="command line", table="template import", key=key, what=what, advice=advice)


def _template_line(row: TemplateRow) -> str:
    line = f"{row.unit} {row.field} {row.band} {row.state}"
    if row.state == "done":
        return f"{line} from {row.used} of {row.offered} frames, {row.seconds:.1f} s"
    return f"{line}: {row.message}" if row.message else line
