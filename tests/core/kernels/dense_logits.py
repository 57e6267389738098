"""Slow references: all logits at once, in float64; autograd does the rest."""

import math
from dataclasses import dataclass

import torch

LN2 = math.log(2.0)


@dataclass(frozen=True, eq=False)
class Case:
    """Rows, columns, and which entries are no negatives."""

    scaled: torch.Tensor
    vectors: torch.Tensor
    anchors: torch.Tensor
    columns: torch.Tensor
    padding: torch.Tensor

    @property
    def barred(self):
        """All barred entries, [A, C]."""
        barred = self.padding.repeat(len(self.scaled), 1)
        barred[self.anchors, self.columns] = True
        return barred

    def plan(self, blocks=None):
        """The plan of `flash` for this case."""
        from retrieval_cl.core.kernels.flash import plan

        return plan(
            self.anchors,
            self.columns,
            padding=self.padding,
            num_anchors=len(self.scaled),
            dim=self.scaled.shape[1],
            dtype=self.scaled.dtype,
            blocks=blocks,
        )


def draw_case(
    num_anchors, num_columns, dim, *, share=0.1, seed=0, scale=3.0, dtype=torch.float32, device="cpu"
):
    """Unit rows, a share of the entries barred (some of them twice), and some padding."""
    random = torch.Generator().manual_seed(seed)

    def rows(number):
        return torch.nn.functional.normalize(torch.randn(number, dim, generator=random), dim=1)

    num_pairs = int(share * num_anchors * num_columns)
    anchors = torch.randint(0, max(1, num_anchors), (num_pairs,), generator=random)
    columns = torch.randint(0, max(1, num_columns), (num_pairs,), generator=random)
    return Case(
        scaled=(rows(num_anchors) * scale / LN2).to(device, dtype),
        vectors=rows(num_columns).to(device, dtype),
        anchors=torch.cat([anchors, anchors[: num_pairs // 3]]).to(device),
        columns=torch.cat([columns, columns[: num_pairs // 3]]).to(device),
        padding=(torch.rand(num_columns, generator=random) < share).to(device),
    )


def log_sum(logits, *, dim, exponent=1.0):
    """log2 of the sum of 2 ** (exponent * logit)."""
    return torch.logsumexp(logits * (exponent * LN2), dim) / LN2


def weighted(logs, weights):
    """Sum of logs times weights, where anything was summed at all."""
    return (logs.where(logs > -torch.inf, 0.0) * weights).sum()


def dense_sums(case):
    """Log-sum-exps of rows and of columns, with the leaves they came from."""
    scaled, vectors = case.scaled.double().requires_grad_(), case.vectors.double().requires_grad_()
    logits = (scaled @ vectors.T).masked_fill(case.barred, -torch.inf)
    # A row of -inf alone would pass NaN on.
    return (
        _guarded(logits, dim=1),
        _guarded(logits, dim=0),
        (scaled, vectors),
    )


def _guarded(logits, *, dim):
    nothing = (logits == -torch.inf).all(dim, keepdim=True)
    return log_sum(logits.masked_fill(nothing, 0.0), dim=dim).masked_fill(nothing.squeeze(dim), -torch.inf)


def gap(found, wanted):
    """max|difference| / max|wanted| over what is finite; infinities must agree."""
    found, wanted = found.detach().double(), wanted.detach().double()
    held = wanted > -torch.inf
    assert torch.equal(found > -torch.inf, held) and not found.isnan().any()
    found, wanted = found[held], wanted[held]
    return float((found - wanted).abs().max() / (wanted.abs().max() or 1.0)) if len(wanted) else 0.0
