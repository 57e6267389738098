"""From a matplotlib figure to inline SVG that takes its colours and its typeface from the page around it."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final
from xml.etree import ElementTree

import matplotlib
import numpy as np
from jaxtyping import Float64
from matplotlib.figure import Figure

from retrieval_cl.reporting.markup import Html, readable
from retrieval_cl.reporting.style import PALETTE, light

WIDTH = 860  # px: the column of text of a page, so that one px of the figure is one px of the page
MAX_POINTS = 400  # more points than this cannot be told apart at WIDTH and only make the file larger

# Text stays text (readable, searchable, small); names are data, so a `$` in one must not start mathematics.
_SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "retrieval-cl",
    "text.parse_math": False,
    "font.family": ["DejaVu Sans"],
    "font.size": 12.5,
    "axes.titlesize": 13.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10.0,
    "axes.labelsize": 12.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 1.0,
    "axes.edgecolor": light("rule"),
    "axes.labelcolor": light("muted"),
    "axes.titlecolor": light("ink"),
    "axes.facecolor": "none",
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": light("rule"),
    "grid.linewidth": 1.0,
    "text.color": light("ink"),
    "xtick.color": light("rule"),
    "ytick.color": light("rule"),
    "xtick.labelcolor": light("muted"),
    "ytick.labelcolor": light("muted"),
    "ytick.major.size": 0.0,
    "figure.facecolor": "none",
    "figure.constrained_layout.h_pad": 0.07,
    "figure.constrained_layout.w_pad": 0.07,
    "figure.constrained_layout.hspace": 0.06,
    "figure.constrained_layout.wspace": 0.04,
    "legend.frameon": False,
    "lines.linewidth": 2.0,
    "lines.solid_capstyle": "round",
}


@final
@dataclass(frozen=True)
class Picture:
    """An inline SVG and the words for a reader who cannot see it."""

    svg: Html
    alt: str


@contextmanager
def canvas(height: int, **subplots: Any) -> Iterator[tuple[Figure, Any]]:
    """Yields a figure, WIDTH by `height` px, and its axes (a 2-d array); the house's settings hold inside.

    The settings are matplotlib's process-wide ones and are put back on leaving; pyplot is never imported.
    """
    with matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=(WIDTH / 72, height / 72), dpi=72, layout="constrained")
        yield figure, figure.subplots(squeeze=False, **subplots)


def picture(figure: Figure, *, name: str, alt: str) -> Picture:
    """Draws the figure. `name` keeps the ids of several pictures on one page apart; call inside `canvas`."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return Picture(Html(_inline(stream.getvalue(), name=name, alt=alt)), alt)


def thin(
    x: Float64[np.ndarray, " n"], y: Float64[np.ndarray, " n"]
) -> tuple[Float64[np.ndarray, " m"], Float64[np.ndarray, " m"]]:
    """At most MAX_POINTS points, each the mean of neighbouring ones."""
    if len(x) <= MAX_POINTS:
        return x, y
    pieces = np.array_split(np.arange(len(x)), MAX_POINTS)
    return np.array([x[piece].mean() for piece in pieces]), np.array([y[piece].mean() for piece in pieces])


def _inline(svg: str, *, name: str, alt: str) -> str:
    root = ElementTree.fromstring(svg[svg.index("<svg") :])
    for node in root.iter():
        # In an HTML page SVG needs no namespaces; without them the page holds no address at all.
        node.tag = _local(node.tag)
        node.attrib = {_local(key): _of_the_page(_local(key), value) for key, value in node.attrib.items()}
        node.text, node.tail = (node.text or "").strip() or None, None
        for child in [child for child in node if _local(child.tag) in ("metadata", "style")]:
            node.remove(child)
    _own_ids(root, name=name)
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": readable(alt)}
    return ElementTree.tostring(root, encoding="unicode")


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _of_the_page(key: str, value: str) -> str:
    """An attribute with the page's colours and typeface, and no more digits than can be seen."""
    if key == "style":
        value = re.sub(r"font-family: [^;]*;?\s*", "", value)
        for colour, (hexadecimal, _) in PALETTE.items():
            value = value.replace(hexadecimal, f"var(--{colour})")
        return value
    return re.sub(r"(\.\d\d)\d+", r"\1", " ".join(value.split()))


def _own_ids(root: ElementTree.Element, *, name: str) -> None:
    """Keeps only ids that something refers to, numbered under the picture's name."""
    uses = [(node, key) for node in root.iter() for key in ("href", "clip-path") if key in node.attrib]
    ids: dict[str, str] = {}
    for node, key in uses:
        old = re.sub(r"^url\(|\)$", "", node.attrib[key]).removeprefix("#")
        new = ids.setdefault(old, f"{name}-{len(ids)}")
        node.attrib[key] = node.attrib[key].replace(f"#{old}", f"#{new}")
    for node in root.iter():
        own = ids.get(node.attrib.pop("id", ""))
        if own is not None:
            node.attrib["id"] = own
