import json

import pytest

from retrieval_cl.runs.demo_collapse import METHODS, POSITIVES_ALONE, demo_collapse


@pytest.mark.slow
def test_positives_alone_collapse_and_the_methods_do_not(tmp_path):
    said = []
    done = demo_collapse(output=tmp_path, steps=40, say=said.append)
    assert [arm.name for arm in done.arms] == list(METHODS)
    stopped = {arm.name: arm.stopped for arm in done.arms}
    assert stopped[POSITIVES_ALONE].startswith("no negatives at step ")
    assert not any(line for name, line in stopped.items() if name != POSITIVES_ALONE)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results[POSITIVES_ALONE]["std_ratio"] < 0.1 < 0.5 < results["SimCLR"]["std_ratio"]
    assert results["SimCLR"]["knn_accuracy"] > results[POSITIVES_ALONE]["knn_accuracy"]
    assert (tmp_path / "report.html").is_file()
    # What became of each is told once, at the end.
    assert said == [f"training: {name}" for name in METHODS]
    assert done.text().count("\n") == 3
