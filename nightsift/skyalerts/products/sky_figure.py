"""The sky map of a sky alert as a picture: credible regions, fields observed and waiting, candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nightsift.report import plots
from nightsift.sky.fields import SkyField
from nightsift.sky.sphere import Values, angle_between, positions_of, tangent_axes, unit_vectors
from nightsift.skyalerts.skymaps.skymap import SkyMap

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDEST = 40.0
"""Largest radius of the region of 90 % (deg) that is drawn as a part of the sky; beyond it is the whole sky."""

LEAST = 2.0
"""Least half width of a picture (deg)."""

OBSERVED, WAITING, MARK = "#009e73", "#d55e00", "#1b222a"
PIXELS = 420
NUMBERED = 10
"""Candidates that are labelled with their rank."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the sky in Lambert's equal-area projection, east to the left.

    Attributes
    ----------
    ra, dec : float
        Its middle (deg).
    width, height : float
        Half of its width and height (deg).
    """

    ra: float
    dec: float
    width: float = 1.0
    height: float = 1.0

    def axes(self) -> tuple[Values, Values, Values]:
        """Unit vectors of the middle, east and north."""
        return tangent_axes(self.ra, self.dec)

    def project(self, ra: Values, dec: Values) -> tuple[Values, Values]:
        """Offsets of positions (deg) to the east and north, NaN on the far half of the sky.

        Parameters
        ----------
        ra, dec : ndarray of float64, shape (n,)
            Positions (deg).

        Returns
        -------
        x, y : ndarray of float64, shape (n,)
            Offsets (deg).
        """
        middle, east, north = self.axes()
        vectors = unit_vectors(ra, dec)
        cosine = vectors @ middle
        scale = np.rad2deg(np.sqrt(2.0 / (1.0 + np.maximum(cosine, -0.999))))
        scale = np.where(cosine > 0.0, scale, np.nan)
        return scale * (vectors @ east), scale * (vectors @ north)

    def position(self, x: Values, y: Values) -> tuple[Values, Values]:
        """Positions of offsets, the inverse of `project`.

        Parameters
        ----------
        x, y : ndarray of float64
            Offsets (deg).

        Returns
        -------
        ra, dec : ndarray of float64
            Positions (deg).
        """
        middle, east, north = self.axes()
        x, y = np.deg2rad(x), np.deg2rad(y)
        half = np.minimum(np.hypot(x, y) / 2.0, 1.0)
        tilt = np.sqrt(1.0 - half**2)[..., None]  # sine of the angle over the radius of the projection
        vectors = (1.0 - 2.0 * half**2)[..., None] * middle + tilt * (x[..., None] * east + y[..., None] * north)
        return positions_of(vectors)


def sky_figure(
    skymap: SkyMap | None,
    fields: Sequence[SkyField],
    observed: Sequence[bool],
    *,
    places: Sequence[tuple[float, float]],
) -> str:
    """Draw the sky map of a sky alert.

    Parameters
    ----------
    skymap : SkyMap or None
        The map.
    fields : sequence of SkyField
        Fields.
    observed : sequence of bool
        Which of them were observed.
    places : sequence of (float, float)
        Right ascension and declination of candidates (deg), best first.

    Returns
    -------
    str
        An SVG element: the part of the sky that holds the region of 90 %, or the whole sky (Mollweide); empty without a
        map and without fields.
    """
    if skymap is None and not fields:
        return ""
    part = part_of(skymap, fields)
    with plots._style():
        height = 5.0 if part is None else float(np.clip(8.6 * part.height / part.width, 3.2, 7.2)) + 0.6
        figure = plots._figure(9.2, height)
        axis = figure.add_subplot(projection="mollweide" if part is None else None)
        if skymap is not None:
            _draw_map(axis, skymap, part)
        _draw_fields(axis, fields, observed, part=part)
        _draw_places(axis, places, part)
        _finish(axis, part)
        handles, labels = axis.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), handletextpad=0.5)
        return plots._svg(figure)


def part_of(skymap: SkyMap | None, fields: Sequence[SkyField]) -> Part | None:
    """Choose the part of the sky to draw.

    Parameters
    ----------
    skymap : SkyMap or None
        The map; the fields count without one.
    fields : sequence of SkyField
        Fields; those near are drawn whole.

    Returns
    -------
    Part or None
        None for the whole sky.
    """
    from astropy_healpix import healpix_to_xyz

    field_points = unit_vectors(np.array([one.ra for one in fields]), np.array([one.dec for one in fields]))
    if skymap is not None:
        order = np.argsort(-skymap.density, kind="stable")
        inside = order[: int(np.searchsorted(np.cumsum(skymap.probability[order]), 0.9)) + 1]
        nside = np.asarray(2 ** skymap.level[inside])
        points = np.stack(healpix_to_xyz(skymap.pixel[inside], nside, order="nested"), axis=-1)
        edge = np.rad2deg(1.0 / nside)
        weight = skymap.probability[inside]
    else:
        points, edge, weight = field_points, np.array([one.radius for one in fields]), np.ones(len(fields))
    middle = weight @ points
    length = float(np.linalg.norm(middle))
    if length < 0.3 * weight.sum():
        return None
    middle /= length
    if float((angle_between(points, middle) + edge).max()) > WIDEST:
        return None
    rough = Part(*(float(angle) for angle in positions_of(middle)))
    x, y = rough.project(*positions_of(points))
    box = np.array([(x - edge).min(), (x + edge).max(), (y - edge).min(), (y + edge).max()])
    size = max(box[1] - box[0], box[3] - box[2])
    for one in fields:  # those near are drawn whole
        x, y = rough.project(np.array([one.ra]), np.array([one.dec]))
        around = np.array([x[0] - one.radius, x[0] + one.radius, y[0] - one.radius, y[0] + one.radius])
        middle_of_box = 0.5 * (box[[0, 2]] + box[[1, 3]])
        if np.isfinite(around).all() and (np.abs(np.array([x[0], y[0]]) - middle_of_box) < 0.8 * size).all():
            box = np.where([True, False] * 2, np.minimum(box, around), np.maximum(box, around))
    ra, dec = rough.position(np.array([box[:2].mean()]), np.array([box[2:].mean()]))
    width, height = 0.54 * (box[1] - box[0]), 0.54 * (box[3] - box[2])
    least = max(LEAST, 0.4 * max(width, height))
    return Part(float(ra[0]), float(dec[0]), max(width, least), max(height, least))


def _draw_map(axis: Axes, skymap: SkyMap, part: Part | None) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("credible", ["#3d5a9e", "#8fa8d8", "#dbe4f4", "#ffffff"])
    if part is None:
        longitude, latitude = np.meshgrid(np.linspace(-180.0, 180.0, 721), np.linspace(-90.0, 90.0, 361))
        level = skymap.credible_level_at(-longitude % 360.0, latitude)
        x, y = np.deg2rad(longitude), np.deg2rad(latitude)
        axis.pcolormesh(x, y, level, cmap=colours, vmin=0.0, vmax=1.0, rasterized=True, shading="nearest")
    else:
        rows = max(int(PIXELS * part.height / part.width), 50)
        x, y = np.linspace(part.width, -part.width, PIXELS), np.linspace(-part.height, part.height, rows)
        level = skymap.credible_level_at(*part.position(*np.meshgrid(x, y)))
        extent = (part.width, -part.width, -part.height, part.height)
        axis.imshow(level, extent=extent, origin="lower", cmap=colours, vmin=0.0, vmax=1.0, interpolation="bilinear")
    if level.min() < 0.5:
        axis.contour(x, y, level, levels=[0.5, 0.9], colors="#24386b", linewidths=[1.3, 0.8], linestyles=["-", "--"])
        axis.plot([], [], color="#24386b", linewidth=1.3, label="50 %")
        axis.plot([], [], color="#24386b", linewidth=0.8, linestyle="--", label="90 %")


def _draw_fields(axis: Axes, fields: Sequence[SkyField], observed: Sequence[bool], *, part: Part | None) -> None:
    from matplotlib.collections import PolyCollection

    looks: tuple[tuple[bool, str, dict[str, Any]], ...] = (
        (False, "waiting", {"facecolors": "none", "edgecolors": WAITING, "linestyles": ":"}),
        (True, "observed", {"facecolors": OBSERVED + "29", "edgecolors": OBSERVED}),
    )
    for seen, label, look in looks:
        outlines = [_outline(field) for field, done in zip(fields, observed, strict=True) if done == seen]
        shapes = [np.column_stack(_place(*one, part)) for one in outlines]
        if part is None:  # those across the edge of the map would lie over all of it
            shapes = [one for one in shapes if np.ptp(one[:, 0]) < np.pi]
        else:
            shapes = [one for one in shapes if (np.abs(one) < [part.width, part.height]).all(axis=1).any()]
        if shapes:
            axis.add_collection(PolyCollection(shapes, linewidths=0.9, label=label, **look), autolim=False)


def _outline(field: SkyField) -> tuple[Values, Values]:
    """Points around a field."""
    if field.corners:
        corners = np.array([*field.corners, field.corners[0]])
        vectors = unit_vectors(*corners.T)
        share = np.linspace(0.0, 1.0, 9)[:, None, None]
        along = (vectors[:-1] * (1.0 - share) + vectors[1:] * share).transpose(1, 0, 2).reshape(-1, 3)
    else:
        middle, east, north = Part(field.ra, field.dec).axes()
        turn, size = np.linspace(0.0, 2.0 * np.pi, 49)[:, None], np.deg2rad(field.radius)
        along = np.cos(size) * middle + np.sin(size) * (np.cos(turn) * east + np.sin(turn) * north)
    return positions_of(along)


def _draw_places(axis: Axes, places: Sequence[tuple[float, float]], part: Part | None) -> None:
    if not places:
        return
    ra, dec = np.array(places, dtype=np.float64).reshape(-1, 2).T
    x, y = _place(ra, dec, part)
    best = np.arange(len(x)) < NUMBERED
    axis.plot(
        x[~best],
        y[~best],
        linestyle="none",
        marker="x",
        markersize=4,
        color="#8a949e",
        label="other candidates" if (~best).any() else None,
    )
    axis.plot(
        x[best],
        y[best],
        linestyle="none",
        marker="o",
        markersize=5.5,
        markerfacecolor="none",
        markeredgewidth=1.3,
        color=MARK,
        label="best candidates, by rank",
    )
    for number in np.flatnonzero(best & np.isfinite(x)):
        if part is not None and (abs(x[number]) > part.width or abs(y[number]) > part.height):
            continue
        axis.annotate(f"{number + 1}", (x[number], y[number]), (4, 3), textcoords="offset points", fontsize=8.5,
                      fontweight="bold", color=MARK, clip_on=True)  # fmt: skip


def _place(ra: Values, dec: Values, part: Part | None) -> tuple[Values, Values]:
    """Coordinates of positions in the picture."""
    if part is not None:
        return part.project(ra, dec)
    return -np.deg2rad((ra + 180.0) % 360.0 - 180.0), np.deg2rad(dec)


def _finish(axis: Axes, part: Part | None) -> None:
    if part is None:
        axis.set_xticks(np.deg2rad(np.arange(-120, 121, 60)), [f"{-lon % 360}°" for lon in range(-120, 121, 60)])
        axis.set_yticks(
            np.deg2rad(np.arange(-60, 61, 30)), [f"{lat:+d}°".replace("-", "−") for lat in range(-60, 61, 30)]
        )
        axis.set_axisbelow(False)
        axis.grid(color="#9aa3ad", linewidth=0.4, alpha=0.6)
        return
    axis.set_aspect("equal")
    axis.set_xlim(part.width, -part.width)
    axis.set_ylim(-part.height, part.height)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.grid(False)
    for spine in axis.spines.values():
        spine.set_visible(True)
    _graticule(axis, part)


def _graticule(axis: Axes, part: Part) -> None:
    """Meridians and parallels, each named where it leaves the picture."""
    steps = (0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0)
    stretch = max(float(np.cos(np.deg2rad(part.dec))), 0.05)
    step_dec = next((one for one in steps if one >= part.height / 2.5), 90.0)
    step_ra = next((one for one in steps if one >= part.width / 3.0 / stretch), 90.0)
    style: dict[str, Any] = {"color": "#9aa3ad", "linewidth": 0.5, "zorder": 1.5}
    run = np.linspace(-90.0, 90.0, 1441)
    for ra in np.arange(0.0, 360.0, step_ra):
        x, y = part.project(np.full(len(run), ra), run)
        axis.plot(x, y, **style)
        _name_below(axis, part, x, y=y, text=f"{ra:g}°")
    for dec in np.arange(-90.0 + step_dec, 90.0, step_dec):
        x, y = part.project(part.ra + 2.0 * run, np.full(len(run), dec))
        axis.plot(x, y, **style)
        _name_left(axis, part, x, y=y, text=f"{dec:+g}°".replace("-", "−"))


def _name_below(axis: Axes, part: Part, x: Values, *, y: Values, text: str) -> None:
    crossing = np.flatnonzero((y[:-1] + part.height) * (y[1:] + part.height) <= 0.0)
    place = [float(x[k]) for k in crossing if abs(x[k]) <= part.width]
    if place:
        _write(axis, text, (place[0], -part.height), shift=(0, -4), ha="center", va="top")


def _name_left(axis: Axes, part: Part, x: Values, *, y: Values, text: str) -> None:
    crossing = np.flatnonzero((x[:-1] - part.width) * (x[1:] - part.width) <= 0.0)
    place = [float(y[k]) for k in crossing if abs(y[k]) <= part.height]
    if place:
        _write(axis, text, (part.width, place[0]), shift=(-4, 0), ha="right", va="center")


def _write(axis: Axes, text: str, place: tuple[float, float], *, shift: tuple[int, int], ha: Any, va: Any) -> None:
    axis.annotate(text, place, shift, textcoords="offset points", fontsize=8, color="#5b6671", ha=ha, va=va,
                  annotation_clip=False)  # fmt: skip
