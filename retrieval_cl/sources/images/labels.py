"""Labels of images as int64 classes with names, and the labels of several parts as those of one set."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

from retrieval_cl.core.errors import InputError
from retrieval_cl.sources.images.encoded import Part


def as_classes(
    values: Sequence[object], *, names: Sequence[str] | None, where: str
) -> tuple[Int64[np.ndarray, " N"], tuple[str, ...]]:
    """Labels as places in a list of class names.

    Args:
        values: whole numbers, or strings; -1 and None where the class is not known.
        names: names of the classes, for numbers; None takes the numbers themselves.
        where: what holds the labels, for messages.

    Returns:
        The class of each value, -1 where it is not known, and the names: `names`, or all numbers up to the
        largest, or the strings in order.

    Raises:
        InputError: a value is neither, or has no name.
    """
    known = [value for value in values if value is not None]
    if all(isinstance(value, str) for value in known):
        classes = tuple(names) if names is not None else tuple(sorted({str(value) for value in known}))
        place: dict[object, int] = {None: -1, **{name: i for i, name in enumerate(classes)}}
        _refuse_first([value not in place for value in values], values, names, where)
        return np.array([place[value] for value in values], dtype=np.int64), classes
    filled = [-1 if value is None else value for value in values]
    whole = [isinstance(value, int | np.integer) and not isinstance(value, bool) for value in filled]
    _refuse_first([not one for one in whole], values, names, where)
    numbers = np.array(filled, dtype=np.int64)
    count = int(numbers.max(initial=-1)) + 1 if names is None else len(names)
    _refuse_first(((numbers < -1) | (numbers >= count)).tolist(), values, names, where)
    return numbers, tuple(names) if names is not None else tuple(str(number) for number in range(count))


def join_labels(parts: Sequence[Part]) -> tuple[Int64[np.ndarray, " N"] | None, tuple[str, ...]]:
    """The labels of all parts, by the names of their classes; -1 in a part without, None if all are.

    Parts whose classes are the first ones of the longest list keep their numbers; else classes are sorted by
    name.
    """
    if all(part.labels is None for part in parts):
        return None, ()
    classes = max((part.classes for part in parts), key=len)
    if any(part.classes != classes[: len(part.classes)] for part in parts):
        classes = tuple(sorted({name for part in parts for name in part.classes}))
    place = {name: i for i, name in enumerate(classes)}
    joined = []
    for part in parts:
        # The last place is read for -1, which stays -1.
        of_part = np.array([*(place[name] for name in part.classes), -1], dtype=np.int64)
        unknown = np.full(len(part.encoded), -1, dtype=np.int64)
        joined.append(of_part[unknown if part.labels is None else part.labels])
    return np.concatenate(joined), classes


def _refuse_first(
    wrong: Sequence[bool], values: Sequence[object], names: Sequence[str] | None, where: str
) -> None:
    if not any(wrong):
        return
    row = wrong.index(True)
    known = f" of the {len(names)} classes" if names is not None else ""
    raise InputError(
        f"{where}, row {row + 1}: label {values[row]!r:.40}; valid are names or numbers from 0{known}"
    )
