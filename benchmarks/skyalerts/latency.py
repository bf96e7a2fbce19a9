"""How long an alert takes: from notice to ranked fields, and from an exposure on disk to its candidates in the table.

    python benchmarks/skyalerts/latency.py [--size 4096] [--repeat 5] [--no-exposure] [--no-night]

The first part ranks two grids of square fields (4.2 and 5.5 deg, the whole sky) by a multi-order map within one warm
process, 100 fields wanted, from the bytes of the notice to ``targets.json`` on disk. The second starts ``nightsift
alert listen`` on a simulated survey, lets it reduce one exposure, which makes it warm, and then moves the next ones
into the folder of frames: measured is the time until the ranked table holds each. Beside it a second process reduces
the first exposure again and again, as a night does.
"""

from __future__ import annotations

import argparse
import base64
import dataclasses
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from astropy.io import fits
from astropy_healpix import healpix_to_xyz, level_ipix_to_uniq

from flows.templates import build_templates
from nightsift.archive.skyalert_options import Tiling
from nightsift.archive.survey import Runner, Survey
from nightsift.core.times import mjd_of
from nightsift.simulate.options import SimulationOptions
from nightsift.simulate.survey import simulate
from nightsift.skyalerts.event_store.inbox import receive
from nightsift.skyalerts.skyalert_session import SkyAlertSession

NIGHT = """
import sys
from nightsift.archive.paths import Archive
from nightsift.unit.units import load_unit
from tasks.reduce import reduce_file
url, unit, archive = sys.argv[1:]
while True:
    reduce_file(url, load_unit(unit), Archive(archive), redo=True)
"""
MODULE = [sys.executable, "-c", "from nightsift.cli import main; main()"]


def skymap(ra: float, dec: float, width: float, level: int) -> bytes:
    """A multi-order map with distances: a blob of `width` degrees on cells of 4 levels, finest around it."""
    parts = []
    pixel = np.arange(12 * 4 ** (level - 3))
    for depth in range(level - 3, level + 1):
        points = np.stack(healpix_to_xyz(pixel, 2**depth, order="nested"), axis=-1)
        a, d = np.radians(ra), np.radians(dec)
        away = np.degrees(np.arccos(np.clip(points @ [np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)], -1, 1)))
        split = (away < 6.0 * width / 2 ** (depth - level + 3)) & (depth < level)
        parts.append((np.full((~split).sum(), depth), pixel[~split], np.exp(-0.5 * (away[~split] / width) ** 2)))
        pixel = (np.repeat(pixel[split] << 2, 4).reshape(-1, 4) + np.arange(4)).ravel()
    depth, pixel, density = (np.concatenate(one) for one in zip(*parts, strict=True))
    density /= (density * 4.0 * np.pi / (12.0 * 4.0**depth)).sum()
    columns = {"PROBDENSITY": density, "DISTMU": 150.0, "DISTSIGMA": 40.0, "DISTNORM": 1.0 / (150.0**2 + 40.0**2)}
    made = [fits.Column("UNIQ", "K", array=level_ipix_to_uniq(depth, pixel))]
    made += [fits.Column(name, "D", array=np.broadcast_to(one, len(pixel))) for name, one in columns.items()]
    out = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(made)]).writeto(out)
    return out.getvalue()


def notice(t0: datetime, minute: int, content: bytes) -> bytes:
    """A notice as ``igwn.gwalert`` brings it."""
    event = {"time": f"{t0:%Y-%m-%dT%H:%M:%S.000Z}", "far": 1e-12, "significant": True, "instruments": ["H1", "L1"],
             "group": "CBC", "pipeline": "gstlal", "search": "AllSky", "classification": {"BNS": 1.0}, "properties": {},
             "skymap": base64.b64encode(content).decode()}  # fmt: skip
    made = t0 + timedelta(minutes=minute)
    return json.dumps({"alert_type": "UPDATE", "time_created": f"{made:%Y-%m-%dT%H:%M:%SZ}", "urls": {}, "event": event,
                       "superevent_id": "S261120ab", "external_coinc": None}).encode()  # fmt: skip


def whole_sky(path: Path, step: float) -> Tiling:
    """A grid of square fields over the whole sky."""
    rows = []
    for dec in np.linspace(-90, 90, round(180 / step) + 1):
        count = max(1, round(360 * np.cos(np.radians(dec)) / step))
        rows += [f"{len(rows) + k} {360 * k / count:.4f} {dec:.4f}" for k in range(count)]
    path.write_text("\n".join(rows))
    return Tiling(name=path.stem, file=str(path), width=step)  # type: ignore[call-arg]


