"""What orchestration costs: exposures that do nothing, in batches, against a real Prefect server.

Two servers are measured, on PostgreSQL and on SQLite: seconds and CPU of orchestration for an exposure, rows and bytes
of the database, memory of this process and of the server over the run. Everything lives in a temporary folder and on
loopback or a unix socket. PostgreSQL is found on the PATH (``initdb``, ``postgres``); where it is not there, or this is
Windows, only SQLite is measured.

    python benchmarks/operations/orchestration.py --exposures 2000 --batch 20 --out bench
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.operations.servers import find_program, postgres, prefect_server

ROOT = Path(__file__).resolve().parents[2]

EXPOSURE_SECONDS = 10.0
"""An exposure of a survey takes about so long to reduce."""

CHILD = """
import sys
from benchmarks.operations.orchestration import no_op_campaign
no_op_campaign(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
"""


@dataclass
class Measured:
    """What one server has cost."""

    database: str
    exposures: int
    batch: int
    wall: float = 0.0
    cpu_parent: float = 0.0
    cpu_server: float = 0.0
    cpu_database: float = 0.0
    rows: dict[str, int] = field(default_factory=dict)
    database_bytes: int = 0
    samples: list[tuple[float, int, float, float]] = field(default_factory=list)

    def grown(self, before: tuple[int, dict[str, int]], after: tuple[int, dict[str, int]]) -> None:
        """Store by how much the database has grown: bytes, and rows by table."""
        self.database_bytes = after[0] - before[0]
        self.rows = {name: n - before[1][name] for name, n in after[1].items() if n != before[1][name]}

    def share(self) -> float:
        """CPU of orchestration over the time of an exposure."""
        return (self.cpu_parent + self.cpu_server + self.cpu_database) / self.exposures / EXPOSURE_SECONDS


def no_op_campaign(exposures: int, batch: int, progress: str) -> None:
    """Run one flow of batches that do nothing, one after the other, and write down how far it is."""
    from prefect import flow, task
    from prefect.cache_policies import NO_CACHE

    @task(name="batch", task_run_name="{label}", persist_result=False, cache_policy=NO_CACHE)
    def nothing(label: str, size: int) -> dict[str, int]:
        return {"done": size}

    @flow(name="backfill", persist_result=False, validate_parameters=False)
    def campaign(number: int) -> None:
        done = 0
        for chunk in range(number):
            done += nothing(f"chunk {chunk}", min(batch, exposures - done))["done"]
            Path(f"{progress}.new").write_text(str(done))
            os.replace(f"{progress}.new", progress)

    campaign(-(-exposures // batch))


def processes_below(pid: int) -> list[int]:
    """A process and all that it has started."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(entry.parent.name))
    found, look = [], [pid]
    while look:
        found.append(look.pop())
        look += children.get(found[-1], [])
    return found


def usage(pid: int) -> tuple[float, float]:
    """CPU seconds and megabytes that a process and its children use now."""
    ticks, pages = 0, 0
    for one in processes_below(pid):
        try:
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            pages += int(Path(f"/proc/{one}/statm").read_text().split()[1])
        except OSError:
            continue
        ticks += sum(int(fields[i]) for i in (11, 12, 13, 14))  # its own, and that of children that have ended
    return ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def watch(
    measured: Measured,
    folder: Path,
    server: int,
    database: int | None,
    environment: dict[str, str],
    count: Callable[[], int],
) -> None:
    """Run the flow in a process of its own, take samples of it and of the servers, and wait for the last rows."""
    progress = folder / "progress"
    start = [usage(server)[0], usage(database)[0] if database else 0.0]
    command = [sys.executable, "-c", CHILD, str(measured.exposures), str(measured.batch), str(progress)]
    began = time.monotonic()
    child = subprocess.Popen(command, env={**environment, "PYTHONPATH": str(ROOT)})
    cpu = 0.0
    while child.poll() is None:
        now, memory = usage(child.pid)
        cpu = max(cpu, now)
        done = int(progress.read_text()) if progress.exists() else 0
        measured.samples.append((time.monotonic() - began, done, memory, usage(server)[1]))
        time.sleep(0.5)
    if child.returncode:
        raise SystemExit("the flow failed")
    measured.wall, measured.cpu_parent = time.monotonic() - began, cpu
    rows, before = count(), -1
    while rows != before:  # the server writes task runs and events down after the flow has ended
        time.sleep(8.0)
        rows, before = count(), rows
    measured.cpu_server = usage(server)[0] - start[0]
    measured.cpu_database = usage(database)[0] - start[1] if database else 0.0


def on_postgres(exposures: int, batch: int) -> Measured:
    measured = Measured("PostgreSQL", exposures, batch)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with postgres(folder) as (pid, url, query), prefect_server(folder, url) as (server, environment):
            tables = query("SELECT tablename FROM pg_tables WHERE schemaname='public'").split()

            def rows_now() -> dict[str, int]:
                return {table: int(query(f"SELECT count(*) FROM {table}")) for table in tables}

            def look() -> tuple[int, dict[str, int]]:
                query("VACUUM FULL")
                return int(query("SELECT pg_database_size('prefect')")), rows_now()

            before = look()
            watch(measured, folder, server, pid, environment, lambda: sum(rows_now().values()))
            measured.grown(before, look())
    return measured


def on_sqlite(exposures: int, batch: int) -> Measured:
    import sqlite3

    measured = Measured("SQLite", exposures, batch)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = folder / "prefect.db"
        with prefect_server(folder, f"sqlite+aiosqlite:///{file}") as (server, environment):

            def look() -> tuple[int, dict[str, int]]:
                with closing(sqlite3.connect(file, timeout=60.0)) as database:
                    free, pages, size = (
                        database.execute(f"PRAGMA {name}").fetchone()[0]
                        for name in ("freelist_count", "page_count", "page_size")
                    )
                    tables = database.execute("SELECT name FROM sqlite_master WHERE type='table'").fetchall()
                    rows = {t: database.execute(f'SELECT count(*) FROM "{t}"').fetchone()[0] for (t,) in tables}
                return (pages - free) * size, rows

            before = look()
            watch(measured, folder, server, None, environment, lambda: sum(look()[1].values()))
            measured.grown(before, look())
    return measured


def draw(all_measured: list[Measured], path: Path) -> None:
    """Memory of parent and server over the run, and what an exposure costs by the size of its batch."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11.0, 4.2), layout="constrained")
    colours = {"PostgreSQL": "#0072B2", "SQLite": "#D55E00"}
    finest = {one.database: min((m for m in all_measured if m.database == one.database), key=lambda m: m.batch)
              for one in all_measured}  # fmt: skip
    for name, one in finest.items():
        samples = [sample for sample in one.samples if sample[1] > 0]
        done = [sample[1] for sample in samples]
        left.plot(done, [sample[3] for sample in samples], color=colours[name], label=f"server on {name}")
        left.plot(done, [sample[2] for sample in samples], color=colours[name], ls="--", label=f"flow, {name}")
    batches = sorted({one.batch for one in all_measured})
    left.set(
        xlabel="exposures done, one a task run" if batches[0] == 1 else "exposures done",
        ylabel="resident memory (MB)",
        ylim=(0, None),
        title="Memory over a campaign",
    )
    left.set_xlim(0, None)
    left.legend(frameon=False, fontsize=9)
    for name in colours:
        some = sorted((m for m in all_measured if m.database == name), key=lambda m: m.batch)
        if some:
            right.plot([m.batch for m in some], [100 * m.share() for m in some], "o-", color=colours[name], label=name)
    right.axhline(3.0, color="0.5", lw=1, ls=":")
    right.text(batches[0], 3.15, "3 % of an exposure of 10 s", color="0.4", fontsize=9)
    right.set(xscale="log", yscale="log", xlabel="exposures in a batch", ylabel="CPU of orchestration (% of 10 s)",
              title="What an exposure costs")  # fmt: skip
    right.set_xticks(batches, [str(batch) for batch in batches])
    right.xaxis.set_minor_locator(mpl.ticker.NullLocator())
    right.yaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    right.legend(frameon=False)
    figure.savefig(path, dpi=140)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exposures", type=int, default=2000)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 20, 50], help="exposures in a batch")
    parser.add_argument("--out", type=Path, default=Path("bench"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    ways = ([on_postgres] if find_program("initdb") and find_program("postgres") else []) + [on_sqlite]
    found = []
    for way in ways:
        for batch in given.batch:
            found.append(way(given.exposures, batch))
            one = found[-1]
            runs = -(-one.exposures // batch)
            print(
                f"{one.database}, batches of {batch}: {one.exposures} exposures, {one.wall:.1f} s; CPU parent "
                f"{one.cpu_parent:.1f} s, server {one.cpu_server:.1f} s, database {one.cpu_database:.1f} s: "
                f"{100 * one.share():.2f} % of an exposure; {one.database_bytes / runs / 1e3:.1f} kB and "
                f"{sum(one.rows.values()) / runs:.1f} rows a task run; memory of the server "
                f"{one.samples[len(one.samples) // 4][3]:.0f} -> {one.samples[-1][3]:.0f} MB", flush=True
            )  # fmt: skip
            (given.out / "orchestration.json").write_text(json.dumps([asdict(m) for m in found]))
    draw(found, given.out / "orchestration.png")


if __name__ == "__main__":
    main()
