"""``nightsift extract``: the sources of any FITS image, found and measured."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from nightsift.cli.console import show_table
from nightsift.core.errors import BlankFrame, ConfigurationError

if TYPE_CHECKING:
    import pyarrow as pa
    from astropy.wcs import WCS

    from nightsift.core.frames import FloatImage, MaskImage

FORMATS = (".parquet", ".fits", ".ecsv", ".csv")
VIEW = ("number", "x", "y", "ra", "dec", "flux", "flux_err", "mag", "fwhm", "half_light_radius", "flags")
MESH = 64
"""Width of a cell of the background of an image of no unit (pixel), about."""


class _Image(NamedTuple):
    data: FloatImage
    variance: FloatImage
    mask: MaskImage
    wcs: WCS | None
    zero_point: float


def extract(
    file: Annotated[str, typer.Argument(metavar="FILE", help="FITS image, or its URL.")],
    unit: Annotated[
        str | None, typer.Option(help="Unit that took it, to calibrate it: a name, or the path of its TOML file.")
    ] = None,
    hdu: Annotated[str, typer.Option(help="Which image of the file, by number or name, where it holds several.")] = "",
    threshold: Annotated[float, typer.Option(min=0.5, help="Least signal-to-noise ratio of smoothed pixels.")] = 3.0,
    min_pixels: Annotated[int, typer.Option(min=1, help="Least number of such pixels.")] = 5,
    zero_point: Annotated[float | None, typer.Option(help="Magnitude of a flux of 1, for magnitudes.")] = None,
    negative: Annotated[
        bool, typer.Option("--negative", help="Extract what is fainter than zero, as on a difference.")
    ] = False,
    best: Annotated[int, typer.Option(min=0, help="Sources to print, brightest first, where --out is not given.")] = 20,
    out: Annotated[Path | None, typer.Option(help="Where to write all, .parquet, .fits, .ecsv or .csv.")] = None,
) -> None:
    """Extract the sources of an image: centres, shapes, half-light radii, Kron fluxes, positions on the sky.

    With --unit the exposure is calibrated first. Templates and difference images (frame --keep-difference) bring their
    own noise and masks. Of any other image the background is subtracted and the noise measured by sep.
    """
    from nightsift.images.detection.catalogue import source_catalogue

    if out is not None and out.suffix not in FORMATS:
        raise _wrong("--out", f"{out} ends in none of {', '.join(FORMATS)}", "name a file that ends in one of them")
    if unit is not None and hdu:
        raise _wrong("--hdu", "given beside --unit", "the unit says which image it is: hdu under [image]")
    image = _read(file, hdu) if unit is None else _calibrated(file, unit)
    table = source_catalogue(
        -image.data if negative else image.data,
        image.variance,
        image.mask,
        threshold=threshold,
        min_pixels=min_pixels,
        wcs=image.wcs,
        zero_point=image.zero_point if zero_point is None else zero_point,
        where=file,
    )
    if out is None:
        _show(table.slice(0, best))
    else:
        _write(table, out)
    typer.echo(f"{table.num_rows} sources" + (f": {out}" if out else ""))
    if image.wcs is None:
        typer.echo("no coordinates in the header that can be used: ra and dec are empty", err=True)


def _wrong(key: str, what: str, advice: str) -> ConfigurationError:
    return ConfigurationError(file="nightsift extract", table="command line", key=key, what=what, advice=advice)


def _calibrated(file: str, unit_name: str) -> _Image:
    """An exposure of a unit: calibrated, its artefacts masked, its sky subtracted."""
    from nightsift.images.artefacts.artefacts import mask_artefacts
    from nightsift.images.background.background import subtract_background
    from nightsift.io.exposures import load_exposure
    from nightsift.io.fits import read_header
    from nightsift.io.sources import local_copy
    from nightsift.unit.facts import read_facts
    from nightsift.unit.units import load_unit

    unit = load_unit(unit_name)
    with local_copy(file) as path:
        facts = read_facts(unit, read_header(path, unit.image.hdu), file)
    frame = subtract_background(mask_artefacts(load_exposure(file, unit), unit), unit.background.mesh)
    return _Image(frame.data, frame.variance, frame.mask, frame.wcs, facts.zero_point)


def _read(file: str, hdu: str) -> _Image:
    """An image of no unit: a template, a difference, or any other."""
    import numpy as np

    from nightsift.archive.templates import read_template
    from nightsift.io.fits import open_fits, read_image
    from nightsift.io.headers import celestial_wcs
    from nightsift.io.sources import local_copy
    from nightsift.unit.facts import COMMON_CARDS

    with local_copy(file) as path:
        with open_fits(path) as hdus:
            names = {one.name for one in hdus}
        if not hdu and {"SCI", "VAR", "MASK", "COVERAGE", "STARS", "SOURCES"} <= names:
            template = read_template(path)
            frame = template.frame
            return _Image(frame.data, frame.variance, frame.mask, frame.wcs, template.zero_point)
        if hdu in ("", "DIFFERENCE") and {"DIFFERENCE", "VARIANCE", "SCORE", "MASK"} <= names:
            image = read_image(path, "DIFFERENCE")
            variance, mask = (read_image(path, name).data for name in ("VARIANCE", "MASK"))
            wcs = celestial_wcs(image.header, image.data.shape).wcs
            return _Image(image.data, variance, mask.astype(np.uint16), wcs, math.nan)
        image = read_image(path, int(hdu) if hdu.isdigit() else hdu)
    cards = (image.header.get(card) for card in COMMON_CARDS["zero_point"])
    zero_point = next((float(one) for one in cards if isinstance(one, int | float)), math.nan)
    wcs = celestial_wcs(image.header, image.data.shape).wcs
    return _Image(*_without_background(image.data, file), wcs, zero_point)


def _without_background(data: FloatImage, where: str) -> tuple[FloatImage, FloatImage, MaskImage]:
    """Subtract the background and measure the noise by a mesh of sep."""
    import numpy as np
    import sep

    from nightsift.core.flags import Mask

    unknown = ~np.isfinite(data)
    usable = data[~unknown]
    if usable.size == 0 or usable.min() == usable.max():
        what = "no pixel is finite" if usable.size == 0 else f"all of its pixels hold {usable[0]:g}"
        raise BlankFrame(where=where, what=what)
    filled = np.where(unknown, np.float32(np.median(usable)), data)
    # cells of equal size: a narrow last one would have a level of its own
    height, width = (math.ceil(size / max(2, round(size / MESH))) for size in data.shape)
    background = sep.Background(filled, mask=unknown, bw=width, bh=height)
    noise = background.rms(dtype=np.float32)
    if not background.globalrms > 0:
        raise BlankFrame(where=where, what="its sky has no noise, so that nothing stands out of it")
    mask = np.where(unknown, np.uint16(Mask.NONFINITE.value), np.uint16(0))
    return filled - background.back(dtype=np.float32), noise**2, mask


def _show(table: pa.Table) -> None:
    from nightsift.core.flags import SourceFlag, names

    rows = table.select(VIEW).to_pylist()
    show_table("Sources", VIEW, [list({**r, "flags": " ".join(names(r["flags"], SourceFlag))}.values()) for r in rows],
               right=VIEW[:-1])  # fmt: skip


def _write(table: pa.Table, out: Path) -> None:
    from pyarrow import csv

    from nightsift.core.to_astropy import to_table
    from nightsift.io.atomic import atomic
    from nightsift.io.parquet import write_table

    if out.suffix == ".parquet":
        write_table(out, table)
        return
    with atomic(out) as temporary:
        if out.suffix == ".csv":
            csv.write_csv(table, temporary)
        else:
            rows = to_table(table)
            for column in rows.itercols():
                column.format = None  # that of the screen; a file gets all digits
            rows.write(temporary, format={".fits": "fits", ".ecsv": "ascii.ecsv"}[out.suffix], overwrite=True)
