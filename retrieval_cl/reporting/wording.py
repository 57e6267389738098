"""Numbers and findings in plain words that claim no more than was measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from retrieval_cl.reporting.facts import Comparison, Interval
from retrieval_cl.reporting.markup import readable
from retrieval_cl.reporting.page import Verdict

SIGNIFICANCE = 0.05

# system -> (in a table, in a sentence, what it is)
_SYSTEMS = MappingProxyType(
    {
        "bm25": ("BM25", "BM25", "word matching, k1 and b tuned on dev"),
        "control": ("In-batch only", "in-batch training", "the control: same steps, no mined negatives"),
        "mined": ("Hard negatives", "hard-negative training", "in-batch and mined negatives"),
        "hybrid": ("Hybrid", "the hybrid", "hard negatives and BM25, ranks fused"),
        "zero-shot": ("Zero-shot", "the model before training", "the same model before training"),
        "fine-tuned": ("Fine-tuned", "the fine-tuned model", "the same model after training"),
        "trained encoder": ("Trained encoder", "the trained encoder", "after training without labels"),
        "raw pixels": ("Raw pixels", "raw pixels", "no encoder: the cosine of the pixels"),
        "before training": ("Before training", "the encoder before training", "the weights it began with"),
    }
)
_SCORES = MappingProxyType({"in-batch": "in-batch negatives", "mined": "mined negatives"})
_RULES = MappingProxyType(
    {
        "known": "right answers and their copies",
        "duplicate": "copies of a better-ranked one",
        "rank_window": "outside the rank window",
        "max_score": "above the greatest score",
        "min_score": "below the least score",
        "margin": "too near the positive (margin)",
        "relative_margin": "too near the positive (relative margin)",
        "near_text": "nearly the text of a right answer",
        "near_vector": "nearly the vector of a right answer",
        "near_image": "captions of nearly the same image",
    }
)
MAX_NAME = 28  # characters: what a figure of four systems has room for
_NO_BREAK = "\N{NO-BREAK SPACE}"


def label(name: str) -> str:
    """What tables and figures call a system or an arm; a name we do not know stays, cut at MAX_NAME."""
    return _SYSTEMS[name][0] if name in _SYSTEMS else _short(name)


def phrase(name: str) -> str:
    """What a sentence calls a system."""
    return _SYSTEMS[name][1] if name in _SYSTEMS else _short(name)


def explanation(name: str) -> str:
    """What a system is, in a few words; empty for a name we do not know."""
    return _SYSTEMS[name][2] if name in _SYSTEMS else ""


def score_label(group: str) -> str:
    """What a group of scores is called."""
    return _SCORES.get(group, _short(group))


def rule_label(rule: str) -> str:
    """What a mining rule removes."""
    return _RULES.get(rule, rule.replace("_", " "))


def sentence(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]


def count(number: int) -> str:
    """57,012."""
    return f"{number:,}"


def decimal(value: float, *, digits: int = 3) -> str:
    """0.612, with a true minus sign; an en dash for what is not finite."""
    return f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}") if math.isfinite(value) else "\N{EN DASH}"


def percent(share: float) -> str:
    """A share in per cent: 4.2%, 57%; below ten with a decimal."""
    return f"{share:.1%}" if share < 0.0995 else f"{share:.0%}"


def between(interval: Interval) -> str:
    """0.603 to 0.621."""
    return f"{decimal(interval.low)} to {decimal(interval.high)}"


def points(value: float) -> str:
    """A difference of a metric in points of 0.01, with its sign: +0.8."""
    rounded = round(100 * value, 1)
    return "0.0" if rounded == 0 else f"{'+' if rounded > 0 else ''}{decimal(rounded, digits=1)}"


def points_between(interval: Interval) -> str:
    """+0.3 to +1.3."""
    return f"{points(interval.low)} to {points(interval.high)}"


def p_value(p: float) -> str:
    """P = 0.032, or p < 0.001."""
    said = "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"
    return said.replace(" ", _NO_BREAK)


def duration(seconds: float) -> str:
    """0.4 s, 12 s, 4 min 07 s, 2 h 05 min."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(whole / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def is_clear(comparison: Comparison) -> bool:
    """Whether test and interval agree that there is a difference."""
    difference = comparison.difference
    return comparison.p < SIGNIFICANCE and (difference.low > 0 or difference.high < 0)


def finding(comparison: Comparison) -> str:
    """One sentence on a difference; it says `no clear difference` unless the test and the interval agree."""
    system, than, value = phrase(comparison.system), phrase(comparison.than), comparison.difference.mean
    span = points_between(comparison.difference).replace(" ", _NO_BREAK)
    numbers = f"95% interval {span}, {p_value(comparison.p)}"
    if not is_clear(comparison):
        return (
            f"No clear difference between {system} and {than} in {comparison.metric}: "
            f"{points(value)} points ({numbers})."
        )
    size, word = decimal(abs(100 * value), digits=1), "better" if value > 0 else "worse"
    return sentence(f"{system} is {word} than {than} in {comparison.metric} by {size} points ({numbers}).")


def finding_kind(comparison: Comparison) -> Verdict:
    """How a finding is marked on the page."""
    if not is_clear(comparison):
        return "plain"
    return "good" if comparison.difference.mean > 0 else "bad"


def score_finding(medians: Mapping[str, float]) -> str:
    """What the medians of positives, in-batch and mined scores say about how hard the negatives are."""
    said = ", ".join(f"{score_label(name)} {decimal(value, digits=2)}" for name, value in medians.items())
    words = f"Median cosine: {said}."
    if not {"positives", "in-batch", "mined"} <= medians.keys():
        return words
    gap = medians["positives"] - medians["in-batch"]
    if gap <= 0:
        return f"{words} Positives score no higher than random passages: the encoder has not learned."
    share = (medians["mined"] - medians["in-batch"]) / gap
    if share >= 1:
        return f"{words} Mined negatives score as high as positives: many may be right answers nobody marked."
    return (
        f"{words} Mined negatives lie {max(share, 0.0):.0%} of the way from in-batch negatives to positives."
    )


def listing(names: Sequence[str]) -> str:
    """A, b and c."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _short(name: str) -> str:
    # Figures are drawn by matplotlib, which fails on what UTF-8 cannot hold.
    whole = readable(name)
    return whole if len(whole) <= MAX_NAME else f"{whole[: MAX_NAME - 1]}\N{HORIZONTAL ELLIPSIS}"
