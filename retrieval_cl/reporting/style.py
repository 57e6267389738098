"""The look of a page: one palette for light and dark, shared by text and figures, and the style sheet."""

from __future__ import annotations

from importlib.resources import files
from types import MappingProxyType

# name -> (on light, on dark). Light values are unique: figures are drawn with them and then follow the page.
PALETTE = MappingProxyType(
    {
        "paper": ("#ffffff", "#14171a"),
        "panel": ("#f6f7f8", "#1c2024"),
        "rule": ("#dfe3e6", "#343a40"),
        "ink": ("#1b2025", "#e6e9ec"),
        "muted": ("#5c6670", "#9aa5af"),
        "teal": ("#0b6e69", "#4fc3b7"),
        "slate": ("#626c78", "#8f9ba7"),
        "ochre": ("#96600a", "#e0a94a"),
        "indigo": ("#4650bd", "#97a3ff"),
        "brick": ("#b23a2a", "#f0806e"),
        "tint": ("#eaf4f3", "#17302f"),
    }
)

# The colour of each system and each group of scores, the same on every figure and in every table.
_ROLES = MappingProxyType(
    {
        "bm25": "ochre",
        "control": "slate",
        "mined": "teal",
        "hybrid": "indigo",
        "zero-shot": "slate",
        "fine-tuned": "teal",
        "trained encoder": "teal",
        "raw pixels": "ochre",
        "before training": "slate",
        "positives": "teal",
        "in-batch": "slate",
    }
)
_MINED_SCORES = "mined"
_OTHERS = ("teal", "indigo", "brick", "slate")  # without that of BM25, which stands beside any of them


def light(name: str) -> str:
    """The light value of a palette colour, as figures are drawn with."""
    return PALETTE[name][0]


def colour_of(role: str, *, index: int = 0) -> str:
    """The palette name of a system or arm; a role without its own takes the `index`-th of the rest."""
    return _ROLES.get(role, _OTHERS[index % len(_OTHERS)])


def score_colour_of(group: str, *, index: int = 0) -> str:
    """The palette name of a group of scores; mined negatives are brick, to stand apart from positives."""
    return "brick" if group == _MINED_SCORES else colour_of(group, index=index)


def style_sheet() -> str:
    """The CSS of a page: light by default and on paper, dark where the reader's screen is."""
    dark = f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {_variables(1)} }} }}"
    rules = files("retrieval_cl.reporting").joinpath("page.css").read_text(encoding="utf8")
    return f":root {{ {_variables(0)} }}\n{dark}\n{rules}"


def _variables(side: int) -> str:
    return "".join(f"--{name}: {pair[side]}; " for name, pair in PALETTE.items())
