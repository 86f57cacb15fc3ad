"""What the process has imported of which tests' actors are forks (tests/forked); imported by nobody else."""

import os

from rollout.variables import engine_environment

os.environ.update(engine_environment(1, "cpu"), TORCHDYNAMO_DISABLE="1")

import deepspeed  # noqa: F401
import peft  # noqa: F401
import transformers.models.llama.modeling_llama
import transformers.models.qwen2.modeling_qwen2
import transformers.models.qwen3.modeling_qwen3  # noqa: F401

from launch.machine import this_machine

if this_machine().build != "cuda":  # whose vLLM cannot run on the CPU
    import vllm.model_executor.models.llama
    import vllm.model_executor.models.qwen2
    import vllm.model_executor.models.qwen3
    import vllm.v1.attention.backends.cpu_attn
    import vllm.v1.worker.cpu_worker  # noqa: F401
    from vllm import LLM  # noqa: F401

import rl.learner  # noqa: F401
import rollout.reference_engine
import rollout.vllm_engine  # noqa: F401
