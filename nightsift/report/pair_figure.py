"""One figure of a subtraction: science, template, difference, score, mask, anchors, kernel, PSF."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from nightsift.core.flags import Mask
from nightsift.core.frames import Difference, Pair
from nightsift.report.plots import COLOURS, STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Float64 = npt.NDArray[np.float64]
PANEL = 500
"""Most pixels along a side of a panel; larger frames are binned to fewer."""

SHOWN = ("anchors_used", "star_residual", "noise_scale", "registration", "dipole_rate", "kernel_order", "kernel_sum")
"""Figures of merit that stand beside the panels."""

FRAMES, MOSAICS = 6, 2  # panels as wide and high as the frame, and square ones
WIDEST, HIGHEST = 15.0, 11.0  # of the figure (inch)
LEFT, ABOVE, BELOW, LINE = 0.45, 0.3, 0.25, 0.17  # room for ticks and titles of a panel, height of a line (inch)
BAR = 0.09  # width of the colour bar (inch)
SMALLEST, LARGEST = 1.6, 4.2  # side of a mosaic (inch)
DPI = 110


@dataclass(frozen=True, slots=True)
class Layout:
    """Places of the panels: those of the frame in rows and columns, the mosaics above each other to their right.

    Attributes
    ----------
    columns, rows : int
        Panels of the frame beside and above each other.
    width, height : float
        Size of each (inch).
    side : float
        Side of a mosaic (inch).
    head : float
        Height of the caption (inch).
    """

    columns: int
    rows: int
    width: float
    height: float
    side: float
    head: float

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the figure (inch)."""
        frames, mosaics = self.rows * self._step(self.height), MOSAICS * self._step(self.side)
        return self.columns * (LEFT + self.width) + LEFT + self.side + 0.1, max(frames, mosaics) + self.head

    @staticmethod
    def _step(height: float) -> float:
        return height + ABOVE + BELOW

    def add_panels(self, figure: Figure) -> list[Axes]:
        """Add the axes: those of the frame row by row, then the mosaics."""
        wide, high = self.size
        boxes = []
        for place in range(FRAMES):
            row, column = divmod(place, self.columns)
            x, y = LEFT + column * (LEFT + self.width), self.head + ABOVE + row * self._step(self.height)
            boxes.append((x, high - y - self.height, self.width, self.height))
        x = self.columns * (LEFT + self.width) + LEFT
        for place in range(MOSAICS):
            y = self.head + ABOVE + place * self._step(self.side)
            boxes.append((x, high - y - self.side, self.side, self.side))
        return [figure.add_axes((x / wide, y / high, w / wide, h / high)) for x, y, w, h in boxes]


def arrange(ratio: float, head: float = 0.6) -> Layout:
    """Arrange the panels so that a frame is drawn as large as the figure allows, whatever its form.

    Parameters
    ----------
    ratio : float
        Width over height of what is drawn.
    head : float, optional
        Height of the caption (inch).

    Returns
    -------
    Layout
        That of the largest panels.
    """
    best = None
    for columns in (1, 2, 3, 6):
        rows = FRAMES // columns
        for width in np.arange(0.4, WIDEST, 0.1):
            height = float(width) / ratio
            side = rows * (height + ABOVE + BELOW) / MOSAICS - ABOVE - BELOW
            found = Layout(columns, rows, float(width), height, float(np.clip(side, SMALLEST, LARGEST)), head)
            fits = found.size[0] <= WIDEST and found.size[1] <= HIGHEST
            if fits and (best is None or found.width > best.width):
                best = found
    return best or Layout(FRAMES, 1, 0.4, HIGHEST - head - ABOVE - BELOW, SMALLEST, head)


