"""From settings, or from a folder, to a text encoder; every failure to load becomes one line."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from jaxtyping import Int64

from retrieval_cl.core.errors import InputError
from retrieval_cl.encoders.config import EncoderConfig
from retrieval_cl.encoders.quiet import no_progress_bars

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from retrieval_cl.encoders.text import TextEncoder

Loaded = TypeVar("Loaded")
GivenTexts = Sequence[str] | Callable[[], Sequence[str]]
_TRAINED = "a sentence-transformers folder (it holds modules.json)"
_BARE = "a transformers folder (it holds config.json)"


def build_encoder(
    config: EncoderConfig,
    *,
    corpus_texts: GivenTexts,
    train_queries: GivenTexts = (),
    train_passages: Int64[np.ndarray, " P"] | None = None,
    seed: int = 0,
) -> TextEncoder:
    """The encoder the settings describe, on the CPU, in float32.

    Args:
        config: see there.
        corpus_texts: the passages, or what gives them; asked for by kind "static" only.
        train_queries: the query of each training pair, or what gives them; asked for by init "lsa" only.
        train_passages: the row in the corpus of each training pair's passage; None: there are no pairs.
        seed: of a static encoder's first weights.

    Raises:
        InputError: the model is missing, cannot be reached, or does not fit the settings.
    """
    from retrieval_cl.encoders.text import TextEncoder

    makers: dict[str, Callable[[], SentenceTransformer]] = {
        "static": lambda: _make_static(
            config, corpus_texts, queries=train_queries, passages=train_passages, seed=seed
        ),
        "sentence_transformer": lambda: _load_trained(str(config.path), name="encoder.path"),
        "transformer": lambda: _load_bare(str(config.path), pooling=config.pooling),
    }
    model = _with_towers(makers[config.kind](), config=config)
    for name, prompt in (("query", config.query_prompt), ("document", config.passage_prompt)):
        if prompt is not None:
            model.prompts[name] = prompt
    if config.max_tokens is not None:
        _limit_tokens(model, max_tokens=config.max_tokens)
    return TextEncoder(model, token_dropout=config.token_dropout)


def load_encoder(path: str | Path, *, name: str = "model") -> TextEncoder:
    """The encoder of a sentence-transformers folder or model id, as it is.

    Args:
        path: the folder or id.
        name: what errors call it, such as the key of the settings it comes from.

    Raises:
        InputError: there is none, or it cannot be loaded.
    """
    from retrieval_cl.encoders.text import TextEncoder

    return TextEncoder(_load_trained(str(path), name=name))


def load_somewhere(load: Callable[[str, bool], Loaded], path: str, *, name: str, wanted: str) -> Loaded:
    """Loads a folder, or a model id: from the local cache where it is there, else from the hub.

    Args:
        load: gets the folder or id, and whether to keep to what is on this disk.
        path: the folder or id.
        name: what errors call it, such as the key of the settings it comes from.
        wanted: what a folder should be, in words.

    Raises:
        InputError: it is nowhere, or cannot be loaded.
    """
    folder = Path(path).expanduser()
    missing = f"{name} '{path}': no such folder, nor a model in the local cache"
    valid = f"give {wanted} or a Hugging Face id such as org/name"
    with no_progress_bars():
        try:
            return load(str(folder) if folder.is_dir() else path, True)
        except InputError:
            raise
        except Exception as error:  # the model libraries raise anything, down to KeyError
            if folder.is_dir():
                raise InputError(f"{name} '{path}': cannot be loaded: {_first_line(error)}") from error
        if path.count("/") > 1 or path.startswith((".", "~", "/")):
            raise InputError(f"{missing}; {valid}")
        if not _hub_answers():
            raise InputError(f"{missing}, and huggingface.co does not answer (offline?); {valid}")
        try:
            return load(path, False)
        except Exception as error:
            raise InputError(f"{missing}, and from huggingface.co: {_first_line(error)}; {valid}") from error


def _make_static(
    config: EncoderConfig,
    corpus_texts: GivenTexts,
    *,
    queries: GivenTexts,
    passages: Int64[np.ndarray, " P"] | None,
    seed: int,
) -> SentenceTransformer:
    from retrieval_cl.encoders.static import build_static, build_static_lsa, train_tokenizer

    texts = _get(corpus_texts)
    tokenizer = train_tokenizer(
        texts,
        vocab_size=config.vocab_size,
        whole_words=config.whole_words,
        min_count=config.min_count,
        keep_punctuation=config.keep_punctuation,
    )
    if config.max_tokens is not None:
        # Before the first vectors are made: what is cut off must not shape them.
        tokenizer.enable_truncation(max_length=config.max_tokens)
    shared: dict[str, Any] = {"dim": config.dim, "seed": seed, "idf_power": config.idf_power}
    builders: dict[str, Callable[[], TextEncoder]] = {
        "random": lambda: build_static(tokenizer, texts, **shared),
        "lsa": lambda: build_static_lsa(tokenizer, texts, **shared, queries=_get(queries), passages=passages),
    }
    return builders[config.init]().model


def _load_trained(path: str, *, name: str) -> SentenceTransformer:
    folder = Path(path).expanduser()
    if folder.is_dir() and not (folder / "modules.json").is_file():
        bare = "; a bare transformers model needs encoder.kind transformer"
        advice = bare if (folder / "config.json").is_file() else ""
        raise InputError(f"{name} '{path}': no modules.json in this folder; give {_TRAINED}{advice}")

    def load(path: str, local_files_only: bool) -> SentenceTransformer:
        from sentence_transformers import SentenceTransformer

        return SentenceTransformer(path, device="cpu", local_files_only=local_files_only).float()

    return load_somewhere(load, path, name=name, wanted=_TRAINED)


def _load_bare(path: str, *, pooling: str) -> SentenceTransformer:
    def load(path: str, local_files_only: bool) -> SentenceTransformer:
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.base.modules import Normalize, Transformer
        from sentence_transformers.sentence_transformer.modules import Pooling

        # A dictionary each: they are changed inside.
        where = [{"local_files_only": local_files_only} for _ in range(3)]
        body = Transformer(path, model_kwargs=where[0], processor_kwargs=where[1], config_kwargs=where[2])
        if body.module_output_name != "token_embeddings":
            raise InputError(
                f"encoder.path '{path}': {type(body.model).__name__} gives no token vectors to pool"
            )
        pooled = [body, Pooling(body.get_embedding_dimension(), pooling), Normalize()]
        return SentenceTransformer(modules=pooled, device="cpu").float()

    return load_somewhere(load, path, name="encoder.path", wanted=_BARE)


def _hub_answers() -> bool:
    # Asked once: the libraries would try again for 23 s over each of several files.
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=5)
    except Exception:  # whatever the HTTP library raises
        return False
    return True


def _with_towers(model: SentenceTransformer, *, config: EncoderConfig) -> SentenceTransformer:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Normalize, Router

    has_separate = isinstance(model[0], Router)
    if has_separate == (config.towers == "separate"):
        return model
    if has_separate:
        raise InputError(f"encoder.path '{config.path}' has separate towers; set encoder.towers to separate")
    query = list(model)[:-1] if isinstance(model[-1], Normalize) else list(model)
    router = Router.for_query_document(query_modules=query, document_modules=copy.deepcopy(query))
    kept: dict[str, Any] = {"prompts": dict(model.prompts), "truncate_dim": model.truncate_dim}
    return SentenceTransformer(modules=[router, Normalize()], device="cpu", **kept)


def _limit_tokens(model: SentenceTransformer, *, max_tokens: int) -> None:
    from sentence_transformers.base.modules import Router, Transformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    # A module of another type is refused by TextEncoder, with the types there are.
    limits: dict[type, Callable[[Any, int], None]] = {
        StaticEmbedding: lambda module, limit: module.tokenizer.enable_truncation(limit),
        Transformer: _limit_transformer,
    }
    routes = model[0].sub_modules.values() if isinstance(model[0], Router) else [model]
    for first in (route[0] for route in routes):
        if type(first) in limits:
            limits[type(first)](first, max_tokens)


def _limit_transformer(module: Any, max_tokens: int) -> None:
    special = module.tokenizer.num_special_tokens_to_add()
    if max_tokens <= special:
        raise InputError(f"encoder.max_tokens is {max_tokens}, but {special} go to special tokens; give more")
    positions = _num_positions(module.model)
    if positions is not None and max_tokens > positions:
        raise InputError(f"encoder.max_tokens is {max_tokens}, but the model has {positions} positions")
    module.max_seq_length = max_tokens
    module.query_length = module.document_length = None


def _num_positions(body: Any) -> int | None:
    for name, module in body.named_modules():
        if name.endswith("position_embeddings") and hasattr(module, "num_embeddings"):
            # RoBERTa and its kin count positions from the one after their padding's.
            first = 0 if module.padding_idx is None else module.padding_idx + 1
            return int(module.num_embeddings) - first
    return None


def _get(texts: GivenTexts) -> Sequence[str]:
    return texts() if callable(texts) else texts


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
