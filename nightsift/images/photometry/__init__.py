"""Fluxes, their errors and their zero point."""
