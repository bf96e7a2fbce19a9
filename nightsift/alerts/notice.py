"""Any notice, told apart by its content, as one `Alert`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from nightsift.alerts import gcn_json, lvk, voevent
from nightsift.alerts.alert import Alert
from nightsift.alerts.bounded import LARGEST, read_avro, read_json, read_xml
from nightsift.alerts.errors import BadNotice


def read_notice(content: bytes, where: str = "") -> Alert:
    """Read a notice: JSON (LIGO-Virgo-KAGRA, the schema of GCN, a VOEvent carried over), Avro or VOEvent XML.

    Parameters
    ----------
    content : bytes
        The notice.
    where : str, optional
        What it is called in errors, such as its file.

    Returns
    -------
    Alert
        What it says; nothing is fetched.

    Raises
    ------
    BadNotice
        If it is damaged, too large, or lacks what an alert needs.
    """
    start = content[:64].lstrip(b"\xef\xbb\xbf \t\r\n")
    try:
        if content.startswith(b"Obj\x01"):
            return lvk.of_record(read_avro(content, where)[0], "avro", where)
        if start.startswith(b"<"):
            root = read_xml(content, where)
            if root.name != "VOEvent":
                raise BadNotice(where=where, what=f"XML of the kind {root.name!r:.40}, not VOEvent")
            return voevent.of_element(root, "voevent", where)
        if start.startswith((b"{", b"[")):
            return _of_json(content, where)
    except BadNotice as error:
        if error.facts["where"]:
            raise
        raise BadNotice(where=where, what=error.facts["what"]) from error
    what = "it is empty" if not start else "it is neither JSON, Avro nor XML"
    raise BadNotice(where=where, what=what)


def read_notice_file(path: str | Path) -> Alert:
    """Read a notice from a file.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    Alert
        What it says.

    Raises
    ------
    BadNotice
        If the file cannot be read, or is no notice.
    """
    return read_notice(notice_bytes(path), str(path))


def notice_bytes(path: str | Path) -> bytes:
    """Content of a notice's file, bounded.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    bytes
        Its content.

    Raises
    ------
    BadNotice
        If it cannot be read or is too large.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > LARGEST:
            raise BadNotice(where=str(path), what=f"{size} bytes are more than the {LARGEST} that a notice may have")
        return path.read_bytes()
    except OSError as error:
        raise BadNotice(where=str(path), what=error.strerror or str(error)) from error


def _of_json(content: bytes, where: str) -> Alert:
    record = read_json(content, where)
    if isinstance(record, list) and len(record) == 1:
        record = record[0]
    if not isinstance(record, Mapping):
        raise BadNotice(where=where, what="JSON that is no notice")
    if "superevent_id" in record:
        return lvk.of_record(record, "json", where)
    if "ivorn" in record:
        return voevent.of_element(voevent.of_mapping(record, where), "json", where)
    if "trigger_time" in record or "notices" in str(record.get("$schema", "")):
        return gcn_json.of_record(record, where)
    raise BadNotice(where=where, what="JSON that is neither of LIGO-Virgo-KAGRA nor of the schema of GCN")
