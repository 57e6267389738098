"""The parts of the mining page that hold the audit: what was drawn, suspects, judgements, false negatives."""

from __future__ import annotations

from collections.abc import Sequence

from retrieval_cl.reporting.facts import Found
from retrieval_cl.reporting.found import MAX_QUERY, MAX_SNIPPET, clip
from retrieval_cl.reporting.markup import Html, element
from retrieval_cl.reporting.mining_facts import (
    AuditFacts,
    EstimateFacts,
    MarginPoint,
    Suspect,
    SuspectList,
)
from retrieval_cl.reporting.mining_plots import margin_curve
from retrieval_cl.reporting.page import Cell, Row, definitions, figure, paragraph, subheading, table, verdict
from retrieval_cl.reporting.wording import count, percent


def drawn(facts: AuditFacts) -> list[Html]:
    """How many negatives per query and per source, and what is double among them."""
    queries = sum(facts.per_query.values())
    sizes: list[Row] = [
        [str(number), Cell("", share=found / queries), count(found)]
        for number, found in sorted(facts.per_query.items())
    ]
    sources: list[Row] = [
        [name, count(negatives), count(asked)] for name, (negatives, asked) in facts.per_source.items()
    ]
    used: list[Row] = [[clip(name, MAX_QUERY), count(uses)] for name, uses in facts.most_used]
    pieces = [table(["negatives of a query", "", "queries"], sizes, text_columns=2)] if sizes else []
    if sources:
        pieces.append(table(["source", "negatives", "queries with one"], sources))
    if facts.copies:
        pieces += [subheading("Duplicates"), definitions(facts.copies)]
    if used:
        pieces.append(table(["most used passages", "negative of queries"], used))
    return pieces


def judged(facts: AuditFacts) -> list[Html]:
    """What evaluation judgements say of the negatives; nothing is removed by them."""
    if not facts.judged:
        return []
    rows: list[Row] = [
        [split, *(count(number) for number in numbers)] for split, numbers in facts.judged.items()
    ]
    note = (
        "Counted, never filtered: to remove what a test set calls right would tell training its answers. "
        "A passage may answer a test query and be a fair negative of another."
    )
    headings = ["split", "negatives that answer some query of it", "distinct passages", "of the same query"]
    return [table(headings, rows, caption=note)]


def difference(facts: AuditFacts) -> list[Html]:
    """How the table differs from an older one."""
    return [definitions(facts.difference)] if facts.difference else []


def suspects(lists: Sequence[SuspectList]) -> list[Html]:
    """Negatives that may be right answers, each beside a known one."""
    return [piece for one in lists if one.suspects for piece in _suspect_list(one)]


def estimates(found: Sequence[EstimateFacts]) -> list[Html]:
    """False-negative rates, the sweep of margins as table and curve, and what is recommended."""
    return [piece for number, one in enumerate(found) for piece in _estimate(one, name=f"margins{number}")]


def recommendation(found: EstimateFacts) -> str:
    """What the estimate recommends, in a sentence; empty where there was no sweep."""
    if not found.sweep:
        return ""
    if found.recommended is None:
        return (
            f"No margin of the sweep keeps the rate at or below {percent(found.bound)}: "
            "the negatives need another rule, or more judgements."
        )
    best = found.recommended
    what = "no relative margin is needed" if best.margin is None else f"a relative margin of {best.margin:g}"
    now = "" if found.configured != best.margin else " (as configured)"
    return (
        f"Recommended: {what}{now}. It keeps {percent(best.kept)} of the candidates at an estimated rate of "
        f"{percent(best.rate.mean)}, at most {percent(found.bound)} wanted."
    )


def _estimate(found: EstimateFacts, *, name: str) -> list[Html]:
    rate = found.rate
    size = f"{percent(rate.mean)} of the negatives, 95% interval {percent(rate.low)} to {percent(rate.high)}"
    pieces = [
        subheading(found.name),
        verdict(f"Estimated false-negative rate: {size}."),
        paragraph(found.said),
    ]
    if found.sweep:
        pieces += [
            paragraph(recommendation(found)),
            _sweep(found),
            figure(
                margin_curve(found, name=name),
                caption="Estimated false-negative rate with its 95% interval against the share of candidates "
                "that the margin leaves. The horizontal line is the bound.",
            ),
        ]
    return pieces


def _sweep(found: EstimateFacts) -> Html:
    rows: list[Row] = [
        [
            Cell(margin_label(point), note=_mark(point, found)),
            percent(point.kept),
            Cell(percent(point.rate.mean), note=f"{percent(point.rate.low)} to {percent(point.rate.high)}"),
        ]
        for point in found.sweep
    ]
    return table(["relative margin", "candidates kept", "false negatives"], rows)


def margin_label(point: MarginPoint) -> str:
    """The margin as a word in tables and figures."""
    return "none" if point.margin is None else f"{point.margin:g}"


def _mark(point: MarginPoint, found: EstimateFacts) -> str:
    marks = ["recommended"] if found.recommended is not None and point == found.recommended else []
    return ", ".join([*marks, *(["configured"] if point.margin == found.configured else [])])


def _suspect_list(one: SuspectList) -> list[Html]:
    return [subheading(one.name), paragraph(one.note, kind="note"), *map(_card, one.suspects)]


def _card(suspect: Suspect) -> Html:
    ask = element("div", element("b", clip(suspect.query, MAX_QUERY)), class_="ask")
    known, doubtful = suspect.sides
    sides = (_side(known, suspect.positive, ""), _side(doubtful, suspect.negative, suspect.why))
    return element("div", ask, element("div", *sides, class_="lists"), class_="card")


def _side(name: str, found: Found, said: str) -> Html:
    head = element("h4", element("span", name), element("span", said))
    text = element("pre", clip(found.snippet, MAX_SNIPPET)) if found.snippet else Html("")
    return element("div", head, element("p", found.title, class_="mono"), text, class_="list")
