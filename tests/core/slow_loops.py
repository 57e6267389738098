"""Slow references: the comparison, from the definitions of its terms; the metrics, one query at a time."""

import math
from dataclasses import dataclass, replace

import torch

from retrieval_cl.core.contrast import Bank, Contrast, Guide, Part


def slow_info_nce(
    contrast,
    *,
    symmetric=False,
    positives="target",
    decoupled=False,
    hardness=0.0,
    debias=0.0,
    guard=None,
):
    """Loss per anchor, each term as its paper defines it; autograd does the rest."""
    logits, negative = slow_logits(contrast), slow_negatives(contrast, guard)
    matched = slow_positives(contrast, positives)
    anchors, columns = range(len(negative)), range(len(negative[0]))
    floor = -contrast.scale[0] if contrast.bias is None else contrast.bias[0] - contrast.scale[0]

    def loss(positives, negatives):
        return slow_share(
            positives, negatives, floor=floor, decoupled=decoupled, hardness=hardness, debias=debias
        )

    def forward(anchor, chosen):
        return loss(logits[anchor, chosen], logits[anchor, [c for c in columns if negative[anchor][c]]])

    def back(chosen, column):
        return loss(logits[chosen, column], logits[[b for b in anchors if negative[b][column]], column])

    losses = []
    for anchor, target in enumerate(contrast.targets.tolist()):
        mine = [c for c in columns if matched[anchor][c]]
        if positives == "sum":
            also = [b for b in anchors if matched[b][target]]
            pair = forward(anchor, mine), back(also, target)
        else:
            pair = (
                torch.stack([forward(anchor, [c]) for c in mine]).mean(),
                torch.stack([back([anchor], c) for c in mine]).mean(),
            )
        losses.append((pair[0] + pair[1]) / 2 if symmetric else pair[0])
    return torch.stack(losses)


def slow_share(positives, negatives, *, floor, decoupled, hardness, debias):
    """-log of the share of the positives, with the negatives' sum reweighted and corrected.

    In logs, as the terms themselves are 0 or infinite at low temperatures.
    """
    number = len(negatives)
    if number == 0:
        return positives.sum() * 0.0
    numerator = torch.logsumexp(positives, dim=0)
    # Robinson et al. 2021: an expectation over negatives drawn with probability ~ exp(beta * logit).
    chances = torch.log_softmax(hardness * negatives, dim=0)
    total = math.log(number) + torch.logsumexp(chances + negatives, dim=0)
    if debias > 0:
        # Chuang et al. 2020, eq. 7, where the positives' mean stands for their expectation.
        false = math.log(debias * number / len(positives)) + numerator
        top = torch.maximum(total, false).detach()
        left = ((total - top).exp() - (false - top).exp()) / (1 - debias)
        total = math.log(number) + floor
        if left > 0:
            total = torch.maximum(left.log() + top, total)
    return total - numerator if decoupled else _log_of_one_and(total - numerator)


def slow_sigmoid(contrast, *, positives="target", guard=None):
    """SigLIP's pseudo-code: -log sigmoid(label * logit), summed over each anchor's pairs."""
    logits, negative = slow_logits(contrast), slow_negatives(contrast, guard)
    matched = slow_positives(contrast, positives)
    losses = []
    for anchor, (right, wrong) in enumerate(zip(matched, negative, strict=True)):
        columns = [c for c in range(len(right)) if right[c] or wrong[c]]
        labels = torch.tensor([1.0 if right[c] else -1.0 for c in columns])
        losses.append(_log_of_one_and(-labels * logits[anchor, columns]).sum())
    return torch.stack(losses)


def _log_of_one_and(logs):
    """log(1 + exp(x)), where exp(x) may be infinite."""
    return torch.logaddexp(torch.zeros_like(logs), logs)


