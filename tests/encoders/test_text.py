import copy

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize, Router
from sentence_transformers.sentence_transformer.modules import BoW, Dense, StaticEmbedding

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.relations import Ragged
from retrieval_cl.encoders.load import load_encoder
from retrieval_cl.encoders.text import TextEncoder

PROMPTS = {"query_prompt": "read: ", "passage_prompt": "the file "}
SETTINGS = [{}, PROMPTS, {"towers": "separate"}, {"towers": "separate", "max_tokens": 6} | PROMPTS]


def part_towers(encoder):
    """Makes the towers differ, where there are two."""
    if encoder.has_separate_towers:
        with torch.no_grad():
            for weight in encoder.model[0].sub_modules["query"].parameters():
                weight += torch.linspace(-0.5, 0.5, weight.numel()).reshape(weight.shape)


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("kind", ["static", "bert"])
def test_saved_folder_gives_equal_vectors_in_sentence_transformers(build, corpus, tmp_path, kind, settings):
    encoder = build(kind, **settings)
    part_towers(encoder)
    encoder.save(tmp_path / "model")
    bare = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    texts = [*corpus, "", "λ"]
    queries, passages = (encoder.encode(texts, kind=each) for each in ("query", "passage"))
    assert np.abs(queries - bare.encode_query(texts)).max() < 1e-6
    assert np.abs(passages - bare.encode_document(texts)).max() < 1e-6
    assert np.abs(queries - passages).max() > 1e-3 or settings == {}
    if not settings:
        assert np.abs(passages - bare.encode(texts)).max() < 1e-6
    again = load_encoder(tmp_path / "model")
    assert np.array_equal(again.encode(texts, kind="query"), queries)
    assert again.fingerprint() == encoder.fingerprint()
    assert again.dim == 16


@pytest.mark.parametrize("kind", ["static", "bert"])
def test_rows_are_unit_and_no_packing_changes_them(build, corpus, kind):
    encoder = build(kind)
    vectors = encoder.encode(corpus, kind="passage")
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    tokens = encoder.tokenize(corpus, kind="passage")
    assert tokens.values.dtype == np.int32
    for batch_tokens in (1, 20, 1000):
        again = encoder.encode(tokens, kind="passage", batch_tokens=batch_tokens)
        np.testing.assert_allclose(again, vectors, atol=1e-6)
    order = np.random.default_rng(0).permutation(len(corpus))
    np.testing.assert_allclose(encoder.encode(tokens.take(order), kind="passage"), vectors[order], atol=1e-6)
    with torch.no_grad():
        np.testing.assert_allclose(encoder.eval().embed(tokens, kind="passage"), vectors, atol=1e-6)


def test_nothing_encodes_to_no_rows(static_encoder):
    assert static_encoder.encode([], kind="query").shape == (0, 16)


def test_static_vector_is_the_unit_mean_of_its_token_rows(static_encoder, corpus):
    rows = static_encoder.model[0].embedding.weight.detach().numpy()
    tokens = static_encoder.tokenize(corpus, kind="passage")
    means = np.stack([rows[tokens[row]].mean(axis=0) for row in range(len(corpus))])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    np.testing.assert_allclose(static_encoder.encode(corpus, kind="passage"), means, atol=1e-6)


def test_token_ids_hold_prompt_and_special_tokens_and_are_cut(build):
    encoder = build("bert", query_prompt="read ", max_tokens=4)
    vocabulary = encoder.model[0].tokenizer.get_vocab()
    tokens = encoder.tokenize(["file", "the file and the file"], kind="query")
    expected = [["[CLS]", "read", "file", "[SEP]"], ["[CLS]", "read", "the", "[SEP]"]]
    assert [tokens[row].tolist() for row in range(2)] == [[vocabulary[t] for t in row] for row in expected]
    assert encoder.tokenize(["file"], kind="passage").counts.tolist() == [3]
    assert build("static", max_tokens=2).tokenize(["read the file"], kind="query").counts.tolist() == [2]
    assert build("static").tokenize(["read " * 5000], kind="query").counts.tolist() == [5000]


def test_gradient_reaches_the_rows_of_the_tokens_alone(static_encoder):
    tokens = static_encoder.tokenize(["read file", ""], kind="query")
    vectors = static_encoder.embed(tokens, kind="query")
    assert vectors.requires_grad
    vectors[:, 0].sum().backward()
    gradient = static_encoder.model[0].embedding.weight.grad
    assert gradient.isfinite().all()
    assert set(gradient.abs().sum(dim=1).nonzero().flatten().tolist()) == set(tokens[0].tolist())


