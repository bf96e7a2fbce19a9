"""`SkyAlert`, the one type that every notice of every sender becomes."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Literal

from nightsift.archive.skyalert_options import ROLES, Role
from nightsift.core.errors import BadNotice

Kind = Literal["early_warning", "preliminary", "initial", "update", "retraction"]
KINDS: tuple[Kind, ...] = ("early_warning", "preliminary", "initial", "update", "retraction")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:+-]{0,95}")


@dataclass(frozen=True, slots=True)
class ErrorRegion:
    """An error circle or ellipse.

    Attributes
    ----------
    ra, dec : float
        Centre (deg, ICRS).
    radius, minor : float
        Semi-axes (deg); equal for a circle.
    containment : float
        Probability that the region holds the source, as its sender defines it.
    angle : float
        Direction of the major axis (deg, north through east).
    systematics : tuple of (float, float)
        Weight and 68 % radius (deg) of each systematic error that the sender leaves out; empty for none.
    """

    ra: float
    dec: float
    radius: float
    minor: float
    containment: float
    angle: float = 0.0
    systematics: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        numbers = (self.ra, self.dec, self.radius, self.minor, self.containment, self.angle)
        if not all(math.isfinite(one) for one in numbers):
            raise ValueError("an error region needs finite numbers")
        if not (0.0 <= self.ra <= 360.0 and -90.0 <= self.dec <= 90.0):
            raise ValueError(f"({self.ra}, {self.dec}) is no position on the sky")
        if not (0.0 <= self.minor <= self.radius <= 180.0 and 0.0 < self.containment < 1.0):
            raise ValueError(f"{self.radius} deg with {self.containment} is no error region")


@dataclass(frozen=True, slots=True)
class MapPlace:
    """A sky map: in the notice, or at an address.

    Attributes
    ----------
    content : bytes
        The FITS file, empty where it is not in the notice.
    url : str
        Its address, as it was given; nothing is fetched by reading a notice.
    """

    content: bytes = field(default=b"", repr=False)
    url: str = ""


@dataclass(frozen=True, slots=True)
class Coincidence:
    """Another event that may be of the same source.

    Attributes
    ----------
    observatory : str
        Who saw it.
    identity : str
        Its name there.
    delay_s : float
        Its time after the event (s), NaN where it is not given.
    far : float
        False-alarm rate of the coincidence (Hz), in time and place where both are given; NaN where it is not given.
    joint_map : MapPlace or None
        Their joint sky map.
    """

    observatory: str
    identity: str
    delay_s: float
    far: float
    joint_map: MapPlace | None = None


@dataclass(frozen=True, slots=True)
class SkyAlert:
    """What a notice says.

    Attributes
    ----------
    event : str
        Identity of the event: the superevent of LIGO-Virgo-KAGRA, otherwise mission and trigger number.
    revision : int
        Running number that the sender gave the notice, 0 where it gives none.
    kind : str
        ``early_warning``, ``preliminary``, ``initial``, ``update`` or ``retraction``.
    role : str
        ``observation``, ``mock`` (an injected event) or ``test``.
    sent : float
        When the notice was made (MJD UTC).
    t0 : float or None
        When the event was (MJD UTC); None where a retraction does not repeat it.
    time_scale : str
        Time scale that the notice gave `t0` in; it was converted.
    sender : str
        Mission or network, and instrument.
    significant : bool or None
        Whether the sender calls it significant; None where it does not say.
    far : float or None
        False-alarm rate (Hz).
    classification, properties : tuple of (str, float)
        Probabilities of source classes, and of properties.
    instruments : tuple of str
        Detectors.
    region : ErrorRegion or None
        Error circle or ellipse.
    skymap : MapPlace or None
        Sky map; it goes before the region.
    coincidence : Coincidence or None
        External event.
    pipeline : str
        Search group, pipeline and search, where they are given.
    url : str
        Page of the event.
    form : str
        Form of the notice: ``json``, ``avro`` or ``voevent``.
    remarks : tuple of str
        What was odd about it.
    """

    event: str
    revision: int
    kind: Kind
    role: Role
    sent: float
    t0: float | None
    time_scale: str
    sender: str
    significant: bool | None = None
    far: float | None = None
    classification: tuple[tuple[str, float], ...] = ()
    properties: tuple[tuple[str, float], ...] = ()
    instruments: tuple[str, ...] = ()
    region: ErrorRegion | None = None
    skymap: MapPlace | None = None
    coincidence: Coincidence | None = None
    pipeline: str = ""
    url: str = ""
    form: str = ""
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.event):
            raise BadNotice(where="", what=f"{self.event!r:.100} is no name of an event")
        if self.kind not in KINDS or self.role not in ROLES:
            raise BadNotice(where=self.event, what=f"kind {self.kind!r} and role {self.role!r} are not known")
        if self.t0 is None and self.kind != "retraction":
            raise BadNotice(where=self.event, what="it does not say when the event was")

    @property
    def order(self) -> tuple[float, int]:
        """What notices of an event are sorted by: the later, and among equals the one of the higher number, rules."""
        return (self.sent, self.revision)

    @property
    def likeliest_class(self) -> str:
        """Class of the highest probability, empty without any."""
        return max(self.classification, key=lambda one: one[1])[0] if self.classification else ""
