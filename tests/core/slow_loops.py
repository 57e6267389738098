"""Slow references: the comparison, one pair at a time; the metrics, one query at a time."""

import math
from dataclasses import dataclass, replace

import torch

from retrieval_cl.core.contrast import Bank, Contrast, Part


def slow_info_nce(contrast, *, symmetric=False):
    """Loss per anchor by loops; autograd does the rest."""
    vectors = torch.cat([part.vectors for part in contrast.bank.parts])
    num_anchors, num_columns = len(contrast.anchors), len(vectors)
    targets = contrast.targets.tolist()

    def logit(anchor, column):
        value = (contrast.anchors[anchor] * vectors[column]).sum() * contrast.scale[0]
        return value if contrast.bias is None else value + contrast.bias[0]

    def share(positive, negatives):
        return torch.logsumexp(torch.stack([positive, *negatives]), 0) - positive

    losses = []
    for anchor in range(num_anchors):
        positive = logit(anchor, targets[anchor])
        columns = [c for c in range(num_columns) if is_negative(contrast, anchor, c)]
        loss = share(positive, [logit(anchor, c) for c in columns])
        if symmetric:
            others = [b for b in range(num_anchors) if is_negative(contrast, b, targets[anchor])]
            loss = (loss + share(positive, [logit(b, targets[anchor]) for b in others])) / 2
        losses.append(loss)
    return torch.stack(losses)


def is_negative(contrast, anchor, column):
    """The relation, said once more in plain words."""
    ids = [(int(i), part.shared) for part in contrast.bank.parts for i in part.ids]
    item, shared = ids[column]
    if item == -1 or column == int(contrast.targets[anchor]):
        return False
    if item in contrast.known[anchor].tolist():
        return False
    return shared or (contrast.own is not None and column in contrast.own[anchor].tolist())


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
        return ids

    target_ids = torch.randint(0, high, (num_anchors,), generator=random)
    sizes = [(num_anchors, not options.private_targets)]
    sizes += [(num_anchors + 4, True)] if options.negatives or options.frozen_part else []
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
    )


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
