from functools import partial

import chunk_cases
import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from tiny_bert import save_bert

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.losses import info_nce
from retrieval_cl.core.relations import Ragged
from retrieval_cl.core.temperature import Temperature
from retrieval_cl.encoders.static import build_static, train_tokenizer
from retrieval_cl.encoders.text import TextEncoder
from retrieval_cl.methods.dual_encoder import DualEncoder
from retrieval_cl.training.chunks import cut_batch, embed_chunk
from retrieval_cl.training.device import cast_to
from retrieval_cl.training.seeds import draw_seed
from retrieval_cl.training.steps import cached_step, limit_gradients, plain_step

CPU = torch.device("cpu")


@pytest.fixture
def batch(make_source):
    return next(make_source().batches(None, seed=0, round=0, num_steps=3, start_step=0, rank=0, world=1))


def test_gradient_is_that_of_the_mean_loss(make_method, batch):
    method = make_method(dropout=0.0)
    loss, embeddings = plain_step(method, batch, cast_to("fp32", CPU))
    found = {name: p.grad.clone() for name, p in method.named_parameters()}
    method.zero_grad()
    expected = method.loss(method.embed(batch), batch).sum() / 4
    expected.backward()
    assert loss == expected.detach()
    assert not loss.requires_grad
    assert set(embeddings) == {"query", "positive"}
    for name, parameter in method.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, msg=name)


def test_bf16_gives_nearly_the_same_loss_and_float32_gradients(make_method, batch):
    exact, short = make_method(dropout=0.0), make_method(dropout=0.0)
    expected, _ = plain_step(exact, batch, cast_to("fp32", CPU))
    found, embeddings = plain_step(short, batch, cast_to("bf16", CPU))
    assert found != expected
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)
    assert {p.grad.dtype for p in short.parameters()} == {torch.float32}
    assert {vectors.dtype for vectors in embeddings.values()} == {torch.float32}


def test_gradients_are_scaled_to_the_limit_and_kept_below_it(make_method, batch):
    method = make_method(dropout=0.0)
    plain_step(method, batch, cast_to("fp32", CPU))
    before = torch.cat([p.grad.flatten() for p in method.parameters()])
    norm = before.norm().item()
    assert float(limit_gradients(method, None)) == pytest.approx(norm)
    assert float(limit_gradients(method, norm * 2)) == pytest.approx(norm)
    assert torch.equal(torch.cat([p.grad.flatten() for p in method.parameters()]), before)
    assert float(limit_gradients(method, norm / 2)) == pytest.approx(norm)
    after = torch.cat([p.grad.flatten() for p in method.parameters()])
    torch.testing.assert_close(after, before / 2, rtol=1e-4, atol=1e-6)


OPTIONS = {
    "in batch": {},
    "symmetric": {"objective": partial(info_nce, symmetric=True)},
    "private negatives": {"private_negatives": True},
    "only own negatives": {"in_batch": False},
    "weighted": {"weighted": True},
}
SIZES = [1, 9, 25, 64, 10_000]


@pytest.mark.parametrize(
    ("name", "num_negatives"),
    # Without other anchors' positives and without negatives there is nothing to compare with.
    [
        (name, count)
        for name in OPTIONS
        for count in (0, 1, 3, 7)
        if (name, count) != ("only own negatives", 0)
    ],
)
def test_cached_gradients_are_the_plain_ones(name, num_negatives):
    method = chunk_cases.build_method(**OPTIONS[name])
    batch = chunk_cases.build_batch(num_negatives=num_negatives)
    loss, expected = chunk_cases.gradients(plain_step, method, batch)
    assert {name.split(".")[0] for name in expected} == {"encoder", "temperature"}
    for size, graph in ((1, 0), (25, None), (64, 100), (10_000, 0)):
        step = partial(cached_step, chunk_tokens=size, graph_tokens=graph)
        found_loss, found = chunk_cases.gradients(step, method, batch)
        torch.testing.assert_close(found_loss, loss, rtol=1e-12, atol=0)
        chunk_cases.assert_near(found, expected)


@pytest.mark.parametrize("size", SIZES)
def test_cached_gradients_are_the_plain_ones_in_float32(size):
    method, batch = chunk_cases.build_method(dtype=torch.float32), chunk_cases.build_batch()
    _, expected = chunk_cases.gradients(plain_step, method, batch)
    _, found = chunk_cases.gradients(partial(cached_step, chunk_tokens=size), method, batch)
    chunk_cases.assert_near(found, expected, limit=1e-5)


