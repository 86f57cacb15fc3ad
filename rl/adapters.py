"""LoRA (arXiv 2106.09685), with peft's layers: adapters train, and what everybody else sees is one model with them added in.

Claim: an adapted policy begins as the model that it is made of, to the bit, and what is pushed, saved and evaluated is base + alpha / rank x B A,
added in float32 and rounded once to the model's dtype. The adapters are also kept apart, as peft reads them (`ADAPTER` in a checkpoint).
Simplification: no dropout, so that a ratio of 1 is 1; one adapter a model. In bfloat16 the sum that engines sample from is rounded, where the learner
adds its parts; the gate compares the two as it does all else.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from recipes.adapters import Adapter, Lora
from rl import checkpoint
from rl.start import named
from rollout.tokenizer import copy_companions
from rollout.weights import load_model

ADAPTER = "adapter"  # folder of a checkpoint
_NAME = "default"


def adapted(model: Any, settings: Adapter, seed: int, base: Path | None = None) -> Any:
    """The model, with fresh adapters in place and all else frozen, where the settings want some.

    Args:
        seed: of the first matrices; the second ones are 0, so the model is what it was.
        base: where the model lies, which is named for those who load the adapters alone.

    Raises:
        ValueError: no layer has one of the names that the settings list.
    """
    if not isinstance(settings, Lora):
        return model
    from peft import LoraConfig, inject_adapter_in_model

    ends = [name for name, _ in model.named_modules()]
    if lacking := [target for target in settings.targets if not any(name == target or name.endswith(f".{target}") for name in ends)]:
        raise ValueError(f"learner.adapter.targets: {', '.join(lacking)}: no layer of the model has a name that ends so")
    name, revision = named(base) if base else ("", None)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]
        target_modules=settings.targets or "all-linear",
        lora_dropout=0.0,
        task_type="CAUSAL_LM",
        base_model_name_or_path=name,
        revision=revision,
        inference_mode=False,
    )
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return inject_adapter_in_model(config, model, adapter_name=_NAME)
    except ValueError as error:
        raise ValueError(f"learner.adapter.targets: {', '.join(settings.targets)}: {str(error).splitlines()[0]}") from error


def layers(model: nn.Module) -> dict[str, Any]:
    """The layers with an adapter, by name."""
    from peft.tuners.lora import LoraLayer

    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}


@contextmanager
def without_adapters(model: nn.Module) -> Iterator[None]:
    """The model as it began, for as long as the context lasts."""
    found = layers(model).values()
    scales = [layer.scaling[_NAME] for layer in found]
    for layer in found:
        layer.scaling[_NAME] = 0.0
    try:
        yield
    finally:
        for layer, scale in zip(found, scales, strict=True):
            layer.scaling[_NAME] = scale


class Merged(Mapping[str, Tensor]):
    """A model's tensors under the names that they have in a checkpoint; the model stays as it is.

    Adapters are added in to a tensor each time that it is asked for, and nothing is kept: whoever takes one after the other needs memory for one.

    Args:
        names: of those that are wanted, in that order; None: all.
    """

    def __init__(self, model: nn.Module, names: Iterable[str] | None = None):
        own = {name: tensor.detach() for name, tensor in model.state_dict().items() if f".{_NAME}." not in name}
        self._state = {name.replace(".base_layer.", "."): tensor for name, tensor in own.items()}
        self._layers = {f"{name}.weight": layer for name, layer in layers(model).items()}
        self._names = list(self._state if names is None else names)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    @torch.no_grad()
    def __getitem__(self, name: str) -> Tensor:
        base, layer = self._state[name], self._layers.get(name)
        if layer is None:
            return base
        low, high = layer.lora_A[_NAME].weight.float(), layer.lora_B[_NAME].weight.float()
        return (base.float() + layer.scaling[_NAME] * (high @ low)).to(base.dtype)

    def twins(self) -> dict[str, str]:
        """Names of tensors that are one with another before them, which is named behind: of a tied head the embedding's."""
        first: dict[tuple[int, torch.Size], str] = {}
        owners = {name: first.setdefault((self._state[name].data_ptr(), self._state[name].shape), name) for name in self}
        return {name: owner for name, owner in owners.items() if owner != name}


