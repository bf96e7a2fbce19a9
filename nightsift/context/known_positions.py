"""Known objects at the places of candidates: variable stars, active nuclei, minor planets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nightsift.context.movers import Predicted, movers_in_field
from nightsift.context.orbits import Orbits
from nightsift.refcats.catalogues import read_positions
from nightsift.site.site import Site
from nightsift.sky.sphere import Values

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
                self.orbits, exposure["mjd"], exposure["ra"], dec=exposure["dec"],
                radius=np.sqrt((exposure["area"] or 0.0) / 2.0), site=self.sites.get(exposure["unit"]),
                faintest=99.0 if limit is None else limit + FAINTER,
            )  # fmt: skip
        return self.found[key]


def load_known(stars: Sequence[str | Path], nuclei: Sequence[str | Path]) -> tuple[KnownPositions, ...]:
    """Read catalogues of variable stars and of active nuclei (see `read_positions`), one entry per file."""
    named = [(STAR, path) for path in stars] + [(NUCLEUS, path) for path in nuclei]
    return tuple(KnownPositions(Path(path).stem, kind, *read_positions(path)) for kind, path in named)
