"""What plan says of a local checkpoint from its files alone (B6 of the kinds: weights, tokenizers, adapters, architectures, lengths)."""

from __future__ import annotations

import ast
import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from launch.checkpoints import causal_models, checkpoint_faults, config_faults, embedding_rows, header, scored, sizes, vocabulary
from launch.memory import REACHED, config_shape
from launch.plan import plan
from recipes.loader import load

Change = Callable[[Path], Any]


def configured(**more: Any) -> Change:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | more))

    return change


def without(*names: str, **more: Any) -> Change:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({key: value for key, value in config.items() if key not in names} | more))

    return change


def settled(**more: Any) -> Change:
    def change(folder: Path) -> None:
        held = json.loads((folder / "tokenizer_config.json").read_text())
        (folder / "tokenizer_config.json").write_text(json.dumps(held | more))

    return change


def templated(template: Any) -> Change:
    def change(folder: Path) -> None:
        (folder / "chat_template.jinja").unlink()
        settled(chat_template=template)(folder)

    return change


def written(name: str, text: str) -> Change:
    return lambda folder: (folder / name).write_text(text)


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4665cf6d12cf8f4f79d1ab4f7a0a2d25\nsize 134\n"


def indexed(*names: str) -> Change:
    def change(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / names[0])
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {str(i): name for i, name in enumerate(names)}}))

    return change


def lacking(tensor: str) -> Change:
    def change(folder: Path) -> None:
        kept = {name: value for name, value in load_file(folder / "model.safetensors").items() if name != tensor}
        save_file(kept, folder / "model.safetensors", {"format": "pt"})

    return change


def renamed(before: str, after: str) -> Change:
    return lambda folder: (folder / before).rename(folder / after)


def adapter(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "owner/base"}))


def longer_vocabulary(folder: Path) -> None:
    held = json.loads((folder / "tokenizer.json").read_text())
    held["added_tokens"].append({**held["added_tokens"][0], "id": 41, "content": "<|new|>"})
    (folder / "tokenizer.json").write_text(json.dumps(held))


def cut_off(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-10])


@pytest.mark.parametrize(
    ("held", "place"), [("checkpoint", "run/stages/sft"), ("checkpoints/step-9", "run"), ("stages/sft/checkpoint", "run")]
)
def test_a_folder_around_a_checkpoint_names_it(tiny_checkpoint: Path, tmp_path: Path, held: str, place: str):
    folder = tmp_path / place
    shutil.copytree(tiny_checkpoint, folder / held)
    (folder / "checkpoints" / "step-2").mkdir(parents=True)  # without a model
    assert list(checkpoint_faults(folder, False)) == [f"model.path: {folder} holds no config.json; name {folder / held}"]


