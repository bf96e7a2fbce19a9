"""Telescope units: their files, and the facts of their exposures."""
