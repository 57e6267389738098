"""The index folder: vectors, passages, FAISS index, word weights, and how they were made."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.files import MANIFEST, hash_file, new_folder, read_json, read_manifest, write_manifest
from retrieval_cl.indexing import exact, store
from retrieval_cl.indexing.approximate import Approximate, FaissSettings, build_approximate
from retrieval_cl.indexing.bm25 import Lexical
from retrieval_cl.indexing.faiss_gpu import Say
from retrieval_cl.indexing.index import FAISS, LEXICAL, PASSAGES, Index
from retrieval_cl.indexing.passages import write_passages
from retrieval_cl.indexing.thumbnails import write_thumbnails

KIND = "index"
_ENCODER = "encoder"


def write_index(
    folder: Path,
    *,
    vectors: Float32[np.ndarray, "N D"],
    ids: Sequence[str],
    titles: Sequence[str],
    texts: Sequence[str],
    fingerprint: str,
    encoder_path: Path | None = None,
    copy_encoder: bool = False,
    faiss: FaissSettings | None = None,
    query_vectors: Float32[np.ndarray, "Q D"] | None = None,
    lexical: Lexical | None = None,
    thumbnails: Iterable[bytes] | None = None,
    embeds: Literal["texts", "images", "image_text"] | None = None,
    made_by: Mapping[str, object] | None = None,
    say: Say = lambda line: None,
) -> Approximate | None:
    """Writes an index, whole or not at all; one that stands there is replaced.

    Args:
        folder: where it will stand.
        vectors: row i embeds passage i; unit rows where cosine is meant.
        ids: of the passages, distinct.
        titles: "" where there is none.
        texts: of the passages.
        fingerprint: of the encoder that made the vectors.
        encoder_path: its folder; kept as a path relative to the index, so that both may move together.
        copy_encoder: copies that folder into the index instead.
        faiss: the FAISS index to build; None searches exactly and needs no faiss.
        query_vectors: real queries by which its recall is measured; None: rows of the corpus stand in.
        lexical: BM25 over the same passages, for hybrid search.
        thumbnails: a JPEG file of each row, where they are images.
        embeds: what the encoder embeds; None: only such as the rows are.
        made_by: further facts for the manifest (data set, versions, settings).
        say: gets a line on the FAISS index.

    Returns:
        The FAISS index with its measured recall; None where there is none.

    Raises:
        InputError: counts differ, an id stands twice, a vector is not finite, something else stands in the
            folder, or FAISS refuses the factory, has no room in its memory, or stays below its target recall.
    """
    check_place(folder)
    _check_parts(vectors, ids=ids, titles=titles, texts=texts, lexical=lexical)
    with new_folder(folder) as part:
        np.save(part / store.VECTORS, vectors)
        write_passages(part / PASSAGES, ids=ids, titles=titles, texts=texts)
        built = None
        if faiss is not None:
            built = build_approximate(vectors, faiss, queries=query_vectors, say=say)
            built.index.save(part / FAISS)
        if lexical is not None:
            lexical.save(part / LEXICAL)
        if thumbnails is not None:
            assert write_thumbnails(part, thumbnails) == len(vectors)
        write_manifest(
            part,
            KIND,
            count=len(vectors),
            dim=int(vectors.shape[1]),
            fingerprint=fingerprint,
            encoder=_keep_encoder(part, folder, encoder_path=encoder_path, copied=copy_encoder),
            faiss_factory=None if built is None else built.choice.factory,
            faiss=None if built is None else built.to_json(),
            lexical=lexical is not None,
            modality="text" if thumbnails is None else "images",
            embeds=embeds or ("texts" if thumbnails is None else "images"),
            made_by=dict(made_by or {}),
            files=_describe(part),
        )
    return built


def check_place(folder: Path) -> None:
    """Raises InputError where anything but an index stands: it would be replaced, and be lost."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    manifest = read_json(folder / MANIFEST) if (folder / MANIFEST).is_file() else None
    if not isinstance(manifest, dict) or manifest.get("kind") != KIND:
        raise InputError(f"{folder}: holds something else than an index, which would be lost; name another")


def open_index(folder: Path, *, fingerprint: str | None = None, check_hashes: bool = True) -> Index:
    """Opens an index; vectors, word weights and texts stay on disk until they are needed.

    Args:
        folder: what `write_index` wrote.
        fingerprint: of the encoder that will embed the queries; None trusts the caller.
        check_hashes: reads every file once to compare it with the manifest; sizes are compared always.

    Raises:
        InputError: the folder is missing, half written, changed since, no index, or made by another encoder.
    """
    manifest = read_manifest(folder, KIND)
    _check_files(folder, manifest["files"], hashes=check_hashes)
    if fingerprint is not None and manifest["fingerprint"] != fingerprint:
        raise InputError(
            f"{folder}: made by the encoder {manifest['fingerprint'][:12]}, this one is {fingerprint[:12]}; "
            "search with the encoder it was made by, or build the index anew"
        )
    return Index(folder, manifest)


def _check_parts(
    vectors: Float32[np.ndarray, "N D"],
    *,
    ids: Sequence[str],
    titles: Sequence[str],
    texts: Sequence[str],
    lexical: Lexical | None,
) -> None:
    counts = {"vectors": len(vectors), "ids": len(ids), "titles": len(titles), "texts": len(texts)}
    if lexical is not None:
        counts["passages of BM25"] = len(lexical)
    if len(set(counts.values())) > 1:
        raise InputError(f"index parts of different lengths: {counts}")
    if not len(ids):
        raise InputError("an index needs at least one passage")
    if len(set(ids)) < len(ids):
        twice = next(name for name, count in Counter(ids).items() if count > 1)
        raise InputError(f"passage id '{twice}' stands twice; ids must be distinct")
    exact.check_finite(vectors, name="vectors")


def _keep_encoder(part: Path, folder: Path, *, encoder_path: Path | None, copied: bool) -> str | None:
    if encoder_path is None:
        return None
    if copied:
        shutil.copytree(encoder_path, part / _ENCODER)
        return _ENCODER
    return Path(os.path.relpath(encoder_path.resolve(), folder.resolve())).as_posix()


def _describe(folder: Path) -> dict[str, dict[str, Any]]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": hash_file(path)}
        for path in files
    }


def _check_files(folder: Path, files: Mapping[str, Mapping[str, Any]], *, hashes: bool) -> None:
    for name, described in files.items():
        path = folder / name
        size = path.stat().st_size if path.is_file() else None
        if size != described["bytes"]:
            found = (
                "is missing" if size is None else f"has {size} bytes, the manifest says {described['bytes']}"
            )
            raise InputError(f"{path}: {found}; the index is half written or was changed, build it anew")
        if hashes and hash_file(path) != described["sha256"]:
            raise InputError(f"{path}: its bytes are not those of the manifest; build the index anew")
