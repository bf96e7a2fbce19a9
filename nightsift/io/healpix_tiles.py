"""Maps of the sky in HEALPix cells, and HiPS tiles of them, as images of the part that a field lies on."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from astropy.wcs import WCS

from nightsift.core.errors import UnreadableFits
from nightsift.images.outside_images import OutsideImage
from nightsift.images.resampling.reprojection import circle, north_up_wcs
from nightsift.io.fits import open_fits, read_image
from nightsift.io.sources import checksum

Grid = tuple[WCS, tuple[int, int]]
"""Coordinates and shape (ny, nx) of a field."""

LARGEST_NSIDE = 2048
"""Of a HEALPix map of a part of the sky, which is held in memory as a whole."""

WIDEST = 30_000
"""Pixels a side of HiPS tiles that are joined."""


def read_healpix(path: Path, hdu: int, grid: Grid, *, gain: float, zero_point: float) -> OutsideImage:
    """Read a HEALPix map round a field, on a plane whose pixels are somewhat finer than its own.

    Parameters
    ----------
    path : Path
        FITS file.
    hdu : int
        Table of the map.
    grid : tuple of (WCS, tuple of int)
        Coordinates and shape ``(ny, nx)`` of the field.
    gain, zero_point : float
        Electrons in, and magnitude of, one unit of the map; NaN where unknown.

    Returns
    -------
    OutsideImage
        The map round the field.

    Raises
    ------
    UnreadableFits
        If its coordinate system or order is not supported.
    """
    from reproject import reproject_from_healpix

    with open_fits(path) as hdus:
        header, rows = hdus[hdu].header, hdus[hdu].data
        names = rows.columns.names
        nside, nested = int(header["NSIDE"]), str(header.get("ORDERING", "RING")).upper().startswith("NEST")
        system = {"G": "galactic", "C": "icrs", "Q": "icrs"}.get(str(header.get("COORDSYS", "C")).strip()[:1].upper())
        if system is None:
            raise UnreadableFits(path=str(path), what=f"the system {header['COORDSYS']!r} of its map is not supported")
        explicit = str(header.get("INDXSCHM", "")).upper() == "EXPLICIT" or names[0].upper() in ("PIXEL", "UNIQ")
        values = np.asarray(rows[names[1 if explicit else 0]], dtype=np.float32).ravel()
        if explicit:
            if nside > LARGEST_NSIDE or names[0].upper() == "UNIQ":
                what = f"its map of a part of the sky has NSIDE {nside}, at most {LARGEST_NSIDE}: give it as HiPS tiles"
                raise UnreadableFits(path=str(path), what=what)
            whole = np.full(12 * nside * nside, np.nan, dtype=np.float32)
            whole[np.asarray(rows[names[0]], dtype=np.int64)] = values
            values = whole
    values[values == np.float32(-1.6375e30)] = np.nan  # of the software of HEALPix
    scale = 0.7 * math.degrees(math.sqrt(4.0 * math.pi / values.size)) * 3600.0
    ra, dec, radius = circle(*grid)
    side = max(32, 2 * math.ceil((1.1 * radius * 3600.0) / scale))
    wcs = north_up_wcs(ra, dec, scale, shape=(side, side))
    data, _ = reproject_from_healpix((values, system), wcs, shape_out=(side, side), order="bilinear", nested=nested)
    name = f"{path.name} sha256:{checksum(path)[:12]}"
    return OutsideImage(name, np.asarray(data, dtype=np.float32), wcs, gain=gain, zero_point=zero_point)


def read_hips(folder: Path, grid: Grid, gain: float, *, zero_point: float) -> list[OutsideImage]:
    """Read the tiles of the deepest order of a HiPS that reach a field, joined on the plane of the HEALPix projection.

    On that plane some sides of the twelve base cells lie apart: a field across one is joined from several images.

    Parameters
    ----------
    folder : Path
        Folder of the HiPS, with its file ``properties``.
    grid : tuple of (WCS, tuple of int)
        Coordinates and shape ``(ny, nx)`` of the field.
    gain, zero_point : float
        Electrons in, and magnitude of, one unit of the tiles; NaN where unknown.

    Returns
    -------
    list of OutsideImage
        One for each group of tiles that lie side by side; none without a tile.

    Raises
    ------
    UnreadableFits
        If it has no FITS tiles, or they are too many.
    """
    properties = _properties(folder)
    order, width = int(properties["hips_order"]), int(properties.get("hips_tile_width", 512))
    frame = properties.get("hips_frame", "equatorial")
    plane = _hips_plane(order, width, frame)
    places, cells = _tiles(plane, grid, order, width=width, frame=frame)
    found = []
    for group in _neighbours(sorted(places)):
        low, high = np.min(group, axis=0), np.max(group, axis=0) + 1
        sides = (high - low) * width
        if int(sides.max()) > WIDEST:
            what = f"its tiles for the field have {sides[1]} x {sides[0]} pixels, at most {WIDEST} a side"
            raise UnreadableFits(path=str(folder), what=what)
        data = np.full(tuple(int(one) for one in sides), np.nan, dtype=np.float32)
        digest, count = hashlib.sha256(), 0
        for row, column in group:
            cell = cells[row, column]
            place = folder / f"Norder{order}" / f"Dir{cell // 10000 * 10000}" / f"Npix{cell}.fits"
            if not place.is_file():
                continue
            corner = ((row - low[0]) * width, (column - low[1]) * width)
            data[corner[0] : corner[0] + width, corner[1] : corner[1] + width] = read_image(place).data
            digest.update(checksum(place).encode())
            count += 1
        if count:
            shifted = plane.deepcopy()
            shifted.wcs.crpix = plane.wcs.crpix - (low[1] * width, low[0] * width)
            shifted.wcs.set()
            name = f"{folder.name}/Norder{order} {count} tiles sha256:{digest.hexdigest()[:12]}"
            found.append(OutsideImage(name, data, shifted, gain=gain, zero_point=zero_point))
    return found


def _properties(folder: Path) -> dict[str, str]:
    try:
        lines = (folder / "properties").read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UnreadableFits(path=str(folder), what="a folder without the file properties is no HiPS") from error
    pairs = (line.partition("=") for line in lines if "=" in line and not line.lstrip().startswith("#"))
    found = {key.strip(): value.strip() for key, _, value in pairs}
    if "fits" not in found.get("hips_tile_format", "fits") or not found.get("hips_order", "").isdigit():
        what = f"it has no FITS tiles of a known order (formats: {found.get('hips_tile_format')!r})"
        raise UnreadableFits(path=str(folder), what=what)
    if found.get("hips_frame", "equatorial") not in ("equatorial", "galactic"):
        raise UnreadableFits(path=str(folder), what=f"its frame {found['hips_frame']!r} is not supported")
    return found


def _hips_plane(order: int, width: int, frame: str) -> WCS:
    """Coordinates of all pixels of a HiPS on the plane of the HEALPix projection, on which tiles stand upright."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---HPX", "DEC--HPX"] if frame == "equatorial" else ["GLON-HPX", "GLAT-HPX"]
    resolution = 45.0 / width / 2**order
    wcs.wcs.cd = [[-resolution, -resolution], [resolution, -resolution]]
    wcs.wcs.set_pv([(2, 1, 4.0), (2, 2, 3.0)])
    wcs.wcs.crpix = [5 * width * 2**order / 2 + 0.5] * 2
    wcs.wcs.set()
    return wcs


