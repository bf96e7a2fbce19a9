"""JSON, XML and Avro from outside, read within bounds: no entities, no deep nesting, not more than a notice has."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from typing import Any
from xml.parsers import expat

from nightsift.core.errors import BadNotice

LARGEST = 64 * 2**20
"""Bytes of a notice; the largest in use hold a multi-order map of a few MB."""
LARGEST_XML = 4 * 2**20
MOST_ELEMENTS = 20_000
DEEPEST = 64
SOLID = ("string", "bytes", "int", "long", "float", "double", "boolean")
"""Types of list items that take at least a byte each."""
FORBIDDEN = "XML with a document type or entities is not read"


@dataclass(slots=True)
class Element:
    """An XML element: name without its namespace, attributes, text and children."""

    name: str
    attributes: dict[str, str]
    text: str = ""
    children: list[Element] = field(default_factory=list)

    def all(self, name: str) -> list[Element]:
        """All elements of a name below this one, at any depth."""
        return [found for one in self.children for found in ([one] if one.name == name else []) + one.all(name)]

    def first(self, name: str) -> Element | None:
        """The first element of a name below this one."""
        found = self.all(name)
        return found[0] if found else None


def read_json(content: bytes, where: str) -> Any:
    """Read JSON.

    Parameters
    ----------
    content : bytes
        The text.
    where : str
        What it is called in errors.

    Returns
    -------
    object
        Its content.

    Raises
    ------
    BadNotice
        If it is too large, nested too deeply, or no JSON.
    """
    _bounded(content, LARGEST, where)
    try:
        return json.loads(content.decode("utf-8-sig"), parse_constant=lambda one: None)
    except (ValueError, RecursionError) as error:
        what = "nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())[:200]
        raise BadNotice(where=where, what=f"no JSON: {what}") from error


def read_xml(content: bytes, where: str) -> Element:
    """Read XML without entities, document types or anything from elsewhere.

    Parameters
    ----------
    content : bytes
        The text.
    where : str
        What it is called in errors.

    Returns
    -------
    Element
        The root.

    Raises
    ------
    BadNotice
        If it is too large, too deep, has a document type, or is no XML.
    """
    _bounded(content, LARGEST_XML, where)
    builder = _Builder(where)
    parser = expat.ParserCreate()
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.text
    parser.StartDoctypeDeclHandler = builder.refuse
    parser.EntityDeclHandler = builder.refuse
    parser.ExternalEntityRefHandler = builder.refuse
    parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
    try:
        parser.Parse(content, True)
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise BadNotice(where=where, what=f"no XML: {error}") from error
    assert builder.root is not None
    return builder.root


def read_avro(content: bytes, where: str) -> list[dict[str, Any]]:
    """Read the records of an Avro file that brings its schema.

    Parameters
    ----------
    content : bytes
        The file.
    where : str
        What it is called in errors.

    Returns
    -------
    list of dict
        The records, at most 16.

    Raises
    ------
    BadNotice
        If it is too large or no such file.
    """
    _bounded(content, LARGEST, where)
    import fastavro

    records: list[dict[str, Any]] = []
    try:
        reader = fastavro.reader(io.BytesIO(content))
        if reader.codec != "null":
            raise BadNotice(where=where, what=f"Avro packed by {reader.codec} is not read")
        if not _has_solid_items(reader.writer_schema):
            raise BadNotice(where=where, what="Avro whose lists may hold items of no bytes")
        for record in reader:
            if not isinstance(record, dict) or len(records) >= 16:
                raise BadNotice(where=where, what="Avro with other records than those of notices")
            records.append(record)
    except BadNotice:
        raise
    except (ValueError, TypeError, KeyError, IndexError, OSError, EOFError, StopIteration, AttributeError,
            RecursionError, MemoryError, OverflowError) as error:  # fmt: skip
        raise BadNotice(where=where, what=f"no Avro: {' '.join(str(error).split())[:200]}") from error
    if not records:
        raise BadNotice(where=where, what="Avro without a record")
    return records


def _has_solid_items(schema: Any) -> bool:
    """Whether every item of a list takes bytes: one of null could be claimed 2**60 times in a few bytes."""
    if isinstance(schema, list):
        return all(_has_solid_items(one) for one in schema)
    if not isinstance(schema, dict):
        return True
    if schema.get("type") in ("array", "map"):
        return schema.get("items", schema.get("values")) in SOLID
    inner = [one.get("type") for one in schema.get("fields", ())]
    return _has_solid_items(inner) and (isinstance(schema.get("type"), str) or _has_solid_items(schema.get("type")))


def _bounded(content: bytes, most: int, where: str) -> None:
    if len(content) > most:
        raise BadNotice(where=where, what=f"{len(content)} bytes are more than the {most} that a notice may have")


class _Builder:
    """Makes elements of what the parser reports."""

    def __init__(self, where: str) -> None:
        self.root: Element | None = None
        self._where = where
        self._open: list[Element] = []
        self._count = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._count += 1
        if self._count > MOST_ELEMENTS or len(self._open) >= DEEPEST:
            raise BadNotice(where=self._where, what=f"XML with more than {MOST_ELEMENTS} elements or {DEEPEST} levels")
        one = Element(name.rpartition(":")[2], {key.rpartition(":")[2]: value for key, value in attributes.items()})
        if self._open:
            self._open[-1].children.append(one)
        else:
            self.root = one
        self._open.append(one)

    def end(self, name: str) -> None:
        self._open.pop()

    def text(self, text: str) -> None:
        self._open[-1].text += text

    def refuse(self, *_: Any) -> int:
        raise BadNotice(where=self._where, what=FORBIDDEN)
