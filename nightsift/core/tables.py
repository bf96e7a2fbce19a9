"""Arrow schemas of every table that nightsift writes: name, type, unit, description and the one writer of each column.

`docs/schema.md` is generated from here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:  # the command line starts without numpy
    import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Attributes
    ----------
    name : str
        Column name.
    type : pyarrow.DataType
        Arrow type.
    unit : str
        Unit in the notation of the IVOA, empty where there is none.
    description : str
        What it is.
    writer : str
        Module that writes it.
    nullable : bool
        Whether a row may lack it.
    """

    name: str
    type: pa.DataType
    unit: str
    description: str
    writer: str
    nullable: bool = False


def schema(columns: Iterable[Column], name: str) -> pa.Schema:
    """Return the Arrow schema of columns in their order; units and descriptions go into the field metadata."""
    fields = [
        pa.field(c.name, c.type, nullable=c.nullable, metadata={"unit": c.unit, "description": c.description})
        for c in columns
    ]
    return pa.schema(fields, metadata={"table": name})


def table(rows: Mapping[str, Any] | list[dict[str, Any]], of: pa.Schema) -> pa.Table:
    """Build a table of exactly one schema, or say which column does not fit.

    Parameters
    ----------
    rows : mapping of str to array, or list of dict
        Columns by name, or rows.
    of : pyarrow.Schema
        The schema.

    Returns
    -------
    pyarrow.Table
        The checked table; columns absent from `rows` are null where that is allowed.

    Raises
    ------
    ValueError
        If a column is unknown, absent though required, or holds nulls though required.
    """
    if isinstance(rows, Mapping):
        length = len(next(iter(rows.values()))) if rows else 0
        columns = dict(rows)
    else:
        length = len(rows)
        names = {key for row in rows for key in row}
        columns = {key: [row.get(key) for row in rows] for key in names}
    unknown = sorted(set(columns) - set(of.names))
    if unknown:
        raise ValueError(f"columns {unknown} are not in the schema of {_name(of)}")
    arrays = []
    for one in of:
        values = columns.get(one.name)
        array = pa.nulls(length, one.type) if values is None else pa.array(values, type=one.type)
        if not one.nullable and array.null_count:
            raise ValueError(f"column '{one.name}' of {_name(of)} has {array.null_count} nulls, none allowed")
        arrays.append(array)
    return pa.Table.from_arrays(arrays, schema=of)


def nullable(values: npt.NDArray[Any]) -> pa.Array:
    """Return numbers, shape (n,), as an Arrow column, null where they are not finite."""
    return pa.array(values, mask=~(abs(values) < math.inf))


def _name(of: pa.Schema) -> str:
    return str((of.metadata or {}).get(b"table", b"?").decode())


_S, _I, _F, _D = pa.string(), pa.int32(), pa.float32(), pa.float64()

# Writers of columns: the module to look into when a value surprises.
_EXTRACT, _PHOTOMETRY = "nightsift.images.detection.extract", "nightsift.images.photometry.difference_photometry"
_FORCED, _SIMULATE = "nightsift.images.photometry.forced", "nightsift.simulate"
_STORE, _REDUCE, _LIGHT = "models.network.store", "tasks.reduce", "tasks.photometry"

