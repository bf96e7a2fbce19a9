"""Steps of a reduction that several products share, and the stopwatch that times them."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from nightsift.core.frames import Difference, Frame, Pair, Stamps, StarTable
from nightsift.images.stamps import cut
from nightsift.io.exposures import load_exposure
from nightsift.unit.units import Unit
from subtraction.psf.fit import fit_psf
from tasks.retry import Logger


def ingest(path: Path, unit: Unit, night: str | None = None, *, sha256: str = "", url: str = "") -> Frame:
    """Read one exposure: ADU with sky, variance, mask and facts; `url` is the place that people are shown."""
    frame = load_exposure(path, unit, night, sha256=sha256)
    return frame.replace(meta=dataclasses.replace(frame.meta, path=url or str(path)))


def with_psf(frame: Frame, stars: StarTable, unit: Unit) -> Frame:
    """Return a background-subtracted frame with the PSF fitted to its stars; a negative order leaves it to the fit."""
    order = None if unit.psf.order < 0 else unit.psf.order
    return frame.replace(psf=fit_psf(frame, stars, order=order))


def cut_stamps(pair: Pair, difference: Difference, candidates: pa.Table, *, unit: Unit) -> Stamps:
    """Cut science, template and difference around every candidate: one stamp per candidate, in their order."""
    x, y = candidates["x"].to_numpy(), candidates["y"].to_numpy()
    return cut(pair, difference, x, y=y, size=unit.stamps.size, orientation=unit.stamps.orientation)


class Stopwatch:
    """Wall and processor seconds by stage.

    Attributes
    ----------
    seconds : dict of str to float
        Wall seconds spent in each stage so far, in the order in which the stages began.
    cpu : dict of str to float
        Processor seconds of the whole process in each stage.
    stage : str
        Stage that runs now, or the one that ran last; empty before the first.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.cpu: dict[str, float] = {}
        self.stage = ""
        self._started = time.perf_counter()

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time spent inside the `with` block to a stage, whether it succeeds or raises."""
        self.stage = stage
        began, busy = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - began
            self.cpu[stage] = self.cpu.get(stage, 0.0) + time.process_time() - busy

    @property
    def total(self) -> float:
        """Seconds since the stopwatch was made."""
        return time.perf_counter() - self._started

    def log(self, logger: Logger, label: str) -> None:
        """Write the seconds of all stages as one line, headed by what was timed."""
        parts = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in self.seconds.items())
        logger.info("%s: %.2f s (%s)", label, self.total, parts)
