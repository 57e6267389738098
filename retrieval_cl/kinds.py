"""Texts, images, or images with texts: which of them a run is about, and what source `--data` names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from retrieval_cl.core.errors import InputError
from retrieval_cl.methods.config import IMAGE_METHODS, IMAGE_TEXT_METHODS, READS
from retrieval_cl.reading import Places, Values
from retrieval_cl.sources.config import SourceConfig
from retrieval_cl.sources.image_text.config import ImageTextKind
from retrieval_cl.sources.images.config import ImageKind

RunKind = Literal["texts", "images", "image_text"]
NAMES: Mapping[RunKind, str] = {"texts": "texts", "images": "images", "image_text": "images with texts"}
SOURCES: Mapping[RunKind, tuple[str, ...]] = {
    "texts": get_args(SourceConfig.model_fields["kind"].annotation),
    "images": get_args(ImageKind),
    "image_text": get_args(ImageTextKind),
}
METHODS: Mapping[RunKind, tuple[str, ...]] = {
    "texts": tuple(name for name in READS if name not in (*IMAGE_METHODS, *IMAGE_TEXT_METHODS)),
    "images": IMAGE_METHODS,
    "image_text": IMAGE_TEXT_METHODS,
}
# What `datasets` leaves in a folder it saves.
_SAVED_DATASET = ("dataset_info.json", "dataset_dict.json")
_DIGITS = "digits"
# By these, in a folder or in those of its splits and classes, a folder of images is known.
_IMAGES, _DEPTHS = (".jpg", ".jpeg", ".png", ".webp"), ("*", "*/*", "*/*/*")


def run_kind(values: Values) -> RunKind:
    """What the kind of the source, or where none is named the method, is about; else texts."""
    source, method = _named(values)
    kind = _kind_among(SOURCES, source) if source is not None else _kind_among(METHODS, method)
    return kind or "texts"


def kind_of_data(values: Values, data: str) -> RunKind:
    """What a run on `--data` is about: images where nothing is set and images stand there.

    The digits are images unless something says that they have texts.
    """
    kind = run_kind(values)
    are_images = data == _DIGITS or (_named(values) == (None, None) and _holds_images(data))
    return "images" if are_images and kind == "texts" else kind


def refuse_other_kind(values: Values, places: Places) -> None:
    """Raises InputError where the method does not take what the source gives."""
    source, method = _named(values)
    gives, takes = _kind_among(SOURCES, source), _kind_among(METHODS, method)
    if gives is None or takes is None or gives == takes:
        return
    place = places.get(("method", "name"), places.get(("method",), "method.name"))
    raise InputError(
        f"{place}: method '{method}' takes {NAMES[takes]}, source.kind '{source}' gives {NAMES[gives]}; set "
        f"source.kind to {', '.join(SOURCES[takes])}, or another method.name"
    )


def source_of(data: str, kind: RunKind) -> Values:
    """The source settings of what stands at a path; what is no path is an id on the Hugging Face hub.

    Raises:
        InputError: there is nothing of this kind.
    """
    makers: Mapping[RunKind, Callable[[str], Values]] = {
        "texts": _text_source,
        "images": _image_source,
        "image_text": _image_text_source,
    }
    return makers[kind](data)


def _kind_among(names: Mapping[RunKind, tuple[str, ...]], name: Any) -> RunKind | None:
    return next((kind for kind, found in names.items() if name in found), None)


def _named(values: Values) -> tuple[Any, Any]:
    """What stands under `source.kind` and `method.name`; None for nothing."""
    sections = (values.get(name) for name in ("source", "method"))
    source, method = (one if isinstance(one, dict) else {} for one in sections)
    return source.get("kind"), method.get("name")


def _text_source(data: str) -> Values:
    path = Path(data).expanduser()
    if path.is_dir():
        is_beir = any((path / name).is_file() for name in ("corpus.jsonl", "corpus.jsonl.gz"))
        return {"kind": "beir" if is_beir else "huggingface" if _is_saved(path) else "pairs", "path": data}
    if path.is_file():
        return {"kind": "pairs", "path": data}
    if data == "pydoc":
        return {"kind": "pydoc"}
    if data.count("/") == 1 and not data.startswith((".", "~", "/")):
        return {"kind": "huggingface", "path": data}
    raise InputError(
        f"--data {data}: no such file or folder; expected a BEIR folder, a file of pairs, or an id"
    )


def _image_source(data: str) -> Values:
    path = Path(data).expanduser()
    if data == _DIGITS:
        return {"kind": "digits"}
    if path.suffix == ".npz" or any(path.glob("*.npz")):
        return {"kind": "image_npz", "path": data}
    if path.suffix == ".parquet" or any(path.glob("*.parquet")):
        return {"kind": "image_parquet", "path": data}
    if _is_saved(path):
        return {"kind": "image_dataset", "path": data}
    return {"kind": "image_folder" if path.exists() else "image_dataset", "path": data}


def _image_text_source(data: str) -> Values:
    path = Path(data).expanduser()
    if data == _DIGITS:
        return {"kind": "caption_digits"}
    if path.suffix == ".npz" or any(path.glob("*.npz")):
        return {"kind": "image_text_npz", "path": data}
    if path.suffix == ".tar" or "{" in data or any(path.glob("*.tar")):
        return {"kind": "image_text_tar", "path": data}
    if path.is_file():
        return {"kind": "image_text_table", "path": data}
    if path.is_dir() and not _is_saved(path):
        raise InputError(
            f"--data {data}: no .npz, no .tar and no saved data set in this folder; a table of images and "
            "captions is named by its file"
        )
    return {"kind": "image_text_dataset", "path": data}


def _holds_images(data: str) -> bool:
    path = Path(data).expanduser()
    files = (file for depth in _DEPTHS for file in path.glob(depth))
    return path.suffix == ".npz" or any(file.suffix.lower() in _IMAGES for file in files)


def _is_saved(path: Path) -> bool:
    return any((path / name).is_file() for name in _SAVED_DATASET)
