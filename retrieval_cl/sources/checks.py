"""Checks on values, ids and columns of records: a refusal names file, line, what came, what is valid."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from retrieval_cl.core.errors import InputError, nearest_name
from retrieval_cl.sources.lines import Records

SPLIT_ALIASES = {"validation": "dev", "valid": "dev", "val": "dev", "development": "dev"}


def split_name(name: str) -> str:
    """The name we use for a split: "validation", "valid" and "val" are "dev"; others stay."""
    return SPLIT_ALIASES.get(name, name)


def string_at(records: Records, row: int, column: str) -> str:
    """The string in a column, possibly blank.

    Raises:
        InputError: the column is missing, or it holds no string or one that is no valid Unicode.
    """
    value = records.rows[row].get(column)
    if value is None:
        found = ", ".join(records.rows[row]) or "none"
        raise InputError(f"{records.place(row)}: no value in column '{column}'; columns found: {found}")
    return checked_string(value, records, row, column)


def text_at(records: Records, row: int, column: str) -> str:
    """The string in a column, which must not be blank.

    Raises:
        InputError: as `string_at`, and where the text is blank.
    """
    text = string_at(records, row, column)
    if not text or text.isspace():
        raise InputError(f"{records.place(row)}: empty text in column '{column}'")
    return text


def id_at(records: Records, row: int, columns: Sequence[str]) -> str:
    """The id in the first of the columns that is there; whole numbers become strings.

    Raises:
        InputError: none of the columns is there, or the id is empty, or neither string nor whole number.
    """
    for column in columns:
        value = records.rows[row].get(column)
        if type(value) is int:
            return str(value)
        if value is not None:
            return text_at(records, row, column)
    return string_at(records, row, columns[0])


def checked_string(value: object, records: Records, row: int, column: str) -> str:
    """Returns `value` if it is a string that can be written as UTF-8; otherwise raises InputError."""
    if type(value) is not str:
        kind = type(value).__name__
        raise InputError(
            f"{records.place(row)}: column '{column}' must be a string, got {kind} {value!r:.40}"
        )
    if not value.isascii():
        try:
            value.encode("utf8")
        except UnicodeEncodeError:
            raise InputError(
                f"{records.place(row)}: column '{column}' holds half a surrogate pair, no valid Unicode"
            ) from None
    return value


def numbered(ids: Sequence[str], records: Records) -> dict[str, int]:
    """Maps each id to its row.

    Raises:
        InputError: an id stands twice (both places are named).
    """
    rows = {name: row for row, name in enumerate(ids)}
    if len(rows) < len(ids):
        first: dict[str, int] = {}
        for row, name in enumerate(ids):
            if name in first:
                raise InputError(
                    f"{records.place(row)}: id '{name}' stands twice, "
                    f"first in {records.unit} {records.numbers[first[name]]}"
                )
            first[name] = row
    return rows


def choose_column(
    found: Iterable[str], aliases: Sequence[str], *, wanted: str | None, source: str, key: str
) -> str:
    """The column to read: `wanted` if given, else the first alias that is there.

    Args:
        found: the columns at hand.
        aliases: the names tried in this order.
        wanted: the name the user set, or None.
        source: file or data set, for the message.
        key: the config key that sets the name, for the message.

    Raises:
        InputError: no such column; the columns at hand are listed.
    """
    names = list(found)
    for name in [wanted] if wanted else aliases:
        if name in names:
            return name
    missing = f"'{wanted}'" if wanted else " or ".join(f"'{name}'" for name in aliases)
    hint = nearest_name(wanted, names) if wanted else f". Set {key}"
    raise InputError(f"{source}: no column {missing}; columns are {', '.join(names) or 'none'}{hint}")
