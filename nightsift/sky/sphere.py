"""Angles on the sphere: as headers write them, between directions, and from a tangent plane to the sky and back."""

from __future__ import annotations

import re
from typing import Any, overload

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]


def number(raw: Any) -> float | None:
    """Return the number in a header value.

    Parameters
    ----------
    raw : object
        Number or text.

    Returns
    -------
    float or None
        The number; None where there is none.
    """
    if isinstance(raw, bool):
        return None
    try:
        return float(raw)
    except (TypeError, ValueError):
        return None


def is_sexagesimal(raw: str) -> bool:
    """Tell whether a text has several parts, as ``12:34:56`` or ``12 34 56`` have."""
    return len(re.split(r"[:\s]+", raw.strip())) > 1


def sexagesimal(raw: Any) -> float | None:
    """Number, or ``d:m:s`` in the unit of its first part.

    Parameters
    ----------
    raw : object
        Number or text.

    Returns
    -------
    float or None
        The value; None where it cannot be read.
    """
    if not isinstance(raw, str) or not is_sexagesimal(raw):
        return number(raw)
    text = raw.strip()
    sign = -1.0 if text.startswith("-") else 1.0
    parts = [number(part) for part in re.split(r"[:\s]+", text.lstrip("+-").strip())]
    numbers = [part for part in parts if part is not None]
    if len(numbers) != len(parts) or len(numbers) > 3 or any(not 0 <= part < 60.000001 for part in numbers[1:]):
        return None
    return sign * sum(part / 60.0**i for i, part in enumerate(numbers))


def unit_vectors(ra: Values | float, dec: Values | float) -> Values:
    """Return positions (deg) as unit vectors, shape (..., 3)."""
    a, d = np.deg2rad(ra), np.deg2rad(dec)
    return np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d) * np.ones_like(a)], axis=-1)


def positions_of(vectors: Values) -> tuple[Values, Values]:
    """Return right ascension and declination (deg) of vectors of any length, the inverse of `unit_vectors`."""
    x, y, z = np.moveaxis(np.asarray(vectors), -1, 0)
    return np.rad2deg(np.arctan2(y, x)) % 360.0, np.rad2deg(np.arctan2(z, np.hypot(x, y)))


def tangent_axes(ra: float, dec: float) -> tuple[Values, Values, Values]:
    """Return the unit vectors of a position (deg), and of east and north there, shape (3,) each."""
    a, d = np.deg2rad(ra), np.deg2rad(dec)
    east = np.array([-np.sin(a), np.cos(a), 0.0])
    north = np.array([-np.sin(d) * np.cos(a), -np.sin(d) * np.sin(a), np.cos(d)])
    return unit_vectors(ra, dec), east, north


def angle_between(vectors: Values, others: Values) -> Values:
    """Return the angles (deg) between vectors of any length, shape (..., 3), exact from 0 to half a turn."""
    across = np.linalg.norm(np.cross(vectors, others), axis=-1)
    return np.asarray(np.rad2deg(np.arctan2(across, np.sum(vectors * others, axis=-1))))


@overload  # floats are the narrower case of the two
def separation(ra: float, dec: float, other_ra: float, other_dec: float) -> float: ...  # type: ignore[overload-overlap]


@overload
def separation(
    ra: Values | float, dec: Values | float, other_ra: Values | float, other_dec: Values | float
) -> Values: ...


def separation(
    ra: Values | float, dec: Values | float, other_ra: Values | float, other_dec: Values | float
) -> Values | float:
    """Return the angles (deg) between directions (deg), which broadcast, by the haversine formula; exact when small."""
    a, b = np.deg2rad(dec), np.deg2rad(other_dec)
    across = np.sin(np.deg2rad(np.subtract(other_ra, ra)) / 2.0) ** 2 * np.cos(a) * np.cos(b)
    angle = np.rad2deg(2.0 * np.arcsin(np.sqrt(np.minimum(np.sin((b - a) / 2.0) ** 2 + across, 1.0))))
    return np.asarray(angle) if np.ndim(angle) else float(angle)


