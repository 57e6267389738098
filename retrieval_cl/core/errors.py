"""Errors with a line for the reader: input or settings to be mended, or another rank that failed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import final


class InputError(ValueError):
    """Bad input of the user's: the CLI prints its one line and exits with 2.

    The message says what came, what is valid, and which file and line or config key it was.
    """


@final
class RankFailed(RuntimeError):
    """Another rank failed; the message is its line."""


def nearest_name(name: str, valid: Iterable[str]) -> str:
    """Returns `; did you mean 'x'?` for the valid name nearest to `name`, or an empty string."""
    close = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""
