"""Known objects at the places of candidates and on frames: variable stars, active nuclei, minor planets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from nightsift.context.movers import Predicted, movers_in_field
from nightsift.context.orbits import Orbits
from nightsift.core.frames import Frame
from nightsift.core.tables import TRUTH, table
from nightsift.refcats.catalogues import read_positions
from nightsift.site.site import Site
from nightsift.sky.sphere import Values, separation

if TYPE_CHECKING:
    from astropy.wcs import WCS

STAR, NUCLEUS, MOVER = "star", "nucleus", "mover"
ASTEROID = "asteroid"
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
    """Minor planets of exposures, each exposure looked up only once.

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


def predicted_truth(frame: Frame, wcs: WCS, orbits: Orbits, *, site: Site | None, faintest: float) -> pa.Table:
    """Minor planets that should stand on a frame, as rows of a truth without fluxes.

    Parameters
    ----------
    frame : Frame
        The frame, for its shape, time and names.
    wcs : astropy.wcs.WCS
        Its coordinates.
    orbits : Orbits
        Known orbits.
    site : Site or None
        Where it was taken; one without a latitude counts as none (see `nightsift.context.movers.movers_in_field`).
    faintest : float
        Faintest magnitude of use.

    Returns
    -------
    pyarrow.Table
        Schema `nightsift.core.tables.TRUTH`, kind ``"asteroid"``; fluxes are NaN, because absolute magnitudes are
        uncertain: what is detected there must be brighter than the template, that is all.
    """
    ny, nx = frame.shape
    corners = wcs.all_pix2world([0.0, nx - 1.0, 0.0, nx - 1.0], [0.0, 0.0, ny - 1.0, ny - 1.0], 0)
    ra, dec = (float(one) for one in wcs.all_pix2world((nx - 1) / 2.0, (ny - 1) / 2.0, 0))
    radius = max(separation(ra, dec, float(a), float(d)) for a, d in zip(*corners, strict=True))
    found = movers_in_field(orbits, frame.meta.mjd, ra, dec=dec, radius=radius, site=site, faintest=faintest)
    return _rows(found, frame, wcs)


def on_frame(wcs: WCS, shape: tuple[int, int], ra: Values, *, dec: Values, margin: float = 20.0) -> Values:
    """Pixels of the positions of a catalogue that lie on a frame.

    Parameters
    ----------
    wcs : astropy.wcs.WCS
        Coordinates of the frame.
    shape : tuple of int
        ``(ny, nx)``.
    ra, dec : ndarray of float64, shape (n,)
        Positions (deg).
    margin : float, optional
        How far outside they may lie (pixel).

    Returns
    -------
    ndarray of float64, shape (m, 2)
        x, y (pixel).
    """
    ny, nx = shape
    centre = [float(one) for one in wcs.all_pix2world((nx - 1) / 2.0, (ny - 1) / 2.0, 0)]
    corner = [float(one) for one in wcs.all_pix2world(-margin, -margin, 0)]
    near = separation(centre[0], centre[1], ra, dec) < 1.3 * separation(centre[0], centre[1], corner[0], corner[1])
    rows = np.flatnonzero(near)
    if not len(rows):
        return np.empty((0, 2))
    xy = np.column_stack(wcs.all_world2pix(ra[rows], dec[rows], 0, quiet=True))
    inside = ((xy > -margin) & (xy < np.array([nx, ny]) + margin)).all(axis=1)
    return np.asarray(xy[inside], dtype=np.float64)


def _rows(found: Predicted, frame: Frame, wcs: WCS) -> pa.Table:
    if not len(found):
        return TRUTH.empty_table()
    meta, n = frame.meta, len(found)
    x, y = wcs.all_world2pix(found.ra, found.dec, 0, quiet=True)
    ny, nx = frame.shape
    unknown = np.full(n, np.nan)
    columns = {
        "exposure_file": [Path(meta.path).name] * n,
        "unit": [meta.unit] * n, "night": [meta.night] * n, "field": [meta.field] * n, "mjd": np.full(n, meta.mjd),
        "kind": [ASTEROID] * n, "object_id": found.name.tolist(), "ra": found.ra, "dec": found.dec, "x": x, "y": y,
        "mag": found.mag, "flux": unknown, "reference_flux": unknown,
    }  # fmt: skip
    inside = (x > -0.5) & (x < nx - 0.5) & (y > -0.5) & (y < ny - 0.5)
    return table(columns, TRUTH).filter(pa.array(inside))
