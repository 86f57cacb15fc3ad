"""Adapters added in by hand are those that a run pushes and saves, to the bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import Qwen3Config, Qwen3ForCausalLM

from launch.plan import plan
from recipes.adapters import Lora
from recipes.loader import load
from rl.adapters import ADAPTER, adapted, merge_adapter, merged, save_adapters


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_merged_adapter_is_rounded_once_as_the_runs_own_weights_are(dtype: torch.dtype, tmp_path: Path):
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=16
    )
    Qwen3ForCausalLM(config).to(dtype).save_pretrained(tmp_path / "base")
    model = adapted(
        Qwen3ForCausalLM.from_pretrained(tmp_path / "base", dtype="auto"), Lora(kind="lora", rank=4, alpha=9.0), 0, str(tmp_path / "base")
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.02)
    own = {name: tensor.clone() for name, tensor in merged(model).items()}
    save_adapters(model, tmp_path)
    assert merge_adapter(tmp_path / "base", tmp_path / ADAPTER, tmp_path / "out") == 14
    made = load_file(tmp_path / "out/model.safetensors")
    assert {name: (tensor.dtype, tensor.shape) for name, tensor in made.items()} == {
        name: (dtype, tensor.shape) for name, tensor in own.items()
    }
    wrong = {name: (made[name] != own[name]).float().mean().item() for name in made}
    assert max(wrong.values()) == 0, wrong


def test_adapters_that_no_layer_can_have_are_refused_by_plan(tiny_checkpoint: Path):
    def blockers(targets: str) -> list[str]:
        return plan(load("dler", "tiny", [f"model.path={tiny_checkpoint}", f"learner.adapter={{kind: lora, targets: {targets}}}"])).blockers

    assert blockers("[q_proj, mlp.down_proj]") == [] == blockers("[]")
    assert blockers("[q_proj, query, norm]") == [
        f"learner.adapter.targets: {odd}: no linear layer of {tiny_checkpoint} has a name that ends so; "
        "there are down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"
        for odd in ("query", "norm")
    ]