def merge_adapter(base: Path, adapter: Path, out: Path) -> int:
    """Write a base model with an adapter of it added in, as a whole checkpoint; how many layers it moved.

    Args:
        base: a checkpoint folder.
        adapter: a folder with adapter_config.json and adapter_model.safetensors, of any kind that peft can merge.
        out: new folder; appears whole or not at all.

    Raises:
        ValueError: one of them is none, or they do not fit; FileExistsError: `out` is there; CheckpointError: writing failed.
    """
    from peft import PeftModel, get_peft_model_state_dict
    from peft.utils import ModulesToSaveWrapper
    from safetensors import SafetensorError, safe_open

    if out.exists():
        raise FileExistsError(f"{out} exists already: choose another folder for the merged model")
    for folder, file in ((base, "config.json"), (adapter, "adapter_config.json"), (adapter, "adapter_model.safetensors")):
        if not (folder / file).is_file():
            raise ValueError(f"{folder}: no {file}; name a {'checkpoint' if folder == base else 'folder of an adapter in safetensors'}")
    try:
        model = load_model(base, dtype="auto")
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise ValueError(f"{base}: no model that can be loaded: {' '.join(str(error).split())[:300]}") from error
    dtypes, head = {name: parameter.dtype for name, parameter in model.named_parameters()}, model.get_output_embeddings()
    tied = head is not None and head.weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()
    try:
        with safe_open(adapter / "adapter_model.safetensors", "pt") as file:
            given = set(file.keys())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # peft warns of tensors that did not arrive, which is refused below
            whole = PeftModel.from_pretrained(model, str(adapter), use_safetensors=True)
    except (RuntimeError, ValueError, TypeError, KeyError, AttributeError, SafetensorError) as error:
        raise ValueError(f"{adapter} is no adapter of {base}: {' '.join(f'{type(error).__name__}: {error}'.split())[:300]}") from error
    if not hasattr(whole, "merge_and_unload") or getattr(whole.peft_config["default"], "layer_replication", None):
        raise ValueError(
            f"{adapter} puts prompts or layers beside those of {base}, and moves no weights of its own: there is nothing to add in"
        )
    moved = [name for name, module in whole.named_modules() if hasattr(module, "merge") or isinstance(module, ModulesToSaveWrapper)]
    if tied and any(name.rpartition(".")[2] in ("lm_head", "embed_tokens", "wte", "embed_out") for name in moved):
        raise ValueError(
            f"{adapter} moves the output head or the embedding of {base}, which are one tensor there: no checkpoint of its form holds both; untie them first "
            "(tie_word_embeddings: false, with a head of its own)"
        )
    wanted = set(get_peft_model_state_dict(whole, save_embedding_layers=False))
    places = wanted | whole.state_dict().keys()  # of embeddings peft keeps what is below their adapter, too
    for odd, what in ((wanted - given, "lacks"), (given - places, "has a tensor that the model has no place for:")):
        if odd:
            raise ValueError(f"{adapter} is no adapter of {base} by its adapter_config.json: it {what} {min(odd)} ({len(odd)} such)")
    count = len(moved)
    single = whole.float().merge_and_unload(safe_merge=True)
    for name, parameter in single.named_parameters():
        parameter.data = parameter.data.to(dtypes[name])  # rounded once, as `Merged` does

    def fill(folder: Path) -> None:
        single.save_pretrained(folder)
        copy_companions(base, folder)

    checkpoint.write(out, fill, {"base": str(base), "adapter": str(adapter)})
    return count


def save_model(model: Any, folder: Path, dtype: torch.dtype | None = None) -> None:
    """Write a model with its adapters added in, rounded to `dtype` (its own if None) behind that, as a checkpoint without a tokenizer; adapters also apart.

    The model has that dtype then. Tensors that are one stay one, wherever they are: a tied head is not written twice.
    """
    whole = Merged(model)
    twins = whole.twins()
    state = {name: tensor.to("cpu", dtype if tensor.is_floating_point() else None) for name, tensor in whole.items() if name not in twins}
    state |= {name: state[owner] for name, owner in twins.items()}
    if layers(model):
        _save_adapters(model, folder)
    (model.to(dtype) if dtype else model).save_pretrained(folder, state_dict=state, safe_serialization=True)


def _save_adapters(model: Any, folder: Path) -> None:
    """Write them as peft does, into `folder`/adapter."""
    from safetensors.torch import save_file

    config = model.peft_config[_NAME]
    config.target_modules = sorted(config.target_modules)  # a set, whose order differs from run to run
    config.save_pretrained(folder / ADAPTER)
    own = {name: tensor for name, tensor in model.state_dict().items() if f".{_NAME}." in name}
    named = {f"base_model.model.{name.replace(f'.{_NAME}.', '.')}": tensor.detach().cpu().contiguous() for name, tensor in own.items()}
    save_file(named, folder / ADAPTER / "adapter_model.safetensors", metadata={"format": "pt"})
