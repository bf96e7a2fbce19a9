"""The tables of a unit file that say how its frames are reduced."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from nightsift.configuration import Section

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


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
        if value and not re.fullmatch(r"\[\d+:\d+,\d+:\d+\]", value):
            raise ValueError("a section reads [x1:x2,y1:y2], counted from 1")
        return value


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
