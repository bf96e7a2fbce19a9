"""Why a candidate is ranked down, in words."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from nightsift.flags import names

DOUBT = 0.5
"""A probability below this is a reason."""
FAR = 0.2
"""A distance factor below this is a reason."""
OUTSIDE = 0.99
"""A candidate outside the region of this probability is told so."""
_KNOWN = {"star": "known variable star", "nucleus": "known active nucleus", "mover": "minor planet"}


def reasons_of(ranked: pa.Table, t0: float) -> list[str]:
    """Say what speaks against each candidate.

    Parameters
    ----------
    ranked : pyarrow.Table
        Schema `nightsift.alerts.products.tables.RANKED`.
    t0 : float
        Time of the event (MJD UTC).

    Returns
    -------
    list of str
        Reasons separated by semicolons, empty where nothing does.
    """
    wanted = (
        "p_real", "p_static", "p_new", "known", "known_name", "known_separation", "earlier", "earlier_mjd", "misses",
        "score", "flags", "ra", "credible_level", "distance_factor", "host_state", "host_distance", "host_distance_err",
        "map_distance", "map_distance_std",
    )  # fmt: skip
    columns = [ranked[name].to_pylist() for name in wanted]
    return ["; ".join(_reasons(dict(zip(wanted, row, strict=True)), t0)) for row in zip(*columns, strict=True)]


def _reasons(row: dict[str, Any], t0: float) -> list[str]:
    told = []
    if row["known"]:
        place = f" {row['known_separation']:.1f} arcsec away"
        told.append(f"{_KNOWN[row['known']]} ({row['known_name']}){place}")
    if row["earlier"]:
        times = "once" if row["earlier"] == 1 else f"{row['earlier']} times"
        told.append(f"seen {times} before the event, {_ago(t0 - row['earlier_mjd'])} before it last")
    if row["misses"]:
        told.append(f"not seen in {_count(row['misses'], 'deeper exposure')} after its first detection")
    if row["flags"]:
        told.append("flagged " + ", ".join(name.lower().replace("_", " ") for name in names(row["flags"])))
    if row["score"] is not None and row["score"] < DOUBT:
        told.append(f"real/bogus score {row['score']:.2f}")
    if row["ra"] is None:
        told.append("no sky position")
    elif row["credible_level"] is not None and row["credible_level"] > OUTSIDE:
        told.append("outside 99 % of the sky map")
    if row["distance_factor"] < FAR and row["map_distance"] is not None:
        there = f"the map says {row['map_distance']:.0f} ± {row['map_distance_std']:.0f} Mpc here"
        if row["host_state"] == "host":
            told.append(f"host at {row['host_distance']:.0f} ± {row['host_distance_err']:.0f} Mpc, {there}")
        else:
            told.append(f"no galaxy near it, and {there}, where the catalogue is nearly complete")
    return told


def _ago(days: float) -> str:
    return f"{days * 24.0:.1f} h" if days < 2.0 else f"{days:.1f} d"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
