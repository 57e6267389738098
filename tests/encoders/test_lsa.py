import numpy as np
import pytest
from scipy import sparse

from retrieval_cl.core.relations import Ragged
from retrieval_cl.encoders.lsa import count_matrix, right_singular_vectors, weigh_counts


def test_counts_equal_a_slow_loop():
    tokens = Ragged.from_lists([[3, 1, 3, 3], [], [0]], dtype=np.int32)
    counts = count_matrix(tokens, vocab_size=5)
    assert counts.toarray().tolist() == [[0, 1, 0, 3, 0], [0] * 5, [1, 0, 0, 0, 0]]
    assert counts.nnz == 3
    assert tokens[0].tolist() == [3, 1, 3, 3]


def test_weights_are_log_counts_times_idf_in_unit_rows():
    counts = count_matrix(Ragged.from_lists([[0, 1, 1], [], [2]], dtype=np.int32), vocab_size=3)
    weighed = weigh_counts(counts, np.array([2.0, 1.0, 5.0], dtype=np.float32)).toarray()
    first = np.array([2.0, 1 + np.log(2), 0.0])
    np.testing.assert_allclose(weighed, [first / np.linalg.norm(first), [0, 0, 0], [0, 0, 1]], rtol=1e-6)
    assert counts.toarray().tolist() == [[1, 2, 0], [0, 0, 0], [0, 0, 1]]


def falling_spectrum(num_rows, num_columns):
    rng = np.random.default_rng(0)
    left = np.linalg.qr(rng.standard_normal((num_rows, num_columns)))[0]
    right = np.linalg.qr(rng.standard_normal((num_columns, num_columns)))[0]
    return left * 0.8 ** np.arange(num_columns) @ right.T, right


def test_singular_vectors_equal_a_full_decomposition():
    dense, right = falling_spectrum(80, 60)
    matrix = sparse.csr_matrix(dense.astype(np.float32))
    found = right_singular_vectors(matrix, rank=10, seed=0)
    assert found.shape == (60, 10)
    np.testing.assert_allclose(np.abs((found * right[:, :10]).sum(axis=0)), 1, atol=1e-3)
    np.testing.assert_allclose(found.T @ found, np.eye(10), atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 40), (40, 3)])
def test_columns_beyond_the_rank_are_zero(shape):
    matrix = sparse.csr_matrix(np.random.default_rng(0).standard_normal(shape).astype(np.float32))
    found = right_singular_vectors(matrix, rank=8, seed=0)
    assert found.shape == (shape[1], 8)
    assert (found[:, 3:] == 0).all()
    projected = matrix @ found @ found.T
    np.testing.assert_allclose(projected, matrix.toarray(), atol=1e-4)


def test_the_same_seed_gives_the_same_bits():
    matrix = sparse.csr_matrix(falling_spectrum(50, 30)[0].astype(np.float32))
    assert np.array_equal(*(right_singular_vectors(matrix, rank=5, seed=3) for _ in range(2)))
