"""Subtraction methods: each module here is one, found by its file name."""
