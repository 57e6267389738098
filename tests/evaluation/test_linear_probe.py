import numpy as np
import pytest
import torch

from retrieval_cl.core.errors import InputError
from retrieval_cl.evaluation import linear_probe as probe
from retrieval_cl.evaluation.linear_probe import fit_linear, linear_probe


def clouds(num_rows, *, spread, seed=0, num_classes=3, dim=4):
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(num_classes, dim))
    labels = rng.integers(0, num_classes, num_rows)
    labels[:num_classes] = np.arange(num_classes)
    features = centres[labels] + spread * rng.normal(size=(num_rows, dim))
    # Coordinates of unlike size, as features have.
    return (features * 10.0 ** (np.arange(dim) % 4) + 5.0).astype(np.float32), labels


def slow_logits(features, labels, asked, *, c, num_classes=3):
    """Softmax regression on standardised rows: descent on C times the summed loss plus half the squares."""
    mean, deviation = features.mean(0, dtype=np.float64), features.astype(np.float64).std(0)
    rows, others = (torch.from_numpy((x - mean) / deviation) for x in (features, asked))
    weight = torch.zeros(rows.shape[1], num_classes, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(num_classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=1000, tolerance_grad=1e-10, tolerance_change=1e-14)

    def closure():
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(
            rows @ weight + bias, torch.from_numpy(labels), reduction="sum"
        )
        objective = c * loss + weight.square().sum() / 2
        objective.backward()
        return objective

    optimizer.step(closure)
    return (others @ weight + bias).detach()


@pytest.mark.parametrize("c", [0.01, 1.0])
def test_fit_equals_plain_descent_on_the_same_loss(c):
    features, labels = clouds(80, spread=1.0)
    asked, _ = clouds(40, spread=1.0, seed=1)
    fit = fit_linear(features, labels, seed=0, penalties=[c])
    logits = slow_logits(features, labels, asked, c=c)
    found = torch.from_numpy(fit.model.predict_proba(asked.astype(np.float64)))
    torch.testing.assert_close(found, logits.softmax(1), rtol=0, atol=2e-3)
    assert fit.has_converged and fit.c == c
    assert (fit.name(asked) == logits.argmax(1).numpy()).mean() >= 0.97


def test_planes_tell_clouds_apart():
    features, labels = clouds(200, spread=0.1)
    asked, wanted = clouds(100, spread=0.1, seed=1)
    assert (linear_probe(features, labels, asked, seed=0) == wanted).all()


def test_penalty_is_chosen_on_held_out_rows_of_train_alone():
    features, labels = clouds(120, spread=3.0, dim=40)
    kept, held = probe._split(labels, seed=3)
    losses = {}
    for c in probe.PENALTIES:
        fit = fit_linear(features[kept], labels[kept], seed=0, penalties=[c])
        shares = fit.model.predict_proba(features[held].astype(np.float64))
        losses[c] = -np.mean(
            [np.log(share[label]) for share, label in zip(shares, labels[held], strict=True)]
        )
    fit = fit_linear(features, labels, seed=3)
    assert fit.c == min(losses, key=losses.__getitem__)
    assert fit.c not in (min(losses), max(losses)), "the choice matters"
    again = fit_linear(features, labels, seed=3, penalties=[fit.c])
    assert np.array_equal(fit.name(features), again.name(features)), "then all labelled rows are fitted"


def test_a_fifth_of_each_class_is_held_out_and_no_class_is_lost():
    labels = np.repeat([0, 1, 2, 5], [40, 7, 1, 2])
    kept, held = probe._split(labels, seed=0)
    assert sorted([*kept, *held]) == list(range(50))
    assert np.bincount(labels[held], minlength=6).tolist() == [8, 1, 0, 0, 0, 1]
    assert set(labels[kept]) == {0, 1, 2, 5}
    assert not np.array_equal(held, probe._split(labels, seed=1)[1])


def test_one_image_a_class_takes_the_strongest_penalty():
    fit = fit_linear(np.eye(3, dtype=np.float32), np.arange(3), seed=0)
    assert fit.c == min(probe.PENALTIES) and fit.name(np.eye(3)).tolist() == [0, 1, 2]


def test_same_seed_gives_the_same_fit_and_labels_need_not_run_on():
    features, labels = clouds(90, spread=1.0)
    first, second = (fit_linear(features, labels * 7, seed=5) for _ in range(2))
    assert np.array_equal(first.model[-1].coef_, second.model[-1].coef_)
    assert set(first.name(features)) <= {0, 7, 14}


def test_protocol_is_told_and_a_fit_that_did_not_end_says_so(monkeypatch):
    features, labels = clouds(90, spread=1.0)
    line = str(fit_linear(features, labels, seed=0, penalties=[0.5]))
    assert line == (
        "linear probe: logistic regression on standardised features without augmentation, C 0.5 of 0.5 by "
        "20% of the labelled rows"
    )
    monkeypatch.setattr(probe, "MAX_STEPS", 1)
    assert str(fit_linear(features, labels, seed=0, penalties=[0.5])).endswith("stopped after 1 steps")


def test_feature_that_never_changes_does_no_harm():
    features, labels = clouds(90, spread=0.1)
    features[:, 2] = 7.0
    assert (linear_probe(features, labels, features, seed=0) == labels).mean() > 0.9


def test_broken_features_are_named():
    features, labels = clouds(30, spread=0.1)
    features[7, 1] = np.nan
    with pytest.raises(InputError, match="features of row 7 hold NaN"):
        fit_linear(features, labels, seed=0)
