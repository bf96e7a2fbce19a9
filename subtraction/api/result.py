"""The difference of two images as people look at it: as `CCDData`, as a table of detections, as a figure."""

from __future__ import annotations

import dataclasses
import html
import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nightsift.core.flags import Flag, names
from nightsift.core.frames import Difference, Pair
from nightsift.core.to_astropy import to_ccddata, to_table
from nightsift.images.detection.extract import extract
from nightsift.images.photometry.difference_photometry import ZeroPoint
from nightsift.report.pair_figure import Window
from nightsift.report.plots import COLOURS, STYLE
from nightsift.unit.units import default_unit

if TYPE_CHECKING:
    from astropy.nddata import CCDData
    from astropy.table import Table
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = (
    "x", "y", "ra", "dec", "sign", "snr", "flux", "flux_err", "flux_aperture", "flux_aperture_err", "mag", "mag_err",
    "fwhm", "elongation", "chi2", "dipole", "masked_fraction", "flags",
)  # fmt: skip
"""Columns of `nightsift.core.tables.CANDIDATES` that say something of an image alone."""


@dataclass(frozen=True, slots=True, eq=False, repr=False, kw_only=True)
class DifferenceImage(Difference):
    """A difference with the pair that it was made from.

    Attributes
    ----------
    pair : Pair
        Science and template on one grid, sky subtracted.
    unit : astropy.units.Unit
        Unit of the science image, and so of the difference.
    registration : str
        How the grids of both were brought together.
    """

    pair: Pair
    unit: Any
    registration: str = ""

    @classmethod
    def of(cls, difference: Difference, pair: Pair, unit: Any, *, registration: str = "") -> DifferenceImage:
        """Join a difference and the pair that it was made from; `unit` is that of the science image."""
        own = {one.name: getattr(difference, one.name) for one in dataclasses.fields(Difference)}
        return cls(**own, pair=pair, unit=unit, registration=registration)

    def to_ccddata(self) -> CCDData:
        """Return the difference as `CCDData`.

        Returns
        -------
        astropy.nddata.CCDData
            With unit, WCS of the science image, variance as uncertainty, mask (true where a pixel holds no usable
            value), all mask bits as flags, and method, verdict and figures of merit as meta.
        """
        meta = {
            "METHOD": self.method, "VERDICT": self.verdict, "REASONS": "; ".join(self.reasons),
            "CONVOLVE": self.convolved, "KERNSUM": self.kernel_sum, "FWHM": self.psf.fwhm, **self.metrics,
        }  # fmt: skip
        wcs = self.pair.science.wcs
        return to_ccddata(self.data, self.variance, self.mask, unit=self.unit, wcs=wcs, meta=meta)

    def detect(self, threshold: float = 5.0, *, zero_point: float = math.nan) -> Table:
        """Find what has changed, brighter or fainter.

        Parameters
        ----------
        threshold : float, optional
            Signal-to-noise ratio.
        zero_point : float, optional
            Magnitude of one unit of the science image, for magnitudes.

        Returns
        -------
        astropy.table.Table
            One row a detection, highest first: position, sign (+1 brighter, -1 fainter than the template),
            signal-to-noise ratio, PSF and aperture flux, shape, and flags that say why to doubt it (`flag_names`).
            The columns are those of docs/schema.md.
        """
        unit = default_unit()
        detection = unit.detection.model_copy(update={"threshold": float(threshold)})
        unit = unit.model_copy(update={"detection": detection})
        zero = ZeroPoint(zero_point, math.nan, 0, math.nan)
        found = extract(self, self.pair, unit, zero_point=zero, template_id="")
        table = to_table(found.select(COLUMNS), threshold=float(threshold), verdict=self.verdict)
        for name in ("flux", "flux_err", "flux_aperture", "flux_aperture_err"):
            table[name].unit = self.unit
        texts = [" ".join(names(int(bits))).lower() for bits in table["flags"]]
        table["flag_names"] = np.array(texts, dtype=str)
        table["flag_names"].description = "names of the flags"
        return table

    def plot(self, detections: Table | None = None, *, threshold: float = 5.0) -> Figure:
        """Draw science, template and difference side by side, with a circle round each detection.

        Parameters
        ----------
        detections : astropy.table.Table, optional
            What to circle; by default what `detect` finds above `threshold`.
        threshold : float, optional
            Signal-to-noise ratio.

        Returns
        -------
        matplotlib.figure.Figure
            The figure; a notebook shows it where it is the last value of a cell.
        """
        import matplotlib

        found = self.detect(threshold) if detections is None else detections
        window = Window(self.shape)
        ny, nx = self.shape
        with matplotlib.rc_context({**STYLE, "figure.facecolor": "white", "savefig.facecolor": "white"}):
            figure = _figure_of_notebooks((12.0, float(np.clip(3.75 * ny / nx, 1.8, 9.0)) + 0.75))
            axes = figure.subplots(1, 3, sharex=True, sharey=True)
            _draw_sky(axes[0], window, self.pair.science.data, title="Science")
            _draw_sky(axes[1], window, self.pair.template.data, title="Template")
            self._draw_difference(axes[2], window, found)
            figure.suptitle(self._title(), x=0.005, ha="left", fontsize=9.0, color="#3a434d")
        return figure

    def _draw_difference(self, axis: Axes, window: Window, found: Table) -> None:
        sigma = np.sqrt(np.median(window.blocks(self.variance)))
        shown = _binned(window, np.where(self.mask == 0, self.data, np.float32(np.nan))) / sigma
        axis.set_facecolor("#dfe3e8")
        axis.imshow(shown, origin="lower", cmap="gray", vmin=-5, vmax=5, extent=window.extent, interpolation="nearest")
        sign, flags = np.asarray(found["sign"]), np.asarray(found["flags"]) & ~Flag.NEGATIVE.value
        for some, colour, label in (
            ((flags == 0) & (sign > 0), COLOURS[1], "brighter"), ((flags == 0) & (sign < 0), COLOURS[0], "fainter"),
            (flags != 0, COLOURS[3], "flagged"),
        ):  # fmt: skip
            x, y = np.asarray(found["x"])[some], np.asarray(found["y"])[some]
            axis.plot(x, y, "o", mfc="none", mec=colour, ms=9, mew=1.3, label=f"{len(x)} {label}")
        axis.legend(loc="lower right", bbox_to_anchor=(1.02, 0.98), ncols=3, handletextpad=0.0, columnspacing=0.6)
        _finish(axis, window, "Difference (±5σ)")

    def _title(self) -> str:
        reasons = f": {'; '.join(self.reasons)}" if self.reasons else ""
        return f"{self.method}, FWHM {self.psf.fwhm:.2f} px, verdict {self.verdict}{reasons}"

    def __repr__(self) -> str:
        ny, nx = self.shape
        return f"<DifferenceImage {nx} x {ny} pixels, {self._title()}>"

    def _repr_html_(self) -> str:
        ny, nx = self.shape
        rows = {
            "Difference": f"{nx} × {ny} pixels, {self.unit.to_string() or 'no unit'}",
            "Method": self.method + (f" ({self.choice})" if self.choice else ""),
            "Registration": self.registration,
            "Verdict": self.verdict + (f": {'; '.join(self.reasons)}" if self.reasons else ""),
            "PSF": f"FWHM {self.psf.fwhm:.2f} px; {self.convolved} convolved",
            "Noise": f"{self.metrics.get('noise_scale', math.nan):.3f} of that expected",
        }
        cells = "".join(f"<tr><th>{html.escape(k)}</th><td>{html.escape(v)}</td></tr>" for k, v in rows.items() if v)
        return f"<table>{cells}</table>"


