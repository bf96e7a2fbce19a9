"""Masks of both inputs, grown by the kernels, and what saturated stars leave beyond them (section 6)."""