CANDIDATE_COLUMNS = (
    Column("candidate_id", _S, "", "exposure_id and running number", _EXTRACT),
    Column("exposure_id", _S, "", "identity of the exposure", _EXTRACT),
    Column("unit", _S, "", "telescope unit", _EXTRACT),
    Column("night", _S, "", "local date of the evening", _EXTRACT),
    Column("field", _S, "", "sky field", _EXTRACT),
    Column("band", _S, "", "filter", _EXTRACT),
    Column("mjd", _D, "d", "mid-exposure time, UTC", _EXTRACT),
    Column("x", _D, "pixel", "column of the reduced image, 0 at the centre of the first pixel", _EXTRACT),
    Column("y", _D, "pixel", "row of the reduced image, 0 at the centre of the first pixel", _EXTRACT),
    Column("x_file", _D, "pixel", "column in the file, before trimming and joining, 1 at the first", _EXTRACT, True),
    Column("y_file", _D, "pixel", "row in the file, before trimming and joining, 1 at the first", _EXTRACT, True),
    Column("ra", _D, "deg", "right ascension, ICRS", _EXTRACT, True),
    Column("dec", _D, "deg", "declination, ICRS", _EXTRACT, True),
    Column("sign", pa.int8(), "", "+1 brighter, -1 fainter than the template", _EXTRACT),
    Column("snr", _F, "", "peak of the signal-to-noise map, positive for both signs", _EXTRACT),
    Column("n_pixels", _I, "pixel", "pixels above the threshold", _EXTRACT),
    Column("elongation", _F, "", "major over minor axis", _EXTRACT),
    Column("fwhm", _F, "pixel", "full width at half maximum", _EXTRACT, True),
    Column("flux", _F, "adu", "PSF flux on the difference, negative when fainter", _PHOTOMETRY),
    Column("flux_err", _F, "adu", "its standard deviation", _PHOTOMETRY),
    Column("flux_aperture", _F, "adu", "aperture flux on the difference", _PHOTOMETRY),
    Column("flux_aperture_err", _F, "adu", "its standard deviation", _PHOTOMETRY),
    Column("chi2", _F, "", "reduced chi-square of the PSF fit", _PHOTOMETRY, True),
    Column(
        "mag",
        _F,
        "mag",
        "magnitude of |flux|, zero point of the template's stars",
        _PHOTOMETRY,
        True,
    ),
    Column("mag_err", _F, "mag", "its standard deviation", _PHOTOMETRY, True),
    Column("dipole", _F, "", "flux of the opposite lobe over that of the candidate", _EXTRACT),
    Column("masked_fraction", _F, "", "masked part of the PSF core", _EXTRACT),
    Column("flags", _I, "", "bits of nightsift.core.flags.Flag", _EXTRACT),
    Column("template_id", _S, "", "identity of the template", _EXTRACT),
    Column("stamp_index", _I, "", "row of its stamps in the stamp file of the exposure", _REDUCE),
    Column("score", _D, "", "real/bogus score, 0 bogus to 1 real", _STORE, True),
    Column("score_std", _D, "", "standard deviation of the score over dropout samples", _STORE, True),
    Column("confidence", _F, "", "1 - mean binary entropy of the samples (bit)", _STORE, True),
    Column("model_id", _S, "", "identity of the model", _STORE, True),
)
CANDIDATES = schema(CANDIDATE_COLUMNS, "candidates")