@pytest.mark.parametrize("graph_tokens", [0, 100])
def test_a_view_without_rows_changes_nothing(graph_tokens):
    method, batch = chunk_cases.build_method(), chunk_cases.build_batch(num_negatives=0)
    nothing = chunk_cases.View(Ragged.from_lists([], dtype=np.int32), torch.zeros(0, dtype=torch.int64))
    empty = chunk_cases.Batch({**batch.views, "negative": nothing}, batch.known)
    loss, expected = chunk_cases.gradients(plain_step, method, batch)
    step = partial(cached_step, chunk_tokens=20, graph_tokens=graph_tokens)
    found_loss, found = chunk_cases.gradients(step, method, empty)
    torch.testing.assert_close(found_loss, loss, rtol=1e-12, atol=0)
    chunk_cases.assert_near(found, expected)


def test_vectors_come_back_in_the_order_of_the_batch():
    method, batch = chunk_cases.build_method(), chunk_cases.build_batch()
    _, expected = plain_step(method, batch, chunk_cases.CAST)
    _, found = cached_step(method, batch, chunk_cases.CAST, chunk_tokens=20)
    chunk_cases.assert_near(found, expected)


@pytest.mark.parametrize("size", SIZES)
def test_with_dropout_it_is_one_plain_backward_over_the_same_chunks(size):
    method, batch = chunk_cases.build_method(dropout=0.4), chunk_cases.build_batch()

    def over_chunks(method, batch, cast):
        seed, rows, vectors = draw_seed(), {}, {}
        for chunk in cut_batch(batch, chunk_tokens=size):
            embedded = embed_chunk(method, batch, cast, chunk=chunk, seed=seed)
            rows.setdefault(chunk.kind, []).append(chunk.rows)
            vectors.setdefault(chunk.kind, []).append(embedded[chunk.kind])
        places = {kind: np.argsort(np.concatenate(parts)) for kind, parts in rows.items()}
        embeddings = {kind: torch.cat(parts)[places[kind]] for kind, parts in vectors.items()}
        loss = method.loss(embeddings, batch).mean()
        loss.backward()
        return loss.detach(), {kind: part.detach() for kind, part in embeddings.items()}

    loss, expected = chunk_cases.gradients(over_chunks, method, batch)
    for graph in (0, None, 10_000):
        step = partial(cached_step, chunk_tokens=size, graph_tokens=graph)
        found_loss, found = chunk_cases.gradients(step, method, batch)
        torch.testing.assert_close(found_loss, loss, rtol=1e-12, atol=0)
        chunk_cases.assert_near(found, expected)
    _, other = chunk_cases.gradients(step, method, batch, seed=1)
    assert not torch.equal(other["temperature.log_scale"], found["temperature.log_scale"])


def test_second_pass_meets_the_dropout_of_the_first():
    method, batch = chunk_cases.build_method(dropout=0.4), chunk_cases.build_batch()
    cached_step(method, batch, chunk_cases.CAST, chunk_tokens=20, graph_tokens=0)
    masks = method.encoder.masks
    half = len(masks) // 2
    assert half == len(cut_batch(batch, chunk_tokens=20))
    for first, second in zip(masks[:half], reversed(masks[half:]), strict=True):
        assert torch.equal(first, second)


def test_kept_graphs_change_no_bit_and_save_passes():
    method, batch = chunk_cases.build_method(dropout=0.4), chunk_cases.build_batch()
    num_chunks = len(cut_batch(batch, chunk_tokens=20))
    _, expected = chunk_cases.gradients(partial(cached_step, chunk_tokens=20, graph_tokens=0), method, batch)
    for graph, least, most in (
        (None, 1, num_chunks - 1),
        (100, 2, num_chunks - 1),
        (10_000, num_chunks, num_chunks),
    ):
        method.encoder.masks.clear()
        step = partial(cached_step, chunk_tokens=20, graph_tokens=graph)
        _, found = chunk_cases.gradients(step, method, batch)
        chunk_cases.assert_same_bits(found, expected)
        assert least <= 2 * num_chunks - len(method.encoder.masks) <= most


@pytest.mark.parametrize("graph_tokens", [0, 20, 100])
def test_no_more_tokens_hold_a_graph_than_the_larger_budget(graph_tokens):
    method, batch = chunk_cases.build_method(), chunk_cases.build_batch()
    alive, most = {"tokens": 0}, []

    def count(stage, tokens):
        alive["tokens"] += {"with graph": tokens, "backward": -tokens}.get(stage, 0)
        most.append(alive["tokens"])

    method.encoder.fail = count
    cached_step(method, batch, chunk_cases.CAST, chunk_tokens=20, graph_tokens=graph_tokens)
    assert alive["tokens"] == 0
    assert 0.5 * max(20, graph_tokens) < max(most) <= max(20, graph_tokens)


