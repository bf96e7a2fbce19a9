"""Angles on the sphere, and the fields that telescopes point at."""
