"""What can be wrong with a notice, a sky map, a tile grid or a running alert."""

from __future__ import annotations

from nightsift.errors import NightsiftError


class BadNotice(NightsiftError):
    """A notice cannot be read, or lacks what an alert needs: it is refused, and nothing else is touched."""

    problem = "the notice {where} is refused: {what}"
    hint = "a notice that ought to be understood: keep the file and report it; see docs/alerts.md for what is read"


class BadSkyMap(NightsiftError):
    """A sky map is damaged, too large, or no probability on the sky."""

    problem = "the sky map {where} is refused: {what}"
    hint = "fetch it again, or take the multi-order version of the map"


class NoLocalisation(NightsiftError):
    """An alert tells nothing of where on the sky it is, or its map lies elsewhere."""

    problem = "the alert {event} has no position to rank fields by: {what}"
    hint = "give its sky map: nightsift alert plan NOTICE --sky-map FILE"


class BadTiling(NightsiftError):
    """A tile grid cannot be read."""

    problem = "the tile grid {where} cannot be read: {what}"
    hint = "a grid has one field a line: name, right ascension and declination (deg); see docs/alerts.md"


class NoSuchAlert(NightsiftError):
    """The archive knows no alert of this name."""

    problem = "there is no alert '{event}' in {archive}"
    hint = "{advice}"


class BadAlertFile(NightsiftError):
    """A file of a running alert is damaged."""

    problem = "{path} is damaged: {what}"
    hint = "remove it and give the notice again: nightsift alert run"
