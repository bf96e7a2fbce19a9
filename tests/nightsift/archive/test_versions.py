"""Versions of a catalogue: layers, promotion in one step, the way back, comparison. The archives are drawn."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from nightsift.archive import ledger, versions
from nightsift.archive.candidates import read_candidates, write_candidates
from nightsift.archive.paths import Archive
from nightsift.archive.versions import NotPromoted, compare
from nightsift.cli.root import app
from nightsift.core import tables
from nightsift.core.errors import BadTable, ConfigurationError
from nightsift.core.tables import CANDIDATES
from tests.nightsift.archive.drawn_archive import filled

NIGHTS = ("2023-01-01", "2023-01-02")


def write(
    archive: Archive, night: str, exposure: str, scores: list[float], state: str = "done", unit: str = "a"
) -> None:
    n = len(scores)
    candidates = filled(
        CANDIDATES, n, candidate_id=[f"{exposure}-{i}" for i in range(n)], exposure_id=[exposure] * n,
        unit=[unit] * n, night=[night] * n, x=[10.0 * i for i in range(n)], y=[5.0] * n, sign=[1] * n, score=scores,
        mag=[18.0] * n,
    )  # fmt: skip
    write_candidates(archive, night, unit, exposure, candidates)
    row = filled(tables.LEDGER, 1, exposure_id=[exposure], unit=[unit], night=[night], state=[state], url=[exposure],
                 n_candidates=[n], mjd=[59000.0]).to_pylist()[0]  # fmt: skip
    ledger.record(archive, row)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """An archive of two nights, and a version v1 of the first of them."""
    main = Archive(tmp_path)
    for night in NIGHTS:
        for exposure in ("e0", "e1"):
            write(main, night, f"{night}-{exposure}", [0.1, 0.2])
    new = versions.begin(main, "v1", {"a": "recipe"}, code="code", models={"a": "model"})
    for exposure in ("e0", "e1"):
        write(new, NIGHTS[0], f"{NIGHTS[0]}-{exposure}", [0.9])
    return tmp_path


def scores(archive: Archive, night: str | None = None) -> list[float]:
    return sorted(round(score, 3) for score in read_candidates(archive, night)["score"].to_pylist())


def test_a_version_is_not_seen_before_it_is_promoted(archive: Path) -> None:
    assert scores(Archive(archive)) == [0.1] * 4 + [0.2] * 4
    assert scores(Archive(archive / "versions" / "v1")) == [0.9, 0.9]
    both = [Archive(one).template("a", "f", "r", template_id="t") for one in (archive, archive / "versions" / "v1")]
    assert both[0] == both[1]


def test_promotion_replaces_the_nights_of_the_version_only(archive: Path) -> None:
    before = Archive(archive)
    assert versions.promote(before, "v1") == ("v1", "main")
    after = Archive(archive)
    assert scores(after, NIGHTS[0]) == [0.9, 0.9]
    assert scores(after, NIGHTS[1]) == [0.1, 0.1, 0.2, 0.2]
    assert after.nights() == list(NIGHTS)
    assert len(ledger.read(after)) == 4, "each exposure stands once"
    assert scores(before) == [0.1] * 4 + [0.2] * 4, "whoever has opened the archive goes on with what he saw"
    assert scores(versions.alone(after, "main")) == [0.1] * 4 + [0.2] * 4


def test_tonight_is_written_to_main_whatever_is_promoted(archive: Path) -> None:
    tonight = Archive(archive)
    place = tonight.candidates("2026-11-21", "a", "e9")
    versions.promote(tonight, "v1")
    assert tonight.candidates("2026-11-21", "a", "e9") == place
    assert Archive(archive).candidates("2026-11-21", "a", "e9") == place == archive / place.relative_to(archive)
    write(tonight, "2026-11-21", "e9", [0.5])
    assert scores(Archive(archive), "2026-11-21") == [0.5]
    assert "versions" in str(Archive(archive).ledger(NIGHTS[0], "a", "x")), "an old night is mended where it is read"
    assert "versions" not in str(Archive(archive).ledger(NIGHTS[0], "b", "x"))


def test_the_way_back_is_another_promotion(archive: Path) -> None:
    main = Archive(archive)
    second = versions.begin(main, "v2", {"a": "other"}, code="code 2", models={"a": "model"})
    for exposure in ("e0", "e1"):
        write(second, NIGHTS[0], f"{NIGHTS[0]}-{exposure}", [0.7])
    versions.promote(main, "v1")
    assert versions.promote(main, "v2") == ("v2", "v1", "main")
    assert scores(Archive(archive), NIGHTS[0]) == [0.7, 0.7]
    assert versions.promote(main, "v1") == ("v1", "main")
    assert versions.promote(main, "v1") == ("v1", "main")
    assert versions.promote(main, "main") == ("main",)
    assert scores(Archive(archive)) == [0.1] * 4 + [0.2] * 4
    assert versions.known(main)[0].name == "main"


def test_a_version_that_lacks_exposures_is_not_promoted(archive: Path) -> None:
    main = Archive(archive)
    write(main, NIGHTS[0], "late", [0.3])
    write(versions.alone(main, "v1"), NIGHTS[0], f"{NIGHTS[0]}-e1", [], state="failed")
    with pytest.raises(NotPromoted, match="2 exposures that are done now are not done in it"):
        versions.promote(main, "v1")
    assert Archive(archive).served == ("main",)
    assert versions.promote(main, "v1", force=True) == ("v1", "main")


def test_what_is_served_is_not_removed(archive: Path) -> None:
    main = Archive(archive)
    versions.promote(main, "v1")
    for name in ("v1", "main"):
        with pytest.raises(ConfigurationError, match="is served"):
            versions.remove(main, name)
    versions.promote(main, "main")
    versions.remove(main, "v1")
    assert [one.name for one in versions.known(main)] == ["main"]
    assert list((archive / "versions").iterdir()) == [archive / "versions" / "served.json"]
    with pytest.raises(ConfigurationError, match="known here: main"):
        versions.promote(main, "v1")


@pytest.mark.parametrize("name", ["main", "", ".hidden", "a/b", "..", "x" * 65])
def test_names_that_could_be_mistaken(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        versions.check_name(name)


def test_a_version_is_made_by_one_recipe(archive: Path) -> None:
    main = Archive(archive)
    assert versions.begin(main, "v1", {"a": "recipe"}, code="code", models={}).root == archive / "versions" / "v1"
    versions.begin(main, "v1", {"b": "recipe of b"}, code="code", models={"b": "model"})
    assert set(versions.find(main, "v1").recipes) == {"a", "b"}
    with pytest.raises(ConfigurationError, match="begun by another recipe for a"):
        versions.begin(main, "v1", {"a": "changed"}, code="code 2", models={})


def test_a_damaged_pointer_is_told(archive: Path) -> None:
    for text in ("{", "[]", '{"served": ["v1"]}', '{"served": []}'):
        (archive / "versions" / "served.json").write_text(text)
        with pytest.raises(BadTable, match=r"served\.json"):
            Archive(archive)


def _promote_to_and_fro(folder: Path, stop: Any) -> None:
    main = Archive(folder)
    while not stop.is_set():
        for name in ("v1", "main"):
            versions.promote(main, name, force=True)


def test_readers_see_one_version_while_others_promote(archive: Path) -> None:
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    process = context.Process(target=_promote_to_and_fro, args=(archive, stop))
    process.start()
    seen = set()
    deadline = time.monotonic() + 30.0
    while time.monotonic() < deadline and (len(seen) < 2 or time.monotonic() < deadline - 27.0):
        view = Archive(archive)
        rows, found = ledger.read(view, NIGHTS[0]), scores(view, NIGHTS[0])
        assert sum(rows["n_candidates"].to_pylist()) == len(found), "ledger and candidates of one version"
        seen.add(tuple(found))
    stop.set()
    process.join(30)
    assert process.exitcode == 0
    assert seen == {(0.1, 0.1, 0.2, 0.2), (0.9, 0.9)}


def test_a_promotion_killed_at_any_moment_leaves_the_old_or_the_new(archive: Path) -> None:
    code = (
        "import sys; from pathlib import Path;"
        "from tests.nightsift.archive.test_versions import _promote_to_and_fro as f;"
        "print('ready', flush=True);"
        "f(Path(sys.argv[1]), type('Never', (), {'is_set': staticmethod(lambda: False)}))"
    )
    seen = set()
    for wait in (0.0, 0.003, 0.011, 0.017):
        process = subprocess.Popen([sys.executable, "-c", code, str(archive)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(wait)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        seen.add(Archive(archive).served)
        assert scores(Archive(archive), NIGHTS[0]) in ([0.9, 0.9], [0.1, 0.1, 0.2, 0.2])
    assert seen <= {("main",), ("v1", "main")}


def test_comparison_tells_what_has_changed(archive: Path) -> None:
    main = Archive(archive)
    write(versions.alone(main, "v1"), NIGHTS[0], f"{NIGHTS[0]}-e1", [0.1, 0.2, 0.5])
    write(main, NIGHTS[0], "gone", [])
    found = compare(main, versions.alone(main, "v1"))
    rows = found.rows.to_pylist()
    assert found.nights == (NIGHTS[0],)
    assert (found.exposures, found.same) == (2, 2)
    assert sorted(row["kind"] for row in rows) == ["changed", "first only", "second only", "state"]
    changed = next(row for row in rows if row["kind"] == "changed")
    assert (changed["score"], changed["other_score"]) == (pytest.approx(0.1), pytest.approx(0.9))
    assert next(row for row in rows if row["kind"] == "state")["message"] == "done, then not there"
    nothing = compare(main, main)
    assert nothing.rows.num_rows == 0
    assert nothing.same == 8


def test_commands(archive: Path) -> None:
    run = CliRunner()
    assert "v1" in run.invoke(app, ["catalog", "list", str(archive)]).output
    assert "recipe" in run.invoke(app, ["catalog", "show", str(archive), "v1"]).output
    told = run.invoke(app, ["catalog", "compare", str(archive), "served", "v1", "--out", str(archive / "c.parquet")])
    assert "0 the same, 2 changed, 2 only in served, 0 only in v1" in told.output
    assert (archive / "c.parquet").exists()
    told = run.invoke(app, ["catalog", "promote", str(archive), "v1"])
    assert "served from top to bottom: v1, main" in told.output
    assert f"catalog promote {archive} main" in told.output
    assert "(as before)" in run.invoke(app, ["catalog", "promote", str(archive), "v1"]).output
    run.invoke(app, ["catalog", "promote", str(archive), "main"])
    assert "removed: v1" in run.invoke(app, ["catalog", "remove", str(archive), "v1"]).output
    assert isinstance(run.invoke(app, ["catalog", "promote", str(archive), "v1"]).exception, ConfigurationError)
