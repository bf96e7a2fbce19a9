"""Schemas of the tables of monitoring: verdicts on nights, and sources that were injected."""

from __future__ import annotations

import pyarrow as pa

from nightsift.core.tables import Column, schema

_S, _I, _F, _D = pa.string(), pa.int32(), pa.float32(), pa.float64()

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


_J = "tasks.monitor"


INJECTION_COLUMNS = (
    Column("exposure_id", _S, "", "identity of the exposure", _J),
    Column("unit", _S, "", "telescope unit", _J),
    Column("night", _S, "", "local date of the evening", _J),
    Column("model_id", _S, "", "identity of model and calibration", _J),
    Column("provenance", _S, "", "hash of the pipeline: code, options and model that recovered it", _J, True),
    Column("threshold", _D, "", "score from which a candidate counts as accepted", _J),
    Column("x", _D, "pixel", "column where it was injected", _J),
    Column("y", _D, "pixel", "row", _J),
    Column("flux", _F, "adu", "flux injected", _J),
    Column("mag", _F, "mag", "magnitude injected", _J),
    Column("snr", _F, "", "its signal-to-noise ratio at the limiting magnitude that the ledger tells", _J),
    Column("searched", pa.bool_(), "", "whether the difference is good there", _J),
    Column("detected", pa.bool_(), "", "found as a brightening", _J),
    Column("accepted", pa.bool_(), "", "found, without a flag, above the threshold", _J),
    Column("score", _D, "", "score where detected", _J, True),
)


INJECTIONS = schema(INJECTION_COLUMNS, "injections")