def _tiles(
    plane: WCS, grid: Grid, order: int, *, width: int, frame: str
) -> tuple[set[tuple[int, int]], dict[tuple[int, int], int]]:
    """Rows and columns of the tiles that reach a field, and the number of each in nested order."""
    from astropy_healpix import HEALPix

    wcs, (ny, nx) = grid
    scale = max(2, math.ceil(max(ny, nx) / 200))
    y, x = np.meshgrid(np.arange(-scale, ny + scale, scale), np.arange(-scale, nx + scale, scale), indexing="ij")
    sky = wcs.pixel_to_world(x.ravel(), y.ravel())
    u, v = plane.world_to_pixel(sky)
    known = np.isfinite(u + v)
    columns, rows = (np.floor((one[known] + 0.5) / width).astype(np.int64) for one in (u, v))
    cells = HEALPix(nside=2**order, order="nested", frame="icrs" if frame == "equatorial" else "galactic")
    numbers = cells.skycoord_to_healpix(sky[known])
    found = {(int(r), int(c)): int(k) for r, c, k in zip(rows, columns, numbers, strict=True)}
    return set(found), found


def _neighbours(places: Sequence[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    """Tiles in groups that touch each other on the plane."""
    groups: list[list[tuple[int, int]]] = []
    for one in places:
        touching = [g for g in groups if any(abs(one[0] - r) <= 1 and abs(one[1] - c) <= 1 for r, c in g)]
        groups = [g for g in groups if g not in touching] + [[one, *(tile for g in touching for tile in g)]]
    return groups
