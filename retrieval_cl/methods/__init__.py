"""Methods: who is compared with whom. The name of a method in a config is the name of its file here."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from retrieval_cl.core.errors import InputError, nearest_name

if TYPE_CHECKING:
    from retrieval_cl.methods.method import Method

SUPPORT_FILES = ("__init__", "building", "config", "image_tower", "method", "objectives", "parts")


def method_names() -> list[str]:
    """The names of all methods: the files of this folder, without those that serve them all."""
    return sorted(file.stem for file in Path(__file__).parent.glob("*.py") if file.stem not in SUPPORT_FILES)


def check_method_name(name: str) -> str:
    """Returns `name` where a file of that name exists.

    Raises:
        InputError: there is none; the message lists those that exist.
    """
    names = method_names()
    if name not in names:
        raise InputError(
            f"method.name '{name}': no such method{nearest_name(name, names)}; valid: {', '.join(names)}"
        )
    return name


def load_method(name: str) -> type[Method]:
    """The method class in the file `name`.py: the one class of the file that implements `Method`.

    Raises:
        InputError: there is no such file.
    """
    from retrieval_cl.methods.method import Method

    module = import_module(f"{__name__}.{check_method_name(name)}")
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Method) and value.__module__ == module.__name__
    ]
    assert len(found) == 1, f"{module.__name__}: expected one Method class, found {len(found)}"
    return found[0]
