"""Known objects at the places of candidates: variable stars, active nuclei, minor planets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from nightsift.alerts.products.history import object_radius
from nightsift.alerts.products.objects import Detections, nullable
from nightsift.alerts.products.options import RankingOptions
from nightsift.context.movers import Predicted, movers_in_field
from nightsift.context.orbits import Orbits
from nightsift.io.catalogue import read_positions
from nightsift.site.site import Site
from nightsift.sky.sphere import Rows, Values, pairs_within

STAR, NUCLEUS, MOVER = "star", "nucleus", "mover"
FAINTER = 1.0
"""Magnitudes below the limit of an exposure to which minor planets are looked for."""


@dataclass(frozen=True, slots=True, eq=False)
class KnownPositions:
    """A catalogue of objects that may vary.

    Attributes
    ----------
    catalogue : str
        Its name.
    kind : str
        ``star`` or ``nucleus``.
    ra, dec : ndarray of float64, shape (n,)
        Positions (deg).
    """

    catalogue: str
    kind: str
    ra: Values
    dec: Values


@dataclass(frozen=True, eq=False)
class Movers:
    """Minor planets, looked up once an exposure.

    Attributes
    ----------
    orbits : Orbits
        Known orbits.
    sites : mapping of str to Site
        Where the units stand; one that is absent counts as at the centre of the Earth.
    found : dict of str to Predicted
        Those found so far, by exposure.
    """

    orbits: Orbits
    sites: Mapping[str, Site] = field(default_factory=dict)
    found: dict[str, Predicted] = field(default_factory=dict)

    def of(self, exposure: Mapping[str, Any]) -> Predicted:
        """Minor planets of an exposure.

        Parameters
        ----------
        exposure : mapping of str to object
            Its row of the ledger, with a place and a time.

        Returns
        -------
        Predicted
            Those within the circle around the frame.
        """
        key = exposure["exposure_id"]
        if key not in self.found:
            limit = exposure["limiting_mag"]
            self.found[key] = movers_in_field(
                self.orbits, exposure["mjd"], exposure["ra"], exposure["dec"], np.sqrt((exposure["area"] or 0.0) / 2.0),
                site=self.sites.get(exposure["unit"]), faintest=99.0 if limit is None else limit + FAINTER,
            )  # fmt: skip
        return self.found[key]


def load_known(stars: Sequence[str | Path], nuclei: Sequence[str | Path]) -> tuple[KnownPositions, ...]:
    """Read catalogues of objects that may vary.

    Parameters
    ----------
    stars, nuclei : sequence of str or Path
        Their files (see `nightsift.io.catalogue.read_positions`).

    Returns
    -------
    tuple of KnownPositions
        One a file.

    Raises
    ------
    BadTable
        If one cannot be read.
    """
    named = [(STAR, path) for path in stars] + [(NUCLEUS, path) for path in nuclei]
    return tuple(KnownPositions(Path(path).stem, kind, *read_positions(path)) for kind, path in named)


def known_at(
    found: Detections, exposures: pa.Table, place: tuple[Values, Values],
    catalogues: Sequence[KnownPositions], movers: Movers | None, options: RankingOptions,
) -> dict[str, Any]:  # fmt: skip
    """Columns of `nightsift.alerts.products.tables.RANKED` that tell of known objects.

    Parameters
    ----------
    found : Detections
        The detections.
    exposures : pyarrow.Table
        Their exposures, schema `nightsift.tables.LEDGER`.
    place : (ndarray, ndarray)
        Right ascension and declination of the objects (deg).
    catalogues : sequence of KnownPositions
        Variable stars and active nuclei.
    movers : Movers or None
        Minor planets.
    options : RankingOptions
        Priors.

    Returns
    -------
    dict of str to array
        The columns; where several are near, the one that explains most.
    """
    radius = np.maximum(object_radius(found), options.known_radius)  # astrometry of unit and catalogue differ
    n = len(radius)
    kind, name = np.full(n, "", dtype=object), np.full(n, "", dtype=object)
    separation, unknown = np.full(n, np.nan), np.ones(n)
    priors = {STAR: options.known_star, NUCLEUS: options.known_nucleus, MOVER: options.known_mover}
    matches = [(one.kind, one.catalogue, *_nearest(place, radius, one)) for one in catalogues]
    for of_kind, of_name, rows, apart in [*matches, *_movers(found, exposures, movers, options)]:
        better = (priors[of_kind] < unknown[rows]) | ((priors[of_kind] == unknown[rows]) & (apart < separation[rows]))
        chosen = rows[better]
        kind[chosen], name[chosen] = of_kind, of_name
        separation[chosen], unknown[chosen] = apart[better], priors[of_kind]
    return {
        "known": kind.tolist(), "known_name": name.tolist(), "known_separation": nullable(separation),
        "p_unknown": unknown,
    }  # fmt: skip


def _nearest(place: tuple[Values, Values], radius: Values, known: KnownPositions) -> tuple[Rows, Values]:
    """Objects with an entry of the catalogue at their place, and how far it is."""
    ra, dec = place
    placed = np.flatnonzero(np.isfinite(ra + dec))
    if not len(placed):
        return placed, np.empty(0)
    # only entries in the declinations of the candidates are worth a tree
    band = (known.dec > dec[placed].min() - 0.1) & (known.dec < dec[placed].max() + 0.1)
    first, _, apart = pairs_within(
        ra[placed],
        dec[placed],
        known.ra[band],
        known.dec[band],
        most=float(radius[placed].max()),
        radius=radius[placed],
    )
    order = np.lexsort((apart, first))
    rows, index = np.unique(first[order], return_index=True)
    return placed[rows], apart[order][index]


def _movers(
    found: Detections, exposures: pa.Table, movers: Movers | None, options: RankingOptions
) -> list[tuple[str, str, npt.NDArray[np.int64], Values]]:
    """Objects of which at least half of the detections lie on a minor planet."""
    if movers is None or not len(found.owner):
        return []
    hit = np.zeros(len(found.owner), dtype=bool)
    best: dict[int, tuple[float, str]] = {}
    rows_of: dict[str, list[int]] = {}
    for row, one in enumerate(found.table["exposure_id"].to_pylist()):
        rows_of.setdefault(one, []).append(row)
    for exposure in exposures.to_pylist():
        rows = np.array(rows_of.get(exposure["exposure_id"], []), dtype=np.int64)
        rows = rows[np.isfinite(found.ra[rows] + found.dec[rows])]
        if not len(rows) or exposure["ra"] is None or exposure["dec"] is None:
            continue
        there = movers.of(exposure)
        first, second, apart = pairs_within(
            found.ra[rows], found.dec[rows], there.ra, there.dec, most=options.mover_radius
        )
        for k, j, distance in zip(rows[first], second, apart, strict=True):
            hit[k] = True
            owner = int(found.owner[k])
            best[owner] = min(best.get(owner, (np.inf, "")), (float(distance), str(there.name[j])))
    share = np.bincount(found.owner, hit, found.n_objects) / np.bincount(found.owner, minlength=found.n_objects)
    return [(MOVER, name, np.array([owner]), np.array([apart]))
            for owner, (apart, name) in best.items() if share[owner] >= 0.5]  # fmt: skip
