import pytest
import torch
from pydantic import ValidationError

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.guard import Guard
from retrieval_cl.core.losses import info_nce, sigmoid
from retrieval_cl.core.matryoshka import Matryoshka
from retrieval_cl.methods.config import MethodConfig
from retrieval_cl.methods.dual_encoder import DualEncoder

# Settings -> what they must be in a call of the objective.
SETTINGS = {
    "mean": ({"positives": "mean"}, info_nce, {"positives": "mean"}),
    "sum": ({"positives": "sum", "symmetric": True}, info_nce, {"positives": "sum", "symmetric": True}),
    "decoupled": ({"decoupled": True}, info_nce, {"decoupled": True}),
    "hardness": ({"hardness": 0.5}, info_nce, {"hardness": 0.5}),
    "debias": ({"debias": 0.1}, info_nce, {"debias": 0.1}),
    "margin": ({"guard": {"margin": -0.3}}, info_nce, {"guard": Guard(margin=-0.3)}),
    "fraction": ({"guard": {"fraction": 0.5}}, info_nce, {"guard": Guard(fraction=0.5)}),
    "sigmoid": ({"objective": "sigmoid", "bias": -2.0}, sigmoid, {}),
    "sigmoid, all": ({"objective": "sigmoid", "positives": "sum"}, sigmoid, {"positives": "sum"}),
}


@pytest.fixture
def build(make_text_encoder):
    return lambda **settings: DualEncoder.build(MethodConfig(**settings), make_text_encoder())


@pytest.mark.parametrize(("settings", "function", "keywords"), SETTINGS.values(), ids=SETTINGS)
def test_settings_reach_the_loss(build, make_text_batch, settings, function, keywords):
    method, batch = build(**settings), make_text_batch()
    embeddings = method.embed(batch)
    found = method.loss(embeddings, batch)
    (contrast,) = method.contrasts(embeddings, batch)
    assert torch.equal(found, function(contrast, **keywords))
    if keywords:
        assert not torch.allclose(found, function(contrast))


def test_sigmoid_learns_its_bias_from_the_start_that_is_set(build, make_text_batch):
    method, batch = build(objective="sigmoid", bias=-3.0), make_text_batch()
    assert method.bias.value.tolist() == [-3.0]
    method.loss(method.embed(batch), batch).mean().backward()
    assert method.bias.value.grad.abs() > 0
    assert build().bias is None


def test_matryoshka_takes_the_mean_over_prefixes(build, make_text_batch):
    whole, batch = build(), make_text_batch()
    method = build(matryoshka={"dims": [8, 3]})
    assert isinstance(method.objective, Matryoshka)
    embeddings = whole.embed(batch)
    short = {
        kind: torch.nn.functional.normalize(vectors[:, :3], dim=1) for kind, vectors in embeddings.items()
    }
    expected = (whole.loss(embeddings, batch) + whole.loss(short, batch)) / 2
    torch.testing.assert_close(method.loss(embeddings, batch), expected)
    with pytest.raises(InputError, match=r"method\.matryoshka\.dims has 16, .* vectors of 8"):
        build(matryoshka={"dims": [16]})


def test_description_tells_what_the_guard_ignored(build, make_text_batch):
    batch = make_text_batch()
    plain, guarded = build(), build(guard={"margin": -1.0})
    without, found = (method.describe(method.embed(batch), batch) for method in (plain, guarded))
    assert 0 < without.ignored < found.ignored < 1
    assert found.entropy < without.entropy
    assert found.positive_score == without.positive_score


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (
            {"objective": "sigmoid", "symmetric": True},
            "symmetric: True has no effect with objective: sigmoid",
        ),
        ({"objective": "sigmoid", "hardness": 0.5}, "hardness: 0.5 has no effect"),
        ({"objective": "sigmoid", "positives": "mean"}, "valid: target, sum"),
        ({"bias": -5.0}, "bias has no effect with objective: info_nce"),
        ({"objective": "info_nc"}, "info_nce"),
        ({"guard": {}}, "set one of fraction and margin"),
        ({"guard": {"fraction": 0.9, "margin": 0.1}}, "set one of fraction and margin"),
        ({"guard": {"fractoin": 0.9}}, "fractoin"),
        ({"debias": 0.9}, "debias"),
        ({"matryoshka": {"weights": [1.0]}}, "dims"),
        ({"matryoshka": {"dims": [4, 4]}}, "stands twice"),
        ({"matryoshka": {"dims": [0]}}, "dims"),
        ({"matryoshka": {"dims": []}}, "dims"),
        ({"matryoshka": {"dims": [4, 2], "weights": [1.0]}}, "1 weights for 2 dims"),
    ],
)
def test_impossible_objectives_are_refused(settings, reason):
    with pytest.raises(ValidationError, match=reason):
        MethodConfig(**settings)
