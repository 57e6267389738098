"""A linear classifier on frozen features: how much of the classes a plane can tell apart."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from jaxtyping import Float, Float64, Int64

from retrieval_cl.core.errors import InputError

PENALTIES = (1e-3, 1e-2, 1e-1, 1.0)
HELD_OUT = 0.2
MAX_STEPS = 500


@final
@dataclass(frozen=True, eq=False)
class LinearFit:
    """A fitted classifier.

    Attributes:
        c: the inverse penalty that was chosen.
        tried: those it was chosen from.
        held_out: share of the labelled rows it was chosen on.
        has_converged: whether the last fit came to its end within `MAX_STEPS`.
        model: scikit-learn's pipeline.
    """

    c: float
    tried: tuple[float, ...]
    held_out: float
    has_converged: bool
    model: Any

    def name(self, features: Float[np.ndarray, "Q F"]) -> Int64[np.ndarray, " Q"]:
        """The class of each row."""
        return np.asarray(self.model.predict(features.astype(np.float64)), dtype=np.int64)

    def __str__(self) -> str:
        end = "" if self.has_converged else f", stopped after {MAX_STEPS} steps"
        return (
            f"linear probe: logistic regression on standardised features without augmentation, C {self.c:g} "
            f"of {', '.join(f'{c:g}' for c in self.tried)} by {self.held_out:.0%} of the labelled rows{end}"
        )


def linear_probe(
    features: Float[np.ndarray, "N F"],
    labels: Int64[np.ndarray, " N"],
    asked: Float[np.ndarray, "Q F"],
    *,
    seed: int,
) -> Int64[np.ndarray, " Q"]:
    """The classes that a linear classifier of labelled rows names for others; see `fit_linear`."""
    return fit_linear(features, labels, seed=seed).name(asked)


def fit_linear(
    features: Float[np.ndarray, "N F"],
    labels: Int64[np.ndarray, " N"],
    *,
    seed: int,
    penalties: Sequence[float] = PENALTIES,
) -> LinearFit:
    """Fits multinomial logistic regression to standardised rows (scikit-learn, L-BFGS, float64).

    Mean and deviation are those of the labelled rows. The inverse penalty C is the one of least
    cross-entropy on a fifth of them, drawn by class with the seed, which tells more than the few they name
    wrong; then all are fitted again. So the asked rows have no part in any choice. Papers train on augmented
    crops with SGD instead, which gives somewhat other numbers.

    Args:
        features: frozen, of the evaluation transform.
        labels: class of each; at least two classes.
        seed: of the draw.
        penalties: inverse penalties to choose from, `C` of scikit-learn: the loss is C times the sum of the
            rows' cross-entropies, plus half of the squared weights.

    Raises:
        InputError: a row holds NaN or infinity.
    """
    assert len(features) == len(labels) and len(np.unique(labels)) > 1
    _check_finite(features)
    rows, tried = features.astype(np.float64), tuple(sorted(penalties))
    kept, held = _split(labels, seed=seed)
    models = (_fit(rows[kept], labels[kept], c=c) for c in tried)
    losses = [_loss(model, rows[held], labels[held]) for model in models]
    best = tried[int(np.argmin(losses))]
    model = _fit(rows, labels, c=best)
    has_converged = bool((model[-1].n_iter_ < MAX_STEPS).all())
    return LinearFit(best, tried, HELD_OUT, has_converged, model)


def _check_finite(features: Float[np.ndarray, "N F"]) -> None:
    broken = ~np.isfinite(features).all(axis=1)
    if broken.any():
        raise InputError(
            f"features of row {int(broken.argmax())} hold NaN or infinity; has training diverged?"
        )


def _fit(rows: Float64[np.ndarray, "N F"], labels: Int64[np.ndarray, " N"], *, c: float) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=MAX_STEPS))
    with warnings.catch_warnings():
        # Told by `has_converged`.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(rows, labels)


def _loss(model: Any, rows: Float64[np.ndarray, "N F"], labels: Int64[np.ndarray, " N"]) -> float:
    from sklearn.metrics import log_loss

    return float(log_loss(labels, model.predict_proba(rows), labels=model[-1].classes_)) if len(rows) else 0.0


def _split(
    labels: Int64[np.ndarray, " N"], *, seed: int
) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " h"]]:
    """Rows to fit and rows to choose on: of each class a fifth, at least one, never its last one."""
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    counts = np.unique(labels, return_counts=True)[1]
    held = np.minimum(np.maximum(1, np.rint(HELD_OUT * counts)), counts - 1).astype(np.int64)
    place = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    is_held = place < np.repeat(held, counts)
    return np.sort(order[~is_held]), np.sort(order[is_held])
