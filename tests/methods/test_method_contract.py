"""Every file in methods/ keeps the contract of `Method`; a new one needs a line in EXAMPLES or this fails."""

from functools import partial

import image_methods
import image_text_methods
import pytest
import torch

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.temperature import Temperature
from retrieval_cl.methods import load_method, method_names
from retrieval_cl.methods.method import Method
from retrieval_cl.training.checkpoint import load_weights, save_weights
from retrieval_cl.training.device import cast_to
from retrieval_cl.training.leaks import check_leaks
from retrieval_cl.training.steps import cached_step, plain_step


@pytest.fixture
def make_dual_encoder(make_text_encoder, make_text_batch):
    return lambda: (
        load_method("dual_encoder")(make_text_encoder(), Temperature(0.2, learned=True)),
        make_text_batch(),
    )


@pytest.fixture
def make_simclr():
    return lambda: (image_methods.build_simclr(), image_methods.build_batch(per_image=2))


@pytest.fixture
def make_moco():
    """Both views ask; the queue holds keys of other images and older copies of two of the batch."""

    def make():
        method = image_methods.build_moco(symmetric=True, predictor=True)
        past = image_methods.build_batch(ids=(10, 11, 30, 31), seed=1)
        method.after_step(method.embed(past), past, 0.0)
        return method, image_methods.build_batch(per_image=2)

    return make


@pytest.fixture
def make_byol():
    return lambda: (image_methods.build_byol(), image_methods.build_batch())


@pytest.fixture
def make_clip():
    """Some images share a text; mined and edited texts, some of them missing."""
    return lambda: (
        image_text_methods.build_clip(),
        image_text_methods.build_batch(mined=2, edits=2),
    )


# Name of a method -> the fixture that gives a function () -> (tiny method, batch for it), the same each time.
EXAMPLES = {
    "byol": "make_byol",
    "clip": "make_clip",
    "dual_encoder": "make_dual_encoder",
    "moco": "make_moco",
    "simclr": "make_simclr",
}


@pytest.fixture(params=method_names())
def example(request):
    assert request.param in EXAMPLES, f"methods/{request.param}.py has no example here: add one to EXAMPLES"
    return request.getfixturevalue(EXAMPLES[request.param])


def test_examples_name_files_that_exist():
    assert sorted(EXAMPLES) == method_names()


def test_file_holds_one_final_method_class():
    for name in method_names():
        assert issubclass(load_method(name), Method)
        # Those of the fault benchmark, which a test may have loaded, are no methods.
        heirs = [one.__module__ for one in load_method(name).__subclasses__()]
        assert not [module for module in heirs if module.startswith("retrieval_cl.")]


def test_loss_is_finite_and_one_per_anchor(example):
    method, batch = example()
    loss = method.loss(method.embed(batch), batch)
    assert loss.ndim == 1 and len(loss) >= 2
    assert torch.isfinite(loss).all() and (loss > 0).all()


def test_embeddings_are_of_the_views_it_names(example):
    method, batch = example()
    embeddings = method.embed(batch)
    assert set(embeddings) <= set(method.embeddings)
    assert set(method.embeddings.values()) <= set(method.views)
    for name, vectors in embeddings.items():
        assert len(vectors) == len(batch.views[method.embeddings[name]].ids), name


def test_first_two_embeddings_are_anchors_and_their_positives(example):
    method, batch = example()
    assert tuple(method.embeddings.values())[:2] == method.views[:2]
    anchors, positives = method.sides(method.embed(batch))
    assert anchors.shape == positives.shape and len(anchors) == len(batch.known)


def test_perfect_encoder_reaches_the_floor(example):
    method, batch = example()
    assert check_leaks(method, [batch])


def test_gradients_reach_all_trained_parameters(example):
    method, batch = example()
    method.loss(method.embed(batch), batch).mean().backward()
    for name, parameter in method.named_parameters():
        assert not parameter.requires_grad or parameter.grad is not None, name
        assert not parameter.requires_grad or parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("chunk_tokens", [1, 4, 1000])
def test_gradients_in_chunks_are_those_of_one_piece(example, chunk_tokens):
    cast, found = cast_to("fp32", torch.device("cpu")), {}
    for name, step in {
        "plain": plain_step,
        "twice": partial(cached_step, chunk_tokens=chunk_tokens, graph_tokens=0),
        "some kept": partial(cached_step, chunk_tokens=chunk_tokens),
    }.items():
        method, batch = example()
        method.eval()
        loss, embeddings = step(method, batch, cast)
        gradients = {key: p.grad for key, p in method.named_parameters() if p.grad is not None}
        found[name] = {"loss": loss} | dict(embeddings) | gradients
    expected = found.pop("plain")
    for values in found.values():
        assert values.keys() == expected.keys()
        for key, value in values.items():
            assert (value - expected[key]).abs().max() <= 1e-5 * expected[key].abs().max(), key


def test_loss_drops_in_30_steps(example):
    method, batch = example()
    optimizer = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], lr=0.02)
    losses = []
    for step in range(30):
        embeddings = method.embed(batch)
        loss = method.loss(embeddings, batch).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        method.after_step({k: v.detach() for k, v in embeddings.items()}, batch, (step + 1) / 30)
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_embedding_and_loss_have_no_effects(example):
    method, batch = example()
    before = {name: value.clone() for name, value in method.state_dict().items()}
    first = method.loss(method.embed(batch), batch)
    second = method.loss(method.embed(batch), batch)
    assert torch.equal(first, second)
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())


def test_saved_and_loaded_method_embeds_and_compares_the_same(example, tmp_path):
    method, batch = example()
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(0.01)
    embeddings = method.embed(batch)
    save_weights(method, tmp_path / "best")
    other, _ = example()
    assert not torch.equal(other.loss(other.embed(batch), batch), method.loss(embeddings, batch))
    load_weights(other, tmp_path / "best")
    loaded = other.embed(batch)
    assert all(torch.equal(loaded[kind], embeddings[kind]) for kind in embeddings)
    assert torch.equal(other.loss(loaded, batch), method.loss(embeddings, batch))


def test_unknown_method_lists_the_files_that_exist():
    with pytest.raises(InputError, match=r"did you mean 'dual_encoder'.*valid: .*dual_encoder"):
        load_method("dual_encodr")


@pytest.mark.parametrize("name", ["method", "config", "__init__"])
def test_support_file_is_no_method(name):
    with pytest.raises(InputError, match=f"'{name}': no such method"):
        load_method(name)
