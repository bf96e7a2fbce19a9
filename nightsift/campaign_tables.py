"""Schemas of a campaign of backfill and of a comparison of two versions of a catalogue."""

from __future__ import annotations

import pyarrow as pa

from nightsift.tables import Column, schema

_S, _I, _F, _D = pa.string(), pa.int32(), pa.float32(), pa.float64()
_T = pa.timestamp("us", "UTC")
_P, _B, _V = "nightsift.campaigns", "tasks.batch", "nightsift.version_comparison"

PLAN_COLUMNS = (
    Column("chunk", _I, "", "chunk that the exposure belongs to", _P),
    Column("unit", _S, "", "telescope unit", _P),
    Column("night", _S, "", "local date of the evening; unknown where the header cannot be read", _P),
    Column("url", _S, "", "where the exposure lies", _P),
    Column("label", _S, "", "how it is called in logs", _P),
)
PLAN = schema(PLAN_COLUMNS, "plan")

CHUNK_COLUMNS = (
    Column("campaign", _S, "", "identity of the campaign", _B),
    Column("chunk", _I, "", "number of the chunk, in the order in which they are begun", _B),
    Column("kind", _S, "", "reduce, or finish: what can be told only when all of a night is there", _B),
    Column("unit", _S, "", "telescope unit; empty for a whole night", _B),
    Column("night", _S, "", "local date of the evening", _B),
    Column("state", _S, "", "planned, running, done or failed (an exposure failed, or the chunk itself)", _B),
    Column("exposures", _I, "", "exposures planned", _B),
    Column("done", _I, "", "of these reduced, now or before", _B),
    Column("refused", _I, "", "refused: the frame is no good", _B),
    Column("failed", _I, "", "failed: the machine is to blame", _B),
    Column("waiting", _I, "", "without a template", _B),
    Column("skipped", _I, "", "of all these, finished before this attempt", _B),
    Column("candidates", _I, "", "candidates written, flagged ones included", _B),
    Column("seconds", _D, "s", "wall time of the last attempt, pauses left out", _B),
    Column("attempt", _I, "", "how often it was begun", _B),
    Column("message", _S, "", "what went wrong first", _B),
    Column("host", _S, "", "machine and process of the last attempt", _B),
    Column("started_at", _T, "", "when the last attempt began", _B, True),
    Column("ended_at", _T, "", "when it ended", _B, True),
)
CHUNKS = schema(CHUNK_COLUMNS, "chunks")

COMPARISON_COLUMNS = (
    Column("night", _S, "", "local date of the evening", _V),
    Column("unit", _S, "", "telescope unit", _V),
    Column("exposure_id", _S, "", "identity of the exposure", _V),
    Column("kind", _S, "", "first only, second only, changed, or state: the exposure ended otherwise", _V),
    Column("candidate_id", _S, "", "candidate of the first version, of the second where only that has it", _V, True),
    Column("other_id", _S, "", "candidate of the second version at the same place", _V, True),
    Column("ra", _D, "deg", "right ascension, ICRS", _V, True),
    Column("dec", _D, "deg", "declination, ICRS", _V, True),
    Column("separation", _F, "pixel", "distance of the two candidates", _V, True),
    Column("score", _F, "", "real/bogus score in the first version", _V, True),
    Column("other_score", _F, "", "the same in the second", _V, True),
    Column("mag", _F, "mag", "magnitude in the first version", _V, True),
    Column("other_mag", _F, "mag", "the same in the second", _V, True),
    Column("message", _S, "", "how the exposure ended in both, where that differs", _V),
)
COMPARISON = schema(COMPARISON_COLUMNS, "comparison")