def _figure_of_notebooks(size: tuple[float, float]) -> Figure:
    """Make a figure that notebooks show with and without pyplot."""
    from matplotlib.figure import Figure

    class Picture(Figure):
        def _repr_png_(self) -> bytes:
            buffer = io.BytesIO()
            self.savefig(buffer, format="png", dpi=100)
            return buffer.getvalue()

    return Picture(figsize=size, layout="constrained")


def _draw_sky(axis: Axes, window: Window, image: npt.NDArray[np.float32], *, title: str) -> None:
    from matplotlib.colors import AsinhNorm

    shown = _binned(window, image)
    values = shown[np.isfinite(shown)]
    low, middle, high = np.percentile(values, (15.87, 50.0, 99.7)) if len(values) else (-1.0, 0.0, 1.0)
    sigma = max(float(middle - low), 1e-6)
    norm = AsinhNorm(6.0 * sigma, middle - 4.0 * sigma, max(float(high), middle + 30.0 * sigma))
    axis.imshow(shown, origin="lower", cmap="gray", norm=norm, extent=window.extent, interpolation="nearest")
    _finish(axis, window, title)


def _binned(window: Window, image: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Mean of the finite pixels of each block, NaN where there are none."""
    blocks = window.blocks(image)
    good = np.isfinite(blocks)
    count = good.sum(axis=2)
    total = np.where(good, blocks, np.float32(0)).sum(axis=2, dtype=np.float64)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _finish(axis: Axes, window: Window, title: str) -> None:
    axis.set_title(title)
    axis.grid(False)
    axis.set_xlim(window.extent[:2])
    axis.set_ylim(window.extent[2:])
    axis.tick_params(length=2)
