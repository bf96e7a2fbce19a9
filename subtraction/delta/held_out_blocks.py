"""Blocks of the frame that are held out in turn, to choose how freely a kernel may vary.

See docs/algorithms.md, section 14.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from subtraction.delta.cell_equations import CellEquations
from subtraction.kernel.spatial import n_terms

Int64 = npt.NDArray[np.int64]

FOLDS = 4
"""Parts of the frame that are held out in turn."""

BLOCKS = 8
"""Blocks along the longer side of the frame that are held out as a whole: larger than a star, in most frames."""

FEWEST_PIXELS = 30
"""Fewest pixels of a cell that count."""


def fold_numbers(cells: CellEquations, shape: tuple[int, int]) -> tuple[Int64, int]:
    """Spread blocks of the frame over folds, the well-lit ones evenly.

    Parameters
    ----------
    cells : CellEquations
        Sums of all cells.
    shape : tuple of int
        ``(ny, nx)`` of the frame.

    Returns
    -------
    fold : ndarray of int64, shape (n_cells,)
        Fold of each cell, -1 for those without enough pixels.
    count : int
        Number of folds, 1 to `FOLDS`.
    """
    side = max(shape) / BLOCKS
    block = (cells.y // side).astype(np.int64) * (BLOCKS + 1) + (cells.x // side).astype(np.int64)
    light = np.einsum("bii->b", cells.normal) - cells.noise * cells.normal.shape[1]
    lit = np.bincount(block, weights=light, minlength=(BLOCKS + 1) ** 2)
    rank = np.empty(len(lit), dtype=np.int64)
    rank[np.argsort(-lit, kind="stable")] = np.arange(len(lit))
    count = max(1, min(FOLDS, int((lit > 0).sum())))
    return np.where(cells.count >= FEWEST_PIXELS, rank[block] % count, -1), count


def affordable_order(cells: CellEquations, fold: Int64, shape: tuple[int, int], wanted: int) -> int:
    """Highest order for which lit blocks of the frame are enough.

    Parameters
    ----------
    cells : CellEquations
        Sums of all cells.
    fold : ndarray of int64, shape (n_cells,)
        Fold of each cell, as `fold_numbers` gives it.
    shape : tuple of int
        ``(ny, nx)`` of the frame.
    wanted : int
        Highest order to allow.

    Returns
    -------
    int
        An order with at least two blocks a term.
    """
    side = max(shape) / BLOCKS
    used = fold >= 0
    block = (cells.y[used] // side).astype(np.int64) * (BLOCKS + 1) + (cells.x[used] // side).astype(np.int64)
    blocks = len(np.unique(block))
    while wanted > 0 and blocks < 2 * n_terms(wanted):
        wanted -= 1
    return wanted
