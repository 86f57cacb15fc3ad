"""What the optimiser of one rank or several holds, as whole tensors by the name of their parameter, taken out of DeepSpeed's shards and put into others.

Claim: float32 weights, both of Adam's moments and its count of updates are all that an optimiser remembers, and are the same numbers however they are
dealt to ranks. `whole` and `put` are called by all ranks together. Simplification: AdamW; every trained parameter was updated equally often.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

WEIGHT, MOMENTS, UPDATES = "fp32", ("exp_avg", "exp_avg_sq"), "updates"


def whole(engine: Any) -> dict[str, Tensor]:
    """The state by "NAME/fp32", "NAME/exp_avg", "NAME/exp_avg_sq" (float32, of the parameter's shape) and "updates" (their number).

    Raises:
        ValueError: parameters were not updated equally often.
    """
    from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

    states = [state for state in _optimiser(engine).state.values() if state]
    counts = {float(state["step"]) for state in states}
    if len(counts) > 1:
        raise ValueError(f"parameters were updated {min(counts):g} to {max(counts):g} times, and only one number can be kept")
    if states and _sharded(engine):
        _link(engine)
    found: dict[str, Tensor] = {UPDATES: torch.tensor(counts.pop() if counts else 0.0)}
    for name, weight in _trained(engine):
        for kind in (WEIGHT, *MOMENTS):
            if kind != WEIGHT and not states:  # none was made yet
                value = torch.zeros(_shape(weight))
            elif not _sharded(engine):
                value = weight if kind == WEIGHT else engine.optimizer.state[weight][kind]
            else:
                value = safe_get_full_fp32_param(weight) if kind == WEIGHT else safe_get_full_optimizer_state(weight, kind)
            found[f"{name}/{kind}"] = value.detach().float().reshape(_shape(weight)).cpu().clone()
    return found


def put(engine: Any, read: Callable[[str], Tensor]) -> None:
    """Give an engine that made no update yet the state that `read` reads by name, trained weights with it."""
    _empty_update(engine)
    if _sharded(engine):
        _link(engine)
    for name, weight in _trained(engine):
        for kind in (WEIGHT, *MOMENTS):
            _set(engine, weight, kind, read(f"{name}/{kind}"))
    updates = read(UPDATES)
    for state in _optimiser(engine).state.values():
        state["step"].copy_(updates)


def _set(engine: Any, weight: Any, kind: str, value: Tensor) -> None:
    from deepspeed.utils import (
        safe_set_full_fp32_param,
        safe_set_full_optimizer_state,
        safe_set_local_fp32_param,
        safe_set_local_optimizer_state,
    )

    if kind == WEIGHT and weight.numel() == value.numel():  # of ZeRO-3 alone small ones, which stay whole
        weight.data.copy_(value)  # in the model's dtype, as after an update
    if hasattr(weight, "ds_tensor"):  # ZeRO-3: equal parts, the last one filled up
        part, rank = weight.ds_tensor.numel(), torch.distributed.get_rank()
        flat = torch.nn.functional.pad(value.flatten(), (0, part * torch.distributed.get_world_size() - value.numel()))
        own = flat.narrow(0, part * rank, part)
        if kind == WEIGHT:
            weight.ds_tensor.data.copy_(own)
            safe_set_local_fp32_param(weight, own)
        else:
            safe_set_local_optimizer_state(weight, own, kind)
    elif _sharded(engine):
        safe_set_full_fp32_param(weight, value) if kind == WEIGHT else safe_set_full_optimizer_state(weight, value, kind)
    elif kind != WEIGHT:
        engine.optimizer.state[weight][kind].copy_(value)


def _empty_update(engine: Any) -> None:
    """An update without gradient and learning rate, which moves nothing: DeepSpeed and torch make their state in the first one."""
    for group in engine.optimizer.param_groups:
        group["lr"] = 0.0
    ids = torch.zeros(1, 2, dtype=torch.int64, device=engine.device)
    logp_N, _ = engine(ids, torch.ones(1, 1, dtype=torch.bool, device=engine.device), ids[0, 1:])
    engine.backward(logp_N.sum() * 0.0, scale_wrt_gas=False)
    engine.step()


def _trained(engine: Any) -> Iterator[tuple[str, Any]]:
    return ((name, weight) for name, weight in engine.module.named_parameters() if weight.requires_grad)


def _shape(weight: Any) -> torch.Size:
    return getattr(weight, "ds_shape", weight.shape)


def _sharded(engine: Any) -> bool:
    return engine.zero_optimization_stage() > 0


def _optimiser(engine: Any) -> torch.optim.Optimizer:
    """torch's, within DeepSpeed's."""
    return getattr(engine.optimizer, "optimizer", engine.optimizer)


def _link(engine: Any) -> None:
    """Let parameters know their part of the state, which ZeRO-1 and -2 do in a step."""
    if hasattr(engine.optimizer, "_lazy_init_hp_params_optimizer_state"):
        engine.optimizer._lazy_init_hp_params_optimizer_state()
