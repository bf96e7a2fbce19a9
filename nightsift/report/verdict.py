"""A night in a sentence, and how grave it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Verdict:
    """What there is to say about a night.

    Attributes
    ----------
    grade : str
        "good", "fair" (something was refused, waits or is suspect) or "bad" (something failed, or a unit has nothing).
    sentence : str
        For people.
    """

    grade: str
    sentence: str


def verdict(rows: Sequence[Mapping[str, Any]], accepted: int, problems: Sequence[str] = ()) -> Verdict:
    """Judge a night by its ledger.

    Parameters
    ----------
    rows : sequence of mapping
        Ledger rows of the night.
    accepted : int
        Candidates without a flag above the threshold.
    problems : sequence of str, optional
        What went wrong outside of any exposure.

    Returns
    -------
    Verdict
        Grade and sentence.
    """
    if not rows:
        return Verdict("bad" if problems else "fair", "No exposure of this night is in the ledger.")
    states = Counter(row["state"] for row in rows)
    suspect = sum(row["state"] == "done" and row["verdict"] not in (None, "good") for row in rows)
    units = sorted({row["unit"] for row in rows})
    empty = [unit for unit in units if not any(row["state"] == "done" for row in rows if row["unit"] == unit)]
    done = states["done"]
    parts = [f"{_all_or(done, len(rows))} reduced"]
    parts += [f"{states[state]} {text}" for state, text in _OTHERS if states[state]]
    parts += [f"{suspect} with a suspect difference"] if suspect else []
    tail = {0: "no candidate stands out", 1: "1 candidate stands out"}.get(accepted, f"{accepted} candidates stand out")
    sentence = f"{', '.join(parts)}; {tail}."
    if empty:
        sentence += f" Nothing usable came from {', '.join(empty)}."
    bad = bool(states["failed"] or problems or empty)
    fair = bool(states["refused"] or states["waiting"] or suspect)
    return Verdict("bad" if bad else "fair" if fair else "good", sentence)


_OTHERS = (("refused", "refused"), ("waiting", "waiting for a template"), ("failed", "failed"))


def _all_or(done: int, total: int) -> str:
    if total == 1:
        return "The only exposure was" if done else "The only exposure was not"
    return f"All {total} exposures were" if done == total else f"{done} of {total} exposures were"
