"""Small parts of the tasks: times, patience, verdicts on errors."""

from __future__ import annotations

import errno
import json

import pytest

from nightsift.core.errors import AlignmentFailed, DiskFull, NoTemplate, SourceError
from tasks.record import opening_row, verdict_on
from tasks.retry import patiently
from tasks.steps import Stopwatch


def fail() -> None:
    raise RuntimeError("on purpose")


def test_stopwatch_keeps_the_time_of_a_stage_that_fails() -> None:
    clock = Stopwatch()
    with pytest.raises(RuntimeError), clock.timed("align"):
        fail()
    with clock.timed("align"):
        pass
    assert list(clock.seconds) == ["align"]
    assert clock.stage == "align"
    assert clock.total >= clock.seconds["align"] > 0


def test_patience_is_for_what_may_pass() -> None:
    tries: list[int] = []

    def recovers() -> str:
        tries.append(1)
        if len(tries) < 3:
            raise OSError(errno.EIO, "the network was away")
        return "there"

    assert patiently(recovers, (0.0, 0.0)) == "there"
    assert len(tries) == 3


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), FileNotFoundError("gone"), ValueError("no")])
def test_no_patience_where_waiting_cannot_help(error: Exception) -> None:
    tries: list[int] = []

    def always() -> None:
        tries.append(1)
        raise error

    with pytest.raises(type(error)):
        patiently(always, (0.0, 0.0))
    assert len(tries) == 1


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (AlignmentFailed(where="f", what="w", matched=3, residual_px=2.0), "refused"),
        (NoTemplate(unit="u", field="f", band="b"), "waiting"),
        (DiskFull(path="p", free=0), "failed"),
        (SourceError(url="u", what="w"), "failed"),
        (ZeroDivisionError(), "failed"),
    ],
)
def test_verdicts(error: Exception, state: str) -> None:
    told = verdict_on(error)
    assert told["state"] == state
    assert told["reason"] == type(error).__name__
    assert told["message"]
    assert isinstance(json.loads(told["facts"]), dict)


def test_an_exposure_that_cannot_be_fetched_has_an_identity_of_its_own() -> None:
    one, other = opening_row("u", None, "s3://a/1.fits"), opening_row("u", None, "s3://a/2.fits")
    assert one["exposure_id"] != other["exposure_id"]
    assert one["night"] == "unknown"
