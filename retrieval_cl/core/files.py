"""Whole files and folders or none: everything is written to a temporary name, synced, then renamed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from retrieval_cl.core.errors import InputError

MANIFEST = "manifest.json"
FORMAT_VERSION = 1


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yields an empty temporary folder beside `path`; on success it takes the place of `path`.

    An error inside (a full disk, Ctrl-C) leaves what stood at `path` as it was and nothing else.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part-{os.getpid()}")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    try:
        yield part
        _sync_tree(part)
        _replace_folder(part, path)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yields a temporary name beside `path`; on success the file there is synced and renamed to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part-{os.getpid()}")
    try:
        yield part
        _sync(part)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented UTF-8 JSON, whole or not at all. NaN is refused (ValueError)."""
    with new_file(path) as part:
        part.write_text(
            json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf8"
        )


def read_json(path: Path) -> Any:
    """Reads a JSON file. Raises InputError with the file and line where it is missing or broken."""
    try:
        return json.loads(path.read_text(encoding="utf8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, line {error.lineno}: broken JSON: {error.msg}") from None


def write_manifest(folder: Path, kind: str, **fields: Any) -> None:
    """Writes `manifest.json`: the kind of folder, the format version and `fields`. Comes last."""
    write_json(folder / MANIFEST, {"kind": kind, "format_version": FORMAT_VERSION, **fields})


def read_manifest(folder: Path, kind: str) -> dict[str, Any]:
    """Reads and checks the manifest of a folder of the given kind.

    Raises:
        InputError: the folder or its manifest is missing, or it is of another kind or a newer format.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected a folder with a {kind}")
    if not (folder / MANIFEST).is_file():
        raise InputError(f"{folder}: no {MANIFEST}; it is half written or no {kind}")
    manifest = read_json(folder / MANIFEST)
    if not isinstance(manifest, dict) or manifest.get("kind") != kind:
        found = manifest.get("kind") if isinstance(manifest, dict) else type(manifest).__name__
        raise InputError(f"{folder}: this is a '{found}', not a '{kind}'")
    if manifest.get("format_version") != FORMAT_VERSION:
        raise InputError(
            f"{folder / MANIFEST}: format_version {manifest.get('format_version')}, "
            f"this program reads {FORMAT_VERSION}"
        )
    return manifest


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _replace_folder(part: Path, path: Path) -> None:
    # A folder cannot be renamed over a full one: the old one steps aside first and goes last.
    old = path.with_name(f".{path.name}.old-{os.getpid()}")
    shutil.rmtree(old, ignore_errors=True)
    if path.exists():
        path.rename(old)
    try:
        part.rename(path)
    except BaseException:
        if old.exists():
            old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)
    _sync(path.parent)


def _sync_tree(folder: Path) -> None:
    for entry in folder.rglob("*"):
        _sync(entry)
    _sync(folder)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