def fields(repeat: int, folder: Path) -> None:
    """From the notice to ranked fields."""
    grids = (whole_sky(folder / "g42.txt", 4.2), whole_sky(folder / "g55.txt", 5.5))
    survey = Survey.for_folder(folder, "decam", folder / "archive")
    survey = survey.model_copy(update={"alert": survey.alert.model_copy(update={"tilings": grids})})
    session = SkyAlertSession(survey, {"decam": survey.load_unit("decam")})
    began = datetime.now(UTC) - timedelta(hours=3)
    for name, width, level in (("narrow, 2 deg", 2.0, 9), ("wide, 25 deg", 25.0, 6)):
        walls, cpus = [], []
        content = skymap(60.0, -20.0, width, level)
        for k in range(repeat + 1):
            text = notice(began + timedelta(seconds=int(width)), k, content)
            wall, cpu = time.perf_counter(), time.process_time()
            event = receive(session.archive, text).alert.event
            wanted = len(session.plan(event).target.fields)
            walls.append(time.perf_counter() - wall)
            cpus.append(time.process_time() - cpu)
        print(f"notice -> ranked fields ({name}, {len(session.fields)} fields, {wanted} wanted): median wall "
              f"{np.median(walls[1:]):.2f} s, CPU {np.median(cpus[1:]):.2f} s; first {walls[0]:.2f} s")  # fmt: skip


def exposure(size: int, with_night: bool, folder: Path) -> None:
    """From the last exposure on disk to its candidates in the ranked table."""
    survey, frames, later = prepare(size, folder)
    survey_text = survey.read_text()
    inbox = folder / "notices"
    # the Moon of the day on which this is run is not the subject
    survey.write_text(
        survey_text + f'\n[watch]\npoll = 1\n[alert]\nfolder = "{inbox}"\nhours = 100\nmoon_distance = 0\n'
    )
    mid = fits.getheader(later[0])
    t0 = datetime.fromisoformat(mid["DATE-OBS"]).replace(tzinfo=UTC) - timedelta(hours=1)
    first = frames / later[0].name
    later[0].rename(first)
    inbox.mkdir()
    (inbox / "n.json").write_bytes(notice(t0, 1, skymap(mid["RA"], mid["DEC"], 3.0, 8)))
    ranked = folder / "archive/alerts/S261120ab"
    log = (folder / "log.txt").open("w")
    began = time.perf_counter()
    listener = subprocess.Popen([*MODULE, "alert", "listen", str(survey), "--no-track"], stdout=log, stderr=log)
    night = None
    try:
        wait_for(ranked, first, listener, folder)
        print(f"start and first exposure: {time.perf_counter() - began:.1f} s")
        if with_night:
            unit = next((folder / "units").glob("*.toml"))
            other = folder / "night"
            other.mkdir()
            os.symlink(folder / "archive/templates", other / "templates")
            night = subprocess.Popen([sys.executable, "-c", NIGHT, str(first), str(unit), str(other)])
            time.sleep(20.0)
        for one in later[1:]:
            began = time.perf_counter()
            one.rename(frames / one.name)
            wait_for(ranked, frames / one.name, listener, folder)
            beside = " beside a night" if night else ""
            print(f"exposure on disk -> candidates in the ranked table ({size} x {size}{beside}): "
                  f"{time.perf_counter() - began:.1f} s")  # fmt: skip
    finally:
        for process in (night, listener):
            if process is not None:
                process.terminate()
                process.wait(30)
    rows = pq.read_table(latest(ranked)).num_rows
    print(f"sources ranked: {rows}")


def prepare(size: int, folder: Path) -> tuple[Path, Path, list[Path]]:
    """A survey with its template and an empty folder of frames; exposures that are to come lie beside it."""
    tiny = SimulationOptions.preset("tiny", seed=11, visits=2)
    tonight = f"{datetime.now(UTC) - timedelta(days=1):%Y-%m-%d}"
    unit = dataclasses.replace(tiny.units[0], shape=(size, size))
    options = dataclasses.replace(tiny, units=(unit,), template_frames=2, nights=(tonight,))
    survey = simulate(folder, options, workers=1)
    build_templates(survey, runner=Runner(kind="in-process", workers=1, address=""), track=False)
    later = sorted((folder / "nights").rglob("*.fits"))
    frames = later[0].parent
    waiting = folder / "later"
    waiting.mkdir()
    return survey, frames, [one.rename(waiting / one.name) for one in later]


def wait_for(ranked: Path, frame: Path, listener: subprocess.Popen[bytes], folder: Path) -> None:
    """Wait until the ranked table holds a detection of a frame, known by its time."""
    header = fits.getheader(frame)
    began = mjd_of(datetime.fromisoformat(header["DATE-OBS"]).replace(tzinfo=UTC))
    while True:
        table = latest(ranked)
        times = pq.read_table(table, columns=["last_mjd"])["last_mjd"].to_numpy() if table.is_file() else np.empty(0)
        if (times >= began).any():
            return
        if listener.poll() is not None:
            raise SystemExit((folder / "log.txt").read_text())
        time.sleep(0.05)


def latest(ranked: Path) -> Path:
    """Ranked table of the newest revision."""
    return max(ranked.glob("[0-9][0-9][0-9]/candidates.parquet"), default=ranked / "none")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--no-exposure", action="store_true")
    parser.add_argument("--no-night", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        fields(asked.repeat, Path(folder))
    if not asked.no_exposure:
        with tempfile.TemporaryDirectory() as folder:
            exposure(asked.size, not asked.no_night, Path(folder))


if __name__ == "__main__":
    main()
