import json
import shutil

import huggingface_hub
import numpy as np
import pytest
import torch
from huggingface_hub import constants

from retrieval_cl.core.errors import InputError
from retrieval_cl.encoders import load
from retrieval_cl.encoders.config import EncoderConfig
from retrieval_cl.encoders.load import build_encoder, load_encoder


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def test_static_encoder_is_built_as_the_settings_say(build, corpus):
    encoder = build("static", dim=8, vocab_size=60, whole_words=0.5, idf_power=0.0)
    weights = encoder.model[0].embedding.weight.detach()
    assert weights.shape == (60, 8)
    np.testing.assert_allclose(weights[1:].norm(dim=1), 1, rtol=1e-5)
    assert not encoder.has_separate_towers


def test_seed_and_start_decide_a_static_encoder(corpus):
    def fingerprint(seed, **settings):
        config = EncoderConfig(dim=8, min_count=1, **settings)
        return build_encoder(config, corpus_texts=lambda: corpus, seed=seed).fingerprint()

    assert fingerprint(0) == fingerprint(0)
    assert len({fingerprint(0), fingerprint(0, init="random"), fingerprint(1, init="random")}) == 3


def test_lsa_asks_for_training_pairs_and_random_does_not(corpus):
    def prints(init, **pairs):
        config = EncoderConfig(dim=8, min_count=1, init=init)
        return build_encoder(config, corpus_texts=corpus, **pairs).fingerprint()

    pairs = {"train_queries": lambda: ["crème", "argv"], "train_passages": np.array([4, 2], dtype=np.int64)}
    assert prints("lsa", **pairs) != prints("lsa")
    never = {"train_queries": lambda: pytest.fail("asked"), "train_passages": pairs["train_passages"]}
    assert prints("random", **never) == prints("random")


def test_a_trained_model_asks_for_no_corpus(build, tmp_path):
    build("bert").save(tmp_path / "model")
    config = EncoderConfig(kind="sentence_transformer", path=str(tmp_path / "model"))
    encoder = build_encoder(config, corpus_texts=lambda: pytest.fail("asked for the corpus"))
    assert encoder.fingerprint() == load_encoder(tmp_path / "model").fingerprint()


@pytest.mark.parametrize("pooling", ["mean", "cls", "lasttoken"])
def test_pooling_equals_pooling_by_hand(build, bert_folder, corpus, pooling):
    from transformers import AutoModel, AutoTokenizer

    tokenizer, body = AutoTokenizer.from_pretrained(bert_folder), AutoModel.from_pretrained(bert_folder)
    expected = []
    for text in corpus:
        with torch.no_grad():
            inputs = tokenizer(text, return_tensors="pt", truncation=True)
            tokens = body(**inputs).last_hidden_state[0]
        by_hand = {"mean": tokens.mean(dim=0), "cls": tokens[0], "lasttoken": tokens[-1]}
        expected.append((by_hand[pooling] / by_hand[pooling].norm()).numpy())
    vectors = build("bert", pooling=pooling).encode(corpus, kind="query")
    np.testing.assert_allclose(vectors, np.stack(expected), atol=1e-6)


def test_weights_saved_in_a_shorter_type_are_trained_in_float32(build, tmp_path):
    build("bert").to(torch.bfloat16).save(tmp_path / "model")
    encoder = load_encoder(tmp_path / "model")
    assert {weight.dtype for weight in encoder.parameters()} == {torch.float32}


def test_separate_towers_start_equal_and_share_nothing(build, corpus):
    encoder = build("bert", towers="separate")
    queries, passages = (encoder.encode(corpus, kind=kind) for kind in ("query", "passage"))
    assert np.array_equal(queries, passages)
    assert np.array_equal(queries, build("bert").encode(corpus, kind="query"))
    encoder.eval().embed(encoder.tokenize(corpus, kind="query"), kind="query").sum().backward()
    towers = encoder.model[0].sub_modules
    assert any(weight.grad is not None for weight in towers["query"].parameters())
    assert all(weight.grad is None for weight in towers["document"].parameters())


def test_separate_towers_are_not_read_as_shared(build, tmp_path):
    build("static", towers="separate").save(tmp_path / "model")
    settings = {"kind": "sentence_transformer", "path": str(tmp_path / "model")}
    with pytest.raises(InputError, match=r"has separate towers; set encoder\.towers to separate"):
        build_encoder(EncoderConfig(**settings), corpus_texts=[])
    assert build_encoder(EncoderConfig(towers="separate", **settings), corpus_texts=[]).has_separate_towers


