"""What a submitted job needs of this machine: the project's own files, the recipe resolved to one, and what the recipe names.

Claim: a bundle is a list of files, each there for a reason, so what is on no list (histories, runs, checkpoints, other data, secrets) cannot be in it;
what was listed is what is sent, and it is no larger than its cap. A relative path of the recipe is sent and lies at the same place there; an absolute one is of
storage that the cluster sees, too. Simplification: weights are never sent, and what reward functions read beside modules is named (`--include`).
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import io
import os
import sys
import sysconfig
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from launch.memory import evaluates, size, sizes_apart
from recipes.loader import dump, on_device
from recipes.schema import Recipe
from recipes.steps import Step, steps
from recipes.terms import FunctionTerm
from rewards.rows import local_files

RECIPE = "recipe.yaml"
_HOUSE = ("recipes", "rewards", "rollout", "rl", "evaluation", "launch")
_OURS = ("*.py", "*.yaml", "*/templates/*")
_SECRETS = (
    ".env*", "*.env", "*.pem", "*.key", "*.p12", "*.pfx", "*.kdbx", "*.gpg", "*.asc", "id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*",
    "*token*", "*secret*", "*credential*", "*passw*", "*private*key*", "*service*account*", "*apikey*", "*api_key*",
    "auth.json", "*.jks", "*.tfstate*", "*.tfvars", ".netrc", ".npmrc", ".pypirc", ".git-credentials", "kubeconfig*",
)  # fmt: skip
_PRIVATE = (".ssh", ".aws", ".gnupg", ".kube", ".docker", ".azure")
_LEFT_OUT = (
    ".*", "__pycache__", "*.pyc", "runs", "evals", "checkpoints", "step-[0-9]*", "wandb", "node_modules",
    "*.safetensors", "*.pt", "*.pth", "*.bin", "*.ckpt", "*.gguf", "*.h5", "*.onnx", "*.msgpack",
)  # fmt: skip
_NAMED = 5  # files that a refusal names


class BundleError(ValueError):
    """What the recipe names cannot be sent; the message says what to do."""


@dataclass(frozen=True)
class Bundle:
    """Files of a job.

    Attributes:
        files: content of each by its path there; `recipe.yaml` among them.
        ours: paths of the project's own.
    """

    files: dict[str, bytes]
    ours: frozenset[str]

    @property
    def total(self) -> int:
        return sum(map(len, self.files.values()))

    def listed(self, whole: bool = False) -> list[tuple[str, int]]:
        """What is in it, each with its bytes; the project's own as one, or each of these, too."""
        own = [(name, len(content)) for name, content in self.files.items() if name not in self.ours]
        ours = [(name, len(self.files[name])) for name in sorted(self.ours)]
        return own + (ours if whole else [(f"laconic itself, {len(ours)} files", sum(length for _, length in ours))])

    def packed(self) -> tuple[str, bytes]:
        """The bundle as a zip file, with a name that says what is in it: the same files have the same one."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in sorted(self.files.items()):
                entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
                entry.external_attr, entry.compress_type = 0o644 << 16, zipfile.ZIP_DEFLATED
                archive.writestr(entry, content)
        content = buffer.getvalue()
        return f"_ray_pkg_{hashlib.sha256(content).hexdigest()[:32]}.zip", content


def bundle(recipe: Recipe, include: Sequence[Path] = (), cap: int = 50_000_000) -> Bundle:
    """The bundle of a recipe.

    Args:
        include: further files and folders, below the working folder.
        cap: bytes that it may hold.

    Raises:
        BundleError: it is too large, or something that is named is not there, lies elsewhere, or looks like a secret.
        DataError: no data where the recipe names some.
    """
    ours = dict(_own_files())
    return Bundle({RECIPE: dump(recipe).encode()} | _read(user_files(recipe, include) | ours, cap), frozenset(ours))


def user_files(recipe: Recipe, include: Sequence[Path]) -> dict[str, Path]:
    """What a recipe needs that is the user's: data files of relative paths, modules of reward functions, and what is included; by their paths there. Raises as `bundle`."""
    every = [step for device in ("cpu", "cuda") for step in steps(on_device(recipe, device))]
    named = [path for step in every for path in _data(step)] + [path for given in include for path in _included(given)]
    for model in (step.recipe.model for step in every):
        if model.path != "tiny" and not model.on_hub and not Path(model.path).expanduser().is_absolute():
            raise BundleError(
                f"model.path: {model.path} is no hub id, and weights are not sent: name a folder by an absolute path that the cluster's nodes see, or a hub id"
            )
    modules = {
        term.name.partition(":")[0].partition(".")[0] for step in every for term in step.recipe.reward if isinstance(term, FunctionTerm)
    }
    found = {_placed(path): path for path in named} | dict(_modules(modules))
    for name, path in found.items():
        if (shown := name.encode(errors="replace").decode()) != name:
            raise BundleError(f"{shown}: its name is not UTF-8; give it another one")
        if _is_secret(path):
            raise BundleError(f"{name}: looks like a secret by its name and is not sent; give it another name if it is none")
        if hidden := next((part for part in name.split("/") if part.startswith(".")), None):  # the working folder itself may lie in one
            raise BundleError(f"{name}: nothing of a hidden folder or file ({hidden}) is sent; copy what the job needs to another place")
        _refuse_outside(name, path)
        if name == RECIPE or name.partition("/")[0] in _HOUSE:
            raise BundleError(f"{name}: a file of the job has that place; put yours elsewhere")
    return dict(sorted(found.items()))