def chord(arcsec: float) -> float:
    """Return the distance of two unit vectors by the angle between them (arcsec)."""
    return float(2.0 * np.sin(np.deg2rad(min(arcsec / 3600.0, 180.0)) / 2.0))


def angle_of_chord(length: Values) -> Values:
    """Return the angles (arcsec) between two unit vectors by their distance, the inverse of `chord`."""
    return np.asarray(np.rad2deg(2.0 * np.arcsin(np.minimum(length / 2.0, 1.0))) * 3600.0)


def pairs_within(
    ra: Values, dec: Values, other_ra: Values, *, other_dec: Values, most: float,
    radius: Values | float = 0.0, other_radius: Values | float = 0.0,
) -> tuple[Rows, Rows, Values]:  # fmt: skip
    """Pairs of positions that lie near each other.

    Parameters
    ----------
    ra, dec : ndarray of float64, shape (n,)
        Positions (deg).
    other_ra, other_dec : ndarray of float64, shape (m,)
        Other positions (deg).
    most : float
        Largest distance (arcsec).
    radius, other_radius : ndarray of float64 or float, optional
        Only pairs within the larger of their radii (arcsec); all within `most` where both are zero.

    Returns
    -------
    first, second : ndarray of int64, shape (p,)
        Rows of both lists.
    apart : ndarray of float64, shape (p,)
        Their distances (arcsec).
    """
    from scipy.spatial import cKDTree

    if not len(ra) or not len(other_ra) or most <= 0.0:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
    vectors, others = unit_vectors(ra, dec), unit_vectors(other_ra, other_dec)
    pairs = cKDTree(vectors).sparse_distance_matrix(cKDTree(others), chord(most) * (1.0 + 1e-9), output_type="ndarray")
    first, second = pairs["i"].astype(np.int64), pairs["j"].astype(np.int64)
    apart = angle_of_chord(pairs["v"])
    limit = np.maximum(np.broadcast_to(radius, len(vectors))[first], np.broadcast_to(other_radius, len(others))[second])
    near = apart <= np.where(limit > 0.0, limit, most)
    return first[near], second[near], apart[near]


def sky_to_plane(ra: Values, dec: Values, ra0: float, dec0: float) -> tuple[Values, Values]:
    """Project positions on a tangent plane (gnomonic projection).

    Parameters
    ----------
    ra, dec : ndarray of float64, shape (n,)
        Positions (deg), within 90 deg of the point of contact.
    ra0, dec0 : float
        Where the plane touches the sphere (deg).

    Returns
    -------
    xi, eta : ndarray of float64, shape (n,)
        Offsets to the east and north (deg).
    """
    a, d = np.deg2rad(ra) - np.deg2rad(ra0), np.deg2rad(dec)
    d0 = np.deg2rad(dec0)
    depth = np.sin(d0) * np.sin(d) + np.cos(d0) * np.cos(d) * np.cos(a)
    xi = np.cos(d) * np.sin(a) / depth
    eta = (np.cos(d0) * np.sin(d) - np.sin(d0) * np.cos(d) * np.cos(a)) / depth
    return np.rad2deg(xi), np.rad2deg(eta)


def offset_position(
    ra: Values | float, dec: Values | float, east: Values | float, *, north: Values | float
) -> tuple[Values, Values]:
    """Return positions (deg) shifted by offsets (deg) on the plane that touches the sphere there.

    The inverse of `sky_to_plane`; small shifts go along great circles.
    """
    x, y, d0 = np.deg2rad(east), np.deg2rad(north), np.deg2rad(dec)
    depth = np.cos(d0) - y * np.sin(d0)
    shifted = np.asarray(ra) + np.rad2deg(np.arctan2(x, depth))
    return np.mod(shifted, 360.0), np.rad2deg(np.arctan2(np.sin(d0) + y * np.cos(d0), np.hypot(x, depth)))
