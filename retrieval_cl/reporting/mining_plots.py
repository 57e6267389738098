"""The curve of a margin sweep: false-negative rate against what is kept."""

from __future__ import annotations

from retrieval_cl.reporting.figures import Picture, canvas, picture
from retrieval_cl.reporting.mining_facts import EstimateFacts
from retrieval_cl.reporting.style import light
from retrieval_cl.reporting.wording import percent


def margin_curve(found: EstimateFacts, *, name: str) -> Picture:
    """Rate with its interval against the share of candidates kept, a point a margin; the bound is a line."""
    kept = [point.kept for point in found.sweep]
    rates = [point.rate for point in found.sweep]
    labels = ["none" if point.margin is None else f"{point.margin:g}" for point in found.sweep]
    with canvas(300) as (figure, axes):
        ax, colour = axes[0, 0], light("brick")
        means = [rate.mean for rate in rates]
        ax.fill_between(
            kept,
            [rate.low for rate in rates],
            [rate.high for rate in rates],
            color=colour,
            alpha=0.2,
            linewidth=0,
        )
        ax.plot(kept, means, color=colour, marker="o", markersize=5)
        ax.axhline(found.bound, color=light("muted"), linewidth=1.2, linestyle=(0, (4, 3)))
        shown: list[float] = []
        for x, y, text in zip(kept, means, labels, strict=True):
            # Points that lie on each other would write over each other.
            if all(abs(x - other) > 0.03 for other in shown):
                shown.append(x)
                where = {"xytext": (0, 9), "textcoords": "offset points", "ha": "center"}
                ax.annotate(text, (x, y), **where, color=light("muted"), fontsize=11.5)
        ax.set(xlabel="candidates kept (labels: relative margin)", ylabel="estimated false negatives")
        ax.set_ylim(bottom=0, top=1.15 * max(found.bound, *(rate.high for rate in rates)))
        ax.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
        ax.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}" if share >= 0.1 else f"{share:.1%}")
        said = [f"{text}: {percent(rate.mean)}" for text, rate in zip(labels, rates, strict=True)]
        return picture(figure, name=name, alt=f"False-negative rate by relative margin. {'; '.join(said)}.")
