import numpy as np
import pytest

from retrieval_cl.core.errors import InputError
from retrieval_cl.evaluation import cross_modal
from retrieval_cl.evaluation.zero_shot import DEFAULT_TEMPLATES, zero_shot_right, zero_shot_weights

CLASSES = ("cat", "dog", "small fox")


def embed(texts):
    """A vector a text, which depends on nothing but the text."""
    rows = [np.random.default_rng(list(text.encode())).standard_normal(6) for text in texts]
    return np.array(rows, dtype=np.float32)


def test_weights_are_the_unit_means_of_unit_prompts():
    weights = zero_shot_weights(embed, CLASSES, ("a {}.", "{} {}"))
    for row, name in enumerate(CLASSES):
        prompts = embed([f"a {name}.", f"{name} {name}"]).astype(np.float64)
        mean = sum(prompt / np.linalg.norm(prompt) for prompt in prompts) / 2
        np.testing.assert_allclose(weights[row], mean / np.linalg.norm(mean), rtol=1e-6)


def test_prompts_of_unknown_tokens_add_nothing_and_a_class_of_them_alone_is_never_named():
    known = ("cat", "dog", "a cat")

    def knows_few(texts):
        return np.array([embed([text])[0] if text in known else np.zeros(6) for text in texts], np.float32)

    weights = zero_shot_weights(knows_few, ("cat", "dog", "fox"), ("{}", "a {}"))
    np.testing.assert_array_equal(weights[1:2], zero_shot_weights(embed, ("dog",), ("{}",)))
    np.testing.assert_array_equal(weights[:1], zero_shot_weights(embed, ("cat",), ("{}", "a {}")))
    np.testing.assert_array_equal(weights[2], np.zeros(6))
    none = zero_shot_weights(lambda texts: np.zeros((len(texts), 6), np.float32), CLASSES, ("{}",))
    assert not zero_shot_right(np.eye(6, dtype=np.float32), none, np.array([0, 1, 2, 0, 1, 2])).any()


def test_all_prompts_are_embedded_in_one_call():
    calls = []

    def count(texts):
        calls.append(len(texts))
        return embed(texts)

    zero_shot_weights(count, CLASSES, DEFAULT_TEMPLATES)
    assert calls == [len(CLASSES) * len(DEFAULT_TEMPLATES)]


def test_name_that_looks_like_a_template_is_taken_as_it_is():
    seen = []
    zero_shot_weights(lambda texts: seen.extend(texts) or embed(texts), ("{x}", "0"), ("a {} of {0}",))
    assert seen == ["a {x} of {0}", "a 0 of {0}"]


@pytest.mark.parametrize("block", [1, 7, 2**20])
def test_right_images_equal_a_slow_loop(monkeypatch, block):
    monkeypatch.setattr(cross_modal, "_BLOCK", block)
    random = np.random.default_rng(0)
    vectors, weights = (random.standard_normal((n, 6)).astype(np.float32) for n in (40, 3))
    labels = random.integers(0, 3, 40)
    scores = vectors.astype(float) @ weights.astype(float).T
    expected = [int(row.argmax()) == label for row, label in zip(scores, labels, strict=True)]
    assert zero_shot_right(vectors, weights, labels).tolist() == expected
    assert 0 < np.mean(expected) < 1


def test_image_as_near_to_another_class_is_wrong():
    vectors = np.eye(3, dtype=np.float32)
    weights = np.eye(3, dtype=np.float32)[[0, 1, 1]]
    found = zero_shot_right(vectors, weights, np.array([0, 1, 2]))
    assert found.tolist() == [True, False, False]


def test_constant_vectors_name_no_class():
    same = np.ones((4, 3), dtype=np.float32)
    assert not zero_shot_right(same, same[:3], np.array([0, 1, 2, 0])).any()


@pytest.mark.parametrize(
    ("classes", "templates", "reason"),
    [
        (CLASSES, (), "give at least one"),
        (CLASSES, ("a {}.", "a photo"), r"each with \{\}"),
        (("cat", "dog", "cat"), ("{}",), "class 'cat' is named twice"),
    ],
)
def test_prompts_that_tell_nothing_apart_are_refused(classes, templates, reason):
    with pytest.raises(InputError, match=reason):
        zero_shot_weights(embed, classes, templates)


@pytest.mark.parametrize("side", ["images", "classes"])
def test_rows_that_are_no_numbers_are_refused_by_name(side):
    rows = {"images": np.eye(3, dtype=np.float32), "classes": np.eye(3, dtype=np.float32)}
    rows[side][1, 1] = np.nan
    with pytest.raises(InputError, match=f"^{side}: row 1 holds NaN"):
        zero_shot_right(rows["images"], rows["classes"], np.array([0, 1, 2]))