def slow_logits(contrast):
    """All logits at once: nothing the package would ever do."""
    vectors = torch.cat([part.vectors for part in contrast.bank.parts])
    logits = (contrast.anchors @ vectors.T) * contrast.scale
    return logits if contrast.bias is None else logits + contrast.bias


def slow_negatives(contrast, guard=None):
    """For each anchor, which columns are its negatives, as a list of lists."""
    allowed = _allowed(contrast, guard)
    columns = range(contrast.bank.num_columns)
    return [
        [is_negative(contrast, anchor, column) and allowed[anchor][column] for column in columns]
        for anchor in range(len(contrast.anchors))
    ]


def slow_positives(contrast, positives):
    """For each anchor, which columns are its positives, as a list of lists."""
    return [
        [
            column == target
            or (positives != "target" and _is_seen(contrast, a, column) and _is_known(contrast, a, column))
            for column in range(contrast.bank.num_columns)
        ]
        for a, target in enumerate(contrast.targets.tolist())
    ]


def is_negative(contrast, anchor, column):
    """The relation, said once more in plain words."""
    if _column(contrast, column)[0] == -1 or column == int(contrast.targets[anchor]):
        return False
    return _is_seen(contrast, anchor, column) and not _is_known(contrast, anchor, column)


def _is_seen(contrast, anchor, column):
    shared = _column(contrast, column)[1]
    return shared or (contrast.own is not None and column in contrast.own[anchor].tolist())


def _is_known(contrast, anchor, column):
    item = _column(contrast, column)[0]
    return item != -1 and item in contrast.known[anchor].tolist()


def _column(contrast, column):
    """Its item id, and whether all see it."""
    for part, start in zip(contrast.bank.parts, contrast.bank.starts, strict=True):
        if start <= column < start + len(part.ids):
            return int(part.ids[column - start]), part.shared
    raise IndexError(column)


def _allowed(contrast, guard):
    num_anchors, columns = len(contrast.anchors), range(contrast.bank.num_columns)
    if guard is None:
        return [[True] * len(columns)] * num_anchors
    anchors, groups = contrast.anchors, [part.vectors for part in contrast.bank.parts]
    if guard.by_guide:
        anchors, groups = contrast.guide.anchors, contrast.guide.bank
    scores = (anchors.detach() @ torch.cat([*groups]).detach().T).tolist()
    allowed = []
    for anchor, target in enumerate(contrast.targets.tolist()):
        positive = scores[anchor][target]
        if guard.margin is not None:
            limit = positive + guard.margin
        else:
            limit = positive - (1 - guard.fraction) * abs(positive)
        allowed.append([scores[anchor][column] <= limit for column in columns])
    return allowed


@dataclass(frozen=True)
class Options:
    """What a drawn contrast has, beside anchors and one part of positives."""

    symmetric: bool = False
    bias: bool = False
    negatives: bool = False
    private: bool = False
    private_targets: bool = False
    duplicates: bool = False
    padding: bool = False
    frozen_part: bool = False
    several_known: bool = False
    repeats: bool = False
    weights: bool = False
    guide: bool = False


