"""A made-up quickstart with every part filled, shaped like a real one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from html.parser import HTMLParser

import numpy as np
import pytest

from retrieval_cl.reporting.curves import Arm
from retrieval_cl.reporting.facts import Comparison, DataFacts, Example, Found, MiningRound, Provenance
from retrieval_cl.reporting.quickstart_report import QuickstartReport


@dataclass(frozen=True)
class Span:
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Counts:
    num_queries: int = 48_102
    found: dict[str, int] = field(default_factory=lambda: {"dense": 2_405_100})
    removed: dict[str, int] = field(
        default_factory=lambda: {
            "known": 41_377,
            "duplicate": 12_904,
            "rank_window": 240_510,
            "margin": 310_220,
        }
    )
    kept: int = 1_800_089
    drawn: dict[str, int] = field(default_factory=lambda: {"dense": 191_322, "random": 1_086})
    empty: int = 0
    mean_rank: float | None = 24.3
    score_quantiles: dict[float, float] = field(default_factory=lambda: {0.05: 0.21, 0.5: 0.47, 0.95: 0.72})


def span(mean: float, half: float = 0.0105) -> Span:
    return Span(mean, mean - half, mean + half)


def arm(name: str, *, steps: int = 1500, rounds: int = 3, top: float = 0.61) -> Arm:
    draw = np.random.default_rng(len(name))
    records = []
    for step in range(0, steps, 5):
        number = min(rounds - 1, step * rounds // steps)
        share = step / steps
        loss = 5.5 * math.exp(-4 * share) + 0.9 + 0.55 * number + 0.12 * draw.standard_normal()
        records.append({"step": step, "round": number, "loss": loss})
        if step % 125 == 0 or step == steps - 5:
            records[-1] |= {
                "dev/recall@10": top * (1 - math.exp(-5 * share - 0.6)),
                "health": {
                    "std_ratio": 0.93 + 0.04 * share,
                    "effective_rank": 90 + 80 * (1 - math.exp(-4 * share)),
                    "alignment": 1.1 * math.exp(-2 * share) + 0.35,
                    "uniformity": -2.6 - share,
                },
            }
    return Arm(name, records)


def hits(right: int | None) -> list[Found]:
    titles = (
        "pathlib.Path.walk",
        "os.walk",
        "shutil.copytree",
        "glob.iglob",
        "torch.nn.Module.named_modules",
    )
    snippet = (
        "def walk(self, top_down=True):\n    paths = [self]\n    while paths:\n        yield paths.pop()"
    )
    return [Found(title, snippet, 0.71 - 0.04 * place, place == right) for place, title in enumerate(titles)]


def quickstart(**changes: object) -> QuickstartReport:
    results = {
        "bm25": {"recall@10": span(0.588), "mrr@10": span(0.431), "ndcg@10": span(0.469)},
        "control": {"recall@10": span(0.604), "mrr@10": span(0.437), "ndcg@10": span(0.477)},
        "mined": {"recall@10": span(0.617), "mrr@10": span(0.452), "ndcg@10": span(0.492)},
        "hybrid": {"recall@10": span(0.668), "mrr@10": span(0.503), "ndcg@10": span(0.543)},
    }
    fields: dict[str, object] = dict(
        data=DataFacts(
            num_passages=57_012,
            num_train_queries=48_102,
            num_dev_queries=2_004,
            num_test_queries=5_210,
            what="the docstrings of Python and 14 packages on this machine",
            packages={"python": "3.12.4", "torch": "2.11.0", "numpy": "2.3.1", "transformers": "5.1.0"},
        ),
        model="a static encoder of 256 dimensions",
        dim=256,
        results=results,
        provenance=Provenance(
            command="retrieval-cl quickstart --seed 0",
            made_at="2026-03-02 14:05 UTC",
            hardware="2 cores of an AMD EPYC 9R14, 16 GiB memory, no accelerator",
            settings={"BM25": "k1 1.2, b 0.55", "learning rate": "control 0.02, mined 0.02", "seed": "0"},
        ),
        comparisons=[
            Comparison("mined", "control", "recall@10", Span(0.013, 0.007, 0.019), 0.0004),
            Comparison("mined", "control", "mrr@10", Span(0.0152, 0.008, 0.0221), 0.0004),
            Comparison("mined", "control", "ndcg@10", Span(0.004, -0.002, 0.009), 0.21),
            Comparison("mined", "bm25", "recall@10", Span(0.029, 0.018, 0.04), 0.00001),
            Comparison("hybrid", "bm25", "recall@10", Span(0.08, 0.07, 0.09), 0.00001),
        ],
        arms=[arm("control", top=0.60), arm("mined", top=0.62)],
        scores=_scores(),
        examples=[
            Example(
                f"Walk the directory tree from this path, yielding names ({number}).",
                {"BM25": hits(None), "before mining": hits(3), "after mining": hits(0)},
                right=hits(0)[0],
            )
            for number in range(10)
        ],
        mining=[
            MiningRound(1, Counts(), seconds=7.9, further={"new since last round": "100%"}),
            MiningRound(2, Counts(mean_rank=27.1), seconds=8.3, further={"new since last round": "41%"}),
        ],
        seconds={
            "read packages": 16.4,
            "tokenizer and BM25": 12.8,
            "control": 71.0,
            "hard negatives": 83.2,
            "evaluation": 21.3,
            "index and report": 6.1,
        },
        total_seconds=214.0,
        peak_rss_gib=2.31,
        next_commands=[
            ("Search with it", 'retrieval-cl search runs/quickstart/index "read a file line by line"'),
            (
                "Train on your own pairs",
                "retrieval-cl train configs/pairs.yaml --set source.path=pairs.jsonl",
            ),
        ],
    )
    return QuickstartReport(**(fields | changes))


def _scores() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    return {
        "positives": np.clip(draw.normal(0.66, 0.15, 4000), -1, 1),
        "in-batch": draw.normal(0.03, 0.09, 4000),
        "mined": draw.normal(0.46, 0.11, 4000),
    }


class Reader(HTMLParser):
    """Reads a page strictly: every element that opens is closed in order, and what it refers to is kept."""

    VOID = frozenset({"meta", "link", "br", "hr", "wbr", "col", "img"})

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1] == tag, f"</{tag}> closes <{self.open[-1]}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of every element of this name."""
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="session")
def read() -> type[Reader]:
    """Parses a page strictly."""
    return Reader


@pytest.fixture(scope="session")
def make() -> Callable[..., QuickstartReport]:
    """Builds a quickstart report with some parts replaced."""
    return quickstart
