"""The archive: where everything lies that nightsift writes, and the identity of exposures."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from nightsift.errors import SourceError
from nightsift.io.atomic import atomic
from nightsift.io.sources import Found, discover, local_copy

__all__ = ["Archive", "Found", "atomic", "checksum", "discover", "exposure_identity", "local_copy"]


@dataclass(frozen=True, slots=True)
class Archive:
    """Paths of everything that nightsift writes; the only place where they are put together.

    Attributes
    ----------
    root : Path
        Folder of the archive.
    """

    root: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", Path(self.root))

    def candidates(self, night: str, unit: str, exposure_id: str) -> Path:
        """Candidates of an exposure."""
        return self._exposure("candidates", night, unit, exposure_id)

    def stamps(self, night: str, unit: str, exposure_id: str) -> Path:
        """Stamps of the candidates of an exposure."""
        return self._exposure("stamps", night, unit, exposure_id)

    def ledger(self, night: str, unit: str, exposure_id: str) -> Path:
        """Ledger row of an exposure."""
        return self._exposure("ledger", night, unit, exposure_id)

    def difference(self, night: str, unit: str, exposure_id: str) -> Path:
        """Difference image of an exposure, where it is kept."""
        return self._exposure("differences", night, unit, exposure_id).with_suffix(".fits")

    def injections(self, night: str, unit: str, exposure_id: str) -> Path:
        """What became of the sources that were injected into an exposure."""
        return self._exposure("injections", night, unit, exposure_id)

    def monitoring(self, night: str, unit: str) -> Path:
        """What `nightsift monitor` said of a night of a unit."""
        return self._exposure("monitoring", night, unit, "verdict")

    def embeddings(self, night: str, unit: str, model: str) -> Path:
        """Features that a network makes of the candidates of a night."""
        return self._exposure("embeddings", night, unit, model)

    def references(self, unit: str) -> Path:
        """Folder of the calibration sets that a unit was compared with."""
        return self.root / "references" / _hive(unit=unit)

    def kept_model(self, model: str) -> Path:
        """Folder of a model that has served, kept with its completeness."""
        return self.root / "models" / _part(model)

    def templates(self, unit: str, field: str, band: str) -> Path:
        """Folder of the templates of a field."""
        return self.root / "templates" / _hive(unit=unit, field=field, band=band)

    def template(self, unit: str, field: str, band: str, template_id: str) -> Path:
        """File of one template."""
        return self.templates(unit, field, band) / f"{_part(template_id)}.fits"

    def claim(self, exposure_id: str) -> Path:
        """Claim on an exposure (`nightsift.claims`), without its generation."""
        return self.root / "claims" / _part(exposure_id)

    def status(self, name: str) -> Path:
        """What is going on, for people who ask: a night, or what they were told of."""
        return self.root / "status" / f"{_part(name)}.json"

    def report(self, night: str, name: str = "report") -> Path:
        """Report of a night."""
        return self.root / "reports" / _hive(night=night) / f"{_part(name)}.html"

    def tables(self, kind: str, night: str | None = None, unit: str | None = None) -> list[Path]:
        """Files of one kind of table, sorted.

        Parameters
        ----------
        kind : str
            ``"candidates"``, ``"stamps"`` or ``"ledger"``.
        night, unit : str, optional
            Only these; all when None.

        Returns
        -------
        list of Path
            The finished files; those being written are left out.
        """
        found = []
        for night_folder in _folders(self.root / kind, "night", night):
            for unit_folder in _folders(night_folder, "unit", unit):
                with os.scandir(unit_folder) as entries:
                    found += [
                        entry.path
                        for entry in entries
                        if entry.name.endswith(".parquet") and not entry.name.startswith(".")
                    ]
        return [Path(path) for path in sorted(found)]

    def nights(self, kind: str = "ledger") -> list[str]:
        """Nights that hold a kind of table, sorted.

        Parameters
        ----------
        kind : str, optional
            ``"candidates"``, ``"stamps"`` or ``"ledger"``.

        Returns
        -------
        list of str
            ``YYYY-MM-DD``.
        """
        return sorted(unquote(folder.name.partition("=")[2]) for folder in _folders(self.root / kind, "night", None))

    def _exposure(self, kind: str, night: str, unit: str, exposure_id: str) -> Path:
        return self.root / kind / _hive(night=night, unit=unit) / f"{_part(exposure_id)}.parquet"


def _part(text: str) -> str:
    """Text as one part of a path: what a file system or a URL could misread is percent-encoded."""
    encoded = quote(text, safe=" +,@()[]") or "%00"
    return encoded.replace(".", "%2E") if set(encoded) == {"."} else encoded


def _hive(**keys: str) -> Path:
    return Path(*(f"{key}={_part(value)}" for key, value in keys.items()))


def _folders(parent: Path, key: str, value: str | None) -> list[Path]:
    if value is not None:
        folder = parent / _hive(**{key: value})
        return [folder] if folder.is_dir() else []
    return sorted(folder for folder in parent.glob(f"{key}=*") if folder.is_dir())


def exposure_identity(unit: str, sha256: str) -> str:
    """Identity of an exposure: the same content from the same unit always has the same one.

    Parameters
    ----------
    unit : str
        Telescope unit.
    sha256 : str
        Checksum of the file, hexadecimal.

    Returns
    -------
    str
        The identity.
    """
    return f"{unit}-{sha256[:16]}"


def checksum(path: str | Path) -> str:
    """SHA-256 of a file, read in pieces.

    Parameters
    ----------
    path : str or Path
        Local file.

    Returns
    -------
    str
        Hexadecimal digits.

    Raises
    ------
    SourceError
        If the file cannot be read.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SourceError(url=str(path), what=error.strerror or str(error)) from error
