"""One process. What two ranks do together is told in tests/training/test_two_ranks.py."""

import torch

from retrieval_cl.core import ranks


def test_one_process_gathers_itself_and_averages_nothing():
    rows = torch.ones(2, 3, requires_grad=True)
    assert ranks.num_ranks() == 1 and ranks.rank() == 0
    assert ranks.gather_rows(rows) is rows
    assert ranks.gather_values(rows) is rows
    assert ranks.mean_over_ranks(rows) is rows
    assert ranks.any_rank(True, device=rows.device) and not ranks.any_rank(False, device=rows.device)
    assert ranks.min_over_ranks([3, -3], device=rows.device) == [3, -3]
    ranks.refuse_uneven({"query": 2, "positive": 3}, device=rows.device)
    parameter = torch.nn.Parameter(torch.zeros(2))
    ranks.average_gradients([parameter])
    assert parameter.grad is None


def test_buckets_hold_every_gradient_once_in_order_and_one_type_each(monkeypatch):
    monkeypatch.setattr(ranks, "BUCKET_NUMBERS", 5)
    gradients = [
        torch.zeros(n, dtype=dtype)
        for n, dtype in [(2, torch.float32), (3, torch.float32), (1, torch.float32)]
    ]
    gradients += [torch.zeros(1, dtype=torch.bfloat16), torch.zeros(9, dtype=torch.bfloat16)]
    buckets = list(ranks._buckets(gradients))
    assert [[g.numel() for g in bucket] for bucket in buckets] == [[2, 3], [1], [1], [9]]
    assert [id(g) for bucket in buckets for g in bucket] == [id(g) for g in gradients]
