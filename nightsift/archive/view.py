"""An archive as people read it: nights, candidates, stamps, light curves and templates, in the types of astropy.

`nightsift.open` makes an `ArchiveView`. Nothing is ever written.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from nightsift.archive import ledger
from nightsift.archive.candidates import read_candidates
from nightsift.archive.paths import Archive
from nightsift.archive.survey import Survey, load_survey
from nightsift.archive.templates import read_template
from nightsift.core.errors import ConfigurationError, NotInArchive
from nightsift.core.frames import Stamps
from nightsift.core.tables import CANDIDATES, LEDGER
from nightsift.core.to_astropy import to_ccddata, to_table
from nightsift.io.parquet import numbers, read_stamps
from nightsift.sky.sphere import separation
from nightsift.unit.units import load_unit

if TYPE_CHECKING:
    from astropy.nddata import CCDData
    from astropy.table import Table

INSIDE = 0.9
"""Part of the half side of a square of the area searched within which an exposure is sure to show a position."""

OF_EXPOSURE = (
    "mjd", "night", "unit", "field", "band", "exposure_id", "exposure_s", "seeing", "limiting_mag", "zero_point",
    "verdict",
)  # fmt: skip
OF_CANDIDATE = (
    "candidate_id", "ra", "dec", "sign", "snr", "flux", "flux_err", "mag", "mag_err", "score", "score_std", "flags",
)  # fmt: skip
LIGHT_CURVE = pa.schema(
    [LEDGER.field(name).with_nullable(True) for name in OF_EXPOSURE]
    + [CANDIDATES.field(name).with_nullable(True) for name in OF_CANDIDATE]
    + [pa.field("separation", pa.float64(), metadata={"unit": "arcsec", "description": "distance from the position"})]
)
TEMPLATES = pa.schema(
    [
        pa.field(name, pa.string(), nullable=False, metadata={"description": text})
        for name, text in (
            ("unit", "telescope unit"), ("field", "sky field"), ("band", "filter"), ("file", "newest template"),
        )
    ]
)  # fmt: skip


class ArchiveView:
    """What lies in an archive, to be looked at.

    Parameters
    ----------
    archive : str or Path
        Folder of the archive, or a survey file, which says where its archive lies.

    Attributes
    ----------
    archive : Archive
        Its paths.
    survey : Survey or None
        The survey, where its file was given.

    Raises
    ------
    NotInArchive
        If the folder is not there or holds no archive.
    ConfigurationError
        If the survey file is wrong.
    """

    def __init__(self, archive: str | Path) -> None:
        place = Path(archive).expanduser()
        self.survey: Survey | None = load_survey(place) if place.suffix == ".toml" else None
        root = self.survey.archive if self.survey is not None else place
        if not any(any(root.glob(kind)) for kind in ("ledger", "templates/unit=*", "versions/*/ledger")):
            inside = sorted(one.name for one in place.glob("*.toml")) if place.is_dir() else []
            advice = f"open {place / inside[0]}" if inside else "name the folder of an archive, or a survey file"
            raise NotInArchive(archive=str(root), what="folder", name="ledger", advice=advice)
        self.archive = Archive(root)

    def nights(self) -> list[str]:
        """Return the nights with exposures, the latest last."""
        return self.archive.nights()

    def units(self) -> list[str]:
        """Return the names of the units with exposures."""
        folders = {path.parent.name for path in self.archive.tables("ledger")}
        return sorted(unquote(name.partition("=")[2]) for name in folders)

    def exposures(self, night: str | None = None, unit: str | None = None, *, state: str | None = None) -> Table:
        """Return the ledger: one row an exposure, whatever became of it.

        Parameters
        ----------
        night, unit : str, optional
            Only these; all when None.
        state : str, optional
            Only those that are done, refused, failed or waiting.

        Returns
        -------
        astropy.table.Table
            The rows, by time.

        Raises
        ------
        NotInArchive
            If there is no such night, unit or state.
        """
        self._check(night, unit)
        if state is not None and state not in ledger.STATES:
            raise self._unknown("state", state, ledger.STATES)
        rows = ledger.read(self.archive, night, unit)
        return to_table(rows if state is None else rows.filter(pc.equal(rows["state"], state)))

    def candidates(self, night: str | None = None, unit: str | None = None, *, accepted: bool | None = None) -> Table:
        """Return the candidates.

        Parameters
        ----------
        night, unit : str, optional
            Only these; all when None.
        accepted : bool, optional
            True for those without a flag whose score reaches the threshold of their unit, False for the others.

        Returns
        -------
        astropy.table.Table
            One row a candidate, all columns of docs/schema.md; without rows where none was found.

        Raises
        ------
        NotInArchive
            If there is no such night or unit.
        ConfigurationError
            If the threshold of a unit is not known, as without a survey file.
        """
        self._check(night, unit)
        found = read_candidates(self.archive, night, unit)
        if accepted is not None:
            found = found.filter(pa.array(self._accepted(found) == accepted))
        return to_table(found)

    def stamps(self, candidate_id: str | Iterable[str]) -> Stamps:
        """Return the stamps of candidates.

        Parameters
        ----------
        candidate_id : str or iterable of str
            One candidate, or several, as a column of `candidates` has them.

        Returns
        -------
        Stamps
            In the order asked for: ``science``, ``template`` and ``difference`` of shape (n, size, size), and ``mask``
            of the same shape, true where a pixel is bad. They are what `models.score` takes.

        Raises
        ------
        NotInArchive
            If there is no such candidate.
        """
        wanted = [candidate_id] if isinstance(candidate_id, str) else [str(one) for one in candidate_id]
        files = {unquote(path.stem): path for path in self.archive.tables("stamps")} if wanted else {}
        parts: dict[str, Stamps] = {}
        for exposure in dict.fromkeys(name.rpartition("-")[0] for name in wanted):
            asked = [name for name in wanted if name.rpartition("-")[0] == exposure]
            ids, stamps = read_stamps(files[exposure]) if exposure in files else ([], None)
            row_of = {name: row for row, name in enumerate(ids)}
            for name in asked:
                if name not in row_of or stamps is None:
                    raise self._unknown("candidate", name, ids or sorted(files))
                row = row_of[name]
                parts[name] = Stamps(stamps.data[row : row + 1], stamps.mask[row : row + 1])
        if not wanted:
            return Stamps(np.zeros((0, 1, 1, 3), np.float32), np.zeros((0, 1, 1), np.bool_))
        data, mask = (np.concatenate([getattr(parts[name], kind) for name in wanted]) for kind in ("data", "mask"))
        return Stamps(data, mask)

    def light_curve(self, ra: float, dec: float, radius: float | None = None) -> Table:
        """Return what was found at a position over time, and how deep exposures went that found nothing.

        Parameters
        ----------
        ra, dec : float
            Position, ICRS (deg).
        radius : float, optional
            Distance within which a candidate counts (arcsec); by default the larger of 2 and half the seeing.

        Returns
        -------
        astropy.table.Table
            One row for each reduced exposure that shows the position, by time: the nearest candidate, masked where
            there is none, and ``limiting_mag``, the depth of the exposure. Fluxes of every exposure, whether
            something was found there or not, are measured by ``nightsift photometry``.
        """
        exposures = ledger.read(self.archive)
        exposures = exposures.filter(pc.equal(exposures["state"], "done"))
        seeing = numbers(exposures, "seeing")
        reach = np.full(len(seeing), radius) if radius else np.maximum(2.0, 0.5 * np.nan_to_num(seeing))
        found = read_candidates(self.archive)
        apart = 3600.0 * separation(ra, dec, numbers(found, "ra"), numbers(found, "dec"))
        some = np.flatnonzero(apart <= reach.max(initial=0.0))
        nearest = _nearest(found.take(pa.array(some)), apart[some])
        shown = _shows(exposures, ra, dec)
        rows = []
        for k, name in enumerate(exposures["exposure_id"].to_pylist()):
            distance, candidate = nearest.get(name, (np.inf, {}))
            if distance > reach[k]:
                candidate = {}
            if candidate or shown[k]:
                (own,) = exposures.select(OF_EXPOSURE).slice(k, 1).to_pylist()
                rows.append(own | {one: candidate.get(one) for one in (*OF_CANDIDATE, "separation")})
        return to_table(pa.Table.from_pylist(rows, schema=LIGHT_CURVE), ra=ra, dec=dec)

    def templates(self) -> Table:
        """Return unit, field, band and newest file of all templates."""
        rows = []
        for folder in sorted((self.archive.home / "templates").glob("unit=*/field=*/band=*")):
            files = [one for one in folder.glob("*.fits") if not one.name.startswith(".")]
            if files:
                keys = (unquote(part.partition("=")[2]) for part in folder.parts[-3:])
                newest = max(files, key=lambda one: one.stat().st_mtime_ns)
                rows.append(dict(zip(TEMPLATES.names, (*keys, str(newest)), strict=True)))
        return to_table(pa.Table.from_pylist(rows, schema=TEMPLATES))

    def template(self, unit: str, field: str, band: str) -> CCDData:
        """Return the newest template of a field.

        Parameters
        ----------
        unit, field, band : str
            Of which unit, field and filter.

        Returns
        -------
        astropy.nddata.CCDData
            Sky-subtracted image with variance, mask, flags, WCS and, as meta, its identity and facts.

        Raises
        ------
        NotInArchive
            If there is none.
        """
        known = self.templates()
        names = [f"{row['unit']} {row['field']} {row['band']}" for row in known]
        asked = f"{unit} {field} {band}"
        if asked not in names:
            raise self._unknown("template", asked, names)
        read = read_template(known["file"][names.index(asked)])
        frame, facts = read.frame, read.frame.meta
        meta = {
            "TEMPLATE": read.template_id, "NFRAMES": len(read.sources), "MAGZERO": read.zero_point, "UNIT": facts.unit,
            "FIELD": facts.field, "BAND": facts.band, "GAIN": facts.gain, "RDNOISE": facts.read_noise, "SKY": frame.sky,
        }  # fmt: skip
        return to_ccddata(frame.data, frame.variance, frame.mask, unit="adu", wcs=frame.wcs, meta=meta)

    def _accepted(self, found: pa.Table) -> npt.NDArray[np.bool_]:
        units = np.array(found["unit"].to_pylist(), dtype=str)
        least = np.full(len(units), np.inf)
        for name in np.unique(units):
            least[units == name] = self._threshold(str(name))
        return np.asarray((found["flags"].to_numpy() == 0) & (numbers(found, "score") >= least))

    def _threshold(self, unit: str) -> float:
        try:
            loaded = self.survey.load_unit(unit) if self.survey is not None else load_unit(unit)
        except ConfigurationError as error:
            raise ConfigurationError(
                file=str(self.archive.root), table="model", key="threshold",
                what=f"that of unit '{unit}' is not known ({error})", advice="open the survey file, or choose by score",
            ) from error  # fmt: skip
        return loaded.model.threshold

    def _check(self, night: str | None, unit: str | None) -> None:
        if night is not None and night not in (nights := self.archive.nights(undated=True)):
            raise self._unknown("night", night, nights)
        if unit is not None and unit not in (units := self.units()):
            raise self._unknown("unit", unit, units)

    def _unknown(self, what: str, name: str, known: Sequence[str]) -> NotInArchive:
        close = difflib.get_close_matches(name, known, n=1)
        listed = ", ".join(known[:12]) + (f" and {len(known) - 12} others" if len(known) > 12 else "")
        advice = f"did you mean '{close[0]}'? " if close else ""
        advice += f"there {'is' if len(known) == 1 else 'are'} {listed or 'none'}"
        return NotInArchive(archive=str(self.archive.root), what=what, name=name, advice=advice)

    def __repr__(self) -> str:
        nights = self.nights()
        when = f"{len(nights)} nights, {nights[0]} to {nights[-1]}" if nights else "no nights"
        return f"<archive {self.archive.root}: {when}, units {', '.join(self.units()) or 'none'}>"


def _nearest(near: pa.Table, apart: npt.NDArray[np.float64]) -> dict[str, tuple[float, dict[str, Any]]]:
    """Distance and row of the nearest candidate of each exposure."""
    found: dict[str, tuple[float, dict[str, Any]]] = {}
    rows = near.to_pylist()
    for k in np.argsort(apart, kind="stable"):
        distance = float(apart[k])
        found.setdefault(rows[k]["exposure_id"], (distance, {**rows[k], "separation": distance}))
    return found


def _shows(exposures: pa.Table, ra: float, dec: float) -> npt.NDArray[np.bool_]:
    """Whether each exposure is sure to show a position, by its centre and the area searched."""
    centre_ra, centre_dec, area = (numbers(exposures, name) for name in ("ra", "dec", "area"))
    with np.errstate(invalid="ignore"):
        return np.asarray(separation(ra, dec, centre_ra, centre_dec) <= INSIDE * 0.5 * np.sqrt(area))
