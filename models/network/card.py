"""The card of a model or set as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nightsift.core.probabilities import probability_text


def render(card: Mapping[str, Any], what: str = "Model") -> str:
    """Write a card in Markdown.

    Parameters
    ----------
    card : mapping
        Sections by name: plain values, mappings (shown as a list) or lists of mappings with equal keys (shown as a
        table), nested at will.
    what : str, optional
        What the card is of.

    Returns
    -------
    str
        Markdown text.
    """
    lines = [f"# {what} card: {card.get('model_id', card.get('name', '?'))}", ""]
    plain = {key: value for key, value in card.items() if not isinstance(value, Mapping | list)}
    lines += [f"- {_words(key)}: {_value(value)}" for key, value in plain.items()]
    for key, value in card.items():
        if key not in plain:
            lines += ["", *_section(_words(key), value, 2)]
    return "\n".join(lines) + "\n"


def _section(title: str, value: Any, depth: int) -> list[str]:
    lines = [f"{'#' * depth} {title.capitalize() if depth == 2 else title}", ""]
    if isinstance(value, list):
        return [*lines, *_table(value)]
    inner = {key: one for key, one in value.items() if isinstance(one, Mapping) or _is_table(one)}
    lines += [f"- {_words(key)}: {_value(one)}" for key, one in value.items() if key not in inner]
    for key, one in inner.items():
        lines += ["", *_section(_words(key), one, depth + 1)]
    return lines


def _table(rows: list[Any]) -> list[str]:
    if not rows:
        return ["(none)"]
    if not isinstance(rows[0], Mapping):
        return [f"- {_value(row)}" for row in rows]
    names = list(rows[0])
    cells = [" | ".join(_value(row.get(name, "")) for name in names) for row in rows]
    return [f"| {' | '.join(map(_words, names))} |", f"|{'---|' * len(names)}", *(f"| {row} |" for row in cells)]


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], Mapping)


def _words(key: Any) -> str:
    return str(key).replace("_", " ")


def _value(value: Any) -> str:
    if isinstance(value, float):
        if 0.99 < value < 1.0:
            return probability_text(value)
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_value, value))
    return "-" if value is None else str(value)
