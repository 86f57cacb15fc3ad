"""Adapters added in by hand are those that a run pushes and saves, to the bit."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM

from launch.memory import KNOWN, config_shape, trained_parameters
from launch.plan import plan
from recipes.adapters import Lora
from recipes.loader import load
from rl.adapters import ADAPTER, Merged, adapted, layers, merge_adapter, save_model, without_adapters
from rl.policy import load_policy


@pytest.fixture(params=[False, True], ids=["untied", "tied"])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A small model of two layers, whose head is its embedding or not."""
    return model_of(tmp_path / "base", torch.float32, request.param)


def model_of(folder: Path, dtype: torch.dtype, tied: bool) -> Path:
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 16}
    Qwen3ForCausalLM(Qwen3Config(**sizes, num_key_value_heads=1, tie_word_embeddings=tied)).to(dtype).save_pretrained(folder)
    return folder


FP32, BF16 = torch.float32, torch.bfloat16


@pytest.mark.parametrize(("dtype", "beside"), [(FP32, FP32), (BF16, BF16), (BF16, FP32)])  # the last as sft and dpo train
@pytest.mark.parametrize("tied", [False, True])
def test_a_merged_adapter_is_rounded_once_as_the_runs_own_weights_are(dtype: torch.dtype, beside: torch.dtype, tied: bool, tmp_path: Path):
    folder = model_of(tmp_path / "base", dtype, tied)
    model = adapted(Qwen3ForCausalLM.from_pretrained(folder, dtype=beside), Lora(kind="lora", rank=4, alpha=9.0), 0, folder)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.02)
    own = {name: tensor.to(dtype, copy=True) for name, tensor in Merged(model).items() if not (tied and name == "lm_head.weight")}
    save_model(model, tmp_path / "saved", dtype)
    assert json.loads((tmp_path / "saved" / ADAPTER / "adapter_config.json").read_text())["base_model_name_or_path"] == str(folder)
    assert json.loads((tmp_path / "saved/config.json").read_text())["dtype"] == str(dtype).removeprefix("torch.")
    assert merge_adapter(folder, tmp_path / "saved" / ADAPTER, tmp_path / "out") == 14
    for file in ("saved/model.safetensors", "out/model.safetensors"):
        made = load_file(tmp_path / file)
        assert {name: (tensor.dtype, tensor.shape) for name, tensor in made.items()} == {
            name: (dtype, tensor.shape) for name, tensor in own.items()
        }
        wrong = {name: (made[name] != own[name]).float().mean().item() for name in made}
        assert max(wrong.values()) == 0, wrong


def test_fresh_adapters_follow_their_seed_alone_and_leave_the_models_own_draws_as_they_were(tmp_path: Path):
    folder = model_of(tmp_path / "base", FP32, tied=False)
    drawn, after = [], []
    for seed, before in ((1, 7), (1, 8), (2, 7)):
        model = Qwen3ForCausalLM.from_pretrained(folder)
        torch.manual_seed(before)
        first = adapted(model, Lora(kind="lora", rank=4), seed).state_dict()
        drawn.append(torch.cat([tensor.flatten() for name, tensor in first.items() if "lora_A" in name]))
        after.append(torch.rand(1).item())
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    torch.manual_seed(7)
    assert after[0] == after[2] == torch.rand(1).item()


def test_a_model_is_adapted_again_behind_a_look_without_adapters_however_that_ends(tmp_path: Path):
    model = adapted(
        Qwen3ForCausalLM.from_pretrained(model_of(tmp_path / "base", FP32, tied=False)), Lora(kind="lora", rank=4, alpha=8.0), 0
    )
    with pytest.raises(RuntimeError, match="out of memory"), without_adapters(model):
        assert {layer.scaling["default"] for layer in layers(model).values()} == {0.0}
        raise RuntimeError("out of memory")
    assert {layer.scaling["default"] for layer in layers(model).values()} == {2.0}


@pytest.mark.parametrize(
    "more", [{"modules_to_save": ["lm_head"]}, {"modules_to_save": ["embed_tokens"]}, {"target_modules": ["embed_tokens"]}]
)
def test_what_moves_head_or_embedding_is_added_in_unless_they_are_one_tensor(base: Path, more: dict, tmp_path: Path):
    whole = get_peft_model(Qwen3ForCausalLM.from_pretrained(base), LoraConfig(**({"target_modules": ["q_proj"]} | more)))
    with torch.no_grad():
        for parameter in whole.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole.save_pretrained(tmp_path / "adapter")
    if whole.config.tie_word_embeddings:
        with pytest.raises(ValueError, match="one tensor there: no checkpoint of its form holds both"):
            merge_adapter(base, tmp_path / "adapter", tmp_path / "out")
        return
    merge_adapter(base, tmp_path / "adapter", tmp_path / "out")
    made, wanted = load_file(tmp_path / "out/model.safetensors"), whole.merge_and_unload().state_dict()
    assert made.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(made[name], tensor)


