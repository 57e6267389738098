"""Which Python files the `pydoc` source reads: the standard library and chosen distributions, less tests."""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePath

from retrieval_cl.core.errors import InputError, nearest_name

# What retrieval-cl depends on, directly or through its dependencies; anything else installed beside them
# (a test runner, a notebook) must not change the corpus.
DEFAULT_PACKAGES = (
    "accelerate", "bm25s", "click", "contourpy", "cycler", "datasets", "dill", "faiss-cpu",
    "filelock", "fonttools", "fsspec", "huggingface-hub", "jaxtyping", "jinja2", "joblib",
    "kiwisolver", "markdown-it-py", "markupsafe", "matplotlib", "mpmath", "multiprocess",
    "narwhals", "networkx", "numpy", "packaging", "pandas", "pillow", "psutil", "pyarrow",
    "pydantic", "pygments", "pyparsing", "python-dateutil", "pyyaml", "regex", "rich",
    "safetensors", "scikit-learn", "scipy", "sentence-transformers", "shellingham", "sympy",
    "threadpoolctl", "tokenizers", "torch", "tqdm", "transformers", "typer", "typing-extensions",
    "xxhash",
)  # fmt: skip

STDLIB = "python"
_TESTS = {"test", "tests", "testing", "_testing", "_test", "conftest.py", "testsuite"}
_VENDORED = {
    "_vendor",
    "vendor",
    "vendored",
    "_vendored",
    "extern",
    "externals",
    "third_party",
    "thirdparty",
    "_external",
}
_STDLIB_LEFT_OUT = {
    "site-packages",
    "dist-packages",
    "idlelib",
    "lib2to3",
    "ensurepip",
    "turtledemo",
    "pydoc_data",
}


@dataclass(frozen=True)
class SourceFile:
    """One Python file with the distribution it belongs to and its dotted module name."""

    package: str
    module: str
    path: Path


def default_packages() -> tuple[str, ...]:
    """Those of the fixed list that are installed here."""
    installed = set(installed_packages())
    return tuple(name for name in DEFAULT_PACKAGES if name in installed)


def installed_packages() -> dict[str, str]:
    """Normalised name -> version of every distribution installed beside us."""
    found = {
        dist.metadata["Name"]: dist.version for dist in metadata.distributions() if dist.metadata["Name"]
    }
    return {_normalised(name): version for name, version in sorted(found.items())}


def package_versions(packages: Sequence[str]) -> dict[str, str]:
    """Version of each package, the standard library as "python".

    Raises:
        InputError: a package is not installed.
    """
    installed = installed_packages()
    versions = {STDLIB: ".".join(map(str, sys.version_info[:3]))}
    for name in packages:
        if _normalised(name) not in installed:
            hint = nearest_name(_normalised(name), installed)
            raise InputError(f"--packages: '{name}' is not installed here{hint}")
        versions[_normalised(name)] = installed[_normalised(name)]
    return versions


def source_files(packages: Sequence[str]) -> list[SourceFile]:
    """The standard library's files and those of the packages, sorted by module name; each module once."""
    files: dict[str, SourceFile] = {}
    for found in [*_stdlib_files(), *(f for name in packages for f in _package_files(name))]:
        files.setdefault(found.module, found)
    return [files[module] for module in sorted(files)]


def _stdlib_files() -> Iterator[SourceFile]:
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in root.rglob("*.py"):
        inside = path.relative_to(root)
        if not _STDLIB_LEFT_OUT.intersection(inside.parts) and _is_wanted(inside):
            yield SourceFile(STDLIB, _module_name(inside), path)


def _package_files(name: str) -> Iterator[SourceFile]:
    for file in metadata.files(name) or ():
        if file.suffix == ".py" and ".." not in file.parts and _is_wanted(file):
            yield SourceFile(_normalised(name), _module_name(file), Path(str(file.locate())))


def _is_wanted(path: PurePath) -> bool:
    parts = set(path.parts)
    is_test = bool(parts & _TESTS) or path.name.startswith("test_") or path.stem.endswith("_test")
    return not is_test and not parts & _VENDORED


def _module_name(path: PurePath) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def _normalised(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")
