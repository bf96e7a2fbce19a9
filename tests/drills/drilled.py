"""What the deployment of the drills runs: a night with plain parameters, as a schedule gives them."""

from __future__ import annotations

from prefect import flow

from flows.nightly import night
from flows.summary import sentence
from nightsift.survey import Runner


@flow(name="drill", persist_result=False)
def drill(survey: str, runner: str = "processes", workers: int = 1, unit: str = "") -> str:
    """Reduce what a survey file names."""
    how = Runner.model_validate({"kind": runner, "workers": workers})
    return sentence(night(survey, units=[unit] if unit else None, runner=how))
