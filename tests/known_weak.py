"""Limits that a method does not meet yet: expected to fail, and an error as soon as one passes."""

from __future__ import annotations

WEAK = {
    "test_good_pairs_are_good[zogy-galaxies]": "six false peaks in the cores of bright galaxies",
    "test_faults_are_told[sfft-doubled template]": "suspect, not bad",
}
"""Test and reason."""
