"""What a local checkpoint's files say before torch loads: whether its weights, tokenizer and architecture can serve.

Reads JSON, safetensors' headers and tokenizer.json as their libraries do, and transformers' table of models as source, whose import
would take seconds; no tensor is read. Each fault names the file and the remedy.
Simplification: what only running the model shows (a head that is changed in code) is left to the learner's own check.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import json
import re
import shlex
from collections.abc import Collection, Iterator, Mapping
from math import inf
from pathlib import Path
from typing import Any

from jinja2 import TemplateSyntaxError
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer

from recipes.adapters import Lora
from recipes.schema import Recipe
from rollout.template_syntax import parse_template

_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight")
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks|layer)\.(\d+)\.")
_INDEX = "model.safetensors.index.json"
_POINTER = b"version https://git-lfs.github.com/spec/"
_JSONS = ("generation_config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_OLD_TOKENIZERS = ("*.model", "vocab.*", "merges.txt", "*.tiktoken", "tekken.json")  # read where there is no tokenizer.json
_OLD_NAMES = {  # of sizes, in models older than Llama
    "num_hidden_layers": ("n_layer", "n_layers", "num_layers"),
    "hidden_size": ("n_embd", "d_model"),
    "num_attention_heads": ("n_head", "n_heads", "num_heads", "attention_heads"),
    "intermediate_size": ("n_inner", "ffn_dim"),
    "vocab_size": (),
    "max_position_embeddings": ("n_positions", "max_seq_len", "seq_length"),
}
_OF_WEIGHTS = "take the config.json that belongs to the weights"
_FOURFOLD = ("gpt2", "gpt_bigcode", "gptj", "gpt_neo", "codegen", "bloom", "falcon", "mpt")  # inner width 4 x hidden_size unless it is said
_CORE = ("num_hidden_layers", "hidden_size", "vocab_size")  # without which no model has a size; an evaluation can do without the others
# Numbers that stand between the last hidden state and the logits, where the learner's head would miss them; those of attention and routers do not.
_CHANGES_LOGITS = re.compile(
    r"(?:(?:final|output|lm_head)_)?logits?_?(?:soft_?cap|cap|scal|mult|mup|div)\w*|(?:lm_head|output|embedding_output)_(?:mult|scal)\w*|dim_model_base"
)
_EXPERTS = re.compile(r"(?:num|n|moe)_(?!.*(?:per_|shared|active|group|top))\w*experts")
_RECURRENT = re.compile(r"(?:mamba|ssm|rwkv|lru|linear_attn|linear_(?:key|num|conv|value))_\w+|hybrid_override_pattern|state_size")


def checkpoint_faults(folder: Path, trains: bool) -> Iterator[str]:
    """Why a checkpoint folder cannot be used, one sentence each. `trains`: it is to be trained; an evaluation can do with more architectures."""
    adapter = read_json(folder / "adapter_config.json")
    if adapter is not None and not (folder / "config.json").is_file():
        base = adapter.get("base_model_name_or_path") or "its base model"
        yield (
            f"model.path: {folder} is an adapter of {base}: merge it first (`laconic merge BASE --adapter {shlex.quote(str(folder))} --out FOLDER`) and "
            "name the merged folder"
        )
        return
    if pointers := _pointers(folder):
        yield (
            f"model.path: {', '.join(str(folder / name) for name in pointers[:3])}{' ...' if pointers[3:] else ''}: only a git-lfs pointer, not the "
            f"file itself; fetch it with `git lfs pull` in {folder}"
        )
        return
    config = read_json(folder / "config.json")
    if config is None:
        found = "holds no config.json" if not (folder / "config.json").exists() else "has a config.json that is no JSON object"
        yield f"model.path: {folder} {found}; name {_inside(folder) or 'the folder of a checkpoint (runs/NAME/checkpoints/step-N)'}"
        return
    faults = [*config_faults(config, f"{folder}/config.json", trains), *_weight_faults(folder)]
    yield from faults
    if not faults:
        yield from _shape_faults(tensor_shapes(folder), config, f"{folder}/config.json")
    tokens, rows = vocabulary(folder / "tokenizer.json"), embedding_rows(folder, config)
    yield from _tokenizer_faults(folder, tokens, rows)
    yield from _stop_faults(folder, max(tokens or 0, rows or 0))


def _inside(folder: Path) -> Path | None:
    """The newest checkpoint that a run's folder, or a stage's, holds."""
    made = (
        one for pattern in ("checkpoint", "checkpoints/*", "stages/*/checkpoint", "stages/*/checkpoints/*") for one in folder.glob(pattern)
    )
    return max((one for one in made if (one / "config.json").is_file()), key=lambda one: one.stat().st_mtime, default=None)


def config_faults(config: Mapping[str, Any], where: str, trains: bool) -> Iterator[str]:
    """What a configuration says that learner, publisher or engines cannot do."""
    yield from _class_faults(config, where)
    yield from _training_faults(config, where) if trains else ()
    yield from size_faults(config, where, trains)


def _training_faults(config: Mapping[str, Any], where: str) -> Iterator[str]:
    """What learner or publisher cannot do, and an evaluation can."""
    if not scored(f"{config.get('model_type')}"):
        yield (
            f"model.path: {where}: model_type {config['model_type']} has no attention that the learner can run (scaled_dot_product_attention); "
            "take another model"
        )
    if quantised := config.get("quantization_config"):
        method = quantised.get("quant_method", "quantised") if isinstance(quantised, dict) else "quantised"
        yield f"model.path: {where}: {method} weights cannot be trained; take the model in bf16 or fp32"
    if experts := mixture(config):
        yield f"model.path: {where}: {experts} {config[experts]}: mixtures of experts cannot be trained here; take a dense model"
    if states := _recurrent(config):
        yield f"model.path: {where}: {states}: layers with a state instead of attention are not trained here; take a dense transformer"
    for key, value in config.items():
        same = (0, 1, config.get("hidden_size")) if key == "dim_model_base" else (0, 1)
        if _CHANGES_LOGITS.fullmatch(key) and value is not None and value not in same:
            yield f"model.path: {where}: {key} {value} changes logits behind the output head, which the learner does not do; take another model"


def _class_faults(config: Mapping[str, Any], where: str) -> Iterator[str]:
    """Whether transformers has the model built in, as one that continues text."""
    said = config.get("architectures") or []
    names = [str(name) for name in said] if isinstance(said, list) else [str(said)]
    kinds = [name for name in names if not name.endswith(("ForCausalLM", "LMHeadModel"))]
    kind, known = config.get("model_type"), causal_models()
    if config.get("is_encoder_decoder") or kinds:
        what = kinds[0] if kinds else "an encoder and a decoder"
        yield f"model.path: {where}: {what} is no plain causal language model (...ForCausalLM); take the text model of its family"
    elif known and str(kind) not in known:
        if "auto_map" in config:
            yield (
                f"model.path: {where}: auto_map asks for code from the checkpoint, which is never run, and the installed transformers has no "
                f"model_type {kind} of its own; take a model that it has built in"
            )
        else:
            found = f"has no causal language model of model_type {kind}" if kind else "needs a model_type, and there is none"
            yield f"model.path: {where}: the installed transformers {found}; correct it, or take a model that it has built in"
    elif known and names and not set(names) & set(known[str(kind)]):
        made = known[str(kind)][0]
        yield f"model.path: {where}: architectures {names[0]} is not what model_type {kind} is made with ({made}); {_OF_WEIGHTS}"


def causal_models() -> dict[str, tuple[str, ...]]:
    """Classes of the causal language models that transformers has built in, by model type; empty where it is not installed or looks otherwise."""
    made = _table("modeling_auto.py", "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES")
    return {kind: (one,) if isinstance(one, str) else tuple(one) for kind, one in made.items()}


def scored(kind: str) -> bool:
    """Whether a model type has the attention that the learner runs (torch's scaled_dot_product_attention), as far as its source can be read."""
    source = _source("modeling", kind)
    return not source or "_supports_sdpa = True" in source


def gated(kind: str) -> bool:
    """Whether the feed-forward layers of a model type have a gate beside what it opens, as most have: three matrices, else two; as far as its source can be read."""
    source = _source("modeling", kind)
    return not source or re.search(r"self\.\w*gate\w* = ", source) is not None


def tied(config: Mapping[str, Any]) -> bool:
    """Whether a configuration's model has one matrix as embedding and head: as it says, else as its model type has it by itself (Gemma), in transformers' source."""
    if "tie_word_embeddings" in config or not isinstance(kind := config.get("model_type"), str):
        return bool(config.get("tie_word_embeddings"))
    return re.search(r"tie_word_embeddings: [^=\n]*= True", _source("configuration", kind)) is not None


def _source(part: str, kind: str) -> str:
    """A model type's source in transformers; "" where there is none."""
    module = _table("auto_mappings.py", "SPECIAL_MODEL_TYPE_TO_MODULE_NAME").get(kind, kind.replace("-", "_"))
    file = _models() / module / f"{part}_{module}.py"
    return file.read_text(encoding="utf-8") if file.is_file() else ""


@functools.cache
def _table(file: str, name: str) -> dict[str, Any]:
    """A table of transformers' that its source holds as pairs; empty if it does not."""
    source = _models() / "auto" / file
    for node in ast.parse(source.read_text(encoding="utf-8")).body if source.is_file() else []:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name and isinstance(node.value, ast.Call):
            return dict(ast.literal_eval(node.value.args[0]))
    return {}


def _models() -> Path:
    """Where transformers has its models."""
    spec = importlib.util.find_spec("transformers")
    return Path(spec.origin if spec and spec.origin else "").parent / "models"


def mixture(config: Mapping[str, Any]) -> str | None:
    """The key that says how many experts a layer has, if they are several and in use."""
    if False in (config.get("is_moe"), config.get("enable_moe_block")):
        return None
    for key, value in config.items():
        counts = value if isinstance(value, list) else [value]
        if _EXPERTS.fullmatch(key) and any(isinstance(count, int) and count > 1 for count in counts):
            return key
    return None


def _recurrent(config: Mapping[str, Any]) -> str | None:
    """What says that some layers carry a state (Mamba and its like) instead of attention."""
    if isinstance(layers := config.get("layer_types"), list):
        return next((f"layer_types {kind}" for kind in map(str, layers) if "attention" not in kind or "linear" in kind), None)
    return next((key for key, value in config.items() if _RECURRENT.fullmatch(key) and value), None)


def sizes(config: Mapping[str, Any]) -> dict[str, Any]:
    """Architecture numbers of a configuration under Llama's names, whatever it calls them; those that it does not name are left out."""
    found = {}
    for name, old in _OLD_NAMES.items():
        for key in (name, *old):
            if key in config:
                found[name] = config[key]
                break
    if config.get("model_type") in _FOURFOLD and found.get("intermediate_size") is None and _counts(found.get("hidden_size")):
        found["intermediate_size"] = 4 * found["hidden_size"]
    return found


def size_faults(config: Mapping[str, Any], where: str, trains: bool) -> Iterator[str]:
    """Architecture numbers that are missing, or that no model can have."""
    held = sizes(config)
    if lacking := [name for name in (_OLD_NAMES if trains else _CORE) if name not in held]:
        yield f"model.path: {where} says no {', '.join(lacking)}; {_OF_WEIGHTS}"
    more = {name: config[name] for name in ("num_key_value_heads", "head_dim") if config.get(name) is not None}
    wrong = {name: value for name, value in (held | more).items() if not _counts(value)}
    for name, value in wrong.items():
        yield f"model.path: {where}: {name} {value!r} is no whole number above 0; {_OF_WEIGHTS}"
    heads, groups, width = held.get("num_attention_heads"), more.get("num_key_value_heads"), held.get("hidden_size")
    for whole, name, part, of in (
        (heads, "num_attention_heads", groups, "num_key_value_heads"),
        (None if "head_dim" in more else width, "hidden_size", heads, "num_attention_heads"),
    ):
        if not wrong and whole and part and whole % part:
            yield f"model.path: {where}: {name} {whole} is no multiple of {of} {part}; {_OF_WEIGHTS}"
    if not isinstance(tied := config.get("tie_word_embeddings"), bool | None):
        yield f"model.path: {where}: tie_word_embeddings {tied!r} is neither true nor false; correct it"
    for name in ("rope_scaling", "rope_parameters"):
        rope = {} if config.get(name) is None else config[name]
        stretched: list[Any] = (
            [rope.get(key, 1) for key in ("factor", "original_max_position_embeddings")] if isinstance(rope, dict) else ["no table"]
        )
        if not all(value is None or (type(value) in (int, float) and 0 < value < inf) for value in stretched):
            yield f"model.path: {where}: {name} {rope!r} cannot be read; {_OF_WEIGHTS}"


def _counts(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _pointers(folder: Path) -> list[str]:
    """Files in use that git left as pointers to what it did not fetch."""
    patterns = ["config.json", "tokenizer.json", "chat_template.*", "*.index.json", *_JSONS, *weight_files(folder)]
    patterns += [] if (folder / "tokenizer.json").is_file() else _OLD_TOKENIZERS
    files = {file for pattern in patterns for file in folder.glob(pattern) if file.is_file()}

    def begins(file: Path) -> bytes:
        with file.open("rb") as stream:
            return stream.read(len(_POINTER))

    return sorted(file.name for file in files if begins(file) == _POINTER)


def read_json(file: Path) -> dict[str, Any] | None:
    """A file's JSON object; None if there is none."""
    try:
        held = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return held if isinstance(held, dict) else None


def header(file: Path) -> dict[str, list[int]] | None:
    """Shapes of a safetensors file's tensors by name; None if it is cut off or something else."""
    try:
        with safe_open(file, "numpy") as held:
            return {name: held.get_slice(name).get_shape() for name in held.keys()}  # noqa: SIM118
    except (OSError, ValueError, SafetensorError):
        return None


def _weight_faults(folder: Path) -> Iterator[str]:
    index, listed, names = folder / _INDEX, _weight_map(folder), sorted(weight_files(folder))
    if index.exists() and not listed:
        yield f"model.path: {index} lists no weights (weight_map); fetch the checkpoint again"
        return
    if not names:
        others = sorted(file.name for pattern in ("*.bin", "*.pt", "*.pth", "*.gguf") for file in folder.glob(pattern))
        stray = sorted(file.name for file in folder.glob("*.safetensors"))
        if stray:
            yield f"model.path: {folder} has {stray[0]}, but neither model.safetensors nor {index.name}; fetch what is missing"
        elif others:
            yield (
                f"model.path: {folder / others[0]}: weights in this form are not loaded (pickled files can run code); convert them to safetensors "
                "with transformers' save_pretrained"
            )
        else:
            yield f"model.path: {folder} holds no weights (model.safetensors); fetch them or name another folder"
        return
    for name in names:
        if not (folder / name).is_file():
            yield f"model.path: {folder / name}, which {index.name} lists, is not there; fetch it"
        elif (held := header(folder / name)) is None:
            yield f"model.path: {folder / name} is cut off or no safetensors file; fetch it again"
        elif lacking := [tensor for tensor, file in listed.items() if file == name and tensor not in held]:
            yield f"model.path: {folder / name} holds no {lacking[0]}, which {index.name} says is there; fetch both again"


def _weight_map(folder: Path) -> dict[str, str]:
    """File of each tensor, as the index of a sharded checkpoint has it."""
    index = (read_json(folder / _INDEX) or {}).get("weight_map")
    return {tensor: str(file) for tensor, file in index.items()} if isinstance(index, dict) else {}


def weight_files(folder: Path) -> set[str]:
    """Names of the safetensors files that hold a checkpoint's weights, there or not."""
    return set(_weight_map(folder).values()) or ({"model.safetensors"} if (folder / "model.safetensors").is_file() else set())


def tensor_shapes(folder: Path) -> dict[str, list[int]]:
    """Shapes of a checkpoint's tensors by name, as far as its files can be read."""
    return {tensor: shape for name in sorted(weight_files(folder)) for tensor, shape in (header(folder / name) or {}).items()}


def linear_layers(folder: Path) -> list[str]:
    """Names of a checkpoint's layers that are a matrix each, below the model; some files leave that out."""
    return [
        f"model.{name.removesuffix('.weight')}"
        for name, shape in tensor_shapes(folder).items()
        if name.endswith(".weight") and len(shape) == 2
    ]


def adapter_faults(linear: Collection[str], recipe: Recipe) -> Iterator[str]:
    """Why a model with linear layers of these names gets none of the adapters that a recipe asks for."""
    adapter = recipe.learner.adapter
    for target in adapter.targets if isinstance(adapter, Lora) and linear else ():
        if not any(f".{name}".endswith(f".{target}") for name in linear):
            ends = ", ".join(sorted({name.rpartition(".")[2] for name in linear if _LAYER.search(name)}))
            yield f"learner.adapter.targets: {target}: no linear layer of {recipe.model.path} has a name that ends so; there are {ends}"


_COMPANIONS = [
    *((f"self_attn.{part}_proj.weight", "self_attn.q_proj.weight") for part in "kv"),
    ("self_attn.v_proj.weight", "self_attn.k_proj.weight"),
    ("mlp.gate_proj.weight", "mlp.up_proj.weight"),
    ("mlp.gate_proj.weight", "mlp.down_proj.weight"),
]  # no layer has the first without the second; keys and values may be another layer's, or one


def _shape_faults(shapes: Mapping[str, list[int]], config: Mapping[str, Any], where: str) -> Iterator[str]:
    """Where a configuration speaks of another model than its weights are: transformers would fail, or make the missing layers up at random."""
    held = sizes(config)
    layers = {int(number[1]) for name in shapes if (number := _LAYER.search(name))}
    said, more = held["num_hidden_layers"], config.get("num_nextn_predict_layers")  # those guess ahead, and are not used here
    remedy = "take the config.json that belongs to these weights, or fetch them again"
    if shapes and not said <= len(layers) <= said + (more if _counts(more) else 0):
        yield f"model.path: {where}: num_hidden_layers {said}, but the weights hold {len(layers)} layers; {remedy}"
    if config.get("quantization_config"):
        return  # packed in shapes of their own
    for there, wanted in _COMPANIONS:  # engines hold them as one tensor, and do not miss a part of it
        if lacking := [name for name in sorted(shapes) if name.endswith(there) and f"{name.removesuffix(there)}{wanted}" not in shapes]:
            yield f"model.path: {where.removesuffix('/config.json')} holds no {lacking[0].removesuffix(there)}{wanted}, but {lacking[0]}; fetch the weights again"
            return
    heads = held.get("num_attention_heads", 0)
    head = config.get("head_dim") or (held["hidden_size"] // heads if heads else 0)
    groups = config.get("num_key_value_heads") or heads
    dense = not mixture(config)
    expected: list[tuple[tuple[str, ...], int, str, list[int]]] = [
        (_EMBEDDINGS, 0, "vocab_size", [held["vocab_size"]]),
        (_EMBEDDINGS, 1, "hidden_size", [] if "word_embed_proj_dim" in config else [held["hidden_size"]]),
        (("lm_head.weight",), 0, "vocab_size", [held["vocab_size"]]),
        (("mlp.down_proj.weight",), 0, "hidden_size", [held["hidden_size"]]),
        (("mlp.down_proj.weight",), 1, "intermediate_size", [held["intermediate_size"]] if dense and "intermediate_size" in held else []),
        (("self_attn.q_proj.weight",), 0, "num_attention_heads x head_dim", [heads * head, 2 * heads * head]),  # twice: with a gate
        (("self_attn.k_proj.weight",), 0, "num_key_value_heads x head_dim", [groups * head]),
    ]
    for tails, axis, key, allowed in expected:
        found = {name: shape[axis] for name, shape in shapes.items() if name.endswith(tails) and len(shape) == 2}
        if allowed and len(set(found.values())) == 1 and (size := max(found.values())) not in allowed:
            yield f"model.path: {where}: {key} {allowed[0]}, but {min(found)} in the weights has {size}; {remedy}"
            return
    headless = any(name.endswith(_EMBEDDINGS[0]) for name in shapes) and "lm_head.weight" not in shapes
    if headless and config.get("tie_word_embeddings") is False:
        yield f"model.path: {where}: tie_word_embeddings false, but the weights hold no lm_head.weight; {remedy}"


def _tokenizer_faults(folder: Path, tokens: int | None, rows: int | None) -> Iterator[str]:
    file = folder / "tokenizer.json"
    if not file.is_file() and not any(found for pattern in _OLD_TOKENIZERS for found in folder.glob(pattern)):
        yield f"model.path: {folder} holds no tokenizer (tokenizer.json); put the model's tokenizer files beside the weights"
        return
    for name in _JSONS:
        if (folder / name).is_file() and read_json(folder / name) is None:
            yield f"model.path: {folder / name} is no JSON object; fetch it again"
    try:
        chat_template(folder)
    except ValueError as error:
        yield f"model.path: {error}"
    if not file.is_file():
        return
    try:
        Tokenizer.from_file(str(file))
        why = "" if tokens else "no tokens"
    except Exception as error:  # the library raises plain Exception
        why = f"{error}"
    if why:
        yield f"model.path: {file} holds no usable tokenizer ({why}); put the model's own file there"
    if tokens is not None and rows is not None and tokens > rows:
        yield (
            f"model.path: {file} has tokens up to number {tokens - 1}, the model's embedding only {rows} rows (what the files beside it add counts); "
            "take the tokenizer that belongs to these weights"
        )


def chat_template(folder: Path) -> str:
    """The chat template that transformers would take: chat_template.jinja, else what tokenizer_config.json has.
    Raises ValueError: there is none to take; the message says why."""
    file, text = folder / "chat_template.jinja", None
    if file.is_file():
        text = file.read_text(encoding="utf-8", errors="replace")
    else:
        file = folder / "tokenizer_config.json"
        text = (read_json(file) or {}).get("chat_template")
    if isinstance(text, list):
        named = {one.get("name"): one.get("template") for one in text if isinstance(one, dict)}
        if "default" not in named:
            names = ", ".join(map(str, named)) or "none"
            remedy = f"write the one to use into {folder}/chat_template.jinja"
            raise ValueError(f"{file}: of its chat templates ({names}) none is called default; {remedy}")
        text = named["default"]
    if text is None:
        raise ValueError(f"{folder}: the tokenizer has no chat template; add chat_template.jinja to the checkpoint")
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{file}: the chat template is empty or no text; put the model's own there")
    try:
        parse_template(text)
    except TemplateSyntaxError as error:
        why = f"line {error.lineno}: {error.message}"
        raise ValueError(f"{file}: the chat template cannot be read ({why}); put the model's own there") from error
    return text


def _stop_faults(folder: Path, limit: int) -> Iterator[str]:
    """Stop tokens that no response can hold."""
    for name in ("generation_config.json", "config.json"):
        said = (read_json(folder / name) or {}).get("eos_token_id")
        for token in said if isinstance(said, list) else [] if said is None else [said]:
            if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < (limit or token + 1):
                yield f"model.path: {folder / name}: eos_token_id {token!r} is no token of the model (0 to {limit - 1}); correct it or take it out"


def vocabulary(file: Path) -> int | None:
    """One more than the largest token id of a tokenizer.json and of what the files beside it add to it; None if that cannot be told."""
    try:
        own = Tokenizer.from_file(str(file)).get_vocab()
    except Exception:  # the library raises plain Exception
        return None
    if not own:
        return None
    settings, names = (read_json(file.parent / name) or {} for name in ("tokenizer_config.json", "special_tokens_map.json"))
    decoder, more = settings.get("added_tokens_decoder"), read_json(file.parent / "added_tokens.json") or {}
    added = {token_text(token): int(number) for number, token in decoder.items() if number.isdecimal()} if isinstance(decoder, dict) else {}
    added |= {token: number for token, number in more.items() if isinstance(number, int)}
    for held in (names, settings):  # a special token that the file lacks gets the next number
        for key in ("bos_token", "eos_token", "unk_token", "pad_token", "additional_special_tokens", "extra_special_tokens"):
            said = held.get(key)
            many = list(said.values()) if key.startswith("extra") and isinstance(said, dict) else said if isinstance(said, list) else [said]
            added = {token_text(token): -1 for token in many} | added
    new = {token: number for token, number in added.items() if token and token not in own}
    return max(max(own.values()) + len(new), *new.values(), 0) + 1


def token_text(token: Any) -> str:
    """An added token's text, which files write bare or with its properties."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else ""


def embedding_rows(folder: Path, config: Mapping[str, Any]) -> int | None:
    """Tokens that the weights have an embedding for: as the files have it, else as the configuration says."""
    for name, shape in tensor_shapes(folder).items():
        if name.endswith(_EMBEDDINGS) and shape:
            return int(shape[0])
    size = config.get("vocab_size")
    return size if isinstance(size, int) else None