FAULTS: dict[str, tuple[Change, str]] = {
    "adapter": (adapter, "/a model' --out FOLDER`) and name the merged folder"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "holds no config.json; name the folder of a checkpoint"),
    "broken config": (lambda folder: (folder / "config.json").write_text("{"), "a config.json that is no JSON object"),
    "pickled": (renamed("model.safetensors", "pytorch_model.bin"), "pytorch_model.bin: weights in this form are not loaded"),
    "gguf": (renamed("model.safetensors", "model.gguf"), "model.gguf: weights in this form are not loaded"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "holds no weights (model.safetensors)"),
    "a shard is missing": (
        indexed("a.safetensors", "b.safetensors"),
        "b.safetensors, which model.safetensors.index.json lists, is not there",
    ),
    "no index": (renamed("model.safetensors", "model-00001-of-00002.safetensors"), "but neither model.safetensors nor"),
    "cut off": (cut_off, "model.safetensors is cut off or no safetensors file"),
    "no tokenizer": (lambda folder: [file.unlink() for file in folder.glob("tokenizer*")], "holds no tokenizer (tokenizer.json)"),
    "no template": (lambda folder: [file.unlink() for file in folder.glob("chat_template*")], "the tokenizer has no chat template"),
    "small embedding": (longer_vocabulary, "has tokens up to number 41, the model's embedding only 41 rows"),
    "encoder": (configured(is_encoder_decoder=True), "an encoder and a decoder is no plain causal language model"),
    "multimodal": (configured(architectures=["Qwen2VLForConditionalGeneration"]), "Qwen2VLForConditionalGeneration is no plain causal"),
    "own code": (configured(auto_map={"AutoModel": "x.Y"}, model_type="nonesuch"), "auto_map asks for code from the checkpoint"),
    "quantised": (configured(quantization_config={"quant_method": "awq"}), "awq weights cannot be trained"),
    "experts": (configured(num_experts=8), "num_experts 8: mixtures of experts cannot be trained"),
    "soft cap": (configured(final_logit_softcapping=30.0), "final_logit_softcapping 30.0 changes logits behind the output head"),
    "head multiplier": (configured(lm_head_multiplier=0.0195), "lm_head_multiplier 0.0195 changes logits behind the output head"),
    "output multiplier": (configured(output_multiplier=0.2), "output_multiplier 0.2 changes logits"),
    "other soft cap": (configured(logits_soft_cap=30), "logits_soft_cap 30 changes logits"),
    "scaled hidden state": (configured(dim_model_base=256), "dim_model_base 256 changes logits"),
    "states": (configured(layer_types=["mamba", "full_attention"]), "layer_types mamba: layers with a state"),
    "states by key": (without("layer_types", ssm_cfg={"layer": 1}), "ssm_cfg: layers with a state"),
    "routed experts": (configured(n_routed_experts=64), "n_routed_experts 64: mixtures of experts"),
    "experts by layer": (configured(moe_num_experts=[64, 64]), "moe_num_experts [64, 64]: mixtures of experts"),
    "unknown type": (configured(model_type="zzz", architectures=["ZzzForCausalLM"]), "has no causal language model of model_type zzz"),
    "no type": (without("model_type"), "needs a model_type, and there is none"),
    "type of another kind": (configured(model_type="clip"), "has no causal language model of model_type clip"),
    "type that is none": (configured(model_type=["qwen3"]), "has no causal language model of model_type ['qwen3']"),
    "unknown class": (
        configured(architectures=["ZzzForCausalLM"]),
        "ZzzForCausalLM is not what model_type qwen3 is made with (Qwen3ForCausalLM)",
    ),
    "another's class": (
        configured(architectures=["LlamaForCausalLM"]),
        "architectures LlamaForCausalLM is not what model_type qwen3 is made with",
    ),
    "no sizes": (without("hidden_size", "num_hidden_layers"), "config.json says no num_hidden_layers, hidden_size; take the config.json"),
    "size in words": (configured(hidden_size="64"), "hidden_size '64' is no whole number above 0"),
    "size of null": (configured(vocab_size=None), "vocab_size None is no whole number above 0"),
    "no heads": (configured(num_attention_heads=0), "num_attention_heads 0 is no whole number above 0"),
    "negative": (configured(num_hidden_layers=-3), "num_hidden_layers -3 is no whole number above 0"),
    "a fraction": (configured(intermediate_size=1.5), "intermediate_size 1.5 is no whole number above 0"),
    "true": (configured(num_key_value_heads=True), "num_key_value_heads True is no whole number above 0"),
    "uneven heads": (
        configured(num_attention_heads=2, num_key_value_heads=3),
        "num_attention_heads 2 is no multiple of num_key_value_heads 3",
    ),
    "rope in words": (configured(rope_scaling="yarn"), "rope_scaling 'yarn' cannot be read"),
    "rope of a number": (configured(rope_scaling=5), "rope_scaling 5 cannot be read"),
    "rope of a list": (configured(rope_parameters=[]), r"rope_parameters [] cannot be read"),
    "rope of truth": (configured(rope_scaling={"type": "yarn", "factor": True}), "cannot be read; take the config.json"),
    "rope of words": (configured(rope_scaling={"type": "yarn", "factor": "4"}), "cannot be read; take the config.json"),
    "tied in words": (configured(tie_word_embeddings="yes"), "tie_word_embeddings 'yes' is neither true nor false"),
    "more layers": (configured(num_hidden_layers=4, layer_types=None), "num_hidden_layers 4, but the weights hold 2 layers"),
    "fewer layers": (configured(num_hidden_layers=1, layer_types=None), "num_hidden_layers 1, but the weights hold 2 layers"),
    "other vocabulary": (configured(vocab_size=64), "vocab_size 64, but model.embed_tokens.weight in the weights has 41"),
    "other width": (configured(hidden_size=128), "hidden_size 128, but model.embed_tokens.weight in the weights has 32"),
    "other inner": (configured(intermediate_size=200), "intermediate_size 200, but model.layers.0.mlp.down_proj.weight in the weights has"),
    "other heads": (
        configured(num_attention_heads=2, num_key_value_heads=2),
        "num_attention_heads x head_dim 64, but model.layers.0.self_attn.q_proj.weight",
    ),
    "other head width": (configured(head_dim=8), "num_attention_heads x head_dim 8, but model.layers.0.self_attn.q_proj.weight"),
    **{
        f"no {one.removesuffix('_proj')}": (
            lacking(f"model.layers.1.{one}.weight"),
            f"a model holds no model.layers.1.{one}.weight, but model.layers.1.{other}.weight",
        )
        for one, other in (
            ("self_attn.q_proj", "self_attn.k_proj"),
            ("self_attn.k_proj", "self_attn.v_proj"),
            ("mlp.up_proj", "mlp.gate_proj"),
        )
    },
    "no head": (configured(tie_word_embeddings=False), "tie_word_embeddings false, but the weights hold no lm_head.weight"),
    "empty index": (written("model.safetensors.index.json", "{}"), "model.safetensors.index.json lists no weights (weight_map)"),
    "index that is no map": (written("model.safetensors.index.json", '{"weight_map": []}'), "lists no weights (weight_map)"),
    "tensor not there": (indexed("a.safetensors"), "a.safetensors holds no 0, which model.safetensors.index.json says is there"),
    "weights left by git": (
        written("model.safetensors", POINTER),
        "model.safetensors: only a git-lfs pointer, not the file itself; fetch it with `git lfs",
    ),
    "tokenizer left by git": (written("tokenizer.json", POINTER), "tokenizer.json: only a git-lfs pointer"),
    "config left by git": (written("config.json", POINTER), "config.json: only a git-lfs pointer"),
    "empty tokenizer": (written("tokenizer.json", "{}"), "tokenizer.json holds no usable tokenizer (Model missing"),
    "broken tokenizer": (written("tokenizer.json", '{"model": {"vocab"'), "tokenizer.json holds no usable tokenizer (EOF while parsing"),
    "no tokens": (
        written("tokenizer.json", '{"model": {"type": "BPE", "vocab": {}, "merges": []}}'),
        "holds no usable tokenizer (no tokens)",
    ),
    "listed tokenizer": (written("tokenizer.json", "[]"), "holds no usable tokenizer (invalid type"),
    "broken settings": (written("tokenizer_config.json", "{"), "tokenizer_config.json is no JSON object; fetch it again"),
    "empty template": (written("chat_template.jinja", ""), "chat_template.jinja: the chat template is empty"),
    "broken template": (written("chat_template.jinja", "{% for"), "chat_template.jinja: the chat template cannot be read (line 1"),
    "unclosed template": (
        written("chat_template.jinja", "a\n{% if x %}b"),
        "the chat template cannot be read (line 2: Unexpected end of template",
    ),
    "named templates": (
        templated([{"name": "chat", "template": "{{ messages }}"}, {"name": "tool_use", "template": "x"}]),
        "of its chat templates (chat, tool_use) none is called default; write the one to use into",
    ),
    "number as a template": (templated(7), "the chat template is empty or no text"),
    "added tokens beside": (
        settled(added_tokens_decoder={"41": {"content": "<|new|>", "special": True}}),
        "tokenizer.json has tokens up to number 41, the model's embedding only 41 rows",
    ),
    "special token beside": (settled(pad_token="<|new|>"), "has tokens up to number 41"),
    "special tokens beside": (settled(additional_special_tokens=["<|a|>", {"content": "<|b|>"}]), "has tokens up to number 42"),
    "map beside": (written("special_tokens_map.json", '{"pad_token": {"content": "<|new|>"}}'), "has tokens up to number 41"),
    "list beside": (written("added_tokens.json", '{"<|new|>": 50}'), "has tokens up to number 50"),
    "generation of a list": (written("generation_config.json", "[1]"), "generation_config.json is no JSON object; fetch it again"),
    "stop beyond": (
        written("generation_config.json", '{"eos_token_id": [1, 99999]}'),
        "eos_token_id 99999 is no token of the model (0 to 40)",
    ),
    "negative stop": (configured(eos_token_id=-1), "config.json: eos_token_id -1 is no token of the model"),
    "true as a stop": (written("generation_config.json", '{"eos_token_id": [true]}'), "eos_token_id True is no token of the model"),
    "word as a stop": (configured(eos_token_id="</s>"), "eos_token_id '</s>' is no token of the model"),
}
ONLY_TRAINING = {
    "quantised",
    "experts",
    "routed experts",
    "experts by layer",
    "soft cap",
    "other soft cap",
    "head multiplier",
    "output multiplier",
}
ONLY_TRAINING |= {"scaled hidden state", "states", "states by key"}


