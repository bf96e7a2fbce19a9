"""Where everything lies that nightsift writes, and which versions of the catalogue are read.

A version that was made by a campaign lies in a folder of its own beside the catalogue that grows night by night, which
is called `main` and lies in the archive itself. One small file names the versions that are served. It is replaced as a
whole, so that a reader finds the old list or the new one and never a part of either.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from nightsift.core.errors import BadTable
from nightsift.io.atomic import atomic

MAIN = "main"
"""The catalogue that lies in the archive itself: nights are written there."""

POINTER = "served.json"
RECORD = "version.json"
Layers = tuple[tuple[str, Path], ...]
WITHOUT_NIGHT = "unknown"
"""In the place of a night label: exposures of which no time could be read. No night, and never the latest one."""

LONGEST_PART = 160
"""Characters of one part of a path; file systems take 255 bytes, of which names of tables and endings need some."""


@dataclass(frozen=True, slots=True)
class Archive:
    """Paths of everything that nightsift writes; the only place where they are put together.

    What is found in exposures (candidates, stamps, ledger and what is made of them) belongs to a version of the
    catalogue; templates, models and campaigns belong to the archive. An object sees the versions that were promoted
    when it was made, and goes on seeing them: whoever reads or writes with one object has one catalogue.

    Attributes
    ----------
    root : Path
        Folder of the archive, or of one of its versions (``ARCHIVE/versions/NAME``): then that version alone is read
        and written.
    home : Path
        Folder of the archive in both cases.
    layers : tuple of (str, Path)
        Name and folder of the versions that are read, uppermost first. Each night of each unit is read from, and
        written to, the first that has it in its ledger; the last where none has.
    """

    root: Path
    home: Path = field(init=False)
    layers: tuple[tuple[str, Path], ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", Path(self.root))
        home, layers = _layers_of(self.root)
        object.__setattr__(self, "home", home)
        object.__setattr__(self, "layers", layers)

    @property
    def served(self) -> tuple[str, ...]:
        """Names of the versions that are read, uppermost first."""
        return tuple(name for name, _ in self.layers)

    def candidates(self, night: str, unit: str, exposure_id: str) -> Path:
        """Candidates of an exposure."""
        return self._exposure("candidates", night, unit, exposure_id=exposure_id)

    def stamps(self, night: str, unit: str, exposure_id: str) -> Path:
        """Stamps of the candidates of an exposure."""
        return self._exposure("stamps", night, unit, exposure_id=exposure_id)

    def ledger(self, night: str, unit: str, exposure_id: str) -> Path:
        """Ledger row of an exposure."""
        return self._exposure("ledger", night, unit, exposure_id=exposure_id)

    def difference(self, night: str, unit: str, exposure_id: str) -> Path:
        """Difference image of an exposure, where one is stored."""
        return self._exposure("differences", night, unit, exposure_id=exposure_id).with_suffix(".fits")

    def injections(self, night: str, unit: str, exposure_id: str) -> Path:
        """What became of the sources that were injected into an exposure."""
        return self._exposure("injections", night, unit, exposure_id=exposure_id)

    def monitoring(self, night: str, unit: str) -> Path:
        """Verdict of `nightsift monitor` on a night of a unit."""
        return self._exposure("monitoring", night, unit, exposure_id="verdict")

    def embeddings(self, night: str, unit: str, model: str) -> Path:
        """Features that a network makes of the candidates of a night."""
        return self._exposure("embeddings", night, unit, exposure_id=model)

    def references(self, unit: str) -> Path:
        """Folder of the calibration sets that a unit was compared with."""
        return self.home / "references" / _hive(unit=unit)

    def archived_model(self, model: str) -> Path:
        """Folder of a model that has served, with its completeness."""
        return self.home / "models" / _part(model)

    def templates(self, unit: str, field: str, band: str) -> Path:
        """Folder of the templates of a field."""
        return self.home / "templates" / _hive(unit=unit, field=field, band=band)

    def template(self, unit: str, field: str, band: str, *, template_id: str) -> Path:
        """File of one template."""
        return self.templates(unit, field, band) / f"{_part(template_id)}.fits"

    def claim(self, exposure_id: str) -> Path:
        """Claim on an exposure (`nightsift.archive.claims`), without its generation."""
        return self.root / "claims" / _part(exposure_id)

    def skyalert(self, event: str) -> Path:
        """Folder of a sky alert."""
        return self.root / "alerts" / _part(event)

    def status(self, name: str) -> Path:
        """Status file of a night, or of notifications, for people who ask."""
        return self.home / "status" / f"{_part(name)}.json"

    def report(self, night: str, name: str = "report") -> Path:
        """Report of a night."""
        return self._layer(night) / "reports" / _hive(night=night) / f"{_part(name)}.html"

    def version(self, name: str) -> Path:
        """Folder of a version of the catalogue."""
        return self.home if name == MAIN else self.home / "versions" / _part(name)

    def campaign(self, campaign_id: str) -> Path:
        """Folder of a campaign of backfill."""
        return self.home / "campaigns" / _part(campaign_id)

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
        found: list[Path] = []
        for _, layer in self.layers:
            for night_folder in _folders(layer / kind, "night", night):
                for unit_folder in _folders(night_folder, "unit", unit):
                    of = (unquote(folder.name.partition("=")[2]) for folder in (night_folder, unit_folder))
                    if len(self.layers) == 1 or self._layer(*of) == layer:
                        found += _tables_in(unit_folder)
        return sorted(found, key=lambda path: (path.parts[-3:], path))

    def nights(self, kind: str = "ledger", undated: bool = False) -> list[str]:
        """Return the nights that hold a kind of table, the latest last; with `undated`, `WITHOUT_NIGHT` comes first."""
        folders = {folder.name for _, layer in self.layers for folder in _folders(layer / kind, "night", None)}
        found = {unquote(name.partition("=")[2]) for name in folders}
        return sort_nights(found if undated else found - {WITHOUT_NIGHT})

    def _exposure(self, kind: str, night: str, unit: str, *, exposure_id: str) -> Path:
        return self._layer(night, unit) / kind / _hive(night=night, unit=unit) / f"{_part(exposure_id)}.parquet"

    def _layer(self, night: str, unit: str | None = None) -> Path:
        """Folder of the version that a night, of a unit or of any, belongs to."""
        keys = {"night": night} if unit is None else {"night": night, "unit": unit}
        for _, layer in self.layers[:-1]:
            if (layer / "ledger" / _hive(**keys)).is_dir():
                return layer
        return self.layers[-1][1]


def sort_nights(nights: Iterable[str]) -> list[str]:
    """Sort night labels by time, without repeats; `WITHOUT_NIGHT` comes first, so that the last is the latest night."""
    return sorted(set(nights), key=lambda night: (night != WITHOUT_NIGHT, night))


def night_title(night: str) -> str:
    """Return a night label as people read it: ``without a night`` in the place of `WITHOUT_NIGHT`."""
    return "without a night" if night == WITHOUT_NIGHT else night


def served(home: Path) -> tuple[str, ...]:
    """Return the names of the versions that an archive serves, uppermost first; `main` comes last."""
    return tuple(str(name) for name in _pointer(home)["served"])


def serve(home: Path, names: Sequence[str], entry: Mapping[str, Any]) -> None:
    """Name the versions that are served from now on, from top to bottom, in one step; `entry` goes into the history."""
    history = [*_pointer(home)["history"], dict(entry)]
    text = json.dumps({"served": list(names), "history": history}, indent=1)
    with atomic(home / "versions" / POINTER) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _layers_of(root: Path) -> tuple[Path, Layers]:
    """Find the archive that a folder belongs to, and name and folder of the versions to be read, uppermost first."""
    if root.parent.name == "versions" and (root / RECORD).is_file():
        return root.parent.parent, ((root.name, root),)
    return root, tuple((name, root if name == MAIN else root / "versions" / name) for name in served(root))


def _pointer(home: Path) -> dict[str, Any]:
    """Read the file that names the served versions; `BadTable` where it is damaged."""
    path = home / "versions" / POINTER
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {"served": [MAIN], "history": []}
    except (OSError, ValueError) as error:
        raise BadTable(path=str(path), what=str(error)) from error
    names = content.get("served") if isinstance(content, dict) else None
    if not isinstance(names, list) or not names or names[-1] != MAIN or len(set(names)) != len(names):
        raise BadTable(path=str(path), what="it does not name the served versions, of which main is the last")
    return dict(content)


def _part(text: str) -> str:
    """Text as one part of a path: what a file system or a URL could misread is encoded, what is long is hashed."""
    encoded = quote(text, safe=" +,@()[]", errors="surrogatepass") or "%00"
    if len(encoded) > LONGEST_PART:  # "%~" comes from no other text
        encoded = f"{encoded[:80]}%~{hashlib.sha256(encoded.encode()).hexdigest()[:32]}"
    return encoded.replace(".", "%2E") if set(encoded) == {"."} else encoded


def _hive(**keys: str) -> Path:
    return Path(*(f"{key}={_part(value)}" for key, value in keys.items()))


def _folders(parent: Path, key: str, value: str | None) -> list[Path]:
    if value is not None:
        folder = parent / _hive(**{key: value})
        return [folder] if folder.is_dir() else []
    return sorted(folder for folder in parent.glob(f"{key}=*") if folder.is_dir())


def _tables_in(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        names = [one.name for one in entries if one.name.endswith(".parquet") and not one.name.startswith(".")]
    return [folder / name for name in names]
