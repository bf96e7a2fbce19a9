"""The command ``nightsift``: one file per group of commands; heavy modules are imported inside the commands."""

from nightsift.cli.root import app, main

__all__ = ["app", "main"]
