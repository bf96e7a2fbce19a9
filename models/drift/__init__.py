"""Drift: whether a unit is still the one that its scores were calibrated on."""
