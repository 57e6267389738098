"""The pydoc source: what becomes a pair, what is one item, and what may not cross from train to test."""

import json
import textwrap
from pathlib import Path

import numpy as np
import pytest

from retrieval_cl.core.errors import InputError
from retrieval_cl.core.relations import Ragged
from retrieval_cl.sources import pydoc, pydoc_files
from retrieval_cl.sources.beir import read_beir, write_beir
from retrieval_cl.sources.near_copies import near_copies
from retrieval_cl.sources.pydoc_files import SourceFile
from retrieval_cl.sources.pydoc_parse import parse_file, shingles


def parse(tmp_path: Path, source: str, module: str = "mod"):
    path = tmp_path / f"{module}.py"
    path.write_text(textwrap.dedent(source), encoding="utf8")
    return parse_file(path, module)


def test_query_is_first_paragraph_and_code_has_no_docstring(tmp_path):
    (found,) = parse(
        tmp_path,
        '''
        def area(radius: float) -> float:
            """Area of a circle
            with a given radius.

            Later paragraphs say more about the thing that this does.
            """
            return 3.14 * radius ** 2  # close enough
        ''',
    )
    assert found.query == "Area of a circle with a given radius."
    assert found.more == ("Later paragraphs say more about the thing that this does.",)
    assert found.title == "mod.area"
    assert found.code == "def area(radius: float) -> float:\n    return 3.14 * radius ** 2  # close enough"


def test_class_passage_holds_no_docstring_of_its_methods(tmp_path):
    whole, method = parse(
        tmp_path,
        '''
        class Box:
            """Holds one thing."""

            def open(self):
                """Takes the thing out."""
                def inner():
                    """Secret of the inside."""
                    return 1
                return inner()
        ''',
    )
    assert (whole.name, method.name) == ("Box", "Box.open")
    for found in (whole, method):
        assert "Holds one" not in found.code and "Takes the" not in found.code and "Secret" not in found.code
        assert "return inner()" in found.code


def test_module_is_never_imported_and_broken_files_give_nothing(tmp_path):
    assert len(parse(tmp_path, 'raise SystemExit("imported")\ndef f():\n    """Says hello twice."""\n')) == 1
    assert parse(tmp_path, 'def f(:\n    """Says hello twice."""\n') == []
    (tmp_path / "latin.py").write_bytes(b'def f():\n    """Gr\xfc\xdfe an alle."""\n')
    assert parse_file(tmp_path / "latin.py", "latin") == []
    assert parse_file(tmp_path / "absent.py", "absent") == []


def test_markup_is_no_query(tmp_path):
    doc = (
        '!!! abstract "Usage"\n        See the page.\n\n    .. deprecated:: 1.0\n\n    Opens the door slowly.'
    )
    (found,) = parse(tmp_path, f'def f():\n    """{doc}\n    """\n    return 1\n')
    assert found.query == "Opens the door slowly."
    assert parse(tmp_path, 'def f():\n    """.. note:: nothing else"""\n    return 1\n') == []


def test_lone_surrogate_in_docstring_can_be_written(tmp_path):
    (found,) = parse(tmp_path, 'def f():\n    """Half of a pair \\ud800 here."""\n    return 1\n')
    found.query.encode("utf8")


def test_one_line_function_has_its_signature_as_code(tmp_path):
    (found,) = parse(tmp_path, 'def f(x): """Does nothing at all."""\n')
    assert found.code.startswith("def f(x):") and "nothing" not in found.code


BODY = """
    total = 0
    for number in numbers:
        total += number * weight
    return total / max(len(numbers), 1)
"""


def build(tmp_path, monkeypatch, modules: dict[str, str], splits: dict[str, int]):
    files = []
    for module, source in modules.items():
        path = tmp_path / f"{module}.py"
        path.write_text(source, encoding="utf8")
        files.append(SourceFile("pkg", module, path))
    monkeypatch.setattr(pydoc, "source_files", lambda packages: files)
    monkeypatch.setattr(pydoc, "_split", lambda module: splits[module])
    return pydoc.build_pydoc(packages=[], max_pairs=1000, num_processes=1)


def function(name: str, doc: str, body: str = BODY, args: str = "numbers, weight") -> str:
    return f'def {name}({args}):\n    """{doc}"""\n{body}\n'


def queries_of(data, split):
    if split not in data.splits:
        return set()
    return {data.queries.texts[q] for q in data.splits[split].judged_queries}


def test_copies_of_one_body_are_one_item(tmp_path, monkeypatch):
    data = build(
        tmp_path,
        monkeypatch,
        {
            "a": function("mean", "Weighted mean of numbers."),
            "b": function("average", "Average of many numbers."),
            "c": function(
                "other", "Something else entirely different.", "\n    return sorted(set(numbers))[:weight]\n"
            ),
        },
        {"a": 0, "b": 0, "c": 0},
    )
    rows = {title: row for row, title in enumerate(data.passages.titles)}
    assert data.equal is not None
    assert set(data.equal[rows["a.mean"]]) == {rows["a.mean"], rows["b.average"]}
    assert list(data.equal[rows["c.other"]]) == [rows["c.other"]]


def test_short_equal_bodies_are_not_one_item(tmp_path, monkeypatch):
    source = function("go", "Starts the whole engine.", "\n    pass\n") + function(
        "halt", "Stops it all again.", "\n    pass\n"
    )
    data = build(tmp_path, monkeypatch, {"a": source}, {"a": 0})
    assert data.equal is not None and (data.equal.counts == 1).all()


