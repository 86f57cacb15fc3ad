"""How many bytes a model takes: as weights, as a cache of keys and values, and while it learns; and what an engine is started with.

Estimates from a handful of architecture numbers, worst-case lengths and nothing measured at run time; no torch.
Simplification: Llama-like dense models (Qwen2, Qwen3, Llama, Mistral), the ones this project trains. Numbers of processes on a GPU
(libraries, context, profile) follow the libraries' source and were not measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

from launch.checkpoints import gated, mixture, read_json, size_faults, sizes, tied
from launch.placement import Placement
from recipes.adapters import Adapter, Lora
from recipes.schema import Learner, Recipe, Tiny
from rl.deepspeed_config import LIVE_PARAMETERS, REDUCE_BUCKET

GB = 1_000_000_000

# Main memory of a process before it holds a model: measured on Linux with CPU builds; with CUDA, libraries and pinned buffers add to it.
LIBRARIES = {"engine": int(0.85 * GB), "learner": int(0.55 * GB), "judge": int(0.12 * GB), "driver": int(0.9 * GB)}
CUDA_LIBRARIES = int(2.5 * GB)
CUDA_CONTEXT = int(0.8 * GB)  # on the GPU, of a process that uses it: context, cuBLAS workspace, NCCL's buffers

_BLOCK = 128  # tokens; of vLLM's block sizes (16 and 32 by itself) a multiple
_TILE = (4096, 32768)  # tokens and entries of the vocabulary whose logits TRL 1.16 has at a time
_LEAST_STORE = 75 * 2**20  # OBJECT_STORE_MINIMUM_MEMORY_BYTES of Ray 2.60
_CPU_KV = (64 << 20, 4 << 30)  # least and most that an engine sets aside on a CPU: zero-filling costs 1.4 s a GiB at start
# Bytes; from here on vLLM samples 1,024 sequences at once instead of 256; of an A100, from the second on.
_LARGE_GPU, _LARGEST_GPU = 70 << 30, 160 << 30
REACHED = ("su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling")  # max_position_embeddings is what they reach
GPU_SHARE = 0.92  # of its memory that vLLM takes where it has a GPU to itself


@dataclass(frozen=True)
class Shape:
    """Architecture numbers of a dense decoder. `max_positions` is the longest sequence in tokens; `gated`: its feed-forward layers have three matrices, else two."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_width: int
    inner: int
    vocabulary: int
    tied: bool
    max_positions: int
    gated: bool = True

    def divides(self, workers: int) -> bool:
        """Whether so many tensor parallel workers of vLLM can share it: heads of keys and values are shared or doubled, all else is shared."""
        return not (self.heads % workers or self.inner % workers or (self.kv_heads % workers and workers % self.kv_heads))

    @property
    def parameters(self) -> int:
        """Without biases and query/key norms, which are under a thousandth."""
        attention = 2 * self.width * self.head_width * (self.heads + self.kv_heads)
        layer = attention + (3 if self.gated else 2) * self.width * self.inner + 2 * self.width
        return self.layers * layer + self.width + self.width * self.vocabulary * (1 if self.tied else 2)

    @property
    def linear(self) -> dict[str, tuple[int, int]]:
        """Inputs and outputs of the linear layers before the head, by their names in models like Llama."""
        heads, kv = self.heads * self.head_width, self.kv_heads * self.head_width
        sizes = {f"self_attn.{name}_proj": (self.width, size) for name, size in (("q", heads), ("k", kv), ("v", kv))}
        sizes |= {"self_attn.o_proj": (heads, self.width), "mlp.down_proj": (self.inner, self.width)}
        sizes |= {f"mlp.{name}_proj": (self.width, self.inner) for name in ("gate", "up")[not self.gated :]}
        return {f"model.layers.{layer}.{name}": size for layer in range(self.layers) for name, size in sizes.items()}


# Public models the shipped recipes name, so that they can be planned before anything is downloaded.
KNOWN = {
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": Shape(28, 1536, 12, 2, 128, 8960, 151936, False, 131072),
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": Shape(28, 3584, 28, 4, 128, 18944, 152064, False, 131072),
}


