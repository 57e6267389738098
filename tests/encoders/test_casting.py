import numpy as np
import pytest
import torch

from retrieval_cl.encoders.casting import forward_in


@pytest.mark.parametrize("kind", ["static", "bert"])
@pytest.mark.parametrize("towers", ["shared", "separate"])
def test_bfloat16_vectors_are_unit_rows_near_those_of_float32(build, corpus, kind, towers):
    encoder = build(kind, towers=towers)
    exact = encoder.encode(corpus, kind="query")
    rounded = encoder.encode(corpus, kind="query", compute_dtype=torch.bfloat16)
    np.testing.assert_allclose(np.linalg.norm(rounded, axis=1), 1, atol=1e-6)
    assert (exact * rounded).sum(axis=1).min() > 0.999
    assert np.array_equal(exact, rounded) == (kind == "static")
    assert all(weight.dtype == torch.float32 for weight in encoder.parameters())


def test_layers_in_between_compute_in_the_shorter_type(build, corpus):
    encoder = build("bert").eval()
    seen = []
    norm = next(module for module in encoder.modules() if isinstance(module, torch.nn.LayerNorm))
    norm.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    encoder.encode(corpus, kind="query", compute_dtype=torch.bfloat16)
    assert set(seen) == {torch.bfloat16}
    with forward_in(encoder.model, None) as forward:
        assert forward is encoder.model