class Window:
    """The part of a frame that is drawn, and how it is binned.

    Parameters
    ----------
    shape : tuple of int
        ``(ny, nx)`` of the frame.
    centre : tuple of float, optional
        x, y of the centre (pixel); the whole frame by default.
    size : int, optional
        Side of the part around `centre` (pixel).
    """

    def __init__(self, shape: tuple[int, int], centre: tuple[float, float] | None = None, size: int = 200) -> None:
        ny, nx = shape
        x0, y0, x1, y1 = 0, 0, nx, ny
        if centre is not None:
            x0 = int(np.clip(centre[0] - size / 2, 0, max(nx - size, 0)))
            y0 = int(np.clip(centre[1] - size / 2, 0, max(ny - size, 0)))
            x1, y1 = min(nx, x0 + size), min(ny, y0 + size)
        self.shape = (y1 - y0, x1 - x0)
        self.step = max(1, -(-max(self.shape) // PANEL))
        self.rows, self.columns = slice(y0, y1), slice(x0, x1)
        self.extent = (x0 - 0.5, x1 - 0.5, y0 - 0.5, y1 - 0.5)

    def blocks(self, image: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The part as an array ``(rows, columns, pixels of a block)``; a ragged rim is left out."""
        part, n = image[self.rows, self.columns], self.step
        ny, nx = part.shape[0] // n, part.shape[1] // n
        cut = part[: ny * n, : nx * n].reshape(ny, n, nx, n)
        return cut.transpose(0, 2, 1, 3).reshape(ny, nx, n * n)


def draw_pair(
    path: Path,
    pair: Pair,
    difference: Difference,
    *,
    candidates: pa.Table,
    title: str = "",
    centre: tuple[float, float] | None = None,
    size: int = 200,
) -> Path:
    """Draw one subtraction as a PNG.

    Parameters
    ----------
    path : Path
        Where to write it.
    pair : Pair
        Science and template.
    difference : Difference
        Their difference.
    candidates : pyarrow.Table
        Candidates, schema `nightsift.core.tables.CANDIDATES`; circled on the score.
    title : str, optional
        What was subtracted.
    centre : tuple of float, optional
        x, y of the centre of a part (pixel); the whole frame by default.
    size : int, optional
        Side of the part (pixel).

    Returns
    -------
    Path
        The file.
    """
    import matplotlib
    from matplotlib.figure import Figure

    window = Window(difference.shape, centre, size)
    with matplotlib.rc_context({**STYLE, "figure.facecolor": "white", "savefig.facecolor": "white"}):
        ratio = window.shape[1] / window.shape[0]
        caption = _caption(title, difference, arrange(ratio).size[0])
        layout = arrange(ratio, head=LINE * (2 + caption.count("\n")))
        figure = Figure(figsize=layout.size)
        axes = layout.add_panels(figure)
        _draw_images(axes, window, pair, difference=difference)
        _draw_score(axes[3], window, difference, candidates=candidates)
        _draw_mask(axes[4], window, difference)
        _draw_anchors(axes[5], window, difference, width=layout.width)
        kernels = difference.kernel_map
        _draw_mosaic(axes[6], kernels, f"Kernel over the frame ({difference.convolved} convolved)")
        _draw_mosaic(axes[7], _psf_grid(difference), f"PSF over the frame (FWHM {difference.psf.fwhm:.2f} px)")
        for axis, width in zip(axes, [layout.width] * FRAMES + [layout.side] * MOSAICS, strict=True):
            _fit_title(axis, width)
        edge = 0.5 * LINE
        figure.text(edge / layout.size[0], 1 - edge / layout.size[1], caption, va="top", fontsize=9.0)
        figure.savefig(path, dpi=DPI)
    return path


def _fit_title(axis: Axes, width: float) -> None:
    """Shorten the letters of a title that is wider than its panel (inch)."""
    title = axis.title if axis.title.get_text() else axis._left_title  # type: ignore[attr-defined]
    title.set_fontsize(float(np.clip(9.0 * 14.0 * width / max(len(title.get_text()), 1), 5.0, 9.0)))


def _caption(title: str, difference: Difference, width: float) -> str:
    """Return what was subtracted, its figures and its verdict, in lines that a figure is wide enough for (inch)."""
    known = {**difference.metrics, "kernel_sum": difference.kernel_sum}
    figures = ", ".join(f"{n.replace('_', ' ')} {known[n]:.3g}" for n in SHOWN if np.isfinite(known.get(n, np.nan)))
    verdict = f"Verdict: {difference.verdict}"
    if difference.reasons:
        verdict += ": " + "; ".join(difference.reasons)
    method = f"method {difference.method}" + (f" ({difference.choice})" if difference.choice else "")
    return "\n".join(
        line for one in (f"{title}   {method}", figures, verdict) for line in textwrap.wrap(one, int(13 * width))
    )


def _look(axis: Axes, window: Window, title: str) -> None:
    axis.set_title(title)
    axis.grid(False)
    axis.set_xlim(window.extent[:2])
    axis.set_ylim(window.extent[2:])
    axis.tick_params(length=2)


def _draw_images(axes: Any, window: Window, pair: Pair, *, difference: Difference) -> None:
    for axis, name, image in (
        (axes[0], "Science", pair.science.data),
        (axes[1], "Template", pair.template.data),
    ):
        shown = _mean(window, image)
        _image(axis, window, shown, title=f"{name} (asinh)", limits=_limits(shown), asinh=True)
    sigma = np.sqrt(np.median(window.blocks(difference.variance)))
    shown = _mean(window, np.where(difference.mask == 0, difference.data, np.float32(np.nan))) / sigma
    spread = 5.0 / window.step
    title = f"Difference (± {spread:.2g} sigma)"
    _image(axes[2], window, shown, title=title, limits=(-spread, spread))


def _image(
    axis: Axes, window: Window, image: Float64, *, title: str, limits: tuple[float, float], asinh: bool = False
) -> None:
    from matplotlib.colors import AsinhNorm, Normalize

    low, high = limits
    width = max((high - low) / 20.0, 1e-9)
    norm = AsinhNorm(width, low, high) if asinh else Normalize(low, high)
    axis.set_facecolor("#dfe3e8")
    axis.imshow(image, origin="lower", cmap="gray", norm=norm, extent=window.extent, interpolation="nearest")
    _look(axis, window, title)


def _mean(window: Window, image: npt.NDArray[np.float32]) -> Float64:
    """Mean of the finite pixels of each block, NaN where there are none."""
    blocks = window.blocks(image)
    good = np.isfinite(blocks)
    count = good.sum(axis=2)
    total = np.where(good, blocks, np.float32(0)).sum(axis=2, dtype=np.float64)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _limits(image: Float64) -> tuple[float, float]:
    values = image[np.isfinite(image)]
    if len(values) == 0:
        return 0.0, 1.0
    low, middle, high = np.percentile(values, (5.0, 50.0, 99.7))
    return float(low - (middle - low)), float(max(high, middle + 3.0 * (middle - low), low + 1e-6))


def _draw_score(axis: Axes, window: Window, difference: Difference, *, candidates: pa.Table) -> None:
    """Score of largest amount in each block, with a circle round each candidate."""
    blocks = window.blocks(difference.score)
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=2)[:, :, None], axis=2)[:, :, 0]
    axis.imshow(largest, origin="lower", cmap="RdBu_r", vmin=-8, vmax=8, extent=window.extent, interpolation="nearest")
    x, y, flags = (np.array(candidates[name].to_pylist(), dtype=np.float64) for name in ("x", "y", "flags"))
    for some, colour, label in ((flags == 0, COLOURS[2], "without a flag"), (flags != 0, "#8a94a0", "flagged")):
        axis.plot(x[some], y[some], "o", mfc="none", mec=colour, ms=9, mew=1.2, label=f"{int(some.sum())} {label}")
    if len(x):
        axis.legend(loc="upper right", frameon=True, framealpha=0.9)
    _look(axis, window, "Score (± 8), candidates")


def _draw_mask(axis: Axes, window: Window, difference: Difference) -> None:
    """Each mask bit that occurs, in its colour; rarer bits above commoner ones."""
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Patch

    seen = np.bitwise_or.reduce(window.blocks(difference.mask), axis=2)
    colours = np.ones((*seen.shape, 3))
    found = [(int(((seen & bit.value) != 0).sum()), bit) for bit in Mask]
    handles = []
    for i, (count, bit) in enumerate(sorted(((n, bit) for n, bit in found if n), key=lambda one: -one[0])):
        colour = (*COLOURS, "#77808a", "#222222", "#c9b400")[i % 11]
        colours[(seen & bit.value) != 0] = to_rgb(colour)
        handles.append(Patch(color=colour, label=f"{(bit.name or '').lower()} {count / seen.size:.2%}"))
    axis.imshow(colours, origin="lower", extent=window.extent, interpolation="nearest")
    if handles:
        axis.legend(handles=handles, loc="upper right", frameon=True, framealpha=0.9, fontsize=7)
    _look(axis, window, "Mask")


def _draw_anchors(axis: Axes, window: Window, difference: Difference, *, width: float) -> None:
    """Anchor stars, coloured by the mean square of the normalised residual in their cores."""
    axis.set_facecolor("#f4f6f8")
    _look(axis, window, "Anchors: residual / noise")
    anchors = difference.anchors
    if anchors is None or len(anchors) == 0:
        axis.text(0.5, 0.5, "none recorded", transform=axis.transAxes, ha="center")
        return
    values = np.array([_core_residual(difference, x, y) for x, y in anchors])
    marks = axis.scatter(anchors[:, 0], anchors[:, 1], c=values, s=16, cmap="viridis", vmin=0.7, vmax=2.0, linewidths=0)
    bar = axis.inset_axes((0.0, 0.0, BAR / width, 1.0))
    axis.figure.colorbar(marks, cax=bar, extend="both").ax.tick_params(length=2, labelsize=7)
    axis.set_aspect("equal")


def _core_residual(difference: Difference, x: float, y: float) -> float:
    """Root mean square of difference over sigma within one FWHM of a star; NaN where masked."""
    reach = max(1, round(difference.psf.fwhm))
    rows = slice(max(0, round(y) - reach), round(y) + reach + 1)
    columns = slice(max(0, round(x) - reach), round(x) + reach + 1)
    good = difference.mask[rows, columns] == 0
    squares = difference.data[rows, columns] ** 2 / difference.variance[rows, columns]
    return float(np.sqrt(squares[good].mean())) if bool(good.any()) else np.nan


def _psf_grid(difference: Difference, count: int = 5) -> npt.NDArray[np.float32]:
    ny, nx = difference.shape
    places = (np.arange(count) + 0.5) / count
    return np.array([[difference.psf.at(u * nx, v * ny) for u in places] for v in places], dtype=np.float32)


def _draw_mosaic(axis: Axes, images: npt.NDArray[np.float32] | None, title: str) -> None:
    """Small images side by side, as they lie on the frame."""
    axis.set_title(title)
    axis.set_axis_off()
    if images is None:
        axis.text(0.5, 0.5, "none recorded", transform=axis.transAxes, ha="center")
        return
    rows, columns, size, _ = images.shape
    mosaic = np.pad(images, ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=np.nan)
    mosaic = mosaic.transpose(0, 2, 1, 3).reshape(rows * (size + 1), columns * (size + 1))
    top = float(np.nanmax(np.abs(images)))
    from matplotlib.colors import AsinhNorm

    norm = AsinhNorm(0.03 * top, -top, top)
    axis.imshow(mosaic, origin="lower", cmap="RdBu_r", norm=norm, interpolation="nearest")
