"""Searches an index by meaning, by words, or both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, final

from retrieval_cl.core.errors import InputError, nearest_name
from retrieval_cl.core.hits import Hits
from retrieval_cl.encoders.load import load_encoder
from retrieval_cl.encoders.text import TextEncoder
from retrieval_cl.encoders.words import split_words
from retrieval_cl.indexing.folder import open_index
from retrieval_cl.indexing.fusion import reciprocal_rank_fusion
from retrieval_cl.indexing.index import Index
from retrieval_cl.runs.models import find_model

SNIPPET_CHARS = 200
_FUSED_DEPTH = 100


@final
@dataclass(frozen=True)
class Hit:
    """One passage as a searcher sees it; `rank` from 1."""

    rank: int
    score: float
    id: str
    title: str
    snippet: str
    text: str


@final
@dataclass(frozen=True)
class Answer:
    """What a search found.

    Attributes:
        note: why there are fewer hits than asked for; empty otherwise.
    """

    query: str
    mode: str
    hits: tuple[Hit, ...]
    note: str = ""

    def text(self, *, snippets: bool = True) -> str:
        """A line a hit, and its snippet below."""
        lines = []
        for hit in self.hits:
            lines.append(f"{hit.rank:>3}  {hit.score:.3f}  {hit.title or hit.id}")
            lines += [f"     {hit.snippet}"] if snippets else []
        return "\n".join(lines) or "nothing found"

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def find_index(folder: Path, *, check_hashes: bool = False) -> Index:
    """Opens an index.

    Args:
        folder: the index, or a run that holds one.
        check_hashes: compare every file with its hash, not its size alone.

    Raises:
        InputError: the index is missing, half written, or no index.
    """
    inside = folder / "index"
    return open_index(
        inside if inside.is_dir() and not (folder / "manifest.json").is_file() else folder,
        check_hashes=check_hashes,
    )


@final
class Searcher:
    """An open index with its model, which is loaded with the first search that needs it."""

    def __init__(self, index: Index, *, model: str | None = None) -> None:
        """`model`: folder or id of the model; None: the one the index names."""
        self.index = index
        self._model = model
        self._encoder: TextEncoder | None = None

    def search(self, query: str, *, k: int = 10, mode: str = "dense") -> Answer:
        """The k best passages; modes are the keys of `MODES`.

        Raises:
            InputError: an empty query, an unknown mode, k below 1, another model than the index's, or no
                words in the index for the modes that need them.
        """
        if not query.strip():
            raise InputError("the query is empty; give some words")
        if mode not in MODES:
            raise InputError(
                f"--mode {mode}: no such mode{nearest_name(mode, MODES)}; valid: {', '.join(MODES)}"
            )
        if k < 1:
            raise InputError(f"-k {k}: expected at least 1")
        found = MODES[mode](self, query, min(k, len(self.index)))
        rows = [row for row in found.rows[0].tolist() if row >= 0]
        passages = self.index.passages(rows)
        wanted = set(split_words([query])[0])
        scores = found.scores[0, : len(rows)].tolist()
        hits = tuple(
            Hit(place, score, one.id, one.title, snippet(one.text, wanted), one.text)
            for place, (score, one) in enumerate(zip(scores, passages, strict=True), start=1)
        )
        return Answer(query, mode, hits, _note(k, found=len(hits), held=len(self.index)))

    def dense(self, query: str, k: int) -> Hits:
        """By the vectors."""
        if self._encoder is None:
            self._encoder = self._load()
        return self.index.search(self._encoder.encode([query], kind="query"), k=k)

    def words(self, query: str, k: int) -> Hits:
        """By BM25."""
        return self.index.search_words(split_words([query]), k=k)

    def hybrid(self, query: str, k: int) -> Hits:
        """Both lists, fused by reciprocal rank."""
        depth = min(max(k, _FUSED_DEPTH), len(self.index))
        return reciprocal_rank_fusion((self.dense(query, depth), self.words(query, depth)), k=k)

    def _load(self) -> TextEncoder:
        model = str(self.index.encoder_path) if self._model is None else find_model(self._model).path
        encoder = load_encoder(model)
        if encoder.fingerprint() != self.index.manifest["fingerprint"]:
            raise InputError(
                f"{self.index.folder}: made by another model than {model}, or by the same before it changed; "
                "search with the one it was made by, or index again"
            )
        return encoder


MODES: Mapping[str, Callable[[Searcher, str, int], Hits]] = MappingProxyType(
    {"dense": Searcher.dense, "bm25": Searcher.words, "hybrid": Searcher.hybrid}
)


def snippet(text: str, wanted: Set[str], *, num_chars: int = SNIPPET_CHARS) -> str:
    """The part of a text, on one line, that holds most of the wanted words; the first where several do."""
    flat = " ".join(text.split())
    if len(flat) <= num_chars:
        return flat
    starts = range(0, len(flat) - num_chars // 2, num_chars // 2)
    parts = split_words([flat[start : start + num_chars] for start in starts])
    held = [len(wanted & set(words)) for words in parts]
    start = starts[held.index(max(held))]
    part = flat[start : start + num_chars]
    return f"{'... ' if start else ''}{part.strip()}{' ...' if start + num_chars < len(flat) else ''}"


def _note(k: int, *, found: int, held: int) -> str:
    if found == k:
        return ""
    if k > held:
        return f"{k} hits asked for, the index holds {held} passage{'s' if held != 1 else ''}"
    return f"{found} of the {k} hits asked for: no further passage shares a word with the query"
