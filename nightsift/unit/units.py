"""Telescope units: what differs between them, read from ``units/<unit>.toml`` over ``units/_defaults.toml``.

No unit is named in code. A fact of an exposure (gain, time, ...) comes from where the unit file says: a header card,
the file name, or a constant; `nightsift.unit.facts` reads it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator

from nightsift.core.configuration import Section, closest, read_toml, validate
from nightsift.core.errors import ConfigurationError
from nightsift.site.site import Site
from nightsift.unit.fact_sources import Facts

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Pixels = npt.NDArray[np.float64]

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]

SHIPPED = Path(__file__).resolve().parents[2] / "units"
DEFAULTS = "_defaults.toml"


def _checked_section(value: str) -> str:
    """Return a section of an image as it is, if it is one."""
    if value:
        numbers = [int(one) for one in re.findall(r"\d+", value)]
        if (
            not re.fullmatch(r"\[\d+:\d+,\d+:\d+\]", value)
            or not 1 <= numbers[0] < numbers[1]
            or not (1 <= numbers[2] < numbers[3])
        ):
            raise ValueError("a section reads [x1:x2,y1:y2], counted from 1, the smaller number first")
    return value


class Image(Section):
    """The image in the file."""

    hdu: int | str = Field(description="index or EXTNAME of the image; empty to find it")
    bayer: Literal["", "RGGB", "BGGR", "GRBG", "GBRG"] = Field(
        description="colour pattern of a raw colour camera, empty for none"
    )
    trim: str = Field(description="section that holds the light, as [x1:x2,y1:y2] counted from 1; empty for all")

    @field_validator("trim")
    @classmethod
    def _section(cls, value: str) -> str:
        return _checked_section(value)

    @property
    def corner(self) -> tuple[int, int]:
        """``(x, y)`` of the first pixel after trimming in the image of the file, counted from 0."""
        if not self.trim:
            return 0, 0
        x1, _, y1, _ = (int(number) for number in re.findall(r"\d+", self.trim))
        return x1 - 1, y1 - 1

    @property
    def binning(self) -> int:
        """Pixels of the file along a side of one pixel of the reduced image."""
        return 2 if self.bayer else 1

    def in_file(self, x: Pixels, y: Pixels) -> tuple[Pixels, Pixels]:
        """Pixels of the reduced image, counted from 0, as pixels of the file, which FITS counts from 1."""
        middle = (self.binning - 1) / 2.0
        first_x, first_y = self.corner
        return self.binning * x + middle + first_x + 1.0, self.binning * y + middle + first_y + 1.0


class Calibration(Section):
    """Masters, for units that deliver raw frames; empty where there is none."""

    folder: str = Field(description="folder of the masters; empty for $NIGHTSIFT_CALIBRATION")
    bias: str = Field(description="master bias; {band} and {unit} are filled in, [NAME] at the end picks an HDU")
    dark: str = Field(description="master dark")
    flat: str = Field(description="master flat")
    bad_pixels: str = Field(description="map of bad pixels, not zero where bad")
    dark_exposure: NotNegative = Field(
        description="exposure of the master dark (s), 1 for a rate; 0 to read it from its header"
    )
    dark_includes_bias: bool = Field(description="whether the bias is still in the master dark")
    flat_includes_bias: bool = Field(description="whether the bias is still in the master flat")
    flat_min: Fraction = Field(description="pixels whose flat is below this fraction of the median are bad")
    trim: str = Field(description="section of the masters that matches the frames, as [x1:x2,y1:y2]; empty for all")

    @field_validator("trim")
    @classmethod
    def _section(cls, value: str) -> str:
        return _checked_section(value)


class Background(Section):
    """Sky background."""

    mesh: int = Field(ge=8, description="mesh of the background map (pixel)")


class Detection(Section):
    """Extraction of candidates."""

    threshold: Positive = Field(description="signal-to-noise ratio")
    min_pixels: int = Field(ge=1, description="pixels above the threshold")
    aperture: Positive = Field(description="radius of the aperture in FWHM")


class Artefacts(Section):
    """What is masked before the subtraction."""

    cosmic_rays: bool = Field(description="find cosmic rays")
    streaks: bool = Field(description="find streaks of satellites and aircraft")
    bleed: bool = Field(description="follow bleed trails of saturated stars")
    saturation_grow: int = Field(ge=0, description="pixels by which saturated cores are grown")
    bright_star_radius: NotNegative = Field(
        description="radius of the halo around a saturated star, in FWHM; 0 for none"
    )


class PsfOptions(Section):
    """Model of the point-spread function."""

    order: int = Field(ge=-1, le=5, description="order of its variation over the frame; -1 from the number of stars")


class AlignmentOptions(Section):
    """Alignment with the template."""

    order: int = Field(ge=1, le=5, description="order of the mapping")
    min_stars: int = Field(ge=3, description="stars that must match")
    max_residual: Positive = Field(description="largest median residual (pixel)")
    tolerance: Positive = Field(description="search radius when matching through the WCS (arcsec)")
    use_wcs: bool = Field(description="whether the WCS of the frames is to be trusted as a start")


class TemplateOptions(Section):
    """Templates."""

    min_coverage: Fraction = Field(description="part of a frame that its template must cover")
    max_frames: int = Field(ge=1, description="frames that go into a template, best first")
    max_seeing: Positive = Field(description="worst seeing of a frame, relative to the median of its set")
    catalogue: str = Field(
        description="parquet or CSV file of positions that give a template its WCS where frames have none"
    )


class SubtractionOptions(Section):
    """Method of subtraction."""

    method: str = Field(min_length=1, description="file in subtraction/methods, or auto")
    options: dict[str, Any] = Field(description="options of the method")


class StampOptions(Section):
    """Stamps around candidates."""

    size: int = Field(ge=11, description="odd width (pixel)")
    orientation: Literal["none", "flip_x", "flip_y", "rot90", "rot180", "rot270"] = Field(
        description="turn into the orientation of the other units"
    )

    @field_validator("size")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError("the size must be odd, so that a pixel is in the centre")
        return value


class ModelOptions(Section):
    """Real/bogus model."""

    name: str = Field(min_length=1, description="name of the model")
    threshold: Fraction = Field(description="score from which a candidate counts as accepted")
    samples: int = Field(ge=1, description="dropout samples")
    calibration: str = Field(description="file that nightsift calibrate wrote for this unit, beside its unit file")


class Unit(Section):
    """A telescope unit."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$", description="name of the unit: letters, digits and _ . + -"
    )
    description: str = Field("", description="one line for people")
    extends: str = Field("", description="unit whose file this one starts from")
    file: str = Field("", description="file that it was read from (set on reading)")
    facts: Facts
    site: Site
    image: Image
    calibration: Calibration
    background: Background
    detection: Detection
    artefacts: Artefacts
    psf: PsfOptions
    alignment: AlignmentOptions
    template: TemplateOptions
    subtraction: SubtractionOptions
    stamps: StampOptions
    model: ModelOptions


