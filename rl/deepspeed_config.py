"""The whole DeepSpeed configuration, written out so that a library default cannot change a run (P31).

What is absent is a feature that is off (offloading, quantised communication, other optimisers, profilers); a test lists them.
Sizes are in numbers, not bytes.
"""

from __future__ import annotations

from typing import Any

from recipes.schema import Recipe


def deepspeed_config(recipe: Recipe) -> dict[str, Any]:
    """Settings of `deepspeed.initialize`; gradients are added up, reduced and kept in float32 also where weights are bfloat16."""
    settings = recipe.learner
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,  # we call step() once per update, after any number of backward()
        "gradient_clipping": settings.grad_clip,
        "gradient_allreduce_op": "mean",
        "gradient_predivide_factor": 1.0,
        "prescale_gradients": False,
        "disable_allgather": False,
        "communication_data_type": "fp32",
        "data_types": {"grad_accum_dtype": "fp32", "param_dtype": None, "buffer_dtype": None, "keep_in_fp32_modules": "auto"},
        "bf16": {
            "enabled": recipe.model.dtype == "bf16",
            "immediate_grad_update": False,
            "check_grad_overflow": True,
            "bf16_master_weights_and_grads": False,
            "bf16_optimizer_states": False,
        },
        "fp16": {"enabled": False},
        "torch_autocast": {"enabled": False},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": {"stage": settings.zero_stage, **_SHARDING},
        "optimizer": {
            "type": "AdamW",
            "legacy_fusion": False,
            "params": {
                "torch_adam": True,
                "lr": settings.lr,
                "betas": [0.9, 0.999],
                "eps": 1e-8,
                "weight_decay": settings.weight_decay,
                "amsgrad": False,
                "maximize": False,
                "foreach": False,  # its temporaries are as large as the moments
                "fused": False,
                "capturable": False,
                "differentiable": False,
            },
        },
        "scheduler": {"type": None, "params": None},
        "checkpoint": {"tag_validation": "Warn", "load_universal": False, "use_node_local_storage": False},
        "wall_clock_breakdown": False,
        "memory_breakdown": False,
        "timers": {"throughput": {"enabled": False, "synchronized": False}},
        "dump_state": False,
        "disable_python_gc": False,
        "steps_per_print": 1_000_000_000,
        "seq_parallel_communication_data_type": "fp32",
    }


REDUCE_BUCKET = 100_000_000  # numbers
LIVE_PARAMETERS = 1_000_000_000  # that stage 3 may have gathered at a time in a pass

_SHARDING: dict[str, Any] = {
    # stages 1 and 2
    "contiguous_gradients": True,
    "reduce_scatter": True,
    "reduce_bucket_size": REDUCE_BUCKET,  # 0.2 GB, and 0.4 GB while it is reduced in float32; larger tensors go alone
    "use_multi_rank_bucket_allreduce": True,
    "allgather_partitions": True,
    "allgather_bucket_size": 500_000_000,
    "overlap_comm": False,
    "compute_grad_norm": True,
    "load_from_fp32_weights": True,
    "elastic_checkpoint": False,
    "round_robin_gradients": False,
    "parameter_alignment": False,
    "ignore_unused_parameters": True,
    "legacy_stage1": False,
    # stage 3
    "sub_group_size": 1_000_000_000,
    "stage3_prefetch_bucket_size": 50_000_000,
    "stage3_param_persistence_threshold": 100_000,
    "stage3_model_persistence_threshold": 2**63 - 1,
    "stage3_max_live_parameters": LIVE_PARAMETERS,
    "stage3_max_reuse_distance": 1_000_000_000,
    "stage3_gather_16bit_weights_on_model_save": False,
    "stage3_module_granularity_threshold": 0,
    "stage3_use_all_reduce_for_fetch_params": False,
    "stage3_allgather_sequential": False,
    "memory_efficient_linear": True,
    "pipeline_loading_checkpoint": False,
    "override_module_apply": True,
    "zero_hpz_partition_size": 1,
    "zero_quantized_weights": False,
    "zero_quantized_nontrainable_weights": False,
    "zero_quantized_gradients": False,
    "log_trace_cache_warnings": False,
    "enable_sanity_checks": False,
}


def saved_classes() -> list[type]:
    """Classes of objects in the state that DeepSpeed saves; nothing else is read back."""
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    return [DynamicLossScaler, LossScaler, ZeroStageEnum, fragment_address]


# What waits in main memory while nothing is updated: all but the weights that forward passes read; of gradients nothing is left by then.
RESTING_STATES = ["optim_states", "hp_params"]


def moves_states(recipe: Recipe) -> bool:
    """Whether DeepSpeed's optimiser can move its states to main memory and back.

    Of ZeRO stage 1 in bf16 it makes BF16_Optimizer, which cannot; stage 3 wants an Adam of DeepSpeed's own for it, and stage 0 has torch's.
    """
    return recipe.learner.zero_stage == 2 or (recipe.learner.zero_stage == 1 and recipe.model.dtype == "fp32")