def _read(files: dict[str, Path], cap: int) -> dict[str, bytes]:
    """Contents. Raises BundleError: more than the cap, said before anything is read."""
    sizes = {name: path.stat().st_size for name, path in files.items()}
    if (total := sum(sizes.values())) > cap:
        largest = sorted(sizes.items(), key=lambda item: -item[1])[:_NAMED]
        words = ", ".join(f"{name} ({size(length)})" for name, length in largest)
        whole, most = sizes_apart(total, cap)
        raise BundleError(
            f"bundle: {whole} is more than its cap of {most}; the largest: {words}. Put them where the cluster sees them and name them by an absolute "
            "path, or raise --max-mb"
        )
    return {name: path.read_bytes() for name, path in files.items()}


def _own_files() -> Iterator[tuple[str, Path]]:
    root = Path(__file__).resolve().parents[1]
    for package in _HOUSE:
        for path in sorted((root / package).rglob("*")):
            name = path.relative_to(root).as_posix()
            if "__pycache__" not in path.parts and _is_one(name, _OURS) and path.is_file() and not _is_secret(path):
                yield name, path


def _data(step: Step) -> Iterator[Path]:
    """Local files that a stage reads, of relative paths."""
    recipe = step.recipe
    sets = [*(recipe.data.sets if step.stage.kind in ("rl", "reference") else ()), *getattr(step.stage, "sets", ())]
    sets += recipe.held_out_sets if evaluates(recipe) else []
    for one in sets:
        if _is_relative(one.source):
            yield from local_files(one.source, one.split or "train")
    for word in recipe.eval.benchmarks if evaluates(recipe) else ():
        if _is_relative(place := word.partition("@")[2]):
            yield from _included(Path(place))


def _is_relative(source: str) -> bool:
    """Whether a source is a path relative to the working folder."""
    if (source.startswith(("hub:.", "file:")) and not source.startswith("file:///")) or ".." in Path(source).parts:
        raise BundleError(
            f"{source}: write the plain path below the working folder, without `..`, which is sent, or an absolute one, which is not"
        )
    return bool(source) and source not in ("tiny", "reference") and not source.startswith(("hub:", "file:", "/", "~"))


