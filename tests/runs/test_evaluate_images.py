"""Evaluation of image models: the numbers of training, retrieval by a slow loop, tests against another."""

import json

import numpy as np
import pytest
from tiny_images import SMALL

from retrieval_cl.config import load_image_config
from retrieval_cl.core.errors import InputError
from retrieval_cl.core.hits import Hits
from retrieval_cl.encoders.load_image import build_image_encoder, load_image_encoder
from retrieval_cl.runs.evaluate_images import evaluate_images
from retrieval_cl.runs.image_board import retrieved
from retrieval_cl.runs.models import find_model
from retrieval_cl.sources.images.load import load_images


@pytest.fixture
def config(image_run_once):
    return load_image_config(image_run_once / "run" / "config.yaml")


def read(folder):
    return json.loads((folder / "results.json").read_text())


def test_evaluation_gives_the_numbers_of_training(config, image_run, tmp_path):
    done = evaluate_images(config, find_model(str(image_run)), output=tmp_path / "eval")
    ours, theirs = read(tmp_path / "eval")["systems"], read(image_run)
    for number in ("knn_accuracy", "linear_accuracy"):
        low, high = theirs["intervals"][number]
        assert ours["run"][number] == {"mean": theirs[number], "low": low, "high": high}
    assert ours["raw pixels"]["knn_accuracy"]["mean"] == theirs["raw_pixel_knn_accuracy"]
    assert "linear_accuracy" not in ours["raw pixels"]
    for words in ("raw pixels", "success@1", "run - raw pixels: ndcg@10", "kNN, k 10, cosine", "retrieval: "):
        assert words in done.text(), words


def test_retrieval_equals_a_slow_loop_over_the_other_images_of_the_split(config, image_run, tmp_path):
    evaluate_images(config, find_model(str(image_run)), output=tmp_path / "eval", write_trec=True)
    data = load_images(config.source)
    rows = data.splits["test"]
    vectors = load_image_encoder(image_run / "model").encode(data.images, rows=rows)
    labels = data.labels[rows]
    scores = vectors.astype(np.float64) @ vectors.astype(np.float64).T
    np.fill_diagonal(scores, -np.inf)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :-1]
    right = labels[order] == labels[:, None]
    found = read(tmp_path / "eval")["systems"]["run"]
    assert found["success@1"]["mean"] == pytest.approx(right[:, 0].mean())
    assert found["recall@10"]["mean"] == pytest.approx((right[:, :10].sum(1) / 3).mean())
    assert found["recall@100"]["mean"] == 1.0
    lines = [json.loads(line) for line in (tmp_path / "eval" / "per_query.jsonl").read_text().splitlines()]
    assert [line["query"] for line in lines] == [data.ids[row] for row in rows]
    ran = [line.split() for line in (tmp_path / "eval" / "run.trec").read_text().splitlines()]
    assert len(ran) == 16 * 15 and all(line[0] != line[2] for line in ran)


def test_images_without_another_of_their_class_find_nothing():
    hits = Hits(np.zeros((2, 100), np.float32), np.full((2, 100), -1))
    hits.rows[:, 0] = (1, 0)
    assert {name: values.tolist() for name, values in retrieved(np.array([0, 1]), hits).items()} == {
        name: [0.0, 0.0] for name in retrieved(np.array([0, 1]), hits)
    }
    assert retrieved(np.array([3, 3]), hits)["recall@1"].tolist() == [1.0, 1.0]


def test_second_model_is_tested_on_the_same_images(config, image_run, tmp_path):
    build_image_encoder(config.encoder, seed=5).save(tmp_path / "other")
    models = (find_model(str(image_run)), find_model(str(tmp_path / "other")))
    evaluate_images(config, models[0], against=models[1], output=tmp_path / "eval")
    found = {
        (one["system"], one["than"], one["metric"]): one for one in read(tmp_path / "eval")["comparisons"]
    }
    one = found["run", "other", "knn_accuracy"]
    systems = read(tmp_path / "eval")["systems"]
    first, second = (systems[name]["knn_accuracy"]["mean"] for name in ("run", "other"))
    assert one["mean"] == pytest.approx(first - second) and 0 < one["p"] <= 1
    assert ("run", "other", "linear_accuracy") in found
    assert ("run", "raw pixels", "linear_accuracy") not in found


def test_what_cannot_be_measured_is_refused(config, image_run, tmp_path):
    model = find_model(str(image_run))
    with pytest.raises(InputError, match="the same model as the first"):
        evaluate_images(config, model, against=model, output=tmp_path)
    other = load_image_config(None, [*SMALL, "evaluation.split=dev"], data=config.source.path)
    with pytest.raises(InputError, match="'colours' has no split 'dev'; it has train, test"):
        evaluate_images(other, model, output=tmp_path)