def test_a_text_without_tokens_is_zeros_not_nan(static_encoder):
    vectors = static_encoder.encode(["", "file", "!?"], kind="query")
    assert (vectors[[0, 2]] == 0).all()
    assert np.linalg.norm(vectors[1]) == pytest.approx(1)


def test_a_row_without_tokens_does_not_break_a_transformer(build):
    encoder = build("bert")
    some = encoder.tokenize(["read the file"], kind="query")
    both = Ragged.from_lists([[], some[0].tolist()], dtype=np.int32)
    vectors = encoder.encode(both, kind="query")
    assert np.isfinite(vectors).all()
    np.testing.assert_allclose(vectors[1], encoder.encode(some, kind="query")[0], atol=1e-6)
    features = encoder._inputs["query"].collate(both, device=torch.device("cpu"))
    # Which attention gives NaN where all is masked differs from one implementation to the next.
    assert features["attention_mask"].sum(dim=1).tolist() == [1, len(some[0])]
    assert encoder.encode(both.take(np.array([0])), kind="query").shape == (1, 16)


def test_padding_on_the_left_gives_the_vectors_of_sentence_transformers(build, corpus):
    encoder = build("bert", pooling="lasttoken")
    encoder.model[0].tokenizer.padding_side = "left"
    encoder = TextEncoder(encoder.model)
    expected = encoder.model.encode(corpus)
    np.testing.assert_allclose(encoder.encode(corpus, kind="query"), expected, atol=1e-6)
    features = encoder._inputs["query"].collate(
        Ragged.from_lists([[2, 3], [2, 5, 3]], dtype=np.int32), device=torch.device("cpu")
    )
    assert features["attention_mask"].tolist() == [[0, 1, 1], [1, 1, 1]]
    assert features["input_ids"].tolist() == [[0, 2, 3], [2, 5, 3]]


def test_a_prompt_left_out_of_the_pooling_stays_out(build, corpus):
    encoder = build("bert", query_prompt="read the ")
    encoder.model[1].include_prompt = False
    encoder = TextEncoder(encoder.model)
    expected = encoder.model.encode_query(corpus)
    np.testing.assert_allclose(encoder.encode(corpus, kind="query"), expected, atol=1e-6)
    encoder.model[1].include_prompt = True
    assert np.abs(encoder.encode(corpus, kind="query") - expected).max() > 1e-3


def test_dropout_acts_in_training_and_not_in_encode(build, corpus):
    encoder = build("bert").train()
    encoder.model[0].model.pooler.eval()
    tokens = encoder.tokenize(corpus, kind="query")
    assert not torch.equal(encoder.embed(tokens, kind="query"), encoder.embed(tokens, kind="query"))
    assert np.array_equal(encoder.encode(tokens, kind="query"), encoder.encode(tokens, kind="query"))
    modes = {name: module.training for name, module in encoder.named_modules()}
    assert modes["model.0.model.pooler"] is False
    assert modes["model.0.model.encoder"] is True


def test_encode_leaves_weights_that_can_be_trained(static_encoder, corpus):
    static_encoder.encode(corpus, kind="query")
    tokens = static_encoder.tokenize(corpus, kind="query")
    static_encoder.embed(tokens, kind="query").sum().backward()
    assert static_encoder.model[0].embedding.weight.grad is not None


def test_a_shorter_type_still_gives_float32_unit_rows(build, corpus):
    encoder = build("bert")
    exact = encoder.encode(corpus, kind="query")
    short = encoder.encode(corpus, kind="query", compute_dtype=torch.bfloat16)
    assert short.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(short, axis=1), 1, atol=1e-6)
    assert 0 < np.abs(short - exact).max() < 0.1
    half = encoder.to(torch.bfloat16).embed(encoder.tokenize(corpus, kind="query"), kind="query")
    assert half.dtype == torch.float32
    torch.testing.assert_close(half.norm(dim=1), torch.ones(len(corpus)), rtol=0, atol=1e-6)


def test_progress_tells_rows_done(static_encoder, corpus):
    calls = []
    encode = static_encoder.encode
    encode(corpus, kind="query", batch_tokens=1, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(done, len(corpus)) for done in range(1, len(corpus) + 1)]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_broken_weight_names_the_first_row_it_spoils(static_encoder, value):
    with torch.no_grad():
        static_encoder.model[0].embedding.weight[static_encoder.model[0].tokenizer.token_to_id("json"), 3] = (
            value
        )
    texts = ["read", "a long text about a file and json", "json", "write"]
    with pytest.raises(InputError, match=r"passage row 1 is NaN or infinite \(2 of 4 rows are\)"):
        static_encoder.encode(texts, kind="passage")