def draw_contrast(options, *, seed, num_anchors=7, dim=5, dtype=torch.float64, scale=3.0):
    """A random contrast with the given options; every leaf that is not frozen asks for a gradient."""
    random = torch.Generator().manual_seed(seed)
    high = num_anchors if options.duplicates else 10_000

    def rows(number, *, frozen=False):
        x = torch.randn(number, dim, generator=random, dtype=torch.float64)
        return torch.nn.functional.normalize(x, dim=1).to(dtype).requires_grad_(not frozen)

    def draw_ids(number):
        ids = torch.randint(0, high, (number,), generator=random)
        if options.padding and number > 1:
            ids[torch.randperm(number, generator=random)[: number // 3 + 1]] = -1
        if options.repeats:
            # The same few items again and again: an anchor meets several positives in each part.
            ids[::2] = target_ids[torch.randint(0, num_anchors, ids[::2].shape, generator=random)]
        return ids

    target_ids = torch.randint(0, high, (num_anchors,), generator=random)
    sizes = [(num_anchors, not options.private_targets)]
    sizes += [(num_anchors + 4, True)] if options.negatives or options.frozen_part or options.repeats else []
    sizes += [(3 * num_anchors, False)] if options.private else []
    parts = []
    for number, (size, shared) in enumerate(sizes):
        ids = target_ids if number == 0 else draw_ids(size)
        parts.append(Part(rows(size, frozen=options.frozen_part and number == 1), ids, shared=shared))
    if options.padding:
        extra = Part(rows(3), torch.tensor([-1, 3, -1]))
        parts.append(extra)
    bank = Bank(tuple(parts))
    targets = torch.randperm(num_anchors, generator=random)
    known = target_ids[targets][:, None]
    if options.several_known:
        more = torch.randint(-1, high, (num_anchors, 3), generator=random)
        known = torch.cat([more, known, known], dim=1)
    own = None
    if options.private or options.private_targets:
        own = torch.randint(-1, bank.num_columns, (num_anchors, 6), generator=random)
    return Contrast(
        anchors=rows(num_anchors),
        known=known,
        bank=bank,
        targets=targets,
        scale=torch.tensor([scale], dtype=dtype).requires_grad_(),
        bias=torch.tensor([0.3], dtype=dtype).requires_grad_() if options.bias else None,
        own=own,
        weights=torch.rand(num_anchors, generator=random).to(dtype) if options.weights else None,
        guide=_draw_guide(bank, num_anchors, random) if options.guide else None,
    )


def _draw_guide(bank, num_anchors, random):
    sizes = [num_anchors, *(len(part.ids) for part in bank.parts)]
    anchors, *groups = (torch.randn(size, 4, generator=random) for size in sizes)
    return Guide(anchors, tuple(groups))


def leaves(contrast):
    """The tensors that ask for a gradient."""
    candidates = [contrast.anchors, contrast.scale, *(part.vectors for part in contrast.bank.parts)]
    candidates += [] if contrast.bias is None else [contrast.bias]
    return [leaf for leaf in candidates if leaf.requires_grad]


def converted(contrast, dtype):
    """The same contrast in another dtype, with leaves of its own."""

    def leaf(x):
        return x.detach().to(dtype).requires_grad_(x.requires_grad)

    parts = tuple(replace(part, vectors=leaf(part.vectors)) for part in contrast.bank.parts)
    return replace(
        contrast,
        anchors=leaf(contrast.anchors),
        bank=Bank(parts),
        scale=leaf(contrast.scale),
        bias=None if contrast.bias is None else leaf(contrast.bias),
    )


def difference(found, wanted):
    """max|difference| / max|wanted|, the measure of all tolerances; max|difference| if that is 0."""
    found, wanted = found.detach().double(), wanted.detach().double()
    return float((found - wanted).abs().max() / (wanted.abs().max() or 1.0))


def discounted(grades):
    """Sum of grades over log2(rank + 1)."""
    return sum(grade / math.log2(rank + 1) for rank, grade in enumerate(grades, start=1))


def slow_metrics(rows, judged, k):
    """All metrics of one query at k: `rows` in rank order, `judged` maps a row to its grade."""
    top = rows[:k]
    relevant = {row for row, grade in judged.items() if grade >= 1}
    hits = [rank for rank, row in enumerate(top, start=1) if row in relevant]
    gained = discounted(max(judged.get(row, 0), 0) for row in top)
    best = sorted((max(grade, 0) for grade in judged.values()), reverse=True)[:k]
    ideal = discounted(best)
    return {
        "recall": len(hits) / len(relevant) if relevant else 0.0,
        "success": float(bool(hits)),
        "mrr": 1.0 / hits[0] if hits else 0.0,
        "ndcg": gained / ideal if ideal else 0.0,
    }
