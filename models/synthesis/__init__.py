"""Synthetic transients and the examples made of them."""
