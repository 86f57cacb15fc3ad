"""The house rules that a program can check: import direction, sizes, and what our code must never call."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HOUSE = ["recipes", "rewards", "rollout", "rl", "evaluation", "launch"]  # each may import those to its left
MODULES = [path for package in HOUSE for path in sorted((ROOT / package).rglob("*.py"))]
SCRIPTS = sorted((ROOT / "benchmarks").glob("*.py"))
FORBIDDEN_CALLS = {"eval", "exec", "torch.load"}
FORBIDDEN_IMPORTS = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imported(module: ast.Module) -> Iterator[str]:
    """Top-level packages that a module imports anywhere, also inside functions and for type checkers only."""
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import: write the package's name"
            yield (node.module or "").split(".")[0]


def calls(module: ast.Module) -> Iterator[tuple[int, str, ast.Call]]:
    """(line, dotted name, node) of every call."""
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            yield node.lineno, ast.unparse(node.func), node


def forbidden(module: ast.Module) -> list[str]:
    """What would let outside data run: one sentence each."""
    found = [f"imports {package}" for package in imported(module) if package in FORBIDDEN_IMPORTS]
    for line, called, node in calls(module):
        if called in FORBIDDEN_CALLS:
            found.append(f"line {line} calls {called}")
        for keyword in node.keywords:
            true = isinstance(keyword.value, ast.Constant) and keyword.value.value is True
            if (keyword.arg == "trust_remote_code" and true) or (keyword.arg == "shell" and true):
                found.append(f"line {line} sets {keyword.arg}=True")
            if keyword.arg == "weights_only" and not true:
                found.append(f"line {line} sets weights_only={ast.unparse(keyword.value)}")
    return found


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_imports_point_one_way(path: Path):
    package = path.relative_to(ROOT).parts[0]
    to_the_right = set(HOUSE[HOUSE.index(package) + 1 :])
    assert not to_the_right & set(imported(tree(path)))


@pytest.mark.parametrize("path", MODULES + SCRIPTS, ids=name)
def test_nothing_runs_or_unpickles_outside_data(path: Path):
    assert forbidden(tree(path)) == []


@pytest.mark.parametrize(
    "source",
    ["eval(text)", "torch.load(path)", "import pickle", "f(trust_remote_code=True)", "run(c, shell=True)", "f(weights_only=False)"],
)
def test_the_check_for_outside_data_sees_each_way_in(source: str):
    assert forbidden(ast.parse(source))


@pytest.mark.parametrize("path", [path for path in MODULES if path.parts[-2] != "launch"], ids=name)
def test_library_code_does_not_print(path: Path):
    assert [line for line, called, _ in calls(tree(path)) if called == "print"] == []


def test_one_place_makes_the_console():
    assert [name(path) for path in MODULES for _, called, _ in calls(tree(path)) if called == "Console"] == ["rl/progress.py"]


@pytest.mark.parametrize("path", MODULES + SCRIPTS, ids=name)
def test_every_module_says_what_it_claims(path: Path):
    assert path.name == "__init__.py" or ast.get_docstring(tree(path))


@pytest.mark.parametrize("path", MODULES + SCRIPTS, ids=name)
def test_files_and_functions_stay_small(path: Path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 500
    functions = [node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    lengths = {node.name: (node.end_lineno or node.lineno) - node.lineno + 1 for node in functions}
    assert {function: lines for function, lines in lengths.items() if lines > 80} == {}


@pytest.mark.parametrize("path", [path for path in SCRIPTS if not path.name.startswith("_")], ids=name)
def test_every_benchmark_finds_what_it_imports(path: Path, monkeypatch: pytest.MonkeyPatch):
    """They run for hours, seldom: what they stand on moves on without them (types are checked by mypy)."""
    monkeypatch.syspath_prepend(str(path.parent))
    assert callable(importlib.import_module(path.stem).main)


FOR_OTHERS = {  # declared and not imported: who needs it
    "accelerate": "transformers' trainer, under TRL's",
    "tensorboard": "torch.utils.tensorboard",
    "jinja2": "chat templates in transformers",
}
CALLED = {
    "yaml": "pyyaml",
    "latex2sympy2_extended": "latex2sympy2-extended",
    "math_verify": "math-verify",
    "huggingface_hub": "huggingface-hub",
}


def test_declared_dependencies_are_those_that_are_imported():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[^\w.-]", line)[0].lower().replace("_", "-") for line in project["dependencies"]}
    extras = {re.split(r"[^\w.-]", line)[0] for name in ("cpu", "cuda", "wandb") for line in project["optional-dependencies"][name]}
    outside = {name for path in MODULES for name in imported(tree(path))} - set(sys.stdlib_module_names) - {*HOUSE, ""}
    used = {CALLED.get(name, name) for name in outside}
    assert used - declared - extras == set(), "imported and not declared"
    assert declared - used - set(FOR_OTHERS) == set(), "declared and not imported"
    assert set(FOR_OTHERS) <= declared


def test_recipes_are_checked_and_explained_without_torch():
    heavy = ["torch", "ray", "vllm", "transformers", "deepspeed", "numpy"]
    code = f"import sys, recipes.loader, recipes.keys, recipes.reference; recipes.loader.load('dler'); print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=240)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
