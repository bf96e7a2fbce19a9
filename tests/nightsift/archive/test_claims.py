"""Claims with real processes: one holder, whoever asks; a dead one's claim is taken over by exactly one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nightsift.archive import claims
from nightsift.archive.claims import UnderWayElsewhere, claimed, claims_held, take
from nightsift.archive.paths import Archive

CONTEND = """
import sys, time
from nightsift.archive.claims import take, UnderWayElsewhere
from nightsift.archive.paths import Archive
archive, start = Archive(sys.argv[1]), float(sys.argv[2])
while time.time() < start:
    pass
try:
    take(archive, "unit-1.a-77")
    print("mine", flush=True)
    time.sleep(60)
except UnderWayElsewhere as error:
    print("busy", flush=True)
"""


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path)


def contenders(archive: Archive, number: int) -> tuple[list[subprocess.Popen[str]], list[str]]:
    start = time.time() + 2.0
    command = [sys.executable, "-c", CONTEND, str(archive.root), str(start)]
    all_of_them = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(number)]
    return all_of_them, [(one.stdout.readline() if one.stdout else "").strip() for one in all_of_them]


def end(processes: list[subprocess.Popen[str]]) -> None:
    for one in processes:
        one.kill()
        one.wait()
        if one.stdout:
            one.stdout.close()


def fail_within(archive: Archive) -> None:
    with claimed(archive, "a"):
        assert [one.exposure_id for one in claims_held(archive)] == ["a"]
        raise ValueError("frame")


def test_released_at_the_end_even_of_an_error(archive: Archive) -> None:
    with pytest.raises(ValueError, match="frame"):
        fail_within(archive)
    assert claims_held(archive) == []
    assert not list((archive.root / "claims").iterdir())


def test_the_second_is_told_who_is_at_it(archive: Archive) -> None:
    with claimed(archive, "a"), claimed(archive, "b"), pytest.raises(UnderWayElsewhere, match=str(os.getpid())):
        take(archive, "a")
    take(archive, "a")


def test_of_many_at_once_one_wins_and_of_many_heirs_one_inherits(archive: Archive) -> None:
    first, told = contenders(archive, 6)
    assert sorted(told) == ["busy"] * 5 + ["mine"]
    os.kill(first[told.index("mine")].pid, signal.SIGKILL)
    end(first)
    heirs, told = contenders(archive, 6)
    assert sorted(told) == ["busy"] * 5 + ["mine"], "the claim of a dead process is free at once, for one"
    assert claims_held(archive)[0].generation == 1
    end(heirs)


def of_another_machine(claim: claims.Claim) -> None:
    """Rewrite a claim as if a process of another machine had made it; its number may live here as well."""
    text = claim.path.read_text()
    claim.path.write_text(text.replace(claim.holder.machine, "elsewhere"))


def test_a_silent_holder_elsewhere_is_superseded_only_after_it_was_watched(archive: Archive) -> None:
    first = take(archive, "a")
    of_another_machine(first)
    os.utime(first.path, (0.0, 0.0))  # its clock is 50 years behind, or ours was set forward: no matter
    for _ in range(3):
        with pytest.raises(UnderWayElsewhere):
            take(archive, "a", stale_seconds=0.3)
    time.sleep(0.35)
    second = take(archive, "a", stale_seconds=0.3)
    assert not first.is_held()
    assert second.is_held()


def test_a_holder_elsewhere_that_renews_keeps_its_claim(archive: Archive) -> None:
    first = take(archive, "a")
    of_another_machine(first)
    for stamp in range(8):
        os.utime(first.path, (1e9 - stamp, 1e9 - stamp))  # even where its clock runs backwards
        with pytest.raises(UnderWayElsewhere):
            take(archive, "a", stale_seconds=0.15)
        time.sleep(0.1)


def test_renewed_in_the_background(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "RENEW_SECONDS", 0.05)
    monkeypatch.setattr(claims, "_keeper", claims._Keeper())
    with claimed(archive, "a") as claim:
        before = claim.path.stat().st_mtime_ns
        time.sleep(0.3)
        assert claim.path.stat().st_mtime_ns != before


def test_one_who_slept_leaves_the_claim_of_its_heir_alone(archive: Archive) -> None:
    with claimed(archive, "a") as first:
        of_another_machine(first)
        second = take(archive, "a", stale_seconds=0.0)
    assert second.is_held(), "the release of the former holder does not touch it"


def test_a_number_that_was_given_again_is_another_process(archive: Archive) -> None:
    first = take(archive, "a")
    text = first.path.read_text()
    first.path.write_text(text.replace(f'"started": "{first.holder.started}"', '"started": "1"'))
    assert take(archive, "a").generation == 1


def test_unreadable_claim_counts_as_young(archive: Archive) -> None:
    path = take(archive, "a").path
    path.write_bytes(b"")
    with pytest.raises(UnderWayElsewhere):
        take(archive, "a")


def test_without_hard_links(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_link(*_: object) -> None:
        raise PermissionError(1, "no links here")

    monkeypatch.setattr(os, "link", no_link)
    take(archive, "a")
    with pytest.raises(UnderWayElsewhere):
        take(archive, "a")
