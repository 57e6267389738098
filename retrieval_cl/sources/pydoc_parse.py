"""Reads one Python file with `ast`, never importing it, into documented definitions: docstring and code."""

from __future__ import annotations

import ast
import io
import re
import tokenize
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from zlib import crc32

import numpy as np

WORD = re.compile(r"[A-Za-z]+|[0-9]+")
MAX_FILE_BYTES = 1_000_000  # generated tables, not code that anybody asks for
MAX_CODE_CHARS = 3_000
MAX_QUERY_CHARS = 400
SHINGLE = 5  # tokens

_MARKUP = ("!!!", ".. ", "```")  # admonitions and directives: about the page, not about the code
_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True)
class Documented:
    """One function or class with a docstring.

    Attributes:
        module: dotted name of the file's module.
        name: dotted name inside the module (`Class.method`).
        query: first paragraph of the docstring, on one line.
        more: the later paragraphs that are prose, each on one line.
        code: signature and body without any docstring.
        body: a 64-bit fingerprint of the code below the signature, white space folded.
        body_chars: its length without white space: a short body says nothing about copies.
        shingles: sorted distinct 32-bit hashes of the runs of 5 words of `code`, as uint32 bytes.
    """

    module: str
    name: str
    query: str
    more: tuple[str, ...]
    code: str
    body: int
    body_chars: int
    shingles: bytes

    @property
    def title(self) -> str:
        """Qualified name."""
        return f"{self.module}.{self.name}"


def parse_file(path: Path, module: str) -> list[Documented]:
    """All documented definitions of a file, in their order; a file that is no valid Python 3 gives none."""
    try:
        source = _read_source(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's strings
            tree = ast.parse(source)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    lines = source.splitlines()
    skipped = _docstring_lines(tree, lines)
    return [
        found
        for node, name in _definitions(tree, "")
        if (found := _documented(node, name, module=module, lines=lines, skipped=skipped)) is not None
    ]


def shingles(text: str) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
    """Sorted distinct hashes of the runs of 5 words of a text (one run where it is shorter); uint32 `[S]`."""
    words = np.array([crc32(word.encode()) for word in WORD.findall(text.lower())], dtype=np.uint64)
    if len(words) == 0:
        return np.zeros(0, dtype=np.uint32)
    width = min(SHINGLE, len(words))
    runs = np.zeros(len(words) - width + 1, dtype=np.uint64)
    for i in range(width):
        runs = runs * np.uint64(0x9E3779B97F4A7C15) + words[i : len(words) - width + 1 + i]
    runs ^= runs >> np.uint64(29)
    return np.unique((runs * np.uint64(0xBF58476D1CE4E5B9)) >> np.uint64(32)).astype(np.uint32)


def _read_source(path: Path) -> str:
    raw = path.read_bytes()
    if len(raw) > MAX_FILE_BYTES or (b'"""' not in raw and b"'''" not in raw):
        return ""
    encoding, _ = tokenize.detect_encoding(io.BytesIO(raw).readline)
    return raw.decode(encoding)


def _definitions(parent: ast.Module | ast.ClassDef, prefix: str) -> Iterator[tuple[_Definition, str]]:
    # Functions inside functions are left out: nobody can call them from outside.
    for node in parent.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node, prefix + node.name
        elif isinstance(node, ast.ClassDef):
            yield node, prefix + node.name
            yield from _definitions(node, f"{prefix}{node.name}.")


def _docstring_lines(tree: ast.Module, lines: list[str]) -> set[int]:
    found: set[int] = set()
    for node, _ in _definitions(tree, ""):
        _add_docstring(node, found)
        if not isinstance(node, ast.ClassDef) and _has_inner_docstring(node, lines):
            for inner in ast.walk(node):  # slow, so only where a function inside a function has one
                if isinstance(inner, _Definition):
                    _add_docstring(inner, found)
    return found


def _add_docstring(node: _Definition, found: set[int]) -> None:
    if (expression := _docstring_node(node)) is not None:
        found.update(range(expression.lineno, (expression.end_lineno or expression.lineno) + 1))


def _has_inner_docstring(node: _Definition, lines: list[str]) -> bool:
    first = node.body[0]
    inside = lines[first.end_lineno or first.lineno : node.end_lineno]
    return any(line.lstrip().startswith(('"""', "'''", 'r"""')) for line in inside)


def _docstring_node(node: _Definition) -> ast.Expr | None:
    first = node.body[0] if node.body else None
    if (
        isinstance(first, ast.Expr)
        and isinstance(first.value, ast.Constant)
        and isinstance(first.value.value, str)
    ):
        return first
    return None


def _documented(
    node: _Definition, name: str, *, module: str, lines: list[str], skipped: set[int]
) -> Documented | None:
    docstring = ast.get_docstring(node)
    if not docstring or not docstring.strip():
        return None
    paragraphs = _paragraphs(_encodable(docstring))
    if not paragraphs:
        return None
    end = node.end_lineno or node.lineno
    body_start = node.body[0].lineno
    header = [lines[i - 1] for i in range(node.lineno, body_start) if i not in skipped]
    body = [lines[i - 1] for i in range(max(body_start, node.lineno + 1), end + 1) if i not in skipped]
    if not header:  # `def f(): "doc"` on one line
        header = [lines[node.lineno - 1].split('"""')[0]]
    body_text = _dedent(body)
    code = _dedent(header + body)[:MAX_CODE_CHARS].rstrip()
    return Documented(
        module=module,
        name=name,
        query=paragraphs[0],
        more=tuple(one for one in paragraphs[1:] if _is_prose(one))[:2],
        code=code,
        body=_fingerprint(body_text),
        body_chars=len("".join(body_text.split())),
        shingles=shingles(code).tobytes(),
    )


def _fingerprint(text: str) -> int:
    return int.from_bytes(blake2b(" ".join(text.split()).encode(errors="replace"), digest_size=8).digest())


def _paragraphs(docstring: str) -> list[str]:
    parts = [" ".join(part.split())[:MAX_QUERY_CHARS] for part in re.split(r"\n\s*\n", docstring.strip())]
    return [part for part in parts if part and not part.startswith(_MARKUP)]


def _encodable(text: str) -> str:
    # An escape in a docstring may make a lone surrogate, which no file can hold.
    return text.encode("utf8", "replace").decode("utf8")


def _is_prose(paragraph: str) -> bool:
    words = WORD.findall(paragraph)
    marks = sum(paragraph.count(mark) for mark in (">>>", "---", "===", "::", "Args:", "Returns:", ":param"))
    return len(words) >= 6 and marks == 0 and sum(map(len, words)) > 0.6 * len(paragraph.replace(" ", ""))


def _dedent(lines: list[str]) -> str:
    depths = [len(line) - len(line.lstrip()) for line in lines if line.strip()]
    depth = min(depths, default=0)
    return "\n".join(line[depth:].rstrip() for line in lines if line.strip())
