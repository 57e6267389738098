"""Each setting of mining that needs more than the model's vectors works on a data set, from its files on."""

import json

import numpy as np
import pytest
from tiny_beir import SMALL, write_tiny
from tiny_bert import save_bert, word_backend

from retrieval_cl.config import load_config
from retrieval_cl.core.errors import InputError
from retrieval_cl.core.hits import Hits
from retrieval_cl.encoders.words import split_words
from retrieval_cl.indexing.bm25 import Lexical
from retrieval_cl.mining.scorers import vector_scorer
from retrieval_cl.mining.searchers import exact_search
from retrieval_cl.mining.table import SOURCES
from retrieval_cl.runs import further_candidates
from retrieval_cl.runs.further_candidates import further_hits
from retrieval_cl.runs.prepare import prepare_text
from retrieval_cl.runs.systems import DEFAULT_B, DEFAULT_K1
from retrieval_cl.runs.train import encoder_for
from retrieval_cl.runs.train_queries import mine_train_queries
from retrieval_cl.sources.load import load

OPEN = {"mining.relative_margin": "null", "mining.num_negatives": "4", "mining.depth": "8"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The tiny data, where no train query asks for counting, and 12 passages have a near copy of no query."""
    folder = write_tiny(tmp_path_factory.mktemp("data") / "beir")
    train = folder / "qrels" / "train.tsv"
    lines = [line for line in train.read_text().splitlines(keepends=True) if "\tcount-" not in line]
    train.write_text("".join(lines))
    corpus = folder / "corpus.jsonl"
    passages = [json.loads(line) for line in corpus.read_text().splitlines()]
    for passage in passages[:12]:
        copy = {**passage, "_id": f"{passage['_id']}-again", "text": f"{passage['text']} again"}
        passages.append(copy)
    corpus.write_text("".join(json.dumps(passage) + "\n" for passage in passages))
    return folder


def config_of(folder, **settings):
    given = OPEN | {f"mining.{name}": value for name, value in settings.items()}
    return load_config(
        None, [*SMALL, *(f"{name}={value}" for name, value in given.items())], data=str(folder)
    )


@pytest.fixture(scope="module")
def text(folder):
    config = config_of(folder)
    data = load(config.source)
    return prepare_text(data, encoder_for(config, data))


@pytest.fixture(scope="module")
def vectors(folder, text):
    encoder = encoder_for(config_of(folder), text.data)
    queries = text.query_tokens.take(text.data.splits["train"].judged_queries)
    return encoder.encode(queries, kind="query"), encoder.encode(text.passage_tokens, kind="passage")


@pytest.fixture
def run(folder, text, vectors):
    """Mines; returns the table and the counts."""

    def call(extra=None, **settings):
        config = config_of(folder, **settings).mining
        return mine_train_queries(text, *vectors, config=config, extra=extra or {}, seed=0, round=0)

    return call


@pytest.fixture(scope="module")
def queries(text):
    return text.data.splits["train"].judged_queries


@pytest.fixture(scope="module")
def second(folder, text, tmp_path_factory):
    """Another model of the same texts, on disk."""
    config = load_config(None, [*SMALL, "encoder.dim=8", "training.seed=9"], data=str(folder))
    path = tmp_path_factory.mktemp("second") / "model"
    encoder_for(config, text.data).save(path)
    return path


@pytest.fixture(scope="module")
def reranker(text, tmp_path_factory):
    """A cross-encoder with random weights, on disk: one label, one layer."""
    passages, queries = text.data.passages.full(), text.data.queries.full()
    words = {word for row in split_words(passages + queries) for word in row}
    return save_bert(
        tmp_path_factory.mktemp("reranker"),
        word_backend(words),
        head="BertForSequenceClassification",
        max_tokens=64,
        num_hidden_layers=1,
        intermediate_size=16,
        num_labels=1,
    )


def predicted(path, text, queries, rows):
    """The cross-encoder's own score of every filled place."""
    from sentence_transformers import CrossEncoder

    line, place = np.nonzero(rows >= 0)
    passages, texts = text.data.passages.full(), text.data.queries.full()
    pairs = [(texts[queries[i]], passages[rows[i, j]]) for i, j in zip(line, place, strict=True)]
    scores = np.full(rows.shape, -np.inf, dtype=np.float32)
    scores[line, place] = CrossEncoder(str(path), device="cpu").predict(pairs, show_progress_bar=False)
    return scores


def drawn_from(table, source):
    """Line, passage and rank of each negative of that source."""
    line, place = np.nonzero(table.sources == SOURCES.index(source))
    return line, table.rows[line, place], table.ranks[line, place]


def near_copies(table, text):
    """Negatives that are the near copy of a positive of their query, or what the positive is a copy of."""
    ids = text.data.passages.ids
    known = text.known_passages().take(table.queries)
    bare = [{ids[row].removesuffix("-again") for row in known[line].tolist()} for line in range(len(table))]
    return [
        (line, row)
        for line in range(len(table))
        for row in table.rows[line].tolist()
        if row >= 0 and ids[row].removesuffix("-again") in bare[line]
    ]


def test_quotas_fill_places_from_bm25_and_at_random(run, text, queries):
    table, counts = run(quotas="{lexical: 1, random: 1}")
    assert (np.count_nonzero(table.sources == SOURCES.index("random"), axis=1) == 1).all()
    assert (np.count_nonzero(table.sources == SOURCES.index("lexical"), axis=1) <= 1).all()
    words = Lexical.fit(split_words(text.data.passages.full()), k1=DEFAULT_K1, b=DEFAULT_B)
    texts = text.data.queries.full()
    hits = words.search(split_words([texts[row] for row in queries.tolist()]), k=8)
    line, rows, ranks = drawn_from(table, "lexical")
    assert len(line) > 20 and len(line) + counts.unmet["lexical"] == len(table)
    np.testing.assert_array_equal(hits.rows[line, ranks], rows)
    assert counts.drawn["lexical"] == len(line) and counts.unmet["random"] == 0
    known = text.known_passages().take(table.queries)
    assert not [i for i in range(len(table)) if set(table.rows[i].tolist()) & set(known[i].tolist())]


def test_second_model_gives_what_its_own_search_finds(run, text, queries, second):
    from sentence_transformers import SentenceTransformer

    table, counts = run(second_model=second, quotas="{second: 2}")
    model = SentenceTransformer(str(second), device="cpu")
    texts = text.data.queries.full()
    left = model.encode_query([texts[row] for row in queries.tolist()], normalize_embeddings=True)
    right = model.encode_document(text.data.passages.full(), normalize_embeddings=True)
    scores = left.astype(np.float64) @ right.astype(np.float64).T
    line, rows, ranks = drawn_from(table, "second")
    assert len(line) > 20 and counts.drawn["second"] == len(line)
    better = np.count_nonzero(scores[line] > scores[line, rows][:, None] + 1e-6, axis=1)
    as_good = np.count_nonzero(scores[line] >= scores[line, rows][:, None] - 1e-6, axis=1)
    assert (better <= ranks).all() and (ranks < as_good).all()


def test_every_negative_is_scored_by_the_model_in_training(run, vectors, second):
    table, _ = run(second_model=second, quotas="{second: 1, lexical: 1, random: 1}")
    line, place = np.nonzero(table.rows >= 0)
    expected = vector_scorer(*vectors)(line.astype(np.int64), table.rows[line, place])
    np.testing.assert_array_equal(table.scores[line, place], expected)
    assert {"dense", "second", "lexical", "random"} >= {
        SOURCES[number] for number in np.unique(table.sources)
    }


@pytest.mark.parametrize("quotas", ["{}", "{lexical: 1}", "{random: 2}"])
def test_near_texts_of_a_positive_are_drawn_only_where_the_rule_is_off(run, text, quotas):
    without, _ = run(quotas=quotas)
    table, counts = run(quotas=quotas, near_text=0.8)
    assert near_copies(without, text)
    assert not near_copies(table, text)
    assert counts.removed["near_text"] > 0


def test_near_vectors_of_a_positive_are_not_drawn(run, text, vectors):
    def closest(table):
        known = text.known_passages().take(table.queries)
        passages = vectors[1].astype(np.float64)
        return [
            float((passages[known[line]] @ passages[row]).max())
            for line in range(len(table))
            for row in table.rows[line].tolist()
            if row >= 0
        ]

    without, _ = run(quotas="{random: 1}")
    table, counts = run(quotas="{random: 1}", near_vector=0.9)
    assert max(closest(without)) > 0.9 > max(closest(table))
    assert counts.removed["near_vector"] > 0 and not near_copies(table, text)


def test_widening_fills_places_that_a_shallow_search_leaves_empty(run):
    shallow, _ = run(depth=5, near_text=0.8)
    table, counts = run(depth=5, near_text=0.8, shortage="widen", widest=40)
    assert (shallow.rows < 0).any() and (table.rows >= 0).all()
    short = (shallow.rows < 0).any(axis=1)
    assert counts.widened == np.count_nonzero(short) and counts.empty == 0
    np.testing.assert_array_equal(table.rows[~short], shallow.rows[~short])
    assert table.ranks[short].max() >= 5 > table.ranks[~short].max()


@pytest.mark.parametrize("candidates", ["all", "train"])
def test_reranker_of_the_settings_is_used_and_its_scores_are_kept(run, text, reranker, candidates):
    table, _ = run(reranker=reranker, candidates=candidates, quotas="{random: 1}")
    plain, _ = run(candidates=candidates, quotas="{random: 1}")
    assert (table.rows != plain.rows).any(), "the cross-encoder orders otherwise than the vectors"
    there = table.rows >= 0
    wanted = predicted(reranker, text, table.queries, table.rows)
    assert np.ptp(wanted[there]) > 1e-3
    np.testing.assert_allclose(table.teacher[there], wanted[there], atol=1e-5)
    known = text.known_passages().take(table.queries)
    assert [set(row[row >= 0].tolist()) for row in table.positives] == [
        set(known[line].tolist()) for line in range(len(known))
    ]
    wanted = predicted(reranker, text, table.queries, table.positives)
    filled = table.positives >= 0
    np.testing.assert_allclose(table.positive_teacher[filled], wanted[filled], atol=1e-5)


def test_reranker_decides_which_candidates_are_drawn_and_the_margin(run, text, reranker):
    table, _ = run(reranker=reranker, margin=0.01, num_negatives=2)
    found = table.teacher >= np.float32(-1e30)
    weakest = np.where(table.positives >= 0, table.positive_teacher, np.inf).min(axis=1)
    assert found.any() and not found.all()
    assert (table.teacher <= weakest[:, None] - 0.01 + 1e-6)[found].all()
    assert (np.diff(np.where(found, table.teacher, -1e30), axis=1) <= 0).all()


def test_mining_among_train_passages_alone_meets_no_other(run, text, second):
    settings = {"candidates": "train", "second_model": second, "near_text": 0.8}
    table, _ = run(quotas="{lexical: 1, second: 1, random: 1}", **settings)
    known = text.known_passages()
    there = np.unique(table.rows[table.rows >= 0])
    assert len(there) > 10 and set(there.tolist()) <= set(known.values.tolist()) < set(range(60))
    assert {"lexical", "random"} <= {SOURCES[number] for number in np.unique(table.sources) if number >= 0}
    assert not near_copies(table, text)


def test_lists_that_are_given_are_not_made_again(folder, text, queries, second):
    rows = np.arange(len(text.data.passages))
    config = config_of(folder, quotas="{lexical: 1}", second_model=second).mining
    empty = Hits(np.full((len(queries), 1), -np.inf, dtype=np.float32), np.full((len(queries), 1), -1))
    made = further_hits(text, rows, config=config, given={})
    assert set(made) == {"lexical", "second"} and made["second"].rows.shape == (len(queries), 8)
    assert set(further_hits(text, rows, config=config, given={"lexical": empty})) == {"second"}
    assert not further_hits(text, rows, config=config, given={"lexical": empty, "second": empty})


def test_the_second_models_search_keeps_to_the_given_memory(folder, text, second, monkeypatch):
    given = []

    def search(passages, *, device, memory_bytes):
        given.append(memory_bytes)
        return exact_search(passages, device=device, memory_bytes=memory_bytes)

    monkeypatch.setattr(further_candidates, "exact_search", search)
    rows = np.arange(len(text.data.passages))
    config = config_of(folder, second_model=second).mining
    further_hits(text, rows, config=config, given={}, memory_bytes=2**26)
    assert given == [2**26]


@pytest.mark.parametrize(
    ("setting", "message"), [("reranker", "mining.reranker"), ("second_model", "mining.second_model")]
)
def test_model_that_is_not_there_is_named_with_its_setting(run, tmp_path, setting, message):
    with pytest.raises(InputError) as caught:
        run(**{setting: tmp_path / "none"})
    assert message in str(caught.value) and "\n" not in str(caught.value)
