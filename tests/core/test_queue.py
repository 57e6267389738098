import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_model, save_model
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from retrieval_cl.core.queue import Queue


def rows_from(first, count, *, dim=3):
    """Rows whose numbers tell their id."""
    ids = torch.arange(first, first + count)
    return ids[:, None] + torch.arange(dim) / 10, ids


def held(queue):
    """What the queue hands out, oldest first where ids ascend with age."""
    part = queue.part()
    order = part.ids.argsort()
    return part.vectors[order], part.ids[order]


@settings(deadline=None, max_examples=60)
@given(size=st.integers(1, 9), counts=st.lists(st.integers(0, 25), max_size=8))
def test_newest_rows_are_held_for_any_sizes_of_pushes(size, counts):
    queue, total = Queue(size, 3), 0
    for count in counts:
        queue.push(*rows_from(total, count))
        total += count
        kept = min(total, size)
        vectors, ids = rows_from(total - kept, kept)
        assert queue.filled == kept == len(queue.part().ids)
        assert torch.equal(held(queue)[1], ids) and torch.equal(held(queue)[0], vectors)
        assert queue.pushed.tolist() == [total]


def test_oldest_row_gives_way_over_the_wrap():
    queue = Queue(5, 3)
    queue.push(*rows_from(0, 4))
    queue.push(*rows_from(4, 3))
    assert queue.ids.tolist() == [5, 6, 2, 3, 4]


def test_unfilled_places_are_nobodys_and_are_not_handed_out():
    queue = Queue(4, 3)
    assert queue.filled == 0 and queue.part().ids.shape == (0,) and queue.ids.tolist() == [-1] * 4
    queue.push(*rows_from(7, 2))
    assert queue.part().ids.tolist() == [7, 8] and queue.ids.tolist() == [7, 8, -1, -1]


def test_part_is_a_view_without_gradient():
    queue = Queue(4, 3)
    vectors, ids = rows_from(0, 3)
    queue.push(vectors.requires_grad_() * 2, ids)
    part = queue.part(name="memory")
    assert part.vectors.data_ptr() == queue.vectors.data_ptr() and part.ids.data_ptr() == queue.ids.data_ptr()
    assert not part.vectors.requires_grad and part.shared and part.name == "memory"


def test_push_between_forward_and_backward_is_an_error():
    queue, anchor = Queue(4, 3), torch.ones(3, requires_grad=True)
    queue.push(*rows_from(0, 4))
    loss = (queue.part().vectors @ anchor).sum()
    queue.push(*rows_from(4, 1))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


class Allocations(TorchDispatchMode):
    """Counts tensors that share memory with none that was known before."""

    def __init__(self, *known):
        super().__init__()
        self.known, self.found = {x.untyped_storage().data_ptr() for x in known}, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **kwargs or {})
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor) and leaf.untyped_storage().data_ptr() not in self.known:
                self.found.append(func)
        return out


@pytest.mark.parametrize("count", [2, 5, 7, 12])
def test_push_allocates_nothing(count):
    queue, (vectors, ids) = Queue(7, 3), rows_from(0, count)
    for _ in range(4):
        with Allocations(vectors, ids, *queue.buffers()) as allocations:
            queue.push(vectors, ids)
        assert allocations.found == []
    with Allocations(vectors) as allocations:
        vectors.clone()
    assert len(allocations.found) == 1


def test_push_moves_no_number_to_the_host():
    class Calls(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            assert "_local_scalar_dense" not in str(func), func
            return func(*args, **kwargs or {})

    queue, rows = Queue(5, 3), rows_from(0, 3)
    with Calls():
        for _ in range(3):
            queue.push(*rows)
            queue.part()


def test_saved_and_loaded_queue_goes_on_in_the_same_bits(tmp_path):
    first, other = nn.ModuleDict({"queue": Queue(5, 3)}), nn.ModuleDict({"queue": Queue(5, 3)})
    first["queue"].push(*rows_from(0, 8))
    other["queue"].push(*rows_from(90, 1))
    save_model(first, str(tmp_path / "model.safetensors"))
    load_model(other, str(tmp_path / "model.safetensors"))
    for start in (8, 11):
        for queue in (first["queue"], other["queue"]):
            queue.push(*rows_from(start, 3))
        for name, value in first.state_dict().items():
            assert torch.equal(value, other.state_dict()[name]), name
    assert other["queue"].filled == 5


def test_part_filled_queue_is_loaded_part_filled():
    first, other = Queue(5, 3), Queue(5, 3)
    first.push(*rows_from(0, 2))
    other.load_state_dict(first.state_dict())
    assert other.filled == 2 and other.part().ids.tolist() == [0, 1]


def test_queue_of_another_size_is_refused():
    with pytest.raises(RuntimeError, match=r"size mismatch for vectors.*\[5, 3\]"):
        Queue(6, 3).load_state_dict(Queue(5, 3).state_dict())


def test_copy_is_a_queue_of_its_own():
    first = Queue(5, 3)
    first.push(*rows_from(0, 2))
    other = copy.deepcopy(first)
    other.push(*rows_from(2, 1))
    assert (first.filled, other.filled) == (2, 3) and first.ids.tolist() == [0, 1, -1, -1, -1]
    other.load_state_dict(first.state_dict())
    assert (first.filled, other.filled) == (2, 2)


def test_other_precision_leaves_ids_whole():
    queue = Queue(2, 3, dtype=torch.float64)
    assert queue.vectors.dtype == torch.float64
    queue.to(torch.bfloat16)
    queue.push(torch.ones(1, 3), torch.tensor([2**53 + 1]))
    assert queue.vectors.dtype == torch.bfloat16
    assert queue.ids.tolist() == [2**53 + 1, -1] and queue.pushed.dtype == torch.int64


@pytest.mark.gpu
def test_push_on_a_gpu_waits_for_nothing_and_allocates_nothing():
    queue, rows = Queue(7, 3).cuda(), [x.cuda() for x in rows_from(0, 5)]
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(4):
            queue.push(*rows)
            queue.part()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.cuda.max_memory_allocated() == before
    assert queue.filled == 7 and queue.pushed.tolist() == [20]
