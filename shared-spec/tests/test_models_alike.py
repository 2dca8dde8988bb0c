"""The three platforms' model.py differ by framework alone, and the same things have the same names in the same order.

The files are read, not imported: no framework is needed.
"""

import ast
import difflib
import itertools
from pathlib import Path

import pytest

from shared_spec.backend import Backend

ROOT = Path(__file__).parents[2]
PACKAGES = {
    name: ROOT / f"bench-{name}" / f"bench_{name.replace('-', '_')}" for name in ("mlx", "tf-cuda", "torch-ipex")
}
FILES = {"__init__.py", "__main__.py", "backend.py", "model.py", "ops.py", "platform.py", "ranks.py"}
ONLY_THERE = {"mlx": {"cuda.py"}, "tf-cuda": {"ahead.py", "cudnn.py", "kept.py"}, "torch-ipex": {"inference.py"}}

CLASSES = ["Preprocess", "PatchEmbed", "Attention", "Mlp", "Block", "DeiT"]
OPERATORS = {"Linear": ["inputs", "outputs"], "LayerNorm": ["dim", "eps"], "attention": ["qkv"], "gelu": ["x"]}
MODEL_LINES, CHANGED_LINES = 130, 80

Definition = ast.ClassDef | ast.FunctionDef

each_package = pytest.mark.parametrize("folder", PACKAGES.values(), ids=PACKAGES)


def definitions(parent: ast.Module | ast.ClassDef) -> dict[str, Definition]:
    return {node.name: node for node in parent.body if isinstance(node, Definition)}


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def method_names(node: Definition) -> list[str]:
    assert isinstance(node, ast.ClassDef)
    return list(definitions(node))


def attributes(node: Definition) -> list[str]:
    """Names that a class sets on itself, in order."""
    targets = (target for child in ast.walk(node) if isinstance(child, ast.Assign) for target in child.targets)
    return [
        target.attr
        for target in targets
        if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name) and target.value.id == "self"
    ]


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_has_the_files_of_the_others(name: str) -> None:
    assert {path.name for path in PACKAGES[name].glob("*.py")} == FILES | ONLY_THERE.get(name, set())


@each_package
def test_a_model_is_these_classes_in_this_order(folder: Path) -> None:
    assert list(definitions(parsed(folder / "model.py"))) == CLASSES


@each_package
def test_a_model_is_read_at_once(folder: Path) -> None:
    assert len((folder / "model.py").read_text().splitlines()) < MODEL_LINES


def test_layers_have_the_same_names() -> None:
    models = [definitions(parsed(folder / "model.py")) for folder in PACKAGES.values()]
    for name in CLASSES:
        mlx, tensorflow, torch = (
            [attribute for attribute in attributes(model[name]) if attribute != "patch_size"] for model in models
        )
        assert mlx == tensorflow == torch, name


@each_package
def test_tuning_is_behind_the_same_operators(folder: Path) -> None:
    operators = definitions(parsed(folder / "ops.py"))
    imported = {
        alias.name
        for node in parsed(folder / "model.py").body
        if isinstance(node, ast.ImportFrom) and node.module == f"{folder.name}.ops"
        for alias in node.names
    }
    assert imported >= set(OPERATORS)
    for name, arguments in OPERATORS.items():
        node: Definition | None = operators[name]
        if isinstance(node, ast.ClassDef):
            node = definitions(node).get("__init__")
        if node is not None:  # otherwise the constructor is the framework's own
            assert isinstance(node, ast.FunctionDef)
            assert [argument.arg for argument in node.args.args if argument.arg != "self"] == arguments, name


@pytest.mark.parametrize("pair", list(itertools.combinations(PACKAGES, 2)), ids="-".join)
def test_models_differ_in_few_lines(pair: tuple[str, str]) -> None:
    """As many as `diff` shows, or fewer."""
    first, second = ((PACKAGES[name] / "model.py").read_text().splitlines() for name in pair)
    changed = [line for line in difflib.ndiff(first, second) if line.startswith(("- ", "+ "))]
    assert len(changed) <= CHANGED_LINES


@each_package
def test_a_backend_has_the_protocols_methods_in_the_protocols_order(folder: Path) -> None:
    (backend,) = (node for name, node in definitions(parsed(folder / "backend.py")).items() if name.endswith("Backend"))
    asked = [name for name, value in vars(Backend).items() if callable(value) and not name.startswith("_")]
    named = [name for name in method_names(backend) if not name.startswith("_")]
    assert named == [name for name in asked if name in named]
    assert set(named) == set(asked)


def test_backends_tell_exhausted_memory_by_the_same_name() -> None:
    for folder in PACKAGES.values():
        assert "_memory_errors" in definitions(parsed(folder / "backend.py")), folder.name


@each_package
def test_ranks_are_connected_by_the_same_function(folder: Path) -> None:
    names = list(definitions(parsed(folder / "ranks.py")))
    assert names[-1] == "group"
    assert sum(name.endswith("Group") for name in names) == 1