@pytest.mark.parametrize("name", FAULTS)
def test_a_checkpoint_that_cannot_serve_is_named_with_file_and_remedy(name: str, tiny_checkpoint: Path, tmp_path: Path):
    change, words = FAULTS[name]
    folder = tmp_path / "a model"
    shutil.copytree(tiny_checkpoint, folder)
    assert list(checkpoint_faults(folder, trains=True)) == []
    change(folder)
    found = list(checkpoint_faults(folder, trains=True))
    assert any(words in line for line in found), found
    evaluated = list(checkpoint_faults(folder, trains=False))
    assert bool(evaluated) == (name not in ONLY_TRAINING)  # an engine can sample from those


@pytest.mark.parametrize(
    "change",
    [
        configured(auto_map={"AutoModelForCausalLM": "modeling.Own"}),
        configured(num_experts=1, num_experts_per_tok=1, moe_topk=1),
        configured(num_local_experts=0, num_experts_per_tok=2, expert_layer_period=2),
        configured(num_experts=[1, 1], num_shared_expert=[1, 1]),
        configured(num_experts=16384, is_moe=False),
        configured(num_nextn_predict_layers="1", text_config=[1]),
        configured(logits_scaling=1.0, lm_head_multiplier=1, final_logit_softcapping=None, attn_logit_softcapping=50.0, dim_model_base=32),
        configured(mamba_d_conv=4),  # of a family whose other models have such layers
        configured(num_key_value_heads=None, head_dim=None, num_nextn_predict_layers=1, eos_token_id=None),
        settled(added_tokens_decoder={"0": {"content": "2"}}, pad_token="2"),
        written("consolidated.safetensors", POINTER),
        written("chat_template.jinja", "{% generation %}{% for m in messages %}{% break %}{% endfor %}{% endgeneration %}"),
    ],
)
def test_what_only_looks_like_a_fault_is_none(change: Change, tiny_checkpoint: Path, tmp_path: Path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_checkpoint, folder)
    change(folder)
    assert list(checkpoint_faults(folder, trains=True)) == []
    assert config_shape(folder / "config.json") is not None