def test_prompts_of_the_settings_replace_those_of_the_model(build, tmp_path):
    build("static", query_prompt="read ", passage_prompt="write ").save(tmp_path / "model")
    settings = {"kind": "sentence_transformer", "path": str(tmp_path / "model")}

    def prompts(**changes):
        encoder = build_encoder(EncoderConfig(**settings, **changes), corpus_texts=[])
        return [encoder.model.prompts[name] for name in ("query", "document")]

    assert prompts() == ["read ", "write "]
    assert prompts(query_prompt="", passage_prompt="sort ") == ["", "sort "]


@pytest.mark.parametrize(
    ("max_tokens", "message"),
    [(33, "max_tokens is 33, but the model has 32 positions"), (2, "2 go to special tokens")],
)
def test_a_limit_that_cannot_be_is_refused(build, max_tokens, message):
    with pytest.raises(InputError, match=message):
        build("bert", max_tokens=max_tokens)


def test_positions_after_the_paddings_are_not_counted():
    from transformers import RobertaConfig, RobertaModel

    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    body = RobertaModel(RobertaConfig(vocab_size=9, max_position_embeddings=34, pad_token_id=1, **sizes))
    assert load._num_positions(body) == 32
    assert body(torch.full((1, 32), 5)).last_hidden_state.shape == (1, 32, 8)


@pytest.mark.parametrize("kind", ["sentence_transformer", "transformer"])
@pytest.mark.parametrize("path", ["no/such-model", "./no/such/folder", "runs/quick/start/model", "nothing"])
def test_a_missing_model_is_one_line(kind, path, monkeypatch):
    def refuse():
        pytest.fail("offline is offline")

    monkeypatch.setattr(huggingface_hub, "get_session", refuse)
    with pytest.raises(InputError) as error:
        build_encoder(EncoderConfig(kind=kind, path=path), corpus_texts=[])
    message = str(error.value)
    assert message.startswith(f"encoder.path '{path}': no such folder")
    assert "Hugging Face id such as org/name" in message
    assert "\n" not in message


def test_a_hub_that_does_not_answer_is_asked_once(monkeypatch):
    calls = []

    class Session:
        def head(self, url, timeout):
            calls.append(url)
            raise OSError("Name or service not known")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "get_session", Session)
    with pytest.raises(InputError, match="does not answer"):
        load_encoder("no/such-model")
    assert len(calls) == 1


def test_a_folder_of_another_kind_is_told_apart(bert_folder, tmp_path):
    with pytest.raises(InputError, match=r"no modules.json.*needs encoder.kind transformer"):
        load_encoder(bert_folder)
    with pytest.raises(InputError, match=r"no modules.json in this folder; give a sentence-tran.*json\)$"):
        load_encoder(tmp_path)
    with pytest.raises(InputError, match="cannot be loaded"):
        build_encoder(EncoderConfig(kind="transformer", path=str(tmp_path)), corpus_texts=[])


@pytest.mark.parametrize("broken", ["modules.json", "tokenizer.json", "model.safetensors"])
def test_a_damaged_folder_is_one_line(build, tmp_path, broken):
    build("static").save(tmp_path / "model")
    (tmp_path / "model" / broken).write_bytes(b'{"broken')
    with pytest.raises(InputError, match=r"^model '.*': cannot be loaded: [^\n]+$"):
        load_encoder(tmp_path / "model")


def test_a_half_copied_folder_is_one_line(build, tmp_path):
    build("bert").save(tmp_path / "model")
    shutil.rmtree(tmp_path / "model" / "1_Pooling")
    (tmp_path / "model" / "config.json").write_text(json.dumps({"model_type": "nonsense"}))
    with pytest.raises(InputError, match=r"cannot be loaded: [^\n]+$"):
        load_encoder(tmp_path / "model")


def test_separate_towers_do_not_hide_that_a_model_cuts_its_vectors(build, tmp_path):
    encoder = build("static")
    encoder.model.truncate_dim = 8
    encoder.save(tmp_path / "model")
    config = EncoderConfig(kind="sentence_transformer", path=str(tmp_path / "model"), towers="separate")
    with pytest.raises(InputError, match="truncate_dim is 8"):
        build_encoder(config, corpus_texts=[])
