"""The code-aware splitting of text: camelCase, snake_case and digits come apart, lower case, no plural s."""

from __future__ import annotations

from tokenizers import Regex, normalizers, pre_tokenizers

# One letter run never spans a change of case such as `camel|Case` or `HTTP|Server`. The cheap look-ahead
# stands first: most positions fail it, and the look-behinds are the costly half.
_CASE_BORDER = r"(?=\p{Lu})(?:(?<=[\p{Ll}\p{N}])|(?<=\p{Lu})(?=\p{Lu}\p{Ll}))"
# Han characters stand alone, for there are no spaces between words.
_WORD = r"\p{Han}|[[\p{L}\p{M}]&&[^\p{Han}]]+|\p{N}+"
_PUNCTUATION = r"[^\s\p{L}\p{M}\p{N}]"
# The s of an English plural or verb: after three letters, the last of them neither s (class) nor u (status).
_PLURAL = r"(?<=\p{L}{2}[^\W\d_su])s(?![\p{L}\p{M}])"


def make_normalizer() -> normalizers.Normalizer:
    """NFKC, a space at each change of case, lower case, and the s of plurals cut off (`returns`, `files`)."""
    border = normalizers.Replace(Regex(_CASE_BORDER), " ")
    plural = normalizers.Replace(Regex(_PLURAL), "")
    return normalizers.Sequence([normalizers.NFKC(), border, normalizers.Lowercase(), plural])


def make_pre_tokenizer(*, keep_punctuation: bool = False) -> pre_tokenizers.PreTokenizer:
    """Runs of letters and runs of digits; punctuation marks one by one, or (the default) dropped."""
    pattern = f"{_WORD}|{_PUNCTUATION}" if keep_punctuation else _WORD
    # `invert`: what matches is kept and what lies between (white space, punctuation, underscores) is removed.
    return pre_tokenizers.Split(Regex(pattern), behavior="removed", invert=True)
