"""An archive around a made-up event: one counterpart, and one candidate of each kind that is none."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nightsift.archive import ledger
from nightsift.archive.candidates import write_candidates
from nightsift.archive.paths import Archive
from nightsift.context.hosts import HostCatalogue
from nightsift.context.known_objects import KnownPositions, Movers
from nightsift.context.movers import movers_in_field
from nightsift.context.orbits import Orbits
from nightsift.core import tables
from nightsift.core.frames import Stamps
from nightsift.io.parquet import write_stamps
from nightsift.sky.fields import SkyField, square_field
from nightsift.skyalerts.event_store.targets import Target
from nightsift.skyalerts.notices.skyalert import ErrorRegion, SkyAlert
from nightsift.skyalerts.products.rank import Catalogues
from nightsift.skyalerts.skymaps.skymap import SkyMap, skymap_of

T0 = 61364.25
EVENT = "S261120ab"
NIGHT = "2026-11-20"
SIZE = 21

DISTANCE, WIDTH = 200.0, 40.0


@dataclass
class MadeUp:
    """An archive that is filled exposure by exposure."""

    archive: Archive
    ra: float
    dec: float
    n: int = 0
    ids: dict[str, list[str]] = field(default_factory=dict)

    def expose(self, hours: float, seen: dict[str, dict[str, Any]], unit: str = "one", **changes: Any) -> str:
        """Add an exposure `hours` after the event that shows the named objects."""
        self.n += 1
        mjd = T0 + hours / 24.0
        one = f"{unit}-{self.n:016d}"
        night = changes.pop("night", NIGHT)
        rows = []
        for number, (name, facts) in enumerate(seen.items()):
            self.ids.setdefault(name, []).append(f"{one}-{number}")
            rows.append(detection(f"{one}-{number}", one, unit, night, mjd, number, facts))
        table = tables.table(rows, tables.CANDIDATES) if rows else tables.CANDIDATES.empty_table()
        write_candidates(self.archive, night, unit, one, table)
        write_stamps(
            self.archive.stamps(night, unit, one), [row["candidate_id"] for row in rows], stamps(self.n, len(rows))
        )
        row = {
            "exposure_id": one, "unit": unit, "night": night, "state": "done", "reason": "", "message": "",
            "facts": "{}", "url": f"somewhere/frame-{self.n}.fits", "checksum": "00", "field": "f1", "band": "L",
            "mjd": mjd, "exposure_s": 60.0, "ra": self.ra, "dec": self.dec, "area": 4.0, "seeing": 2.5,
            "limiting_mag": 20.5, "verdict": "good", "n_candidates": len(rows), "n_unflagged": len(rows),
            "n_accepted": 0, "seconds": 1.5, "stage_seconds": "{}", "provenance": "p", "version": "0",
        }  # fmt: skip
        ledger.record(self.archive, {**row, **changes})
        return one


def detection(
    one: str, exposure: str, unit: str, night: str, mjd: float, number: int, facts: dict[str, Any]
) -> dict[str, Any]:
    row = {
        "candidate_id": one, "exposure_id": exposure, "unit": unit, "night": night, "field": "f1", "band": "L",
        "mjd": mjd, "x": 10.0, "y": 12.0, "sign": 1, "snr": 15.0, "n_pixels": 9, "elongation": 1.1, "flux": 100.0,
        "flux_err": 10.0, "flux_aperture": 90.0, "flux_aperture_err": 12.0, "mag": 18.5, "mag_err": 0.07,
        "dipole": 0.0, "masked_fraction": 0.0, "flags": 0, "template_id": "t", "stamp_index": number, "score": 0.95,
        "score_std": 0.02,
    }  # fmt: skip
    return {**row, **facts}


def stamps(seed: int, n: int) -> Stamps:
    """Noise, with a source in science and difference."""
    data = np.random.default_rng(seed).normal(0, 1, (n, SIZE, SIZE, 3)).astype(np.float32)
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    star = 30.0 * np.exp(-(x**2 + y**2) / 6.0).astype(np.float32)
    galaxy = 40.0 * np.exp(-np.hypot(x - 4, 1.6 * (y + 3)) / 2.5).astype(np.float32)
    data[..., 0] += star + galaxy
    data[..., 1] += galaxy
    data[..., 2] += star
    return Stamps(data, np.zeros((n, SIZE, SIZE), dtype=bool))


def orbits() -> Orbits:
    """One minor planet of the main belt."""
    one = {
        "epoch": T0,
        "a": 2.6,
        "e": 0.1,
        "inclination": 0.2,
        "node": 1.0,
        "peri": 2.0,
        "anomaly": 0.5,
        "H": 12.0,
        "G": 0.15,
    }
    return Orbits(np.array(["K26W01A"]), **{name: np.array([value]) for name, value in one.items()})


def mover_at(hours: float) -> tuple[float, float]:
    """Where the minor planet stands."""
    found = movers_in_field(orbits(), T0 + hours / 24.0, 0.0, dec=0.0, radius=180.0)
    return float(found.ra[0]), float(found.dec[0])


def at(ra: float, dec: float, east: float = 0.0, north: float = 0.0, **facts: Any) -> dict[str, Any]:
    """A place some arcseconds from another."""
    return {"ra": ra + east / 3600.0 / np.cos(np.deg2rad(dec)), "dec": dec + north / 3600.0, **facts}


def skymap_at(ra: float, dec: float, radius: float = 3.0, distance: float | None = DISTANCE) -> SkyMap:
    """A round map, the same distance everywhere."""
    plain = skymap_of(ErrorRegion(ra, dec, radius, radius, 0.9))
    if distance is None:
        return plain
    ones = np.ones(len(plain))
    return SkyMap(
        plain.level, plain.pixel, plain.probability, distance * ones, WIDTH * ones, ones / (distance**2 + WIDTH**2)
    )


def galaxies(*placed: tuple[str, float, float, float, float]) -> HostCatalogue:
    """Galaxies of name, place, distance and error, among many of anywhere."""
    rng = np.random.default_rng(5)
    n = 20000
    ra, dec = rng.uniform(0, 360, n), np.rad2deg(np.arcsin(rng.uniform(-1, 1, n)))
    distance = 600.0 * rng.uniform(0.0002, 1, n) ** (1 / 3)
    mag = -20.5 + rng.normal(0, 0.8, n) + 5 * np.log10(distance) + 25
    name = np.array([*(one[0] for one in placed), *(f"G{k}" for k in range(n))], dtype=object)
    column: dict[str, npt.NDArray[Any]] = {
        "ra": ra,
        "dec": dec,
        "distance": distance,
        "distance_err": 0.1 * distance,
        "mag": mag,
    }
    extra = {"ra": 1, "dec": 2, "distance": 3, "distance_err": 4}
    full = {key: np.append([one[extra[key]] for one in placed] if key in extra else [15.0] * len(placed), values)
            for key, values in column.items()}  # fmt: skip
    m = len(name)
    return HostCatalogue(name, full["ra"], full["dec"], np.full(m, 8.0), np.full(m, 0.6), np.full(m, 30.0),
                         full["mag"], full["distance"], full["distance_err"])  # fmt: skip


def skyalert_of(**changes: Any) -> SkyAlert:
    facts: dict[str, Any] = {
        "event": EVENT, "revision": 1, "kind": "initial", "role": "observation", "sent": T0 + 0.01, "t0": T0,
        "time_scale": "utc", "sender": "LIGO, Virgo, KAGRA", "significant": True, "far": 1e-9,
        "classification": (("BNS", 0.9), ("Terrestrial", 0.1)), "properties": (("HasNS", 1.0),),
        "instruments": ("H1", "L1"), "url": "https://gracedb.example/S261120ab",
    }  # fmt: skip
    return SkyAlert(**{**facts, **changes})


def fields_at(ra: float, dec: float) -> tuple[SkyField, ...]:
    """Nine fields of two degrees around a place."""
    wide = 2.0 / np.cos(np.deg2rad(dec))
    return tuple(
        square_field(f"T{3 * j + i:02d}", (ra + (i - 1) * wide) % 360.0, dec + (j - 1) * 2.0, width=2.0, grid="made-up")
        for j in range(3) for i in range(3)
    )  # fmt: skip


def target_of(ra: float, dec: float, state: Any = "active") -> Target:
    fields = fields_at(ra, dec)
    return Target(EVENT, T0, T0 + 3.0, state, fields, tuple(np.linspace(0.3, 0.02, len(fields))), (), 1)


def fill(folder: Path) -> tuple[MadeUp, Catalogues]:
    """Write the archive; the event lies around the minor planet."""
    ra, dec = mover_at(2.0)
    made = MadeUp(Archive(folder), ra, dec)
    counterpart, far_host = at(ra, dec, 900, 700), at(ra, dec, -1100, 800)
    hosts = galaxies(
        ("RIGHT", counterpart["ra"], counterpart["dec"], 205.0, 5.0),
        ("FAR", far_host["ra"], far_host["dec"], 900.0, 30.0),
    )
    sky = {
        "counterpart": at(counterpart["ra"], counterpart["dec"], 6, -4),
        "far": at(far_host["ra"], far_host["dec"], 5, 3),
        "variable": at(ra, dec, -700, -300), "older": at(ra, dec, 400, -1200), "nucleus": at(ra, dec, 1500, -200),
        "bogus": at(ra, dec, 200, 1300, score=0.03), "dipole": at(ra, dec, 1200, 1200, flags=32),
    }  # fmt: skip
    once = at(ra, dec, -300, 900, mag=18.0)
    mover = mover_at(2.0)
    before = {"older": sky["older"], "variable": sky["variable"]}
    made.expose(-72.0, before, night="2026-11-17")
    made.expose(-30.0, before, night="2026-11-18")
    made.expose(2.0, {**sky, "once": once, "mover": at(*mover)})
    made.expose(2.1, sky, unit="two")
    made.expose(4.0, sky)
    made.expose(5.0, {**sky, "lost": {"ra": None, "dec": None}}, unit="two", limiting_mag=21.0)
    stars = KnownPositions("vsx", "star", np.array([sky["variable"]["ra"]]), np.array([sky["variable"]["dec"]]))
    nuclei = KnownPositions("milliquas", "nucleus", np.array([sky["nucleus"]["ra"]]), np.array([sky["nucleus"]["dec"]]))
    return made, Catalogues(hosts, (stars, nuclei), Movers(orbits()))
