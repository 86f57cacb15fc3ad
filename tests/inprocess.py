"""Ray, DeepSpeed, vLLM and other libraries at our borders, each in a few lines and in this process.

With them a whole run takes a second, so that a test can ask what became of every value. All code of ours is the real one;
what these stand-ins do not do (processes, devices, sharding) is for tests/integration.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import ray
import torch

from launch.machine import Machine
from rl import logprobs

DISTRIBUTED = ("RANK", "WORLD_SIZE", "LOCAL_RANK")  # variables that a learner rank sets


class Reference:
    """A Ray reference whose value is there."""

    def __init__(self, value: Any):
        self.value = value


class Method:
    def __init__(self, function: Any, returns: int = 1):
        self._function, self._returns = function, returns

    def options(self, num_returns: int) -> Method:
        return Method(self._function, num_returns)

    def remote(self, *arguments: Any) -> Any:
        answer = self._function(*(argument.value if isinstance(argument, Reference) else argument for argument in arguments))
        return Reference(answer) if self._returns == 1 else [Reference(part) for part in answer]


class Ray:
    """Actors are objects, calls are made at once and an error is raised where it happens.

    Attributes:
        actors: (class, options) of every actor, in the order of their start.
    """

    exceptions = ray.exceptions

    def __init__(self) -> None:
        self.actors: list[tuple[str, dict[str, Any]]] = []
        self._private = SimpleNamespace(worker=SimpleNamespace(_global_node=None))

    def remote(self, kind: type) -> Any:
        def start(options: dict[str, Any], arguments: tuple[Any, ...]) -> Any:
            self.actors.append((kind.__name__, options))
            actor = _at_home(kind)(*arguments)
            names = [name for name in dir(actor) if not name.startswith("_")]
            return SimpleNamespace(**{name: Method(_at_home(getattr(actor, name))) for name in names})

        return SimpleNamespace(options=lambda **options: SimpleNamespace(remote=lambda *arguments: start(options, arguments)))

    def get(self, references: Any, timeout: float = 0) -> Any:
        return [reference.value for reference in references] if isinstance(references, list) else references.value

    def wait(self, references: list[Reference], num_returns: int = 1, timeout: float = 0) -> tuple[list[Reference], list[Reference]]:
        return references[:num_returns], references[num_returns:]

    def kill(self, actor: Any) -> None:
        pass

    def is_initialized(self) -> bool:
        return False


def _at_home(function: Any) -> Any:
    """The function in an environment that is an actor's own: what it sets there is gone behind it."""

    def call(*arguments: Any) -> Any:
        with pytest.MonkeyPatch.context() as own:
            for name in DISTRIBUTED:
                own.setenv(name, "0")
            return function(*arguments)

    return call


class DeepSpeedEngine:
    """AdamW and gradient clipping by the configuration, nothing sharded. `passes` holds the shape of each pass through the first block."""

    def __init__(self, model: Any, config: dict[str, Any], passes: list[tuple[str, tuple[int, ...]]]):
        self.module, self._config, self._norm, self._away = model, config, 0.0, False
        settings = {name: value for name, value in config["optimizer"]["params"].items() if name != "torch_adam"}
        self.optimizer = torch.optim.AdamW(model.parameters(), **settings)
        model.model.base_model.layers[0].register_forward_pre_hook(lambda _, given: passes.append(("block", tuple(given[0].shape))))

    def __call__(self, *inputs: Any) -> Any:
        return self.module(*inputs)

    def backward(self, loss: torch.Tensor, scale_wrt_gas: bool) -> None:
        loss.backward()

    def gradient_clipping(self) -> float:
        return self._config["gradient_clipping"]

    def clip_fp32_gradients(self) -> None:
        self._norm = float(torch.nn.utils.clip_grad_norm_(self.module.parameters(), self.gradient_clipping()))

    def offload_states(self, include: list[str], pin_memory: bool) -> None:
        self._away = True

    def reload_states(self) -> None:
        self._away = False

    def step(self) -> None:
        assert not self._away
        self.clip_fp32_gradients()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def get_global_grad_norm(self) -> float:
        return self._norm

    def was_step_applied(self) -> bool:
        return True

    def save_checkpoint(self, folder: str, **_: Any) -> None:
        Path(folder).mkdir()
        (Path(folder) / "state").touch()