def _included(given: Path) -> Iterator[Path]:
    """A file, or those of a folder but for what is never sent. Raises BundleError: it, or one of them, is of what is never sent, or lies outside."""
    if _is_secret(given):
        raise BundleError(f"{given}: looks like a secret by its name and is not sent; give it another name if it is none")
    _placed(given)  # else what lies outside would be walked first
    if given.is_file():
        if _is_one(given.name, [pattern for pattern in _LEFT_OUT if "." in pattern]):
            raise BundleError(f"{given}: weights are not sent; put it where the cluster sees it, and name it by an absolute path")
        yield given
    elif given.is_dir():
        yield from _files(given, _LEFT_OUT)
    else:
        raise BundleError(f"--include: no file or folder {given} here")


def _files(folder: Path, left_out: Sequence[str], code: bool = False) -> Iterator[Path]:
    """Files of a folder, or Python modules alone, but for names of patterns, and for secrets. Raises BundleError: something in it can be neither sent nor looked into."""
    for path in sorted(folder.iterdir()):
        if _is_one(path.name, left_out):
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _files(path, left_out, code)
        elif code and path.suffix != ".py" and not (path / "__init__.py").is_file():
            continue
        elif path.is_file():
            if not _is_secret(path):
                yield path
        else:
            raise BundleError(
                f"{path}: is a link to a folder or to nothing, or no file: put what it leads to in its place, or take it away"
            )


def _refuse_outside(name: str, path: Path) -> None:
    """Raises BundleError: a file links to what lies outside of the working folder and of the one that its name is relative to."""
    real, here = Path(os.path.realpath(path)), Path.cwd()
    if not any(real.is_relative_to(os.path.realpath(root)) for root in (here, Path(os.path.abspath(path)).parents[name.count("/")])):
        raise BundleError(
            f"{path}: is, or lies behind, a link to {real}, outside of the working folder {here}: put a copy here, or name it by an absolute path that the cluster sees"
        )


def _placed(path: Path) -> str:
    """Where a file lies there: where it lies below the working folder. Raises BundleError: it does not."""
    here = Path.cwd()
    try:
        return Path(os.path.normpath(here / path)).relative_to(here).as_posix()
    except ValueError as error:
        raise BundleError(
            f"{path}: lies outside of the working folder {here}: submit from a folder above it, or name it by an absolute path that the cluster sees"
        ) from error


def _is_secret(path: Path) -> bool:
    """By its name, or by that of what it links to."""
    for one in (path, Path(os.path.realpath(path))):
        name = one.name.lower()
        if any(part in _PRIVATE for part in one.parts):
            return True
        hints = [pattern for pattern in _SECRETS if fnmatch(name, pattern)]
        if hints and not name.endswith(".py") and not (hints == ["*token*"] and "tokenizer" in name):
            return True
    return False


def _is_one(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def _modules(names: Iterable[str]) -> Iterator[tuple[str, Path]]:
    """Files of modules of the user's own, and of those of the user's own that they import; what is installed is left to the cluster."""
    seen: set[str] = set()
    wanted = [(name, True) for name in sorted(names)]
    while wanted:
        name, needed = wanted.pop()
        if name in seen or name in _HOUSE or name in sys.stdlib_module_names:
            continue
        seen.add(name)
        origin = _origin(name)
        if origin is None:
            if needed:
                raise BundleError(f"reward: {name}: no such module here; put the folder that holds it on PYTHONPATH")
            continue
        if not _is_installed(origin):
            for path in [origin] if origin.is_file() else _files(origin, (".*", "__pycache__"), code=True):
                yield path.relative_to(origin.parent).as_posix(), path
                wanted += [(top, False) for top in _imports(path)]


def _origin(name: str) -> Path | None:
    """File of a module, folder of a package; None: there is none."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations))).absolute()
    return Path(spec.origin).absolute() if spec.origin and spec.has_location else None


def _is_installed(path: Path) -> bool:
    places = [Path(sysconfig.get_paths()[name]) for name in ("purelib", "platlib", "stdlib")]
    return "site-packages" in path.parts or any(path.is_relative_to(place) for place in places)


def _imports(path: Path) -> set[str]:
    """Top-level names of what a file imports."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError):
        return set()
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module and not node.level]
    return {name.partition(".")[0] for name in names}
