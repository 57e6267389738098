"""The parts of every report; each is a list of pieces, empty where there is nothing to show."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from retrieval_cl.reporting.collapse import collapse_verdict
from retrieval_cl.reporting.curves import Arm
from retrieval_cl.reporting.facts import Comparison, DataFacts, Provenance, Results
from retrieval_cl.reporting.markup import Html
from retrieval_cl.reporting.page import (
    Cell,
    Row,
    code,
    definitions,
    figure,
    paragraph,
    subheading,
    table,
    tiles,
    verdict,
)
from retrieval_cl.reporting.plots import (
    Scores,
    finite_scores,
    health_curves,
    loss_and_recall,
    metric_intervals,
    score_histograms,
)
from retrieval_cl.reporting.style import colour_of
from retrieval_cl.reporting.wording import (
    between,
    count,
    decimal,
    duration,
    explanation,
    finding,
    finding_kind,
    is_clear,
    label,
    p_value,
    points,
    points_between,
    score_finding,
    score_label,
)

_OF_QUERIES = "Mean over the test queries, 95% bootstrap interval below it."


def headline(results: Results, *, metric: str) -> list[Html]:
    """One tile a system with its number."""
    items = [
        (
            decimal(row[metric].mean),
            label(name),
            f"{metric}, {between(row[metric])}",
            colour_of(name, index=place),
        )
        for place, (name, row) in enumerate(results.items())
        if metric in row
    ]
    return [tiles(items)] if items else []


def results_table(results: Results, *, note: str = _OF_QUERIES, name: str = "metrics") -> list[Html]:
    """Systems by metrics with intervals, the best mean of each column emphasised, and a picture of it.

    `note`: what the numbers are the mean of, and what the intervals are. `name`: of the picture, which a page
    with several tables gives each.
    """
    metrics = list(dict.fromkeys(metric for row in results.values() for metric in row))
    if not metrics:
        return []
    best = {m: max(row[m].mean for row in results.values() if m in row) for m in metrics}
    rows = [
        [
            Cell(label(name), note=explanation(name)),
            *(
                Cell(decimal(row[m].mean), note=between(row[m]), best=row[m].mean == best[m])
                if m in row
                else Cell("")
                for m in metrics
            ),
        ]
        for name, row in results.items()
    ]
    caption = f"{note} Best mean of each column in colour."
    pieces = [table(["system", *metrics], rows, caption=caption)]
    if len(results) > 1:
        drawn = metric_intervals(results, metrics=metrics[:3], name=name)
        caption = (
            "Mean and 95% interval. Two intervals may overlap although the difference is clear: "
            "all systems answer the same queries, and the tests compare them query by query."
        )
        pieces.append(figure(drawn, caption=caption))
    return pieces


def findings(comparisons: Sequence[Comparison], *, metric: str) -> list[Html]:
    """What came out on the one metric, a sentence a comparison."""
    return [verdict(finding(one), kind=finding_kind(one)) for one in comparisons if one.metric == metric]


def differences(comparisons: Sequence[Comparison]) -> list[Html]:
    """All comparisons as a table."""
    if not comparisons:
        return []
    rows: list[Row] = [
        [
            f"{label(one.system)} \N{MINUS SIGN} {label(one.than)}",
            one.metric,
            Cell(points(one.difference.mean), best=is_clear(one) and one.difference.mean > 0),
            points_between(one.difference),
            p_value(one.p)[2:].removeprefix("=\N{NO-BREAK SPACE}"),
            _answer(one),
        ]
        for one in comparisons
    ]
    headings = ["difference", "metric", "points", "95% interval", "p", "clear?"]
    note = (
        "1 point = 0.01 of the metric. Two-sided paired permutation test over the test queries. "
        "It covers the choice of queries, not the seed of the training."
    )
    return [table(headings, rows, text_columns=2, caption=note)]


def curves(arms: Sequence[Arm], *, metric: str) -> list[Html]:
    """Loss and dev recall against the step."""
    if not any(len(arm.series(key)[0]) for arm in arms for key in ("loss", metric)):
        return []
    said = ["Faint: as measured; bold: running mean within a round."]
    if any(len(arm.round_starts()) > 1 for arm in arms):
        said.append("Vertical lines: the negatives are mined again with the weights of that step.")
    if len(arms) > 1:
        said.append("The losses of the two runs cannot be compared, as mined negatives make the task harder;")
        said.append("recall on dev can.")
    return [figure(loss_and_recall(arms, metric=metric), caption=" ".join(said))]


def histograms(scores: Scores) -> list[Html]:
    """Where the scores of positives and negatives lie."""
    groups = finite_scores(scores)
    if not groups:
        return []
    medians = {name: float(np.median(values)) for name, values in groups.items()}
    sizes = ", ".join(f"{count(len(values))} {score_label(name)}" for name, values in groups.items())
    return [
        paragraph(score_finding(medians)),
        figure(score_histograms(groups), caption=f"Each group sums to 100%; triangles are medians. {sizes}."),
    ]


def collapse(
    arms: Sequence[Arm], *, dim: int, what: str = "texts", pair: str = "a query and its passage"
) -> list[Html]:
    """The verdicts on collapse and the curves they rest on; `what` is embedded, `pair` drawn together."""
    found = [(arm, collapse_verdict(arm, dim=dim)) for arm in arms]
    verdicts = [verdict(said[1], kind=said[0]) for _, said in found if said is not None]
    if not verdicts:
        return []
    caption = (
        f"Collapse: all {what} get nearly the same vector (low spread, uniformity near 0), or the vectors "
        "use few axes (low effective rank; it cannot exceed the number of rows measured). The shaded zones "
        f"are rules of thumb. Alignment: lower means that {pair} are closer; alone it tells nothing about "
        "collapse."
    )
    drawn = [arm for arm, said in found if said is not None]
    return [*verdicts, figure(health_curves(drawn, dim=dim), caption=caption)]


def timings(
    seconds: Mapping[str, float], *, total: float | None = None, peak_rss_gib: float | None = None
) -> list[Html]:
    """Seconds of each stage with a bar, longest at full width."""
    if not seconds:
        return []
    longest = max(max(seconds.values()), 1e-9)
    rows: list[Row] = [
        [stage, Cell("", share=value / longest), duration(value)] for stage, value in seconds.items()
    ]
    whole = math.fsum(seconds.values()) if total is None else total
    rows.append([Cell("all"), "", Cell(duration(whole), best=True)])
    memory = (
        f"Peak memory {decimal(peak_rss_gib, digits=2)} GiB (resident). " if peak_rss_gib is not None else ""
    )
    return [table(["stage", "", "wall time"], rows, text_columns=2, caption=f"{memory}Wall clock, one run.")]


def data(facts: DataFacts) -> list[Html]:
    """Sizes of the data and, for pydoc, what it was read from."""
    sizes = {
        "texts": facts.what,
        "passages": count(facts.num_passages),
        "queries": ", ".join(
            f"{count(number)} {split}"
            for split, number in (
                ("train", facts.num_train_queries),
                ("dev", facts.num_dev_queries),
                ("test", facts.num_test_queries),
            )
            if number
        ),
        "packages": ", ".join(
            f"{name}\N{NO-BREAK SPACE}{version}" for name, version in facts.packages.items()
        ),
    }
    return [definitions({name: value for name, value in sizes.items() if value})]


def reproduce(provenance: Provenance) -> list[Html]:
    """The command, the machine and the settings."""
    facts = {"made": provenance.made_at, "machine": provenance.hardware, **provenance.settings}
    return [
        paragraph("This page was made by"),
        code(provenance.command),
        definitions({name: value for name, value in facts.items() if value}),
    ]


def next_steps(commands: Sequence[tuple[str, str]]) -> list[Html]:
    """Commands to go on with, each as (what it does, the command)."""
    return [piece for what, command in commands for piece in (subheading(what), code(command))]


def _answer(comparison: Comparison) -> str:
    if not is_clear(comparison):
        return "no"
    return "better" if comparison.difference.mean > 0 else "worse"
