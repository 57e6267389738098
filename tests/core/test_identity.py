import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_loops import Options, draw_contrast, slow_positives

from retrieval_cl.core import identity
from retrieval_cl.core.contrast import Bank, Part
from retrieval_cl.core.identity import (
    Pairs,
    join,
    known_hits,
    positive_pairs,
    private_negatives,
    target_pairs,
)


def bank_of(*groups):
    return Bank(tuple(Part(torch.zeros(len(ids), 1), torch.tensor(ids, dtype=torch.int64)) for ids in groups))


def as_set(pairs):
    return set(zip(pairs.anchors.tolist(), pairs.columns.tolist(), strict=True))


IDS = st.integers(-1, 6)


@settings(deadline=None, max_examples=40)
@given(
    known=st.lists(st.lists(IDS, min_size=3, max_size=3), min_size=1, max_size=8),
    groups=st.lists(st.lists(IDS, max_size=6), min_size=1, max_size=3),
)
def test_hits_are_all_pairs_of_a_known_id_and_a_column_that_carries_it(known, groups):
    columns = [item for ids in groups for item in ids]
    wanted = {
        (anchor, column)
        for anchor, row in enumerate(known)
        for column, item in enumerate(columns)
        if item != -1 and item in row
    }
    assert as_set(known_hits(torch.tensor(known), bank_of(*groups))) == wanted


def test_minus_one_matches_nothing_on_either_side():
    assert as_set(known_hits(torch.tensor([[-1, 4]]), bank_of([-1, 4, -1]))) == {(0, 1)}


def test_looking_up_in_blocks_finds_the_same(monkeypatch):
    known = torch.randint(-1, 20, (50, 3), generator=torch.Generator().manual_seed(0))
    bank = bank_of(list(range(20)), [3, 3, -1])
    whole = known_hits(known, bank)
    monkeypatch.setattr(identity, "LOOKUPS_AT_ONCE", 7)
    blocks = known_hits(known, bank)
    assert as_set(blocks) == as_set(whole)
    assert len(blocks.anchors) == len(whole.anchors) > 0


def test_no_anchor_and_no_known_id_give_no_hit():
    for shape in [(0, 2), (3, 0)]:
        assert as_set(known_hits(torch.zeros(shape, dtype=torch.int64), bank_of([0, 1]))) == set()


def test_private_negatives_are_named_once_and_never_known_padded_or_shared():
    contrast = draw_contrast(
        Options(private=True, private_targets=True, duplicates=True, padding=True, several_known=True), seed=3
    )
    matches = join([target_pairs(contrast), known_hits(contrast.known, contrast.bank)])
    found = private_negatives(contrast, matches)
    ids = torch.cat([part.ids for part in contrast.bank.parts]).tolist()
    shared = [part.shared for part in contrast.bank.parts for _ in part.ids]
    wanted = {
        (anchor, column)
        for anchor, row in enumerate(contrast.own.tolist())
        for column in row
        if column >= 0
        and not shared[column]
        and ids[column] != -1
        and ids[column] not in contrast.known[anchor].tolist()
        and column != int(contrast.targets[anchor])
    }
    assert as_set(found) == wanted
    assert len(found.anchors) == len(wanted) > 0


def test_blocks_hold_every_pair_in_order():
    pairs = Pairs(torch.arange(5), torch.arange(5, 10))
    blocks = pairs.blocks(2)
    assert [len(block.anchors) for block in blocks] == [2, 2, 1]
    assert as_set(join(blocks)) == as_set(pairs)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 1000), flags=st.lists(st.booleans(), min_size=6, max_size=6))
def test_positives_are_what_an_anchor_sees_and_knows_and_its_target(seed, flags):
    names = ["private", "private_targets", "duplicates", "padding", "several_known", "repeats"]
    contrast = draw_contrast(Options(negatives=True, **dict(zip(names, flags, strict=True))), seed=seed)
    matches = join([target_pairs(contrast), known_hits(contrast.known, contrast.bank)])
    found = positive_pairs(contrast, matches)
    wanted = {
        (anchor, column)
        for anchor, row in enumerate(slow_positives(contrast, "sum"))
        for column, matched in enumerate(row)
        if matched
    }
    assert as_set(found) == wanted
    assert len(found.anchors) == len(wanted) >= 7


def test_keys_ascend_by_anchor_and_then_by_column():
    pairs = Pairs(torch.tensor([0, 0, 1, 2]), torch.tensor([1, 4, 0, 3]))
    keys = pairs.keys(5)
    assert torch.equal(keys.sort().values, keys)
    assert len(keys.unique()) == 4
