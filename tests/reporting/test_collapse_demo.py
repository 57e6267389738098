import numpy as np
import pytest

from retrieval_cl.reporting.collapse_demo import (
    REASONS,
    CollapseArm,
    CollapseReport,
    principal_axes,
    write_collapse_report,
)
from retrieval_cl.reporting.curves import Arm
from retrieval_cl.reporting.facts import Provenance


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def make_arm(name, *, spread=1.0, stopped=""):
    generator = np.random.default_rng(0)
    rows = unit(np.ones(8) * 3 + spread * generator.standard_normal((40, 8)))
    records = [
        {"step": step, "loss": 3.0 / step, "health": {"std_ratio": spread, "effective_rank": 5.0}}
        for step in (5, 10, 15)
    ]
    records.append({"step": 15, "dev": {"knn_accuracy": 0.7}})
    return CollapseArm(name, Arm(name, records), rows, np.arange(40) % 10, 0.7, stopped)


@pytest.fixture
def page(tmp_path):
    arms = [make_arm(name) for name in REASONS]
    arms[0] = make_arm("positives alone", spread=1e-3, stopped="collapse at step 15: <all> one vector")
    report = CollapseReport(arms, Provenance("retrieval-cl demo collapse", "today"), {"SimCLR": 3.0}, 12.0)
    write_collapse_report(tmp_path / "report.html", report)
    return (tmp_path / "report.html").read_text()


def test_page_shows_every_arm_with_its_reason(page):
    for name, reason in REASONS.items():
        assert name in page and reason.replace("'", "&#x27;") in page
    assert page.count("<svg") == 2 and "retrieval-cl demo collapse" in page


def test_page_says_who_was_stopped_and_fetches_nothing(page):
    assert "The monitor stopped positives alone." in page
    assert "collapse at step 15: &lt;all&gt; one vector" in page
    assert "http://" not in page and "https://" not in page and "<script" not in page


def test_collapsed_vectors_stay_a_point():
    assert np.abs(principal_axes(make_arm("SimCLR", spread=1e-4).vectors)).max() < 1e-3
    assert np.abs(principal_axes(make_arm("SimCLR").vectors)).max() > 0.1


def test_axes_are_those_of_most_spread():
    rows = np.random.default_rng(1).standard_normal((200, 5)).astype(np.float32) * [1, 9, 1, 4, 1]
    places = principal_axes(rows.astype(np.float32))
    centred = rows - rows.mean(axis=0)
    eigenvalues = np.sort(np.linalg.eigvalsh(centred.T @ centred))[::-1]
    np.testing.assert_allclose((places**2).sum(axis=0), eigenvalues[:2], rtol=1e-5)


def test_picture_does_not_depend_on_the_order_of_rows():
    rows = make_arm("SimCLR").vectors
    np.testing.assert_allclose(principal_axes(rows[::-1]), principal_axes(rows)[::-1], atol=1e-5)