_SHAPES = "nightsift.images.stars.shapes"
LEDGER_COLUMNS = (
    Column("exposure_id", _S, "", "identity of the exposure: unit and file content", _REDUCE),
    Column("unit", _S, "", "telescope unit", _REDUCE),
    Column("night", _S, "", "local date of the evening", _REDUCE),
    Column("state", _S, "", "done, refused (the frame), failed (the machine) or waiting (no template)", _REDUCE),
    Column("reason", _S, "", "error class, empty when done", _REDUCE),
    Column("message", _S, "", "what is wrong, what was received, what to do", _REDUCE),
    Column("facts", _S, "", "facts of the error as JSON", _REDUCE),
    Column("url", _S, "", "where the exposure was found", _REDUCE),
    Column("checksum", _S, "", "SHA-256 of the file", _REDUCE),
    Column("field", _S, "", "sky field", _REDUCE, True),
    Column("band", _S, "", "filter", _REDUCE, True),
    Column("mjd", _D, "d", "mid-exposure time, UTC", _REDUCE, True),
    Column("exposure_s", _F, "s", "exposure time", _REDUCE, True),
    Column("ra", _D, "deg", "right ascension of the frame centre, ICRS", _REDUCE, True),
    Column("dec", _D, "deg", "declination of the frame centre, ICRS", _REDUCE, True),
    Column("area", _D, "deg**2", "sky area searched", _REDUCE, True),
    Column("seeing", _F, "arcsec", "full width at half maximum of stars", _REDUCE, True),
    Column("core_width", _F, "", "star width in a narrow window over that in a wide one", _SHAPES, True),
    Column("ellipticity", _F, "", "length of the mean ellipticity of stars", _SHAPES, True),
    Column("width_gradient", _F, "", "change of the star width from centre to edge, relative", _SHAPES, True),
    Column("sky", _F, "adu", "median sky level", _REDUCE, True),
    Column("sky_rms", _F, "adu", "robust rms of the sky", _REDUCE, True),
    Column("n_stars", _I, "", "stars found", _REDUCE, True),
    Column("zero_point", _F, "mag", "magnitude of 1 ADU", _REDUCE, True),
    Column("aperture_correction", _F, "mag", "part of the zero point by curves of growth, null without", _REDUCE, True),
    Column("limiting_mag", _F, "mag", "5-sigma point-source limit of the difference", _REDUCE, True),
    Column("align_method", _S, "", "wcs or pattern", _REDUCE, True),
    Column("align_matched", _I, "", "stars matched with the template", _REDUCE, True),
    Column("align_residual", _F, "pixel", "median distance of matched stars after alignment", _REDUCE, True),
    Column("coverage", _F, "", "fraction of the frame that the template covers", _REDUCE, True),
    Column("template_id", _S, "", "identity of the template", _REDUCE, True),
    Column("method", _S, "", "subtraction method", _REDUCE, True),
    Column("method_choice", _S, "", "why this method was picked, where it is left to auto", _REDUCE, True),
    Column("convolved", _S, "", "which frame was convolved", _REDUCE, True),
    Column("kernel_sum", _F, "", "flux scale from template to science", _REDUCE, True),
    Column("star_residual", _F, "", "rms of residuals at stars over the expected noise", _REDUCE, True),
    Column("verdict", _S, "", "good, suspect or bad difference", _REDUCE, True),
    Column("verdict_reasons", _S, "", "why it is not good", _REDUCE, True),
    Column("n_candidates", _I, "", "candidates written, flagged ones included", _REDUCE, True),
    Column("n_unflagged", _I, "", "candidates without any flag", _REDUCE, True),
    Column("n_accepted", _I, "", "unflagged candidates above the score threshold of the unit", _REDUCE, True),
    Column("seconds", _F, "s", "wall time of the reduction", _REDUCE),
    Column("stage_seconds", _S, "", "wall seconds by stage as JSON", _REDUCE),
    Column("provenance", _S, "", "hash of file, template, options and code, but those of scores", _REDUCE),
    Column("scoring", _S, "", "hash of model, calibration and code of the scores", _REDUCE, True),
    Column("version", _S, "", "nightsift version", _REDUCE),
    Column("recorded_at", pa.timestamp("us", "UTC"), "", "when the row was written", _REDUCE),
)
LEDGER = schema(LEDGER_COLUMNS, "ledger")

_T = _SIMULATE
TRUTH_COLUMNS = (
    Column("exposure_file", _S, "", "file name of the exposure", _SIMULATE),
    Column("unit", _S, "", "telescope unit", _SIMULATE),
    Column("night", _S, "", "local date of the evening", _SIMULATE),
    Column("field", _S, "", "sky field", _SIMULATE),
    Column("mjd", _D, "d", "mid-exposure time, UTC", _SIMULATE),
    Column("kind", _S, "", "supernova, hostless, nuclear, variable or asteroid", _SIMULATE),
    Column("object_id", _S, "", "identity of the object", _SIMULATE),
    Column("ra", _D, "deg", "right ascension, ICRS", _SIMULATE),
    Column("dec", _D, "deg", "declination, ICRS", _SIMULATE),
    Column("x", _D, "pixel", "column of the reduced image, 0 at the centre of the first pixel", _SIMULATE),
    Column("y", _D, "pixel", "row of the reduced image, 0 at the centre of the first pixel", _SIMULATE),
    Column("mag", _F, "mag", "true magnitude in this exposure", _SIMULATE),
    Column("flux", _F, "adu", "true flux in this exposure", _SIMULATE),
    Column("reference_flux", _F, "adu", "true flux of the same object in the templates", _SIMULATE),
    Column("host_id", _S, "", "identity of the host galaxy", _SIMULATE, True),
    Column("host_mag", _F, "mag", "total magnitude of the host", _SIMULATE, True),
    Column("host_offset", _F, "", "offset from the host in effective radii", _SIMULATE, True),
    Column("snr", _F, "", "expected signal-to-noise ratio of the change of flux in this exposure", _T, True),
    Column("obstructed", pa.bool_(), "", "saturated, bled, hit, streaked, defective or cut off at its place", _T, True),
)
TRUTH = schema(TRUTH_COLUMNS, "truth")

