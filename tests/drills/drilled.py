"""What the deployment of the drills runs: a night with plain parameters, as a schedule gives them."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from prefect import flow
from prefect.concurrency import _leases

from flows.night import night
from flows.summary import sentence
from flows.watch import watch
from nightsift.archive.survey import Runner, load_survey

if "DRILL_RENEWAL" in os.environ:  # leases of 300 s are renewed after 225 s: a drill does not wait so long
    _leases._RENEWAL_FRACTION = float(os.environ["DRILL_RENEWAL"])


@flow(name="drill", persist_result=False)
def drill(survey: str, runner: str = "processes", workers: int = 1, unit: str = "") -> str:
    """Reduce what a survey file names."""
    how = Runner.model_validate({"kind": runner, "workers": workers})
    return sentence(night(survey, units=[unit] if unit else None, runner=how))


@flow(name="drilled watch", persist_result=False)
def drilled_watch(survey: str, seconds: float) -> str:
    """Watch for some seconds, and tell by which process."""
    file = Path(survey)
    (file.parent / "watch.pid").write_text(str(os.getpid()))
    return sentence(watch(load_survey(file), until=datetime.now(UTC) + timedelta(seconds=seconds)))