@pytest.mark.parametrize("value", ["64", None, 0, -3, 1.5, True, [2], {}, float("nan")])
@pytest.mark.parametrize("name", [*sizes({"n_layer": 1, "n_embd": 1, "n_head": 1, "n_inner": 1, "vocab_size": 1, "n_positions": 1})])
def test_a_size_that_is_no_number_is_one_sentence_and_no_shape(name: str, value: Any, tiny_checkpoint: Path, tmp_path: Path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_checkpoint, folder)
    configured(**{name: value})(folder)
    [found] = checkpoint_faults(folder, trains=True)
    assert name in found and config_shape(folder / "config.json") is None


OTHERS = [
    "architectures",
    "model_type",
    "auto_map",
    "quantization_config",
    "text_config",
    "eos_token_id",
    "is_encoder_decoder",
    "num_experts",
]


@pytest.mark.parametrize("value", [5, 1.5, True, "x", [], [5], {}, {"x": 5}])
@pytest.mark.parametrize(
    "name", [*OTHERS, "rope_scaling", "rope_parameters", "tie_word_embeddings", "num_nextn_predict_layers", "head_dim"]
)
def test_no_entry_of_another_type_than_it_should_ends_plan(name: str, value: Any, tiny_checkpoint: Path, tmp_path: Path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_checkpoint, folder)
    configured(**{name: value})(folder)
    made = plan(load("quickstart", None, [f"model.path={folder}", "stages=[rl,eval]"]))
    assert made.shape is not None or made.blockers, "it has a size, or is refused"


GPT2 = {
    "model_type": "gpt2",
    "architectures": ["GPT2LMHeadModel"],
    "n_layer": 12,
    "n_embd": 768,
    "n_head": 12,
    "n_inner": None,
    "n_positions": 1024,
}
FALCON = {
    "model_type": "falcon",
    "architectures": ["FalconForCausalLM"],
    "num_hidden_layers": 12,
    "hidden_size": 768,
    "num_attention_heads": 12,
}
OPT = {
    "model_type": "opt",
    "architectures": ["OPTForCausalLM"],
    "num_hidden_layers": 12,
    "hidden_size": 768,
    "num_attention_heads": 12,
    "ffn_dim": 3072,
}


