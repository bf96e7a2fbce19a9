"""What catalogues know of one frame: minor planets that should be there, and objects that may vary."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from nightsift.context.movers import Predicted, movers_in_field
from nightsift.context.orbits import Orbits
from nightsift.core.frames import Frame
from nightsift.core.tables import TRUTH, table
from nightsift.site.site import Site
from nightsift.sky.sphere import separation

if TYPE_CHECKING:
    from astropy.wcs import WCS

Values = npt.NDArray[np.float64]
ASTEROID = "asteroid"


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


def on_frame(
    wcs: WCS, shape: tuple[int, int], ra: Values, *, dec: Values, margin: float = 20.0
) -> npt.NDArray[np.float64]:
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
