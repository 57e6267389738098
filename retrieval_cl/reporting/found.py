"""Example queries with what was found for them, and what mining looked at, dropped and kept."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial

from retrieval_cl.reporting.facts import Example, Found, MiningRound
from retrieval_cl.reporting.markup import Html, element, join
from retrieval_cl.reporting.page import Cell, Row, paragraph, table
from retrieval_cl.reporting.wording import count, decimal, duration, rule_label

MAX_SNIPPET = 600  # characters; ten examples with all their hits then stay far below a megabyte
MAX_QUERY = 400
_NOTHING = "\N{EN DASH}"


def examples(cases: Sequence[Example], *, how_chosen: str = "") -> list[Html]:
    """One card a query: the query, a right answer, and the lists side by side. Snippets open on a click."""
    if not cases:
        return []
    hint = (
        "A right answer is marked with \N{CHECK MARK}. Open a title to read the passage. "
        "Scores of different systems cannot be compared. " + how_chosen
    )
    return [paragraph(hint.strip(), kind="note"), *(_card(case, said=_place) for case in cases)]


def negatives(cases: Sequence[Example]) -> list[Html]:
    """One card a query: the query, its positive and the negatives drawn for it."""
    if not cases:
        return []
    hint = "Open a title to read the passage. A negative that answers the query is one that nobody judged."
    return [paragraph(hint, kind="note"), *(_card(case, said=_how_many) for case in cases)]


def mining(rounds: Sequence[MiningRound]) -> list[Html]:
    """One column a round: candidates, what each rule removed, what was drawn and how near it ranks."""
    if not rounds:
        return []
    rules = dict.fromkeys(rule for one in rounds for rule in one.counts.removed)
    further = dict.fromkeys(name for one in rounds for name in one.further)
    facts: list[tuple[str, Callable[[MiningRound], Cell]]] = [
        ("queries", lambda one: Cell(count(one.counts.num_queries))),
        ("candidates found", lambda one: Cell(count(sum(one.counts.found.values())))),
        *((f"removed: {rule_label(rule)}", partial(_removed, rule)) for rule in rules),
        ("left to draw from", lambda one: Cell(count(one.counts.kept))),
        ("drawn as negatives", _drawn),
        ("places left empty", lambda one: Cell(count(one.counts.empty))),
        ("mean rank (0 = best hit)", lambda one: _optional(one.counts.mean_rank, digits=1)),
        ("median score", lambda one: _optional(one.counts.score_quantiles.get(0.5), digits=2)),
        *((name, partial(_further, name)) for name in further),
        ("time", lambda one: Cell(_NOTHING if one.seconds is None else duration(one.seconds))),
    ]
    rows: list[Row] = [[name, *(fact(one) for one in rounds)] for name, fact in facts]
    note = "A candidate is counted at the first rule that removes it; shares are of the candidates found."
    return [table(["counts", *(f"round {one.round}" for one in rounds)], rows, caption=note)]


def clip(text: str, limit: int) -> str:
    """The text, cut at so many characters."""
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "\N{HORIZONTAL ELLIPSIS}"


def _card(case: Example, *, said: Callable[[Sequence[Found]], Html]) -> Html:
    answer = (_answer(case.right),) if case.right is not None else ()
    ask = element("div", element("b", clip(case.query, MAX_QUERY)), *answer, class_="ask")
    lists = element(
        "div", *(_list(name, hits, said=said(hits)) for name, hits in case.found.items()), class_="lists"
    )
    return element("div", ask, lists, class_="card")


def _answer(right: Found) -> Html:
    title = _title(right)
    if not right.snippet:
        return element("p", "Right answer: ", title, class_="note")
    return element(
        "details", element("summary", "Right answer: ", title, class_="note"), _source(right.snippet)
    )


def _place(hits: Sequence[Found]) -> Html:
    place = next((rank for rank, hit in enumerate(hits, start=1) if hit.is_right), None)
    if place is not None:
        return element("span", f"right at {place}", class_="yes")
    return element("span", f"not in the first {len(hits)}" if hits else "nothing found")


def _how_many(hits: Sequence[Found]) -> Html:
    return element("span", str(len(hits)))


def _list(name: str, hits: Sequence[Found], *, said: Html) -> Html:
    rows = [_hit(rank, hit) for rank, hit in enumerate(hits, start=1)]
    return element("div", element("h4", element("span", name), said), element("ol", *rows), class_="list")


def _hit(rank: int, hit: Found) -> Html:
    line = element(
        "div",
        element("span", "\N{CHECK MARK}" if hit.is_right else str(rank), class_="rank"),
        _title(hit),
        element("span", decimal(hit.score, digits=2), class_="score"),
        class_="hit",
    )
    shown = element("details", element("summary", line), _source(hit.snippet)) if hit.snippet else line
    return element("li", shown, **({"class_": "right"} if hit.is_right else {}))


def _title(hit: Found) -> Html:
    """The title; qualified names may break after a dot or an underscore, not in the middle of a word."""
    pieces = re.split(r"(?<=[._])(?=\w)", hit.title)
    return element("span", join(pieces, between=element("wbr")), class_="mono")


def _source(snippet: str) -> Html:
    return element("pre", clip(snippet, MAX_SNIPPET))


def _removed(rule: str, one: MiningRound) -> Cell:
    number, found = one.counts.removed.get(rule, 0), sum(one.counts.found.values())
    return Cell(count(number), aside=f"{number / found:.1%}" if found and number else "")


def _drawn(one: MiningRound) -> Cell:
    drawn = one.counts.drawn
    sources = ", ".join(f"{count(number)} {source}" for source, number in drawn.items())
    return Cell(count(sum(drawn.values())), note=sources if len(drawn) > 1 else "")


def _further(name: str, one: MiningRound) -> Cell:
    return Cell(one.further.get(name, _NOTHING))


def _optional(value: float | None, *, digits: int) -> Cell:
    return Cell(_NOTHING if value is None else decimal(value, digits=digits))
