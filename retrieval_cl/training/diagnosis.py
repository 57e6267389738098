"""What the signs of a run mean: a table of faults, each with its signs, its name and its remedy.

Thresholds were set on warped digits with a small convnet, then frozen and proved on other images, encoders
and seeds (`benchmarks/faults.py`). A sign counts only where it holds in several looks in a row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

from retrieval_cl.training.signals import Signals

# Low on purpose: an untrained transformer starts near 0.1, and vectors around a common mean are no collapse.
MIN_STD_RATIO = 0.05
MIN_EFFECTIVE_RANK = 1.5
MIN_ROWS = 8
# Of a method without negatives, whose vectors shrink towards one another before they meet.
SHRUNK_STD_RATIO, SHRUNK_COSINE = 0.5, 0.95
FALLING_STD_RATIO, FALLING_COSINE, FALL = 0.6, 0.85, 0.99
# Cosines in float32 have seven digits, and published temperatures end at 0.01.
MIN_TEMPERATURE = 0.005
# Shares of the chance level: of the entropy where one candidate has it all, of a loss that is all wrong.
ONE_HOT, ALL_WRONG = 0.25, 2.0
# 0.5: own positives lie no nearer than others'. A few rows say too little.
MIN_PAIR_ORDER, MIN_PAIR_ROWS = 0.6, 32
# Spread below which vectors are equal up to rounding, and have no order.
EQUAL_STD_RATIO = 1e-3
# The matrices' norm as a multiple of that at the start, of a run that has much to learn yet and of any; and
# the steps after warm-up in which that is too fast. Word vectors bear more than layers do.
MAX_GROWTH, WILD_GROWTH, GROWTH_STEPS = 5.0, 30.0, 1000
UNLEARNED = 0.25
SAME = 1e-6
# Looks that the longest memory of a rule needs: those that must agree, and the one before them.
MEMORY = 4


@final
@dataclass(frozen=True)
class Fault:
    """What is wrong with a run.

    Attributes:
        name: that of its rule.
        step: of the look that decided.
        seen: the signs, in numbers, and for how many looks.
        remedy: what to change, by the names of settings.
    """

    name: str
    step: int
    seen: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.name} at step {self.step}: {self.seen}; {self.remedy}"


Holds = Callable[[Signals, Signals | None], bool]
"""Whether the signs of a fault are there, in a look and, where that counts, since the one before."""


@final
@dataclass(frozen=True)
class Rule:
    """A row of the table.

    Attributes:
        name: what the fault is called.
        holds: its signs.
        looks: for how many in a row they must hold.
        seen: what was seen, of the last look.
        remedy: what to do about it, of the last look.
    """

    name: str
    holds: Holds
    looks: int
    seen: Callable[[Signals], str]
    remedy: Callable[[Signals], str]


def diagnose(history: Sequence[Signals]) -> Fault | None:
    """The first fault of the table whose signs hold in the last looks; None where there is none.

    Args:
        history: looks, oldest first; `MEMORY` of them are enough.
    """
    return next((_fault(rule, history[-1]) for rule in RULES if _applies(rule, history)), None)


def _applies(rule: Rule, history: Sequence[Signals]) -> bool:
    if len(history) < rule.looks:
        return False
    before: list[Signals | None] = [None, *history[:-1]]
    pairs = list(zip(history, before, strict=True))[-rule.looks :]
    return all(rule.holds(now, then) for now, then in pairs)


def _fault(rule: Rule, last: Signals) -> Fault:
    return Fault(rule.name, last.step, f"in {rule.looks} looks in a row {rule.seen(last)}", rule.remedy(last))


def _below(value: float | None, limit: float) -> bool:
    return value is not None and value < limit


def _above(value: float | None, limit: float) -> bool:
    return value is not None and value > limit


def _norms_stand_still(now: Signals, then: Signals | None) -> bool:
    return now.batch_norm is not None and then is not None and now.batch_norm == then.batch_norm


def _twin_is_a_copy(now: Signals, then: Signals | None) -> bool:
    return _below(now.ema_gap, SAME) and _above(now.queue_fill, 0.0)


def _too_sharp(now: Signals, then: Signals | None) -> bool:
    chance = now.chance or 0.0
    is_one_hot = _above(chance, 0.0) and _below(now.entropy, ONE_HOT * chance)
    return is_one_hot and (_below(now.temperature, MIN_TEMPERATURE) or _above(now.loss, ALL_WRONG * chance))


def _weights_blow_up(now: Signals, then: Signals | None) -> bool:
    has_learned = now.loss is not None and now.loss < UNLEARNED * (now.chance or 0.0)
    return _above(now.growth, WILD_GROWTH if has_learned else MAX_GROWTH) and (
        now.step <= now.warmup + GROWTH_STEPS
    )


def _pairs_do_not_match(now: Signals, then: Signals | None) -> bool:
    is_judged = now.rows >= MIN_PAIR_ROWS and now.step > now.warmup and _above(now.std_ratio, EQUAL_STD_RATIO)
    return is_judged and _below(now.pair_order, MIN_PAIR_ORDER)


def _collapsed(now: Signals, then: Signals | None) -> bool:
    return now.rows >= MIN_ROWS and (
        _below(now.std_ratio, MIN_STD_RATIO) or _below(now.effective_rank, MIN_EFFECTIVE_RANK)
    )


def _shrinks(now: Signals, then: Signals | None) -> bool:
    """Vectors of a method without negatives fall together, or have done so."""
    is_alone = now.chance is not None and abs(now.chance) < SAME
    shrunk = _below(now.std_ratio, SHRUNK_STD_RATIO) and _above(now.positive_score, SHRUNK_COSINE)
    return is_alone and now.rows >= MIN_ROWS and (shrunk or _falls(now, then) or _collapsed(now, then))


def _falls(now: Signals, then: Signals | None) -> bool:
    if then is None or then.std_ratio is None:
        return False
    limit = min(FALLING_STD_RATIO, FALL * then.std_ratio)
    return _below(now.std_ratio, limit) and _above(now.positive_score, FALLING_COSINE)


def _has_no_predictor(now: Signals, then: Signals | None) -> bool:
    is_twinned = now.ema_gap is not None and now.gradients is not None
    return is_twinned and "predictor" not in (now.gradients or {}) and _shrinks(now, then)


def _targets_follow(now: Signals, then: Signals | None) -> bool:
    return now.ema_gap is not None and _shrinks(now, then)


def _number(value: float | None, digits: int = 3) -> str:
    return "unknown" if value is None else f"{value:.{digits}f}"


def _spread(last: Signals) -> str:
    return (
        f"std ratio {_number(last.std_ratio)}, sound is near 1; effective rank "
        f"{_number(last.effective_rank, 1)}, at most {min(last.rows - 1, last.dim)}"
    )


def _together(last: Signals) -> str:
    cosine = _number(last.positive_score)
    return f"vectors without negatives fell together (cosine of pairs {cosine}, {_spread(last)})"


def _slower(last: Signals) -> str:
    return f"lower training.lr (now {last.lr:g}) or lengthen training.warmup_share"


RULES = (
    Rule(
        "frozen batch norm",
        _norms_stand_still,
        2,
        lambda last: "the running statistics of trained BatchNorm layers did not move",
        lambda last: "put the model into training mode, or freeze the layers' weights as well (method.norm)",
    ),
    Rule(
        "EMA momentum 0",
        _twin_is_a_copy,
        2,
        lambda last: (
            f"the slow twin equals what it follows (gap {_number(last.ema_gap)}), so the queue's keys are of "
            "other encoders than today's"
        ),
        lambda last: "raise method.momentum (0.99 to 0.999)",
    ),
    Rule(
        "temperature too low",
        _too_sharp,
        3,
        lambda last: (
            f"one candidate had nearly all the probability (entropy {_number(last.entropy, 2)} of "
            f"{_number(last.chance, 2)}) at temperature {last.temperature or 0:g}, loss "
            f"{_number(last.loss, 2)}"
        ),
        lambda last: "raise method.temperature (0.05 to 0.5)",
    ),
    Rule(
        "learning rate too high",
        _weights_blow_up,
        2,
        lambda last: (
            f"the weights were {_number(last.growth, 1)} times as long as at the start, and a step "
            f"{_number(last.step_size)} of them"
        ),
        _slower,
    ),
    Rule(
        "pairs do not match",
        _pairs_do_not_match,
        3,
        lambda last: (
            f"own positives were nearer than others' in {_number(last.pair_order, 2)} of cases, chance is "
            f"0.5 (loss {_number(last.loss, 2)}, chance {_number(last.chance, 2)})"
        ),
        lambda last: (
            "check that row i of both views is the same item (source.path, augmentation.preset); "
            f"if pairs are right, {_slower(last)}"
        ),
    ),
    Rule(
        "no predictor",
        _has_no_predictor,
        3,
        _together,
        lambda last: "set method.predictor",
    ),
    Rule(
        "no stop-gradient",
        _targets_follow,
        3,
        _together,
        lambda last: (
            f"targets must get no gradient and follow slowly: raise method.momentum, or {_slower(last)}"
        ),
    ),
    Rule(
        "no negatives",
        _shrinks,
        3,
        _together,
        lambda last: "take an objective with negatives (method.objective: info_nce)",
    ),
    Rule(
        "collapse",
        _collapsed,
        3,
        lambda last: f"nearly all inputs got one vector ({_spread(last)})",
        lambda last: f"{_slower(last)}, and check that a batch's positives are not all the same item",
    ),
)
"""In the order in which they are asked: a cause before what it leads to."""
