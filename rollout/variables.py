"""Environment variables of engines and of processes on a GPU, which must stand before the libraries that read them are imported."""

from __future__ import annotations

import os


def engine_environment(threads: int, device: str) -> dict[str, str]:
    """Environment variables that must stand before vLLM is imported: in-process, quiet, the same code of its own on CPUs and GPUs, and no compilation on a CPU."""
    common = {
        "VLLM_USE_V2_MODEL_RUNNER": "0",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
        "TQDM_DISABLE": "1",
    }
    common |= {"VLLM_HOST_IP": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}  # workers of an engine are on one machine
    if device == "cuda":  # Triton's attention, the one that takes fp32, would round it to TF32
        return common | {"TRITON_F32_DEFAULT": "ieee"} | gpu_environment()
    return common | {"TORCHDYNAMO_DISABLE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(threads)}


def gpu_environment() -> dict[str, str]:
    """Of processes on a GPU. Each sees its own GPUs alone, whatever this process was told, and is not ended by NCCL's watchdogs since a peer of one of its groups
    died, of whom others speak; torch's allocator is as this process was told, but without segments that grow, which others cannot map."""
    told = os.environ.get("PYTORCH_ALLOC_CONF", os.environ.get("PYTORCH_CUDA_ALLOC_CONF", "")).split(",")
    kept = [part for part in told if part.strip() and not part.strip().startswith("expandable_segments")]
    allocator = ",".join([*kept, "expandable_segments:False"])
    return dict.fromkeys(("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"), allocator) | dict.fromkeys(
        ("RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES", "TORCH_NCCL_DUMP_ON_TIMEOUT", "TORCH_NCCL_ENABLE_MONITORING"), "0"
    )
