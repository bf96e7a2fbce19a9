"""Table of the fields of an alert, in the order in which they are wanted."""

from __future__ import annotations

import pyarrow as pa

from nightsift.tables import Column, schema

_S, _I, _F, _D = pa.string(), pa.int32(), pa.float32(), pa.float64()
_R = "nightsift.alerts.rank"

FIELD_COLUMNS = (
    Column("rank", _I, "", "1 for the field that is wanted first; null where it cannot be observed", _R, True),
    Column("grid", _S, "", "tile grid", _R),
    Column("field", _S, "", "name of the field in its grid", _R),
    Column("units", _S, "", "units that observe it, separated by commas; empty for all", _R),
    Column("ra", _D, "deg", "right ascension of its centre, ICRS", _R),
    Column("dec", _D, "deg", "declination of its centre, ICRS", _R),
    Column("probability", _D, "", "probability that the field holds the source", _R),
    Column("gain", _D, "", "probability that it adds to the fields before it", _R, True),
    Column("cumulative", _D, "", "probability of this field and all before it, nothing counted twice", _R, True),
    Column("reason", _S, "", "why it cannot be observed; empty where it can", _R),
    Column("first_mjd", _D, "d", "when it can be observed first, UTC", _R, True),
    Column("best_mjd", _D, "d", "when it stands highest, UTC", _R, True),
    Column("altitude", _F, "deg", "altitude then", _R, True),
    Column("hours", _F, "h", "how long it can be observed within a day", _R, True),
    Column("moon_distance", _F, "deg", "distance from the Moon", _R, True),
)
FIELDS = schema(FIELD_COLUMNS, "alert fields")
