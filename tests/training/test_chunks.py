import chunk_cases
import image_text_methods
import numpy as np
import pytest
import torch

from retrieval_cl.core.views import Batch, Pixels, View
from retrieval_cl.training.chunks import count_kept, cut_batch, embed_chunk, longest_row, whole_tokens


@pytest.mark.parametrize("chunk_tokens", [1, 9, 20, 61, 10_000])
def test_chunks_hold_every_row_of_every_view_once_within_the_budget(chunk_tokens):
    batch = chunk_cases.build_batch(num_anchors=11, num_negatives=3)
    chunks = cut_batch(batch, chunk_tokens=chunk_tokens)
    for kind, view in batch.views.items():
        rows = np.concatenate([chunk.rows for chunk in chunks if chunk.kind == kind])
        assert sorted(rows) == list(range(len(view.ids)))
        counts = np.maximum(1, view.inputs.counts[rows])
        assert (np.diff(counts) <= 0).all(), "sorted over the whole batch, the longest first"
    for chunk in chunks:
        longest = max(1, int(batch.views[chunk.kind].inputs.counts[chunk.rows].max()))
        assert chunk.tokens == len(chunk.rows) * longest
        assert chunk.tokens <= chunk_tokens or len(chunk.rows) == 1
    assert len({chunk.place for chunk in chunks}) == len(chunks)


def test_budget_of_the_whole_batch_leaves_each_view_in_one_chunk():
    batch = chunk_cases.build_batch()
    whole = whole_tokens(batch)
    assert [chunk.kind for chunk in cut_batch(batch, chunk_tokens=whole)] == ["query", "positive", "negative"]
    assert whole == (8 + 8 + 16) * 9
    assert longest_row(batch) == 9


def test_images_count_as_many_tokens_as_they_cost():
    batch = image_text_methods.build_batch(8)
    pixels = Pixels(batch.views["image"].inputs.values, cost=7)
    batch = Batch(batch.views | {"image": View(pixels, batch.views["image"].ids)}, batch.known)
    chunks = [chunk for chunk in cut_batch(batch, chunk_tokens=21) if chunk.kind == "image"]
    assert [len(chunk.rows) for chunk in chunks] == [3, 3, 2]
    assert [chunk.tokens for chunk in chunks] == [21, 21, 14]
    assert pixels.take(chunks[0].rows).counts.tolist() == [7, 7, 7]
    assert longest_row(batch) == 7


def test_kept_are_the_last_chunks_that_fit_together():
    chunks = cut_batch(chunk_cases.build_batch(), chunk_tokens=20)
    sums = np.cumsum([chunk.tokens for chunk in reversed(chunks)])
    assert count_kept(chunks, graph_tokens=0) == 0
    for number, total in enumerate(sums.tolist(), start=1):
        assert count_kept(chunks, graph_tokens=total) == number
        assert count_kept(chunks, graph_tokens=total - 1) == number - 1
    assert count_kept(chunks, graph_tokens=10**9) == len(chunks)


def test_chunk_is_the_same_twice_and_each_draws_numbers_of_its_own():
    method = chunk_cases.build_method(dropout=0.5, dim=64)
    batch = chunk_cases.build_batch(shortest=1)
    chunks = cut_batch(batch, chunk_tokens=1)

    def mask(chunk, *, seed=3):
        embed_chunk(method, batch, chunk_cases.CAST, chunk=chunk, seed=seed)
        return tuple(method.encoder.masks[-1].flatten().tolist())

    masks = [mask(chunk) for chunk in chunks]
    torch.rand(5)
    assert [mask(chunk) for chunk in chunks] == masks
    others = [mask(chunk, seed=4) for chunk in chunks]
    assert len({*masks, *others}) == 2 * len(chunks)


def test_chunk_keeps_ids_beside_their_rows():
    method, batch, seen = chunk_cases.build_method(), chunk_cases.build_batch(), []

    def embed(part):
        seen.append(part)
        return {kind: torch.zeros(len(view.ids), 2) for kind, view in part.views.items()}

    method.embed = embed
    for chunk in cut_batch(batch, chunk_tokens=20):
        embed_chunk(method, batch, chunk_cases.CAST, chunk=chunk, seed=0)
        ((kind, view),) = seen[-1].views.items()
        whole = batch.views[kind]
        assert view.ids.tolist() == whole.ids[torch.from_numpy(chunk.rows)].tolist()
        for row, number in enumerate(chunk.rows.tolist()):
            assert view.inputs[row].tolist() == whole.inputs[number].tolist()
