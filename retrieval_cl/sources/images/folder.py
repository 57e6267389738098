"""Images as files of a folder: flat, or in a folder for each class, below folders for the splits or not."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from retrieval_cl.core.errors import InputError
from retrieval_cl.sources.checks import split_name
from retrieval_cl.sources.images.encoded import ListedItems, Part
from retrieval_cl.sources.images.labels import as_classes

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
SPLITS = ("train", "dev", "test")


def read_folder(path: Path) -> list[Part]:
    """Lists the images of a folder; none is opened.

    Sub-folders named by splits ("train", "test", "val" ...) give the split; a sub-folder below is a class,
    with all that lies in it. Hidden files and files of other kinds are passed over.

    Raises:
        InputError: no such folder, no image in it, or images lie beside sub-folders with images.
    """
    if not path.is_dir():
        raise InputError(f"{path}: no such folder of images")
    files = sorted(
        file
        for file in path.rglob("*")
        if file.suffix.lower() in SUFFIXES and not _is_hidden(file.relative_to(path)) and file.is_file()
    )
    if not files:
        raise InputError(f"{path}: no image here; read are {', '.join(SUFFIXES)}")
    places = [file.relative_to(path).parts for file in files]
    splits = _splits(places, path)
    below = [place[1:] if splits else place for place in places]
    classes = _class_names(below, path)
    labels, names = as_classes(classes, names=None, where=str(path)) if classes else (None, ())
    ids = ["/".join(place) for place in places]
    return [Part(ListedItems(ids, files), splits, labels, names, files_stamp(ids, files))]


def file_stamp(path: Path) -> str:
    """Name, size and time of a file."""
    stat = path.stat()
    return f"{path.name} {stat.st_size} {stat.st_mtime_ns}"


def files_stamp(names: Sequence[str], files: Sequence[Path]) -> str:
    """Changes with the name, size or time of a file; one that is missing counts too."""
    hashed = hashlib.blake2b(digest_size=16)
    for name, file in zip(names, files, strict=True):
        found = file.stat() if file.exists() else None
        told = "missing" if found is None else f"{found.st_size}\0{found.st_mtime_ns}"
        hashed.update(f"{name}\0{told}\n".encode(errors="surrogateescape"))
    return hashed.hexdigest()


def _is_hidden(place: Path) -> bool:
    return any(part.startswith(".") for part in place.parts)


def _splits(places: Sequence[tuple[str, ...]], path: Path) -> list[str] | None:
    """Split of each image where all top folders are named by splits; None where no one is."""
    tops = {place[0] for place in places if len(place) > 1}
    named = {top for top in tops if split_name(top.lower()) in SPLITS}
    if not named:
        return None
    if others := sorted(tops - named) or [place[0] for place in places if len(place) == 1]:
        raise InputError(
            f"{path}: '{others[0]}' lies beside the split folder '{min(named)}'; put it below a split"
        )
    return [split_name(place[0].lower()) for place in places]


def _class_names(places: Sequence[tuple[str, ...]], path: Path) -> list[str] | None:
    flat = [place for place in places if len(place) == 1]
    if len(flat) == len(places):
        return None
    if flat:
        raise InputError(
            f"{path}: image '{flat[0][0]}' lies beside class folders, so it has no class; "
            "move it into one, or all images into one folder"
        )
    return [place[0] for place in places]