def module(name: str, **content: Any) -> ModuleType:
    """A module of that name, as `import` and `find_spec` want it."""
    made = ModuleType(name)
    made.__spec__ = ModuleSpec(name, None)
    vars(made).update(content)
    return made


@contextmanager
def libraries() -> Iterator[SimpleNamespace]:
    """Puts the stand-ins in place of the libraries, and a machine of two cores in place of this one.

    Yields:
        What they were asked for: `actors` (class, options), `ray` (resources), `threads` and `deepspeed` (configuration) of each rank,
        `passes` (shapes in first block and head), `vllm` (settings of each engine), `wandb` (projects), `judges` (command line of each judging process).
    """
    seen = SimpleNamespace(ray=[], threads=[], deepspeed=[], passes=[], vllm=[], wandb=[], judges=[])
    in_process = Ray()
    seen.actors = in_process.actors

    def initialize(model: Any, model_parameters: Any, config: dict[str, Any]) -> tuple[Any]:
        seen.deepspeed.append(config)
        return (DeepSpeedEngine(model, config, seen.passes),)

    def pieces(hidden_nH: torch.Tensor, *rest: Any, whole: Any = logprobs._log_softmax) -> torch.Tensor:
        seen.passes.append(("head", tuple(hidden_nH.shape)))
        return whole(hidden_nH, *rest)

    def llm(**settings: Any) -> Any:
        seen.vllm.append(settings)
        return SimpleNamespace(llm_engine=None)

    def init(**settings: Any) -> Any:
        seen.wandb.append(settings["project"])
        return SimpleNamespace(log=lambda values, step: None, finish=lambda: None)

    def popen(command: list[str], **_: Any) -> None:
        seen.judges.append(command[command.index("rewards.verifier.judge_worker") :])
        raise OSError("no judging process is needed for plain numbers")

    deepspeed = module(
        "deepspeed",
        DeepSpeedEngine=DeepSpeedEngine,  # asked for by transformers
        ops=SimpleNamespace(__compatible_ops__={}),
        init_distributed=lambda *_, **__: None,
        initialize=initialize,
        zero=SimpleNamespace(GatheredParameters=nullcontext),
    )
    writer = SimpleNamespace(add_scalar=lambda *_: None, flush=lambda: None, close=lambda: None)
    with pytest.MonkeyPatch.context() as patch:
        for place in ("launch.engines.ray", "rl.learner.ray", "rollout.engine.ray", "rollout.peers.ray"):
            patch.setattr(place, in_process)
        patch.setattr("launch.engines.start_ray", lambda **resources: seen.ray.append(resources))
        patch.setattr("launch.engines.stop_ray", lambda: None)
        patch.setattr("launch.plan.this_machine", lambda: Machine(cores=2, memory=16 << 30))
        patch.setattr("rl.meeting.Member.meet", lambda *_: None)
        patch.setattr("torch.set_num_threads", seen.threads.append)
        patch.setattr("rl.logprobs._log_softmax", pieces)
        patch.setattr("rewards.verifier.judge.subprocess", SimpleNamespace(Popen=popen, PIPE=None))
        patch.setitem(sys.modules, "deepspeed", deepspeed)
        patch.setitem(sys.modules, "vllm", module("vllm", LLM=llm))
        patch.setitem(sys.modules, "wandb", module("wandb", init=init))
        patch.setitem(sys.modules, "torch.utils.tensorboard", module("torch.utils.tensorboard", SummaryWriter=lambda *_, **__: writer))
        yield seen