def test_an_adapter_that_moves_no_weights_and_a_base_that_lacks_some_are_one_sentence(tmp_path: Path):
    folder = model_of(tmp_path / "base", torch.float32, tied=False)
    prompts = get_peft_model(Qwen3ForCausalLM.from_pretrained(folder), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3))
    prompts.save_pretrained(tmp_path / "adapter")
    with pytest.raises(ValueError, match="there is nothing to add in"):
        merge_adapter(folder, tmp_path / "adapter", tmp_path / "out")
    kept = load_file(folder / "model.safetensors")
    for lost in ("model.layers.1.self_attn.q_proj.weight", "model.norm.weight", "model.embed_tokens.weight", "lm_head.weight"):
        save_file({name: tensor for name, tensor in kept.items() if name != lost}, folder / "model.safetensors", {"format": "pt"})
        with pytest.raises(ValueError, match=f"the weights hold no {lost}, which its config.json asks for"):
            merge_adapter(folder, tmp_path / "adapter", tmp_path / "out")
        with pytest.raises(ValueError, match=f"the weights hold no {lost}, which"):
            load_policy(folder, torch.float32, 1.0, 64)
    (folder / "config.json").write_text('{"model_type": "none-such"}')
    with pytest.raises(ValueError, match="base: no model that can be loaded"):
        merge_adapter(folder, tmp_path / "adapter", tmp_path / "out")


def test_adapters_that_no_layer_can_have_are_refused_by_plan(tiny_checkpoint: Path):
    def blockers(targets: str) -> list[str]:
        return plan(load("dler", "tiny", [f"model.path={tiny_checkpoint}", f"learner.adapter={{kind: lora, targets: {targets}}}"])).blockers

    assert blockers("[q_proj, mlp.down_proj]") == [] == blockers("[]")
    assert blockers("[q_proj, query, norm]") == [
        f"learner.adapter.targets: {odd}: no linear layer of {tiny_checkpoint} has a name that ends so; "
        "there are down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"
        for odd in ("query", "norm")
    ]
    known = load("dler", "node8", ["learner.adapter={kind: lora, targets: [c_attn, v_proj]}"])
    assert [line for line in plan(known).blockers if line.startswith("learner.adapter.targets: c_attn: no linear layer of deepseek-ai")]
    assert (
        plan(load("quickstart", None, ["learner.adapter={kind: lora, targets: ['']}"]))
        .blockers[0]
        .startswith("learner.adapter.targets: : no")
    )


def test_a_target_is_a_whole_name_at_the_end_of_a_layers():
    lora = Lora(kind="lora", targets=["proj", "attn.q"])
    assert [lora.at(layer) for layer in ("proj", "mlp.proj", "mlp.up_proj", "attn.q", "self_attn.q", "x.attn.q")] == [
        *(True, True, False),
        *(True, False, True),
    ]


def test_adapters_are_counted_whatever_their_targets_begin_with():
    shape = KNOWN["deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"]
    plain, mixed = (Lora(kind="lora", targets=names) for names in (["q_proj", "v_proj"], ["q_proj", "self_attn.v_proj"]))
    assert trained_parameters(shape, mixed) == trained_parameters(shape, plain) == 28 * 32 * (1536 + 1536 + 1536 + 256)
    one = Lora(kind="lora", rank=4, targets=["layers.3.self_attn.v_proj"])
    assert trained_parameters(shape, one) == 4 * (1536 + 256)


def test_linear_layers_are_counted_as_the_model_has_them(tiny_checkpoint: Path):
    shape = config_shape(tiny_checkpoint / "config.json")
    assert shape is not None
    held = AutoModelForCausalLM.from_pretrained(tiny_checkpoint)
    found = {
        name: (part.in_features, part.out_features)
        for name, part in held.model.named_modules(prefix="model")
        if isinstance(part, nn.Linear)
    }
    assert shape.linear == found
    lora = Lora(kind="lora", rank=2, targets=["up_proj", "layers.1.self_attn.q_proj"])
    trains = sum(part.numel() for name, part in adapted(held, lora, 0).named_parameters() if "lora_" in name)
    assert trained_parameters(shape, lora) == trains
