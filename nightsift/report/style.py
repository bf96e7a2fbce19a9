"""The stylesheet that the pages share."""

from __future__ import annotations

from importlib.resources import files


def stylesheet() -> str:
    """Return the stylesheet of the pages, to stand in a ``<style>`` element."""
    return (files("nightsift.report") / "page.css").read_text(encoding="utf-8")