def test_equal_query_text_has_several_positives_and_common_phrases_go(tmp_path, monkeypatch):
    bodies = [
        f"\n    value_{i} = compute_{i}(numbers)\n    return value_{i} + {i} + helper_number_{i}(weight)\n"
        for i in range(6)
    ]
    source = "".join(function(f"twice_{i}", "Asked in two places.", bodies[i]) for i in range(2))
    source += "".join(function(f"often_{i}", "See the base class.", bodies[i]) for i in range(2, 6))
    data = build(tmp_path, monkeypatch, {"a": source}, {"a": 0})
    assert data.queries.texts == ["Asked in two places."]
    assert len(data.splits["train"].passages) == 2
    assert data.made_by["boilerplate_queries"] == 1


def test_near_copy_of_a_train_passage_leaves_the_test_split(tmp_path, monkeypatch):
    long_body = (
        "\n"
        + "".join(f"    step_{w} = apply_{w}(numbers, weight)\n" for w in "abcdefghijklmnopqrst")
        + "    return step_t\n"
    )
    data = build(
        tmp_path,
        monkeypatch,
        {
            "a": function("steps", "Takes twenty steps in order.", long_body),
            "b": function(
                "steps", "Walks all the twenty steps.", long_body.replace("step_t\n", "step_t  # done\n")
            ),
            "c": function(
                "free", "Something that is only here.", "\n    return {weight: numbers for _ in range(3)}\n"
            ),
        },
        {"a": 0, "b": 2, "c": 2},
    )
    assert queries_of(data, "test") == {"Something that is only here."}
    assert data.made_by["near_copies_removed_from_test"] == 1


def test_query_text_of_train_never_is_a_test_query(tmp_path, monkeypatch):
    data = build(
        tmp_path,
        monkeypatch,
        {
            "a": function(
                "f", "Shared words of both.", "\n    return one_way_to_do_it(numbers, weight, first=1)\n"
            ),
            "b": function(
                "g", "shared  words of both.", "\n    return sum(other(n) for n in numbers if n > weight)\n"
            ),
        },
        {"a": 0, "b": 2},
    )
    assert queries_of(data, "test") == set()
    assert len(data.splits["train"].passages) == 2


def test_further_paragraphs_become_train_queries_only(tmp_path, monkeypatch):
    doc = "First line of it.\n\n    A later paragraph that tells much more about {}.\n    "
    data = build(
        tmp_path,
        monkeypatch,
        {
            "a": function(
                "f", doc.format("apples"), "\n    return one_way_to_do_it(numbers, weight, first=1)\n"
            ),
            "b": function(
                "g",
                doc.format("pears").replace("First", "Second"),
                "\n    return [n for n in numbers if n]\n",
            ),
        },
        {"a": 0, "b": 2},
    )
    assert "A later paragraph that tells much more about apples." in queries_of(data, "train")
    assert queries_of(data, "test") == {"Second line of it."}


def test_order_of_files_and_number_of_processes_do_not_matter():
    packages = ["click"]
    one = pydoc.build_pydoc(packages=packages, max_pairs=300, num_processes=1)
    two = pydoc.build_pydoc(packages=packages, max_pairs=300, num_processes=2)
    assert one.passages.full() == two.passages.full()
    assert one.queries.texts == two.queries.texts
    assert all(np.array_equal(one.splits[s].passages, two.splits[s].passages) for s in one.splits)


def test_written_as_beir_folder_it_reads_back_equal(tmp_path):
    data = pydoc.build_pydoc(packages=["click"], max_pairs=200, num_processes=1)
    write_beir(data, tmp_path / "data")
    again = read_beir(tmp_path / "data")
    assert again.passages.full() == data.passages.full()
    assert {s: len(q.passages) for s, q in again.splits.items()} == {
        s: len(q.passages) for s, q in data.splits.items()
    }
    manifest = json.loads((tmp_path / "data" / "manifest.json").read_text())
    assert "click" in json.dumps(manifest)


def test_tests_and_vendored_copies_are_left_out():
    for name in (
        "pkg/tests/helper.py",
        "pkg/test_it.py",
        "pkg/_vendor/six.py",
        "pkg/it_test.py",
        "pkg/conftest.py",
    ):
        assert not pydoc_files._is_wanted(Path(name)), name
    assert pydoc_files._is_wanted(Path("pkg/contest.py"))
    modules = [file.module for file in pydoc_files.source_files(["click"])]
    assert "json.decoder" in modules and "click.core" in modules
    assert not any(m.startswith(("test.", "idlelib", "lib2to3")) for m in modules)


def test_unknown_package_is_named_with_the_nearest():
    with pytest.raises(InputError, match=r"'clik' is not installed here; did you mean 'click'\?"):
        pydoc_files.package_versions(["clik"])


@pytest.mark.parametrize("threshold", [0.5, 0.8, 1.0])
def test_near_copies_equal_a_slow_loop(threshold):
    generator = np.random.default_rng(0)

    def sets(n):
        base = [generator.choice(40, size=generator.integers(0, 12), replace=False) for _ in range(n)]
        return Ragged.from_lists([row.tolist() for row in base])

    left, right = sets(60), sets(80)
    right = Ragged.from_lists(
        [*(right[i].tolist() for i in range(80)), *(left[i].tolist() for i in range(5))]
    )
    slow = {
        (a, b)
        for a in range(len(left))
        for b in range(len(right))
        if (union := len(set(left[a]) | set(right[b])))
        and len(set(left[a]) & set(right[b])) / union >= threshold
    }
    assert {tuple(pair) for pair in near_copies(left, right, threshold=threshold)} == slow
    assert slow


def test_shingles_ignore_punctuation_and_are_distinct():
    assert np.array_equal(shingles("a b c d e f"), shingles("A, b; c(d) e.f"))
    assert len(shingles("x x x x x x x x")) == 1
    assert len(shingles("")) == 0
