"""Synthetic transients: where they go, how bright they are, and how they are put into frames."""
