"""The page about drift says in its first sentence what was found."""

from __future__ import annotations

import pytest

from nightsift.report.model_pages import drift_sentence


def rows(*states: str) -> list[dict[str, str]]:
    return [{"unit": f"unit-{place}", "state": state} for place, state in enumerate(states)]


@pytest.mark.parametrize(
    ("states", "told"),
    [
        (("steady",), "No drift: 1 unit is like the nights of its calibration set."),
        (("steady", "steady"), "No drift: 2 units are like the nights of their calibration sets."),
        (("steady", "unjudged"), "No drift: 1 unit is like the nights of its calibration set; 1 not judged."),
        (("drifted",), "1 of 1 unit drifted: unit-0."),
        (("steady", "drifted", "unjudged"), "1 of 2 units drifted: unit-1; 1 not judged."),
        (("unjudged", "unjudged"), "No unit could be judged; the table says why."),
    ],
)
def test_first_sentence(states: tuple[str, ...], told: str) -> None:
    assert drift_sentence(rows(*states)) == told
