"""Who may import whom: the design's rules, read from the source with `ast`."""

import ast
import sys
from pathlib import Path

import pytest

import retrieval_cl

PACKAGE = Path(retrieval_cl.__file__).parent
EVERY_FOLDER = (
    "core",
    "augmentation",
    "encoders",
    "sources",
    "indexing",
    "mining",
    "methods",
    "training",
    "evaluation",
    "reporting",
)
ALLOWED = {
    "core": {"core"},
    "augmentation": {"core"},
    "encoders": {"core"},
    "indexing": {"core"},
    "sources": {"core", "augmentation"},
    "evaluation": {"core"},
    "reporting": {"core"},
    "mining": {"indexing", "encoders", "sources", "reporting", "core"},
    "methods": {"encoders", "core"},
    "training": {*EVERY_FOLDER},
    "runs": {*EVERY_FOLDER, "config", "kinds", "reading"},
    "config": {"core", "runs", "reading", "kinds"},
    "kinds": {"core", "reading"},
    "reading": {"core"},
    "console": {"core", "training"},
    "app": {
        *("runs", "config", "console", "core", "training", "options"),
        *("mine_command", "image_commands", "demo_command"),
    },
    "image_commands": {"runs", "config", "console", "core", "indexing", "options"},
    "mine_command": {"runs", "config", "console", "core", "options"},
    "demo_command": {"runs", "console", "options"},
    "options": set(),
}
# The config models of the parts, and what checks a name in them, may be imported by `config` beside its own.
LIGHT = {
    "augmentation.config",
    "encoders.config",
    "encoders.head_config",
    "encoders.image_config",
    "encoders.image_text_config",
    "methods.config",
    "mining.config",
    "sources.config",
    "sources.image_text.config",
    "sources.images.config",
    "training.config",
}
CORE_LIBRARIES = {"torch", "numpy", "jaxtyping"}
# library -> where alone it may be imported (prefixes of module names)
ONLY_IN = {
    "faiss": ("indexing.faiss_index",),
    "bm25s": ("indexing.bm25",),
    "transformers": ("encoders.",),
    "sentence_transformers": ("encoders.",),
    "tokenizers": ("encoders.",),
    "datasets": ("sources.",),
    "accelerate": ("training.",),
    "typer": ("app", "options", "mine_command", "image_commands", "demo_command"),
    "fastapi": ("serving.",),
    "matplotlib": ("reporting.",),
    "triton": ("core.kernels.",),
    "pickle": (),
}


def module_name(path):
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


MODULES = {
    module_name(path): ast.parse(path.read_text(encoding="utf8")) for path in sorted(PACKAGE.rglob("*.py"))
}


def imports_of(tree):
    """Full names of what a module imports, wherever in it; relative imports are not used in this house."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def wrong_imports(name, tree):
    """What a module imports although its folder may not."""
    own = name.partition(".")[0]
    for imported in imports_of(tree):
        library, _, inside = imported.partition(".")
        if library != "retrieval_cl":
            where = ONLY_IN.get(library)
            if where is not None and not any(
                name == p or (p.endswith(".") and name.startswith(p)) for p in where
            ):
                yield imported
            continue
        folder = inside.partition(".")[0]
        if folder in ("", "settings") or own in ("", "settings") or folder == own:
            continue
        light = any(inside == one or inside.startswith(f"{one}.") for one in LIGHT)
        reads_light = own in ("config", "kinds") and (light or inside in _parents(LIGHT))
        if folder not in ALLOWED[own] and not reads_light:
            yield imported


def _parents(names):
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("name", sorted(MODULES))
def test_module_imports_only_what_its_layer_may(name):
    assert list(wrong_imports(name, MODULES[name])) == []


def test_every_folder_has_a_rule():
    folders = {name.partition(".")[0] for name in MODULES} - {"__init__", "settings"}
    assert folders <= ALLOWED.keys()


def test_core_needs_torch_numpy_and_jaxtyping_alone():
    for name, tree in MODULES.items():
        if name == "core" or name.startswith("core."):
            libraries = {imported.partition(".")[0] for imported in imports_of(tree)} - {"retrieval_cl"}
            foreign = libraries - sys.stdlib_module_names - CORE_LIBRARIES
            assert not foreign - ({"triton"} if name.startswith("core.kernels.") else set()), (name, foreign)


def test_no_module_loads_or_saves_by_pickle():
    for name, tree in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert isinstance(node.value, ast.Constant) and node.value.value is False, name
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "torch"
            ):
                assert node.attr not in ("save", "load"), f"{name}: torch.{node.attr} pickles"


@pytest.mark.parametrize(
    ("name", "source", "found"),
    [
        ("core.losses", "from retrieval_cl.sources.load import load", "retrieval_cl.sources.load"),
        ("sources.beir", "import faiss", "faiss"),
        ("training.run", "def f():\n    import typer", "typer"),
        ("config", "from retrieval_cl.training.trainer import train", "retrieval_cl.training.trainer"),
        ("indexing.store", "import pickle", "pickle"),
        ("encoders.text", "from retrieval_cl import mining", "retrieval_cl.mining"),
    ],
)
def test_a_wrong_import_is_seen(name, source, found):
    assert found in list(wrong_imports(name, ast.parse(source)))
