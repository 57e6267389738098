"""Lines of a text file with their numbers, for readers whose errors name both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from retrieval_cl.core.errors import InputError


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yields (line number from 1, line) of each line that is not blank.

    Raises:
        InputError: the file is missing, or a line is not UTF-8.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    with path.open("rb") as stream:
        for number, data in enumerate(stream, start=1):
            try:
                line = data.decode("utf8")
            except UnicodeDecodeError as error:
                raise InputError(f"{path}, line {number}: not UTF-8 at byte {error.start}") from None
            if line.strip():
                yield number, line