def load_unit(name_or_path: str | Path, folders: Iterable[str | Path] = ()) -> Unit:
    """Read a unit by name or by path.

    Parameters
    ----------
    name_or_path : str or Path
        Name of a unit, or the path of its TOML file.
    folders : iterable of str or Path, optional
        Folders searched for a name before those shipped.

    Returns
    -------
    Unit
        The unit, its file merged over the defaults.

    Raises
    ------
    ConfigurationError
        If there is no such unit, or its file is wrong; the error names file, table, key and a hint.
    """
    searched = tuple(Path(folder) for folder in folders)
    path = _find(name_or_path, searched)
    content = _merged(path, searched, seen=())
    content["file"] = str(path)
    return validate(Unit, content, path)


def default_unit() -> Unit:
    """Return a unit of defaults alone, for images that come with their facts: those of its own stand for nothing."""
    numbers = {name: {"constant": 1.0} for name in ("gain", "read_noise", "saturation", "pixel_scale", "exposure")}
    texts = {name: {"constant": "none"} for name in ("band", "field")}
    facts = {**numbers, **texts, "time": {"constant": "2000-01-01", "position": "mid"}}
    content = {**read_toml(SHIPPED / DEFAULTS), "name": "image", "facts": facts, "site": {"longitude": 0.0}}
    return validate(Unit, content, SHIPPED / DEFAULTS)


def list_units(folders: Iterable[Path] = ()) -> dict[str, Path]:
    """Units that can be loaded by name.

    Parameters
    ----------
    folders : iterable of Path, optional
        Folders searched before those shipped.

    Returns
    -------
    dict of str to Path
        Files by name, sorted by name.
    """
    found: dict[str, Path] = {}
    for folder in (*folders, SHIPPED):
        for path in sorted(Path(folder).glob("*.toml")):
            if not path.name.startswith("_"):
                found.setdefault(path.stem, path)
    return dict(sorted(found.items()))


def _find(name_or_path: str | Path, folders: tuple[Path, ...]) -> Path:
    text = str(name_or_path)
    if text.endswith(".toml") or "/" in text:
        return Path(text)
    known = list_units(folders)
    if text not in known:
        searched = ", ".join(str(folder) for folder in (*folders, SHIPPED))
        raise ConfigurationError(
            file=searched, table="units", key=text, what="no unit of this name",
            advice=f"{closest(text, known)} Or give the path of its file, as units/{text}.toml",
        )  # fmt: skip
    return known[text]


def _merged(path: Path, folders: tuple[Path, ...], seen: tuple[Path, ...]) -> dict[str, Any]:
    """Content of a unit file over that of the unit it extends, or over the defaults."""
    content = read_toml(path)
    content.setdefault("name", path.stem)
    if path in seen:
        raise ConfigurationError(
            file=str(path),
            table="top level",
            key="extends",
            what="units extend each other in a circle",
            advice="remove one extends",
        )
    parent = content.get("extends", "")
    if isinstance(parent, str) and parent:
        base = _merged(_find(parent, (path.parent, *folders)), folders, (*seen, path))
    else:
        base = read_toml(SHIPPED / DEFAULTS)
    return _over(base, content)


def _over(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """Tables merge key by key; a fact is replaced as a whole, so that its sources never mix."""
    merged = dict(base)
    for key, value in top.items():
        below = merged.get(key)
        merged[key] = {**below, **value} if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged
