"""Transformers models with random weights, on disk: a small layer or two over the words of a few texts."""

import torch


def word_backend(words):
    """A tokenizer of whole words, lower-cased, with the usual special tokens."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {token: index for index, token in enumerate(special + sorted(set(words)))}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return backend


def save_bert(folder, backend, *, head="BertModel", max_tokens=32, pad_token="[PAD]", **settings):
    """Saves the transformers class named `head` and its tokenizer; `settings` are of BertConfig."""
    import transformers

    config = transformers.BertConfig(
        # Some tokenizers add special tokens of their own.
        vocab_size=backend.get_vocab_size() + 8,
        hidden_size=16,
        num_attention_heads=2,
        max_position_embeddings=max_tokens,
        initializer_range=0.5,
        **{"num_hidden_layers": 2, "intermediate_size": 32, **settings},
    )
    torch.manual_seed(0)
    getattr(transformers, head)(config).save_pretrained(folder)
    transformers.BertTokenizerFast(
        tokenizer_object=backend, model_max_length=max_tokens, pad_token=pad_token
    ).save_pretrained(folder)
    return folder
