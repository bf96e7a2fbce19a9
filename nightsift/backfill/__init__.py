"""Campaigns over archives of years, and the versions of the catalogue that they make."""