@pytest.mark.parametrize("config", [GPT2, FALCON | {"max_position_embeddings": 1024}, OPT | {"max_position_embeddings": 1024}])
def test_models_older_than_llama_are_sized_by_their_own_names(config: dict[str, Any], tmp_path: Path):
    config = config | {"vocab_size": 50257, "tie_word_embeddings": True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    shape = config_shape(tmp_path / "config.json")
    assert shape is not None and (shape.layers, shape.inner, shape.head_width, shape.max_positions) == (12, 3072, 64, 1024)
    assert list(config_faults(config, "config.json", trains=True)) == []


def test_the_models_that_transformers_has_are_read_from_its_source():
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as NAMES

    assert causal_models() == {kind: (made,) if isinstance(made, str) else tuple(made) for kind, made in NAMES.items()}


@pytest.mark.parametrize(
    ("kind", "runs"),
    [("qwen3", True), ("gemma3_text", True), ("gpt-sw3", True), ("mamba", False), ("gptj", False), ("xglm", False), ("nonesuch", True)],
)
def test_a_model_type_without_the_learners_attention_is_known_by_its_source(kind: str, runs: bool):
    words = [
        line for line in config_faults({"model_type": kind}, "config.json", trains=True) if "no attention that the learner can run" in line
    ]
    assert scored(kind) is runs and bool(words) is not runs
    assert not any("attention" in line for line in config_faults({"model_type": kind}, "config.json", trains=False))


def test_sizes_of_vocabulary_and_embedding_are_those_of_the_files(tiny_checkpoint: Path):
    assert vocabulary(tiny_checkpoint / "tokenizer.json") == embedding_rows(tiny_checkpoint, {}) == 41
    assert embedding_rows(tiny_checkpoint / "gone", {"vocab_size": 7}) == 7 and vocabulary(tiny_checkpoint / "config.json") is None
    assert header(tiny_checkpoint / "config.json") is None


@pytest.mark.parametrize(
    ("rope", "kind", "reach"),
    [
        (None, "qwen2", 2048),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}, "qwen2", 2048),
        ({"type": "linear", "factor": 2}, "llama", 4096),
        ({"type": "linear", "factor": 8.0}, "gemma3_text", 2048),
        ({"full_attention": {"rope_type": "linear", "factor": 2}, "sliding_attention": {"rope_type": "default"}}, "llama", 4096),
        ({"rope_type": "dynamic", "factor": None}, "llama", 2048),
        ({"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 256}, "llama", 2048),
    ],
)
def test_the_context_is_what_the_rotary_embedding_reaches(
    rope: dict[str, Any] | None, kind: str, reach: int, tiny_checkpoint: Path, tmp_path: Path
):
    config = json.loads((tiny_checkpoint / "config.json").read_text()) | {"rope_scaling": rope, "model_type": kind}
    config.pop("rope_parameters", None)
    (tmp_path / "config.json").write_text(json.dumps(config))
    shape = config_shape(tmp_path / "config.json")
    assert shape is not None and shape.max_positions == reach


def test_the_embeddings_whose_positions_are_what_they_reach_are_those_of_vllm():
    spec = importlib.util.find_spec("vllm")
    assert spec is not None and spec.origin is not None
    tree = ast.parse((Path(spec.origin).parent / "config" / "model.py").read_text())
    tests = [node for node in ast.walk(tree) if isinstance(node, ast.Compare) and ast.unparse(node).startswith("rope_type not in ")]
    assert [ast.literal_eval(test.comparators[0]) for test in tests] == [REACHED]


@pytest.mark.parametrize(
    "kind", ["gemma", "gemma2", "gemma3_text", "smollm3", "qwen2", "qwen3", "llama", "mistral", "phi3", "olmo2", "starcoder2", "cohere"]
)
def test_a_head_that_no_configuration_speaks_of_is_tied_where_transformers_ties_it_by_itself(kind: str, tmp_path: Path):
    from transformers import AutoConfig

    config = {"model_type": kind, "num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128}
    config |= {"vocab_size": 1000, "max_position_embeddings": 512}
    for said in ({}, {"tie_word_embeddings": True}, {"tie_word_embeddings": False}):
        (tmp_path / "config.json").write_text(json.dumps(config | said))
        shape = config_shape(tmp_path / "config.json")
        assert shape is not None
        assert shape.tied == said.get("tie_word_embeddings", AutoConfig.for_model(kind).tie_word_embeddings), said


@pytest.mark.parametrize("kind", ["llama", "olmo", "gpt_neox", "starcoder2", "phi", "nanochat"])
def test_feed_forward_layers_have_three_matrices_or_two_as_transformers_makes_them(kind: str, tmp_path: Path):
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"num_hidden_layers": 4, "hidden_size": 256, "num_attention_heads": 8, "intermediate_size": 1024, "max_position_embeddings": 64}
    config = AutoConfig.for_model(kind, **sizes, vocab_size=3000)
    config.save_pretrained(tmp_path)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    shape = config_shape(tmp_path / "config.json")
    assert shape is not None and shape.parameters == pytest.approx(sum(one.numel() for one in model.parameters()), rel=0.01)
