"""Units that are watched: their calibration sets and nights, what their verdicts depend on, the page of a night."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from models.night_channels import NightData, Reference
from nightsift.drift_plots import MOST_NIGHTS
from nightsift.io.atomic import atomic
from nightsift.io.parquet import read_tables
from nightsift.io.paths import Archive
from nightsift.report.drift import render
from nightsift.tables import MONITORING
from nightsift.units import Unit
from tasks.monitor import injected_by, read_night
from tasks.references import CalibrationSet
from tasks.verdict_inputs import UnitInputs


@dataclass(frozen=True, slots=True)
class StoredReference:
    """What other units need of a calibration set: its values by channel, as they were stored."""

    values: dict[str, npt.NDArray[np.float64]]


@dataclass(slots=True, eq=False)
class Watched:
    """A unit that is watched.

    Attributes
    ----------
    unit : Unit
        The unit.
    model : str
        Identity of model and calibration that serve it now.
    inputs : UnitInputs
        What its verdicts depend on.
    asked : bool
        Whether its nights are to be judged; others lend their scatter and share the alarms of a night.
    known : CalibrationSet or None
        Its calibration set; None where there are too few nights.
    reference : Reference or None
        The same, learnt.
    why : str
        Why it has none.
    nights : dict of str to NightData
        Nights read so far.
    values : dict of str to dict
        Their values by channel.
    """

    unit: Unit
    model: str
    inputs: UnitInputs
    asked: bool = True
    known: CalibrationSet | None = None
    reference: Reference | None = None
    why: str = ""
    nights: dict[str, NightData] = field(default_factory=dict)
    values: dict[str, dict[str, float]] = field(default_factory=dict)

    def read(self, night: str) -> NightData:
        """Read a night, once."""
        if night not in self.nights:
            self.nights[night] = read_night.fn(self.inputs.archive, self.unit, night)
        return self.nights[night]

    def is_calibration(self, night: str) -> bool:
        """Whether a night is one of the calibration set."""
        return self.known is not None and night in self.known.nights


def present_in(watched: Sequence[Watched], night: str) -> list[Watched]:
    """Return the units that have exposures in a night.

    Parameters
    ----------
    watched : sequence of Watched
        All units.
    night : str
        Night label.

    Returns
    -------
    list of Watched
        In their order.
    """
    return [one for one in watched if night in one.inputs.nights]


def write_page(
    archive: Archive,
    watched: Sequence[Watched],
    now: str,
    *,
    titles: Mapping[str, str],
    survey: str,
    rate: float,
    problems: Sequence[str],
) -> None:
    """Write the page of drift of a night.

    Parameters
    ----------
    archive : Archive
        The archive.
    watched : sequence of Watched
        All units.
    now : str
        The night; its verdicts are written.
    titles : mapping of str to str
        What each channel is.
    survey : str
        Survey file, for the commands that are proposed.
    rate : float
        False alarms a unit-night that are accepted.
    problems : sequence of str
        What went wrong.
    """
    names = pa.array([one.unit.name for one in watched])
    nights = [night for night in archive.nights("monitoring") if night <= now][-MOST_NIGHTS:]
    table = read_tables([path for night in nights for path in archive.tables("monitoring", night)], MONITORING)
    history = table.filter(pc.is_in(table["unit"], names)).to_pylist()
    logits, injections = {}, {}
    for one in watched:
        if one.reference is None or one.known is None or now not in one.nights:
            continue
        logits[one.unit.name] = (one.nights[now].logits, np.concatenate([n.logits for n in one.reference.nights]))
        tonight, before = (
            injected_by(archive, one.unit.name, n, one.inputs.pipeline) for n in ([now], one.known.nights)
        )
        injections[one.unit.name] = (tonight.to_pylist(), before.to_pylist())
    page = render(
        now, history, titles, logits, injections, Path(survey).name, str(archive.home / "models"), rate, problems
    )
    with atomic(archive.report(now, "drift")) as temporary:
        temporary.write_text(page, encoding="utf-8")
