"""Every setting that libraries would otherwise choose for us, resolved: `python -m tests.golden` writes tests/golden.json anew (P31).

Do so after an upgrade, and read the difference: each line of it would have changed runs without anyone's doing.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
from pathlib import Path
from typing import Any

PATH = Path(__file__).with_suffix(".json")


def resolved() -> dict[str, Any]:
    """What DeepSpeed, vLLM, torch's AdamW and TRL make of the recipe `dler` at scale tiny."""
    import deepspeed
    import torch
    from trl import SFTConfig
    from vllm import EngineArgs

    from recipes.loader import load
    from rl.deepspeed_config import deepspeed_config
    from rollout.types import Problem, Request
    from rollout.vllm_engine import VllmEngine

    recipe = load("dler", "tiny")
    written = deepspeed_config(recipe)
    config = deepspeed.DeepSpeedConfig(json.loads(json.dumps(written)))
    engine = object.__new__(VllmEngine)
    engine._think = None
    engine._stop_ids = [1]
    request = Request("r", Problem("p", "", ""), (1, 2), 8, 104, 1.0, 1.0, 0)
    sampling = engine._params(request)
    return {
        "deepspeed, written": written,
        "deepspeed, resolved": _plain(
            {name: value for name, value in vars(config).items() if name not in ("_param_dict", "elasticity_enabled")}
        ),
        "vllm sampling": _plain({field: getattr(sampling, field) for field in sampling.__struct_fields__}),
        "vllm engine": _plain({field.name: getattr(EngineArgs, field.name, None) for field in dataclasses.fields(EngineArgs)}),
        "adamw": _plain({name: p.default for name, p in inspect.signature(torch.optim.AdamW).parameters.items() if name != "params"}),
        "sft": _plain({field.name: field.default for field in dataclasses.fields(SFTConfig) if field.default is not dataclasses.MISSING}),
    }


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Values that JSON can hold, the others as text without addresses."""
    return {str(name): _text(value) for name, value in sorted(values.items(), key=lambda item: str(item[0]))}


def _text(value: Any) -> Any:
    if isinstance(value, bool | int | float | str) or value is None:
        return value
    if isinstance(value, dict):
        return _plain(value)
    if isinstance(value, list | tuple | set | frozenset):
        return [_text(item) for item in value]
    if hasattr(value, "model_dump"):
        return _plain(value.model_dump())
    if hasattr(value, "__dict__") and not callable(value):
        return type(value).__name__
    return str(value).split(" at 0x")[0]


if __name__ == "__main__":
    PATH.write_text(json.dumps(resolved(), indent=1, sort_keys=True) + "\n")
