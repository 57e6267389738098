"""One process; what ranks hear of each other is told in rank_shares.py."""

import pytest
import torch

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.together import _hear, _pack, together


def test_one_process_raises_what_was_raised():
    error = InputError("x")
    with pytest.raises(InputError) as caught, together(torch.device("cpu")):
        raise error
    assert caught.value is error and not hasattr(error, "__notes__")


def test_the_first_rank_with_an_error_is_heard():
    lines = torch.cat([_pack(error) for error in (None, KeyError("a"), InputError("b"))])
    assert str(_hear(lines)) == "rank 1: KeyError: 'a'"
    heard = _hear(torch.cat([_pack(None), _pack(InputError("mining.depth is 0"))]))
    assert isinstance(heard, InputError) and str(heard) == "mining.depth is 0"


def test_an_error_without_a_message_still_has_a_line():
    assert str(_hear(_pack(MemoryError()))) == "rank 0: MemoryError: no message"