def test_one_changed_weight_changes_the_fingerprint(static_encoder):
    before = static_encoder.fingerprint()
    weight = static_encoder.model[0].embedding.weight
    with torch.no_grad():
        weight[7, 3] = torch.nextafter(weight[7, 3], torch.tensor(9.0))
    assert static_encoder.fingerprint() != before


@pytest.mark.parametrize(
    "change",
    [
        {"query_prompt": "q "},
        {"passage_prompt": "p "},
        {"max_tokens": 9},
        {"towers": "separate"},
        {"pooling": "cls"},
    ],
)
def test_each_setting_of_a_transformer_changes_the_fingerprint(build, change):
    assert build("bert", **change).fingerprint() != build("bert").fingerprint()


@pytest.mark.parametrize("change", [{"query_prompt": "q "}, {"max_tokens": 9}, {"keep_punctuation": True}])
def test_each_setting_of_a_static_encoder_changes_the_fingerprint(build, change):
    assert build("static", **change).fingerprint() != build("static").fingerprint()


def test_number_of_heads_and_type_of_weights_change_the_fingerprint(build):
    encoder = build("bert")
    prints = [encoder.fingerprint()]
    encoder.model[0].model.config.num_attention_heads = 4
    prints.append(encoder.fingerprint())
    prints.append(encoder.to(torch.bfloat16).fingerprint())
    assert len(set(prints)) == 3


def test_use_does_not_change_the_fingerprint(build, corpus):
    encoder = build("bert")
    before = encoder.fingerprint()
    encoder.train().encode(corpus, kind="query")
    assert encoder.fingerprint() == before == copy.deepcopy(encoder).fingerprint()


def test_a_copy_is_an_encoder_of_its_own(static_encoder, corpus):
    before = static_encoder.encode(corpus, kind="query")
    twin = copy.deepcopy(static_encoder)
    with torch.no_grad():
        twin.model[0].embedding.weight += 1
    assert np.array_equal(static_encoder.encode(corpus, kind="query"), before)
    assert not np.allclose(twin.encode(corpus, kind="query"), before)


def test_normalize_is_added_where_it_lacks_and_only_there(tokenizer):
    bag = StaticEmbedding(tokenizer, embedding_dim=16)
    added = TextEncoder(SentenceTransformer(modules=[bag], device="cpu"))
    assert isinstance(added.model[-1], Normalize)
    assert len(TextEncoder(added.model).model) == 2
    routes = {"query_modules": [bag, Normalize()], "document_modules": [bag, Normalize()]}
    whole = TextEncoder(SentenceTransformer(modules=[Router.for_query_document(**routes)], device="cpu"))
    assert len(whole.model) == 1


def test_dim_is_that_of_the_last_module(tokenizer, corpus):
    bag = StaticEmbedding(tokenizer, embedding_dim=16)
    encoder = TextEncoder(SentenceTransformer(modules=[bag, Dense(16, 4)], device="cpu"))
    assert encoder.dim == 4
    assert encoder.encode(corpus, kind="query").shape == (len(corpus), 4)


def test_a_prompt_named_passage_is_the_prompt_of_documents(tokenizer, tmp_path):
    bag = StaticEmbedding(tokenizer, embedding_dim=16)
    prompts = {"query": "read ", "passage": "write ", "topic": "sort "}
    encoder = TextEncoder(SentenceTransformer(modules=[bag], prompts=prompts, device="cpu"))
    tokens = encoder.tokenize(["file"], kind="passage")
    assert tokens[0].tolist() == tokenizer.encode("write file", add_special_tokens=False).ids
    encoder.save(tmp_path / "model")
    saved = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    assert saved.prompts == prompts | {"document": "write "}


def test_a_model_that_cuts_its_vectors_is_refused(tokenizer):
    bag = StaticEmbedding(tokenizer, embedding_dim=16)
    with pytest.raises(InputError, match="truncate_dim is 8"):
        TextEncoder(SentenceTransformer(modules=[bag], truncate_dim=8, device="cpu"))


def test_an_unknown_first_module_is_refused_by_name():
    model = SentenceTransformer(modules=[BoW(["a", "b"])], device="cpu")
    with pytest.raises(InputError, match="first module is BoW; an encoder starts with StaticEmbedding or Tr"):
        TextEncoder(model)


def test_a_tokenizer_without_padding_is_refused(build):
    encoder = build("bert")
    encoder.model[0].processor._pad_token = None
    encoder.model[0].processor._special_tokens_map["pad_token"] = None
    encoder.model[0].processing_kwargs = {"text": {"padding": False}}
    with pytest.raises(InputError, match="BertModel's tokenizer has no padding token"):
        TextEncoder(encoder.model)
