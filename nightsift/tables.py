"""Arrow schemas of every table that nightsift writes: name, type, unit, description and the one writer of each column.

`docs/schema.md` is generated from here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa


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
    """Arrow schema of a list of columns, units and descriptions in the field metadata.

    Parameters
    ----------
    columns : iterable of Column
        The columns, in order.
    name : str
        Name of the table, kept in the schema metadata.

    Returns
    -------
    pyarrow.Schema
        The schema.
    """
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


def _name(of: pa.Schema) -> str:
    return str((of.metadata or {}).get(b"table", b"?").decode())


_S, _I, _F, _D = pa.string(), pa.int32(), pa.float32(), pa.float64()

CANDIDATE_COLUMNS = (
    Column("candidate_id", _S, "", "exposure_id and running number", "nightsift.images.extract"),
    Column("exposure_id", _S, "", "identity of the exposure", "nightsift.images.extract"),
    Column("unit", _S, "", "telescope unit", "nightsift.images.extract"),
    Column("night", _S, "", "local date of the evening", "nightsift.images.extract"),
    Column("field", _S, "", "sky field", "nightsift.images.extract"),
    Column("band", _S, "", "filter", "nightsift.images.extract"),
    Column("mjd", _D, "d", "mid-exposure time, UTC", "nightsift.images.extract"),
    Column("x", _D, "pixel", "column, 0 at the centre of the first pixel", "nightsift.images.extract"),
    Column("y", _D, "pixel", "row, 0 at the centre of the first pixel", "nightsift.images.extract"),
    Column("ra", _D, "deg", "right ascension, ICRS", "nightsift.images.extract", True),
    Column("dec", _D, "deg", "declination, ICRS", "nightsift.images.extract", True),
    Column("sign", pa.int8(), "", "+1 brighter, -1 fainter than the template", "nightsift.images.extract"),
    Column("snr", _F, "", "peak of the signal-to-noise map, positive for both signs", "nightsift.images.extract"),
    Column("n_pixels", _I, "pixel", "pixels above the threshold", "nightsift.images.extract"),
    Column("elongation", _F, "", "major over minor axis", "nightsift.images.extract"),
    Column("fwhm", _F, "pixel", "full width at half maximum", "nightsift.images.extract", True),
    Column("flux", _F, "adu", "PSF flux on the difference, negative when fainter", "nightsift.images.photometry"),
    Column("flux_err", _F, "adu", "its standard deviation", "nightsift.images.photometry"),
    Column("flux_aperture", _F, "adu", "aperture flux on the difference", "nightsift.images.photometry"),
    Column("flux_aperture_err", _F, "adu", "its standard deviation", "nightsift.images.photometry"),
    Column("chi2", _F, "", "reduced chi-square of the PSF fit", "nightsift.images.photometry", True),
    Column(
        "mag", _F, "mag", "magnitude of |flux|, zero point of the template's stars", "nightsift.images.photometry", True
    ),
    Column("mag_err", _F, "mag", "its standard deviation", "nightsift.images.photometry", True),
    Column("dipole", _F, "", "flux of the opposite lobe over that of the candidate", "nightsift.images.extract"),
    Column("masked_fraction", _F, "", "masked part of the PSF core", "nightsift.images.extract"),
    Column("flags", _I, "", "bits of nightsift.flags.Flag", "nightsift.images.extract"),
    Column("template_id", _S, "", "identity of the template", "nightsift.images.extract"),
    Column("stamp_index", _I, "", "row of its stamps in the stamp file of the exposure", "tasks.reduce"),
    Column("score", _F, "", "real/bogus score, 0 bogus to 1 real", "models.predict", True),
    Column("score_std", _F, "", "standard deviation of the score over dropout samples", "models.predict", True),
    Column("confidence", _F, "", "1 - mean binary entropy of the samples (bit)", "models.predict", True),
    Column("model_id", _S, "", "identity of the model", "models.predict", True),
)
CANDIDATES = schema(CANDIDATE_COLUMNS, "candidates")

_SHAPES = "nightsift.images.star_shapes"
LEDGER_COLUMNS = (
    Column("exposure_id", _S, "", "identity of the exposure: unit and file content", "tasks.reduce"),
    Column("unit", _S, "", "telescope unit", "tasks.reduce"),
    Column("night", _S, "", "local date of the evening", "tasks.reduce"),
    Column("state", _S, "", "done, refused (the frame), failed (the machine) or waiting (no template)", "tasks.reduce"),
    Column("reason", _S, "", "error class, empty when done", "tasks.reduce"),
    Column("message", _S, "", "what is wrong, what was received, what to do", "tasks.reduce"),
    Column("facts", _S, "", "facts of the error as JSON", "tasks.reduce"),
    Column("url", _S, "", "where the exposure was found", "tasks.reduce"),
    Column("checksum", _S, "", "SHA-256 of the file", "tasks.reduce"),
    Column("field", _S, "", "sky field", "tasks.reduce", True),
    Column("band", _S, "", "filter", "tasks.reduce", True),
    Column("mjd", _D, "d", "mid-exposure time, UTC", "tasks.reduce", True),
    Column("exposure_s", _F, "s", "exposure time", "tasks.reduce", True),
    Column("ra", _D, "deg", "right ascension of the frame centre, ICRS", "tasks.reduce", True),
    Column("dec", _D, "deg", "declination of the frame centre, ICRS", "tasks.reduce", True),
    Column("area", _D, "deg**2", "sky area searched", "tasks.reduce", True),
    Column("seeing", _F, "arcsec", "full width at half maximum of stars", "tasks.reduce", True),
    Column("core_width", _F, "", "star width in a narrow window over that in a wide one", _SHAPES, True),
    Column("ellipticity", _F, "", "length of the mean ellipticity of stars", _SHAPES, True),
    Column("width_gradient", _F, "", "change of the star width from centre to edge, relative", _SHAPES, True),
    Column("sky", _F, "adu", "median sky level", "tasks.reduce", True),
    Column("sky_rms", _F, "adu", "robust rms of the sky", "tasks.reduce", True),
    Column("n_stars", _I, "", "stars found", "tasks.reduce", True),
    Column("zero_point", _F, "mag", "magnitude of 1 ADU", "tasks.reduce", True),
    Column("limiting_mag", _F, "mag", "5-sigma point-source limit of the difference", "tasks.reduce", True),
    Column("align_method", _S, "", "wcs or pattern", "tasks.reduce", True),
    Column("align_matched", _I, "", "stars matched with the template", "tasks.reduce", True),
    Column("align_residual", _F, "pixel", "median distance of matched stars after alignment", "tasks.reduce", True),
    Column("coverage", _F, "", "fraction of the frame that the template covers", "tasks.reduce", True),
    Column("template_id", _S, "", "identity of the template", "tasks.reduce", True),
    Column("method", _S, "", "subtraction method", "tasks.reduce", True),
    Column("method_choice", _S, "", "why this method was picked, where it is left to auto", "tasks.reduce", True),
    Column("convolved", _S, "", "which frame was convolved", "tasks.reduce", True),
    Column("kernel_sum", _F, "", "flux scale from template to science", "tasks.reduce", True),
    Column("star_residual", _F, "", "rms of residuals at stars over the expected noise", "tasks.reduce", True),
    Column("verdict", _S, "", "good, suspect or bad difference", "tasks.reduce", True),
    Column("verdict_reasons", _S, "", "why it is not good", "tasks.reduce", True),
    Column("n_candidates", _I, "", "candidates written, flagged ones included", "tasks.reduce", True),
    Column("n_unflagged", _I, "", "candidates without any flag", "tasks.reduce", True),
    Column("n_accepted", _I, "", "unflagged candidates above the score threshold of the unit", "tasks.reduce", True),
    Column("seconds", _F, "s", "wall time of the reduction", "tasks.reduce"),
    Column("stage_seconds", _S, "", "wall seconds by stage as JSON", "tasks.reduce"),
    Column("provenance", _S, "", "hash of file, template, options and code, but those of scores", "tasks.reduce"),
    Column("scoring", _S, "", "hash of model, calibration and code of the scores", "tasks.reduce", True),
    Column("version", _S, "", "nightsift version", "tasks.reduce"),
    Column("recorded_at", pa.timestamp("us", "UTC"), "", "when the row was written", "tasks.reduce"),
)
LEDGER = schema(LEDGER_COLUMNS, "ledger")

_T = "nightsift.simulate"
TRUTH_COLUMNS = (
    Column("exposure_file", _S, "", "file name of the exposure", "nightsift.simulate"),
    Column("unit", _S, "", "telescope unit", "nightsift.simulate"),
    Column("night", _S, "", "local date of the evening", "nightsift.simulate"),
    Column("field", _S, "", "sky field", "nightsift.simulate"),
    Column("mjd", _D, "d", "mid-exposure time, UTC", "nightsift.simulate"),
    Column("kind", _S, "", "supernova, hostless, nuclear, variable or asteroid", "nightsift.simulate"),
    Column("object_id", _S, "", "identity of the object", "nightsift.simulate"),
    Column("ra", _D, "deg", "right ascension, ICRS", "nightsift.simulate"),
    Column("dec", _D, "deg", "declination, ICRS", "nightsift.simulate"),
    Column("x", _D, "pixel", "column", "nightsift.simulate"),
    Column("y", _D, "pixel", "row", "nightsift.simulate"),
    Column("mag", _F, "mag", "true magnitude in this exposure", "nightsift.simulate"),
    Column("flux", _F, "adu", "true flux in this exposure", "nightsift.simulate"),
    Column("reference_flux", _F, "adu", "true flux of the same object in the templates", "nightsift.simulate"),
    Column("host_id", _S, "", "identity of the host galaxy", "nightsift.simulate", True),
    Column("host_mag", _F, "mag", "total magnitude of the host", "nightsift.simulate", True),
    Column("host_offset", _F, "", "offset from the host in effective radii", "nightsift.simulate", True),
    Column("snr", _F, "", "expected signal-to-noise ratio of the change of flux in this exposure", _T, True),
    Column("obstructed", pa.bool_(), "", "saturated, bled, hit, streaked, defective or cut off at its place", _T, True),
)
TRUTH = schema(TRUTH_COLUMNS, "truth")

FORCED_COLUMNS = (
    Column("x", _D, "pixel", "column, 0 at the centre of the first pixel", "nightsift.images.forced", True),
    Column("y", _D, "pixel", "row, 0 at the centre of the first pixel", "nightsift.images.forced", True),
    Column("flux", _F, "adu", "PSF flux on the difference, of either sign", "nightsift.images.forced", True),
    Column("flux_err", _F, "adu", "its standard deviation", "nightsift.images.forced", True),
    Column("snr", _F, "", "flux over its error, of either sign", "nightsift.images.forced", True),
    Column("limit_3", _F, "adu", "3-sigma upper limit: max(flux, 0) + 3 flux_err", "nightsift.images.forced", True),
    Column("limit_5", _F, "adu", "5-sigma upper limit: max(flux, 0) + 5 flux_err", "nightsift.images.forced", True),
    Column("mag", _F, "mag", "magnitude of |flux| where |snr| is 3 at least", "nightsift.images.forced", True),
    Column("mag_err", _F, "mag", "its standard deviation, without the zero point's", "nightsift.images.forced", True),
    Column("mag_limit_3", _F, "mag", "magnitude of limit_3", "nightsift.images.forced", True),
    Column("mag_limit_5", _F, "mag", "magnitude of limit_5", "nightsift.images.forced", True),
    Column("chi2", _F, "", "reduced chi-square of the PSF fit", "nightsift.images.forced", True),
    Column("masked_fraction", _F, "", "masked part of the PSF core, 1 outside the frame", "nightsift.images.forced"),
    Column("flags", _I, "", "bits of nightsift.flags.Flag", "nightsift.images.forced"),
)
FORCED = schema(FORCED_COLUMNS, "forced")

LIGHT_CURVE_COLUMNS = (
    Column("name", _S, "", "name of the position, its number where none was given", "tasks.photometry"),
    Column("ra", _D, "deg", "right ascension measured at, ICRS", "tasks.photometry"),
    Column("dec", _D, "deg", "declination measured at, ICRS", "tasks.photometry"),
    Column("exposure_id", _S, "", "identity of the exposure", "tasks.photometry"),
    Column("unit", _S, "", "telescope unit", "tasks.photometry"),
    Column("night", _S, "", "local date of the evening", "tasks.photometry"),
    Column("field", _S, "", "sky field", "tasks.photometry", True),
    Column("band", _S, "", "filter", "tasks.photometry", True),
    Column("mjd", _D, "d", "mid-exposure time, UTC", "tasks.photometry", True),
    Column("exposure_s", _F, "s", "exposure time", "tasks.photometry", True),
    *FORCED_COLUMNS,
    Column("zero_point", _F, "mag", "magnitude of 1 ADU", "tasks.photometry", True),
    Column("verdict", _S, "", "good, suspect or bad difference", "tasks.photometry"),
    Column(
        "template_id", _S, "", "identity of the template: fluxes of several are not to be joined", "tasks.photometry"
    ),
    Column("provenance", _S, "", "hash of inputs, options that change results, and code version", "tasks.photometry"),
    Column("version", _S, "", "nightsift version", "tasks.photometry"),
)
LIGHT_CURVE = schema(LIGHT_CURVE_COLUMNS, "light curve")

_M = "tasks.monitor"
MONITORING_COLUMNS = (
    Column("unit", _S, "", "telescope unit", _M),
    Column("night", _S, "", "local date of the evening", _M),
    Column("channel", _S, "", "what is watched; all for the night as a whole", _M),
    Column("state", _S, "", "steady, drifted, weather (clouds all night), unjudged, or reference (calibration)", _M),
    Column("message", _S, "", "why it drifted or was not judged", _M),
    Column("value", _D, "", "value of the night in this channel", _M, True),
    Column("reference_mean", _D, "", "mean of the calibration nights", _M, True),
    Column("reference_std", _D, "", "their standard deviation, moderated by other units", _M, True),
    Column("departure", _D, "", "departure in deviations of the prediction, in the window that tells most", _M, True),
    Column("window", _I, "", "latest nights in that window", _M, True),
    Column("p_value", _D, "", "probability of this or more in a night like the calibration nights", _M, True),
    Column("q_value", _D, "", "the same, adjusted for the number of units of the night", _M, True),
    Column("exposures", _I, "", "exposures of the night", _M),
    Column("candidates", _I, "", "candidates of the night", _M),
    Column("reference_nights", _I, "", "nights of the calibration set", _M),
    Column("reference_id", _S, "", "identity of the calibration set", _M),
    Column("model_id", _S, "", "identity of model and calibration that gave the scores", _M),
    Column("tables", _S, "", "fingerprint of the tables of the night that were read", _M, True),
    Column("scored_by", _S, "", "identities of the models that gave the scores of the night, as JSON", _M, True),
    Column("pipeline", _S, "", "code, options and model whose recoveries of injected sources count", _M, True),
    Column(
        "inputs", _S, "", "hash of all that the verdict depends on: while it is the same the verdict stands", _M, True
    ),
    Column("version", _S, "", "nightsift version", _M),
    Column("recorded_at", pa.timestamp("us", "UTC"), "", "when the row was written", _M),
)
MONITORING = schema(MONITORING_COLUMNS, "monitoring")

_J = "tasks.injection"
INJECTION_COLUMNS = (
    Column("exposure_id", _S, "", "identity of the exposure", _J),
    Column("unit", _S, "", "telescope unit", _J),
    Column("night", _S, "", "local date of the evening", _J),
    Column("model_id", _S, "", "identity of model and calibration", _J),
    Column("provenance", _S, "", "hash of the pipeline: code, options and model that recovered it", _J, True),
    Column("threshold", _F, "", "score from which a candidate counts as accepted", _J),
    Column("x", _D, "pixel", "column where it was injected", _J),
    Column("y", _D, "pixel", "row", _J),
    Column("flux", _F, "adu", "flux injected", _J),
    Column("mag", _F, "mag", "magnitude injected", _J),
    Column("snr", _F, "", "its signal-to-noise ratio at the limiting magnitude that the ledger tells", _J),
    Column("searched", pa.bool_(), "", "whether the difference is good there", _J),
    Column("detected", pa.bool_(), "", "found as a brightening", _J),
    Column("accepted", pa.bool_(), "", "found, without a flag, above the threshold", _J),
    Column("score", _F, "", "score where detected", _J, True),
)
INJECTIONS = schema(INJECTION_COLUMNS, "injections")