FORCED_COLUMNS = (
    Column("x", _D, "pixel", "column of the reduced image, 0 at the centre of the first pixel", _FORCED, True),
    Column("y", _D, "pixel", "row of the reduced image, 0 at the centre of the first pixel", _FORCED, True),
    Column("flux", _F, "adu", "PSF flux on the difference, of either sign", _FORCED, True),
    Column("flux_err", _F, "adu", "its standard deviation", _FORCED, True),
    Column("snr", _F, "", "flux over its error, of either sign", _FORCED, True),
    Column(
        "limit_3",
        _F,
        "adu",
        "3-sigma upper limit: max(flux, 0) + 3 flux_err",
        _FORCED,
        True,
    ),
    Column(
        "limit_5",
        _F,
        "adu",
        "5-sigma upper limit: max(flux, 0) + 5 flux_err",
        _FORCED,
        True,
    ),
    Column("mag", _F, "mag", "magnitude of |flux| where |snr| is 3 at least", _FORCED, True),
    Column(
        "mag_err",
        _F,
        "mag",
        "its standard deviation, without the zero point's",
        _FORCED,
        True,
    ),
    Column("mag_limit_3", _F, "mag", "magnitude of limit_3", _FORCED, True),
    Column("mag_limit_5", _F, "mag", "magnitude of limit_5", _FORCED, True),
    Column("chi2", _F, "", "reduced chi-square of the PSF fit", _FORCED, True),
    Column(
        "masked_fraction",
        _F,
        "",
        "masked part of the PSF core, 1 outside the frame",
        _FORCED,
    ),
    Column("flags", _I, "", "bits of nightsift.core.flags.Flag", _FORCED),
)
FORCED = schema(FORCED_COLUMNS, "forced")

LIGHT_CURVE_COLUMNS = (
    Column("name", _S, "", "name of the position, its number where none was given", _LIGHT),
    Column("ra", _D, "deg", "right ascension measured at, ICRS", _LIGHT),
    Column("dec", _D, "deg", "declination measured at, ICRS", _LIGHT),
    Column("exposure_id", _S, "", "identity of the exposure", _LIGHT),
    Column("unit", _S, "", "telescope unit", _LIGHT),
    Column("night", _S, "", "local date of the evening", _LIGHT),
    Column("field", _S, "", "sky field", _LIGHT, True),
    Column("band", _S, "", "filter", _LIGHT, True),
    Column("mjd", _D, "d", "mid-exposure time, UTC", _LIGHT, True),
    Column("exposure_s", _F, "s", "exposure time", _LIGHT, True),
    *FORCED_COLUMNS,
    Column("zero_point", _F, "mag", "magnitude of 1 ADU", _LIGHT, True),
    Column("verdict", _S, "", "good, suspect or bad difference", _LIGHT),
    Column("template_id", _S, "", "identity of the template: fluxes of several are not to be joined", _LIGHT),
    Column("provenance", _S, "", "hash of inputs, options that change results, and code version", _LIGHT),
    Column("version", _S, "", "nightsift version", _LIGHT),
)
LIGHT_CURVE = schema(LIGHT_CURVE_COLUMNS, "light curve")
