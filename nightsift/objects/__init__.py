"""Candidates of one place joined over exposures and units."""