def test_bf16_products_of_the_two_passes_agree():
    method, batch = chunk_cases.build_method(dtype=torch.float32), chunk_cases.build_batch()
    cast = cast_to("bf16", torch.device("cpu"))

    def in_bf16(method, batch, _, *, graph_tokens):
        return cached_step(method, batch, cast, chunk_tokens=20, graph_tokens=graph_tokens)

    _, exact = chunk_cases.gradients(plain_step, method, batch)
    _, twice = chunk_cases.gradients(partial(in_bf16, graph_tokens=0), method, batch)
    _, once = chunk_cases.gradients(partial(in_bf16, graph_tokens=10_000), method, batch)
    chunk_cases.assert_same_bits(twice, once)
    chunk_cases.assert_near(twice, exact, limit=0.1)
    with pytest.raises(AssertionError):
        chunk_cases.assert_near(twice, exact, limit=1e-5)


def test_frozen_tower_is_not_embedded_twice_in_vain():
    method, batch = chunk_cases.build_method(), chunk_cases.build_batch()
    for parameter in method.encoder.parameters():
        parameter.requires_grad_(False)
    _, expected = chunk_cases.gradients(plain_step, method, batch)
    _, found = chunk_cases.gradients(partial(cached_step, chunk_tokens=20), method, batch)
    assert set(found) == {"temperature.log_scale"}
    chunk_cases.assert_near(found, expected)


TEXTS = [
    "open a file and read its lines",
    "close it",
    "sort the numbers of a list, then return the median of the sorted list",
    "join the path of a folder and the name of a file",
    "the server answers requests on a port",
    "write a value as json into the file at a path",
]


def build_bert(folder, tokenizer):
    """Two random layers behind the real modules of sentence-transformers."""
    save_bert(folder, tokenizer, max_tokens=64, pad_token="[UNK]", hidden_dropout_prob=0.3)
    module = Transformer(str(folder))
    return TextEncoder(SentenceTransformer(modules=[module, Pooling(16)], device="cpu"))


@pytest.fixture(scope="module", params=["static", "bert"])
def text_case(request, tmp_path_factory):
    """A method over a real text encoder, and a ragged batch for it."""
    tokenizer = train_tokenizer(TEXTS, vocab_size=200, min_count=1)
    if request.param == "static":
        encoder = build_static(tokenizer, TEXTS, dim=16, seed=0)
    else:
        encoder = build_bert(tmp_path_factory.mktemp("bert"), tokenizer)
    method = DualEncoder(encoder, Temperature(0.2, learned=True))
    rows = {"query": TEXTS, "positive": TEXTS[::-1], "negative": [t + " " + t for t in TEXTS] + TEXTS}
    views = {
        kind: chunk_cases.View(
            encoder.tokenize(texts, kind="query" if kind == "query" else "passage"),
            torch.arange(len(texts)) + 100 * number,
        )
        for number, (kind, texts) in enumerate(rows.items())
    }
    return method, chunk_cases.Batch(views, 100 + torch.arange(len(TEXTS))[:, None])


def test_text_encoder_gets_the_plain_gradients(text_case):
    method, batch = text_case
    method.eval()
    _, expected = chunk_cases.gradients(plain_step, method, batch)
    for size in (1, 50, 10_000):
        _, found = chunk_cases.gradients(partial(cached_step, chunk_tokens=size), method, batch)
        # A key's bias shifts all of a query's attention alike: its gradient is nothing but rounding error.
        for name in [name for name, tensor in expected.items() if tensor.abs().max() < 1e-6]:
            assert "key.bias" in name or "pooler" in name, name
            assert found[name].abs().max() < 1e-6
        told = {name: tensor for name, tensor in expected.items() if tensor.abs().max() >= 1e-6}
        chunk_cases.assert_near({name: found[name] for name in told}, told, limit=1e-5)


def test_text_encoder_with_dropout_meets_the_same_numbers_twice(text_case):
    method, batch = text_case
    method.train()
    steps = [partial(cached_step, chunk_tokens=50, graph_tokens=graph) for graph in (0, 10_000)]
    (_, twice), (_, once) = (chunk_cases.gradients(step, method, batch) for step in steps)
    chunk_cases.assert_same_bits(twice, once)


def test_batch_norm_is_refused_with_the_reason_unless_frozen():
    method, batch = chunk_cases.build_method(), chunk_cases.build_batch()
    method.encoder.norm = torch.nn.BatchNorm1d(6)
    with pytest.raises(InputError, match=r"'encoder.norm' is a BatchNorm.*statistics.*chunk_tokens to null"):
        cached_step(method, batch, chunk_cases.CAST, chunk_tokens=20)
    method.encoder.norm.eval()
    cached_step(method, batch, chunk_cases.CAST, chunk_tokens=20)
