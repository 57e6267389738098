"""The sources of candidates by name; a table keeps them as places in this list, so new ones go to its end."""

from __future__ import annotations

from typing import Literal, get_args

Source = Literal["dense", "lexical", "previous", "random", "given", "second", "other"]
"""dense: vectors of the current model; second: of a second model; other: another modality, or any list."""

SOURCES: tuple[str, ...] = get_args(Source)
