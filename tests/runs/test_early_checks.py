"""What mining or indexing would refuse after encoding is refused before a single text is embedded."""

import pytest
from tiny_beir import SMALL, write_tiny
from tiny_bert import save_bert, word_backend

from retrieval_cl.config import load_config
from retrieval_cl.core.errors import InputError
from retrieval_cl.encoders.text import TextEncoder
from retrieval_cl.runs.index import index_corpus
from retrieval_cl.runs.mine import prepare
from retrieval_cl.runs.models import find_model
from retrieval_cl.runs.train import encoder_for, train
from retrieval_cl.sources.load import load


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("early") / "beir")


def config_of(folder, *settings):
    return load_config(None, [*SMALL, *settings], data=str(folder))


@pytest.fixture(scope="module")
def encoder(folder):
    config = config_of(folder)
    return encoder_for(config, load(config.source))


@pytest.fixture(scope="module")
def run_folder(encoder, tmp_path_factory):
    """What `train` leaves, as far as a second model goes."""
    run = tmp_path_factory.mktemp("second") / "run"
    encoder.save(run / "model")
    (run / "config.yaml").write_text("name: run\n")
    return run


@pytest.fixture
def nothing_encoded(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a text was encoded")

    monkeypatch.setattr(TextEncoder, "encode", refuse)


def bert(folder, *, labels, head="BertForSequenceClassification"):
    settings = {"num_hidden_layers": 1, "num_labels": labels}
    return save_bert(folder, word_backend(["open", "file"]), head=head, **settings)


WRONG = {
    "mining.second_model=nowhere/at/all": ("mining.second_model 'nowhere/at/all': no such folder",),
    "mining.reranker=nowhere/at/all": ("mining.reranker 'nowhere/at/all': no such folder",),
    "mining.factory=HSNW32": ("mining.factory 'HSNW32' for 48 vectors of dim 16: FAISS refuses it", "HNSW32"),
    "mining.factory=IVF64,Flat": ("mining.factory 'IVF64,Flat' for 48", "64 lists need at least 64 rows"),
    "mining.quotas.second=1": ("mining.quotas.second: nothing gives", "set mining.second_model", "lexical"),
    "mining.quotas.given=1": ("mining.quotas.given: nothing gives", "the data name no negatives"),
    "mining.quotas.previous=1": ("mining.quotas.previous: nothing gives", "only training in rounds"),
    "mining.quotas.other=1": ("mining.quotas.other: nothing gives", "sources here: dense, lexical, random"),
}


@pytest.mark.usefixtures("nothing_encoded")
@pytest.mark.parametrize("setting", WRONG)
def test_mine_refuses_what_is_not_there_before_a_text_is_encoded(folder, encoder, setting):
    with pytest.raises(InputError) as caught:
        prepare(config_of(folder, setting), encoder)
    assert "\n" not in str(caught.value)
    for part in WRONG[setting]:
        assert part in str(caught.value)


@pytest.mark.usefixtures("nothing_encoded")
@pytest.mark.parametrize(
    ("setting", "name"),
    [("mining.reranker=nowhere/at/all", "mining.reranker"), ("mining.quotas.second=1", "mining.quotas")],
)
def test_training_refuses_them_before_it_leaves_a_folder(folder, tmp_path, setting, name):
    with pytest.raises(InputError, match=name):
        train(config_of(folder, setting, f"output={tmp_path / 'run'}"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "setting", ["mining.factory=IVF2,Flat", "mining.factory=auto", "mining.quotas.lexical=1"]
)
def test_mine_takes_what_is_there(folder, encoder, setting):
    assert prepare(config_of(folder, setting), encoder).plan.passages == 48


@pytest.mark.parametrize("name", ["", "model"])
def test_second_model_may_be_a_run_or_its_model(folder, encoder, run_folder, name):
    settings = (f"mining.second_model={run_folder / name}", "mining.quotas.second=1")
    assert prepare(config_of(folder, *settings), encoder).plan.passages == 48


@pytest.mark.usefixtures("nothing_encoded")
def test_second_model_in_a_folder_without_one_names_its_key(folder, encoder):
    with pytest.raises(InputError, match=r"^mining.second_model .*: no model in this folder"):
        prepare(config_of(folder, f"mining.second_model={folder}"), encoder)


@pytest.mark.parametrize(
    ("labels", "head", "reason"),
    [
        (3, "BertForSequenceClassification", "gives 3 scores a pair"),
        (1, "BertModel", "no cross-encoder: classifier.weight is not among its weights"),
    ],
)
@pytest.mark.usefixtures("nothing_encoded")
def test_model_that_scores_no_pairs_is_no_reranker(folder, encoder, tmp_path, labels, head, reason):
    path = bert(tmp_path / "model", labels=labels, head=head)
    with pytest.raises(InputError, match=reason):
        prepare(config_of(folder, f"mining.reranker={path}"), encoder)


def test_sound_reranker_is_taken(folder, encoder, tmp_path):
    path = bert(tmp_path / "model", labels=1)
    assert prepare(config_of(folder, f"mining.reranker={path}"), encoder).plan.passages == 48


@pytest.mark.usefixtures("nothing_encoded")
@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (("index.target_recall=0.9",), "index.target_recall has no effect on exact search"),
        (("index.factory=HSNW32",), "index.factory 'HSNW32' for 48 vectors of dim 16: FAISS refuses it"),
        (("index.factory=auto", "index.memory=1KiB"), "raise index.memory"),
    ],
)
def test_index_refuses_before_a_text_is_encoded(folder, run_folder, tmp_path, settings, reason):
    with pytest.raises(InputError, match=reason):
        index_corpus(config_of(folder, *settings), find_model(str(run_folder)), output=tmp_path / "index")
    assert not (tmp_path / "index").exists()


@pytest.mark.usefixtures("nothing_encoded")
def test_index_replaces_no_run_and_says_so_before_a_text_is_encoded(folder, run_folder):
    before = sorted(run_folder.rglob("*"))
    with pytest.raises(InputError, match="holds something else than an index, which would be lost"):
        index_corpus(config_of(folder), find_model(str(run_folder)), output=run_folder)
    assert sorted(run_folder.rglob("*")) == before