def tiny_shape(tiny: Tiny) -> Shape:
    """The tiny reasoner as rl/cold_start makes it; a test compares the two, since that module imports torch."""
    heads = max(1, tiny.width // 32)
    return Shape(tiny.layers, tiny.width, heads, heads, 32, 3 * tiny.width, 41, True, 2048)


def config_shape(path: Path) -> Shape | None:
    """Shape from a checkpoint's config.json; None if it is not a dense decoder this module knows."""
    config = read_json(path)
    if config is None or mixture(config) or any(size_faults(config, "", trains=True)):
        return None
    held = sizes(config)
    heads = held["num_attention_heads"]
    return Shape(
        layers=held["num_hidden_layers"],
        width=held["hidden_size"],
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        head_width=config.get("head_dim") or held["hidden_size"] // heads,
        inner=held["intermediate_size"],
        vocabulary=held["vocab_size"],
        tied=tied(config),
        max_positions=_longest(config, held["max_position_embeddings"]),
        gated=gated(str(config.get("model_type"))),
    )


def _longest(config: Mapping[str, Any], positions: int) -> int:
    """Positions that a configuration's rotary embedding reaches, as vLLM counts them: what of these kinds is stretched says so by itself (ModelConfig's longest length)."""
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
    each = [one for one in rope.values() if isinstance(one, dict)] or [rope]  # of a kind of layer each
    factors = [one["factor"] for one in each if one.get("factor") and one.get("rope_type", one.get("type")) not in REACHED]
    return int(positions * (1 if "gemma3" in str(config.get("model_type")) else [1, *factors][-1]))


def kv_bytes(shape: Shape, tokens: int, width: int, parallel: int = 1) -> int:
    """Keys and values of `tokens` tokens at `width` bytes a number, on each of `parallel` workers: heads are shared among them, and doubled where there are fewer."""
    return 2 * shape.layers * ceil(shape.kv_heads / parallel) * shape.head_width * width * tokens


def sequence_bytes(recipe: Recipe, shape: Shape, parallel: int = 1) -> int:
    """Keys and values of the longest sequence that an engine is started for, in whole blocks, with one more that vLLM keeps empty; as of `kv_bytes`."""
    longest = max(context(recipe), int(option(recipe.engine.vllm, "max_model_len", 0)))
    return kv_bytes(shape, (-(-longest // _BLOCK) + 1) * _BLOCK, number_width(recipe), parallel)


def contexts(recipe: Recipe) -> dict[str, int]:
    """Longest sequence, prompt and response, that training and evaluation need, tokens, by the key that says how long a response may be."""
    prompt = recipe.data.max_prompt_tokens
    training = {"budget.limit": prompt + recipe.most_tokens} if recipe.samples else {}
    return training | ({"eval.max_tokens": prompt + recipe.eval.max_tokens} if evaluates(recipe) else {})


def context(recipe: Recipe) -> int:
    """Longest sequence that the recipe can need: the one home of it, for plan, engines and memory."""
    return max(contexts(recipe).values(), default=recipe.data.max_prompt_tokens)


def evaluates(recipe: Recipe) -> bool:
    return any(stage.kind == "eval" for stage in recipe.stages) or (recipe.trains and recipe.eval.every > 0)


def number_width(recipe: Recipe) -> int:
    """Bytes of one number of the model."""
    return 2 if recipe.model.dtype == "bf16" else 4


def engine_options(recipe: Recipe, shape: Shape | None, gpu: int, room: int | None, card: str) -> dict[str, Any]:
    """The sizes that vLLM is started with, under its own names; what `engine.vllm` says wins.

    Args:
        shape: None if the model is not known; then the cache's size is left to vLLM, within the engine's share of the GPU.
        gpu: memory of the engine's GPU, bytes; 0 on a CPU.
        room: of it that the engine may hold, bytes; None if it has it to itself. `gpu_memory_utilization` lowers it, and is what follows from it.
        card: the GPU's name, as far as it is known.
    """
    large = gpu >= (_LARGEST_GPU if "a100" in card.lower() else _LARGE_GPU)  # vLLM's rule, EngineArgs.get_batch_defaults
    sequences = int(option(recipe.engine.vllm, "max_num_seqs", 1024 if large else 256))
    sizes: dict[str, Any] = {"max_num_seqs": sequences, "max_num_batched_tokens": max(16384 if large else 8192, sequences)}
    said, shared = recipe.engine.vllm, room if gpu else None
    if gpu and shared is None:
        return sizes | {"gpu_memory_utilization": GPU_SHARE} | said
    share = option(said, "gpu_memory_utilization", 1)
    if shape is None:
        return sizes | said | ({} if shared is None else {"gpu_memory_utilization": min(share, round(shared / gpu, 4))})
    one, empty = sequence_bytes(recipe, shape), kv_bytes(shape, _BLOCK, number_width(recipe))
    least, most = _CPU_KV[0], max(_CPU_KV[1], one)  # vLLM wants room for one sequence
    if shared is not None:
        least, rest = 0, sum(engine_bytes(recipe, shape, gpu, sizes | {"kv_cache_memory_bytes": 0} | said).values())
        most = min(shared, int(share * gpu)) - rest
    sizes["kv_cache_memory_bytes"] = max(least, min(most, sequences * (one - empty) + empty))
    if shared is None:
        return sizes | said
    held = sum(engine_bytes(recipe, shape, gpu, sizes | said).values())  # vLLM refuses to start where less than this is free
    return sizes | said | {"gpu_memory_utilization": min(GPU_SHARE, round(held / gpu + 0.005, 2))}


def engine_bytes(recipe: Recipe, shape: Shape, gpu: int, options: Mapping[str, Any]) -> dict[str, int]:
    """What one engine holds with these options (`engine_options`), by part; on each of its GPUs if it has any, as vLLM counts the cache, too."""
    width, parallel = number_width(recipe), int(option(options, "tensor_parallel_size", 1))
    kv = int(option(options, "kv_cache_memory_bytes", 0))
    if not gpu:
        return {"weights": shape.parameters * width, "KV cache": kv * parallel}
    batch = option(options, "max_num_batched_tokens", 8192) * (2 * shape.inner + 4 * shape.width) * width
    logits = option(options, "max_num_seqs", 256) * shape.vocabulary * 4 * 3  # with their log-softmax and a sorted copy
    parts = {"weights": shape.parameters * width // parallel, "profile": int(batch + logits), "context": CUDA_CONTEXT}
    if "kv_cache_memory_bytes" not in options:  # all that is left of its share
        kv = max(0, int(option(options, "gpu_memory_utilization", GPU_SHARE) * gpu) - sum(parts.values()))
    return parts | {"KV cache": kv}


def push_bytes(recipe: Recipe, shape: Shape | None, placed: Placement) -> int:
    """What a push of trained weights takes in the object store; 0 where it goes another way, or nothing is trained."""
    stored = placed.carrier is not None and placed.carrier[0] == "store"
    return shape.parameters * number_width(recipe) if shape is not None and stored else 0


def workers(recipe: Recipe) -> int:
    """Processes of an engine."""
    return int(option(recipe.engine.vllm, "tensor_parallel_size", 1)) if recipe.engine.kind == "vllm" else 1


def object_store_bytes(free: int, push: int, shared: int | None) -> int:
    """Room of Ray's object store, for published weights and sampled groups, bytes: a quarter of what is free, but no more than it can use, or than shared
    memory has, and no less than Ray takes (which lies on the disk where shared memory has not even that).

    Args:
        free: main memory that is free, bytes; pages of the store cost memory only once they are used.
        push: see `push_bytes`.
        shared: shared memory that is free, bytes; None: not known.
    """
    room = free if shared is None else shared - shared // 50  # Ray measures again, and refuses what is not there any more
    return max(_LEAST_STORE, min(free // 4, max(8 * 2**30, 2 * push), room))


def option(options: Mapping[str, Any], name: str, default: float) -> float:
    """A number among vLLM's options; what is no number is refused by plan and counted as the default."""
    value = options.get(name)
    return value if isinstance(value, (int, float)) and value > 0 else default


def trained_parameters(shape: Shape, adapter: Adapter) -> int:
    """How many numbers train."""
    return adapter.rank * sum(map(sum, _adapted(shape, adapter))) if isinstance(adapter, Lora) else shape.parameters


def _adapted(shape: Shape, adapter: Lora) -> list[tuple[int, int]]:
    """Inputs and outputs of the linear layers with an adapter; where layers have names of their own that is at most, as if each had one."""
    return [size for name, size in shape.linear.items() if adapter.at(name)] or [*shape.linear.values()]


def handing_bytes(shape: Shape, learner: Learner, width: int, carrier: str) -> int:
    """What a push takes beside a rank's weights, bytes: all of them where ZeRO-3 gathers them; what adapters are added in to, one after the other in fp32,
    or held until engines that read it in place (ipc) have it."""
    gathered = shape.parameters * width if learner.zero_stage == 3 else 0
    if not isinstance(learner.adapter, Lora):
        return gathered
    sizes = [rows * columns for rows, columns in _adapted(shape, learner.adapter)]
    return gathered + 3 * 4 * max(sizes) + width * (sum(sizes) if carrier == "ipc" else max(sizes))


def _live(shape: Shape, learner: Learner, width: int) -> int:
    """What ZeRO-3 has gathered in a pass, bytes."""
    return min(shape.parameters, LIVE_PARAMETERS) * width if learner.zero_stage == 3 else 0


class _Zero(NamedTuple):
    """Bytes of each number that trains, and whether there are buckets of gradients.

    Attributes:
        gradients: of fp32 ones stage 2 has a micro-batch's beside their sum.
        share: of the optimiser, of a rank's share: Adam's moments (8), fp32 weights where weights are bf16 or ZeRO keeps a copy (4), and of bf16
            gradients sums in fp32 (4).
        each: of the optimiser on each rank: these sums where BF16_Optimizer (stage 1) does not share them.
        step: while weights move, of a rank's share: AdamW's and, of fp32, a flat copy of the gradients.
    """

    gradients: int
    share: int
    each: int
    step: int
    buckets: bool


_ZERO = {  # by stage, and whether weights are bf16
    (0, False): _Zero(gradients=4, share=8, each=0, step=0, buckets=False),
    (0, True): _Zero(gradients=2, share=16, each=0, step=0, buckets=False),
    (1, False): _Zero(gradients=4, share=12, each=0, step=8, buckets=True),
    (1, True): _Zero(gradients=2, share=12, each=4, step=4, buckets=False),
    (2, False): _Zero(gradients=8, share=12, each=0, step=8, buckets=True),
    (2, True): _Zero(gradients=2, share=16, each=0, step=4, buckets=True),
    (3, False): _Zero(gradients=4, share=12, each=0, step=8, buckets=True),
    (3, True): _Zero(gradients=2, share=16, each=0, step=4, buckets=True),
}


def learner_bytes(
    shape: Shape, learner: Learner, bf16: bool, reference: bool, longest: int, gpu: bool = False, logits: int | None = None
) -> dict[str, int]:
    """What one learner rank holds at its peak, bytes by part.

    Args:
        logits: what these take, bytes; None: as the learner makes them (rl/logprobs).
        reference: a frozen copy stands beside the policy (KL penalty).
        longest: prompt plus response, tokens; a single row longer than the micro-batch still passes whole.
        gpu: the rank is on a GPU, where the CUDA context counts.
    """
    width = 2 if bf16 else 4
    ranks, stage = learner.ranks, learner.zero_stage
    of = _ZERO[stage, bf16]
    N, trained = shape.parameters, trained_parameters(shape, learner.adapter)
    whole = trained == N
    share, largest = trained // (ranks if stage else 1), shape.vocabulary * shape.width if whole else 0
    bucket = REDUCE_BUCKET if gpu else min(REDUCE_BUCKET, trained)  # taken whole; on a CPU, pages cost nothing before they are used
    tokens, per_token = max(learner.micro_batch_tokens, longest), _per_token(shape)
    kept = shape.layers * shape.width + per_token if learner.gradient_checkpointing else shape.layers * per_token
    passing = {
        "activations": tokens * kept * width,
        "logits": _logits(shape, learner, tokens) if logits is None else logits,
        "gathered": _live(shape, learner, width),
    }
    parts = {
        "weights": N * width // (ranks if stage == 3 else 1),
        "gradients": trained * of.gradients // (ranks if stage >= 2 else 1),
        "optimiser": share * of.share + trained * of.each,
        **passing,
        "head gradient": largest * (4 + (2 if bf16 else 0)),  # added up in fp32
        "adapters": 0 if whole else trained * width,
        # As they are, and in fp32 while they are reduced; a larger tensor goes alone.
        "buckets": max(bucket, largest) * (width + 4) if of.buckets else 0,
        # When what a pass takes is gone.
        "optimiser step": max(0, (share * of.step if stage else largest * 4) - sum(passing.values())),
        "reference": N * width if reference and whole else 0,  # a policy with adapters is its own reference without them
        "context": CUDA_CONTEXT if gpu else 0,
    }
    return {name: held for name, held in parts.items() if held}


def _per_token(shape: Shape) -> int:
    """Numbers that a layer makes of a token."""
    return 8 * shape.width + shape.head_width * (5 * shape.heads + 8 * shape.kv_heads) + 4 * shape.inner


def _logits(shape: Shape, learner: Learner, tokens: int) -> int:
    """Log-softmax and slope of a piece (rl/logprobs), bytes."""
    return min(learner.logit_chunk_tokens, tokens) * shape.vocabulary * 4 * 2


def forward_bytes(shape: Shape, learner: Learner, width: int, longest: int) -> int:
    """What a pass without gradients takes beside the weights, bytes. `width`: of a number; `longest`: prompt plus response, tokens."""
    tokens = max(learner.micro_batch_tokens, longest)
    return tokens * _per_token(shape) * width + _logits(shape, learner, tokens) + _live(shape, learner, width)


def one_trainer(learner: Learner) -> Learner:
    """The learner's settings as the one process of a supervised stage takes them."""
    return learner.model_copy(update={"ranks": 1, "zero_stage": 0, "threads": learner.threads * learner.ranks})


def trainer_bytes(shape: Shape, learner: Learner, bf16: bool, longest: int, gpu: bool) -> dict[str, int]:
    """What the one process of a supervised stage holds at its peak: weights in fp32, which autocast casts for a pass, and a tile of logits, as TRL's fused
    head has it (on a CPU some eight of them: measured)."""
    alone = one_trainer(learner)
    tokens, entries = min(max(alone.micro_batch_tokens, longest), _TILE[0]), min(shape.vocabulary, _TILE[1])
    held = learner_bytes(shape, alone, False, False, longest, gpu, logits=tokens * entries * 4 * (2 if gpu else 8))
    return held | ({"cast weights": shape.parameters * 2} if bf16 else {})


def size(count: float, finer: int = 0) -> str:
    """Bytes for people: 3.6 GB, 250 MB, 2 KB; with so many digits more."""
    for unit, bound in (("GB", GB), ("MB", GB / 1000), ("KB", 1000)):
        if count >= bound:
            return f"{count / bound:,.{finer + (count < 10 * bound)}f} {unit}"
    return f"{count:.0f} B"


def sizes_apart(one: float, other: float) -> tuple[str, str]:
    """Sizes that differ, with as many digits as show it."""
    pairs = ((size(one, finer), size(other, finer)) for finer in range(10))
    return next((pair for pair in pairs if pair[0] != pair[1]), (size(one), size(other)))


def held_words(held: Mapping[str, int]) -> str:
    """What is held, and the bytes of each, for people."""
    return ", ".join(f"{name} {size(count)}" for name, count in held.items())


def many(count: int, noun: str, plural: str = "s") -> str:
    """1 step, 2 steps."""
    return f"{count:,} {noun}{plural if count != 1 else ''}"
