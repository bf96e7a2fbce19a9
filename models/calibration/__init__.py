"""Measures of quality, and maps from logits to calibrated probabilities."""
