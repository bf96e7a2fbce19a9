"""Probability on the sky, and the files that bring it."""
