"""How much of a sky map each field holds, and the order of fields that holds most without counting anything twice.

The sky is taken apart by HEALPix cells from the largest down. A cell that lies wholly inside or outside of every field
is done; only cells on the edge of a field that hold more than `TOLERANCE` of the probability are split. What is left is
a list of pieces, each with its probability and the fields that hold it: plain sums and unions are both read off it.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nightsift.alerts.skymap import Cells, SkyMap, Values
from nightsift.sky.fields import SkyField

TOLERANCE = 1e-6
"""Probability of a piece on the edge of a field that is no longer split: errors of a field stay near 1e-6."""
DEEPEST = 20
CELL_RADIUS = 1.07
"""Largest angle from the centre of a cell to its edge, times nside (rad): that of the cells next to the poles."""
HALF_DIAGONAL = 0.7236
"""Half the diagonal of a square of the area of a cell, times nside (rad)."""


@dataclass(frozen=True, slots=True, eq=False)
class Coverage:
    """Pieces of the sky and the fields that hold them.

    Attributes
    ----------
    probability : ndarray of float64, shape (p,)
        Probability of each piece that at least one field holds.
    piece, field : ndarray of int64, shape (m,)
        Which field holds which piece, sorted by field.
    part : ndarray of float64, shape (m,)
        Part of the piece that lies in the field: 1 but for pieces on its edge.
    n_fields : int
        Number of fields.
    """

    probability: Values
    piece: Cells
    field: Cells
    part: Values
    n_fields: int

    def of_each(self) -> Values:
        """Probability of each field, shape (n_fields,)."""
        held = self.probability[self.piece] * self.part
        return np.asarray(np.bincount(self.field, held, minlength=self.n_fields), dtype=np.float64)

    def pieces_of(self, field: int) -> tuple[Cells, Values]:
        """Numbers of the pieces that a field holds, and the probability that it holds of each."""
        first, last = np.searchsorted(self.field, [field, field + 1])
        own = self.piece[first:last]
        return own, self.probability[own] * self.part[first:last]

    def of_union(self, fields: Sequence[int]) -> float:
        """Probability that at least one of the fields holds the source."""
        held = np.zeros(len(self.probability))
        for one in fields:
            own, value = self.pieces_of(one)
            held[own] += value
        return float(np.minimum(held, self.probability).sum())


def coverage(skymap: SkyMap, fields: Sequence[SkyField]) -> Coverage:
    """Take the sky apart along the edges of fields.

    Parameters
    ----------
    skymap : SkyMap
        The map.
    fields : sequence of SkyField
        The fields; they may overlap.

    Returns
    -------
    Coverage
        Pieces and who holds them.
    """
    caps = _caps_of(fields)
    pixel = np.arange(12, dtype=np.int64)
    node, field = (one.ravel() for one in np.indices((12, len(fields))))
    part = np.zeros(len(node))  # 0 where a pair is still open, 1 where the cell lies inside
    weights: list[Values] = []
    held: list[tuple[Cells, Cells, Values]] = []
    count = 0
    for level in range(DEEPEST + 1):
        weight = skymap.probability_of(level, pixel)
        fresh = part < 1.0
        share = part.copy()
        share[fresh], is_edge = _shares(level, pixel, caps, node[fresh], field[fresh])
        edge = np.zeros(len(node), dtype=bool)
        edge[fresh] = is_edge
        split = np.zeros(len(pixel), dtype=bool)
        split[node[edge]] = level < DEEPEST
        split &= weight > TOLERANCE
        done = ~split & (weight > 0.0)
        named = np.cumsum(done) - 1 + count
        kept = done[node] & (share > 0.0)
        weights.append(weight[done])
        held.append((named[node[kept]], field[kept], share[kept]))
        count += int(done.sum())
        if not split.any():
            break
        further = split[node] & (edge | (share >= 1.0))
        part = np.repeat(np.where(edge, 0.0, 1.0)[further], 4)
        child = np.cumsum(split) - 1
        node = _children(child[node[further]])
        field = np.repeat(field[further], 4)
        pixel = _children(pixel[split])
    pieces, fields_of, parts = (np.concatenate(one) for one in zip(*held, strict=True))
    return _packed(np.concatenate(weights), pieces, fields_of, parts, len(fields))


def greedy(found: Coverage, allowed: npt.NDArray[np.bool_], most: int) -> tuple[list[int], list[float]]:
    """Order fields so that each adds most to what those before it hold.

    Parameters
    ----------
    found : Coverage
        Pieces and who holds them.
    allowed : ndarray of bool, shape (n_fields,)
        Fields to take.
    most : int
        How many.

    Returns
    -------
    order : list of int
        Fields, best first; those that add nothing are left out.
    gain : list of float
        Probability that each adds.
    """
    left = found.probability.copy()
    queue = [(-value, number) for number, value in enumerate(found.of_each()) if allowed[number] and value > 0.0]
    heapq.heapify(queue)
    order: list[int] = []
    gain: list[float] = []
    while queue and len(order) < most:
        # what a field adds only shrinks as others are taken: the first whose value still stands is the best
        _, number = heapq.heappop(queue)
        own, value = found.pieces_of(number)
        adds = np.minimum(left[own], value)
        total = float(adds.sum())
        if queue and total < -queue[0][0] * (1.0 - 1e-12):
            if total > 0.0:
                heapq.heappush(queue, (-total, number))
            continue
        if total <= 0.0:
            break
        order.append(number)
        gain.append(total)
        left[own] -= adds
    return order, gain


def _caps_of(fields: Sequence[SkyField]) -> Values:
    """Caps of all fields, shape (n_fields, most, 4), filled up with caps that hold the whole sphere."""
    most = max((len(one.caps) for one in fields), default=1)
    caps = np.zeros((len(fields), most, 4))
    caps[:, :, 3] = 10.0
    for number, one in enumerate(fields):
        caps[number, : len(one.caps)] = one.caps
    return caps


def _shares(level: int, pixel: Cells, caps: Values, node: Cells, field: Cells) -> tuple[Values, npt.NDArray[np.bool_]]:
    """Part of each cell that lies in its field, and whether it lies across the edge.

    Across the edge, the part is that of a diamond cut by a straight line at the distance of the nearest side.
    """
    from astropy_healpix import healpix_to_xyz

    nside = 2**level
    centre = np.stack(healpix_to_xyz(pixel, nside, order="nested"), axis=-1)
    own = caps[field]
    angle = np.arccos(np.clip(np.einsum("pkc,pc->pk", own[:, :, :3], centre[node]), -1.0, 1.0))
    beyond = (angle - own[:, :, 3]).max(axis=1)
    radius = CELL_RADIUS / nside
    cut = np.clip(beyond * nside / HALF_DIAGONAL, -1.0, 1.0)
    share = np.where(cut > 0.0, 0.5 * (1.0 - cut) ** 2, 1.0 - 0.5 * (1.0 + cut) ** 2)
    share[beyond <= -radius], share[beyond >= radius] = 1.0, 0.0
    return share, np.abs(beyond) < radius


def _children(cell: Cells) -> Cells:
    """The four children of each cell."""
    return np.asarray((np.repeat(cell << 2, 4).reshape(-1, 4) + np.arange(4)).ravel(), dtype=np.int64)


def _packed(probability: Values, piece: Cells, field: Cells, part: Values, n_fields: int) -> Coverage:
    """Pieces that some field holds, numbered anew and sorted by field."""
    held, piece = np.unique(piece, return_inverse=True)
    order = np.lexsort((piece, field))
    return Coverage(probability[held], piece[order].astype(np.int64), field[order], part[order], n_fields)
