"""Candidates in a difference image."""
