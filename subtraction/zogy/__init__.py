"""Proper image subtraction (ZOGY)."""
