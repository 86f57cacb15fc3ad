"""The vLLM engine: continuous batching in the process that owns it (a Ray actor), one step at a time.

Claim: groups come back as they finish, with the ids that were sampled and the logprobs of the distribution they were
sampled from; after `load` the next token comes from the new weights and from nothing cached under the old ones.
vLLM's calls for weights and caches live in this module and rollout/vllm_worker, since their names move between releases.
Simplification: one policy version per completion, because weights are loaded only when nothing is being sampled.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.process import BaseProcess
from multiprocessing.process import _dangling as made_processes  # type: ignore[attr-defined]
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import torch

from rollout.honesty import moments, rehearse
from rollout.pace import Pace, Sums
from rollout.parcels import Parcel, Stored, share
from rollout.short import Chains
from rollout.sleep import Part, Wakefulness
from rollout.thinking import ThinkIds, allowance, halves, joined, sources
from rollout.types import Completion, Finish, Request
from rollout.vllm_worker import EXTENSION
from rollout.weights import DTYPES, Undelivered, check_load, checkpoint_names

_NOTICED_S = 0.5  # by then a killed worker is


def _end_with_workers() -> None:
    """End this process once one of its own was killed, as an engine that died is started again. vLLM makes an error of it, like one that no new start mends.

    One that ends with an error has one of its own, which vLLM tells; those that it ends then are no longer watched.
    """
    watched = set[BaseProcess]()
    while True:
        with suppress(RuntimeError):  # one was just begun
            watched.update(made_processes)  # those of multiprocessing, also one that was killed before it could be seen alive
        time.sleep(_NOTICED_S / 10)
        ended = {child: child.exitcode for child in watched if child.exitcode is not None}
        if -signal.SIGKILL in ended.values():
            sys.stderr.write("a worker of this engine was killed, and it ends with it\n")
            sys.stderr.flush()
            os._exit(1)
        if any(ended.values()):
            return
        watched.difference_update(ended)


class VllmEngine:
    """An `Engine` (rollout/engine.py) over vLLM.

    Args:
        checkpoint: folder with config and safetensors; its weights are policy version `version`.
        dtype: "fp32" or "bf16".
        max_model_len: prompt plus response, tokens.
        options: vLLM's own options, sizes among them (launch.memory.engine_options); they win over ours.
        think: marks of the model's thinking, where requests may limit it.
    """

    def __init__(
        self,
        checkpoint: Path,
        dtype: str,
        device: str,
        max_model_len: int,
        stop_ids: Sequence[int],
        seed: int,
        options: Mapping[str, Any],
        think: ThinkIds | None = None,
    ):
        if "ray" in sys.modules:  # else it is no actor, and nobody waits for it
            from rollout.peers import beat

            beat()
        gc.disable()  # what is imported is no garbage, and to look for some in it would take a fifth of an engine's start
        from vllm import LLM  # seconds to import, and it reads the environment

        gc.freeze()  # until the end of that start, which looks for garbage five times itself
        gc.enable()

        settings: dict[str, Any] = dict(
            model=str(checkpoint),
            skip_tokenizer_init=True,
            dtype=DTYPES[dtype],
            max_model_len=max_model_len,
            max_logprobs=-1,  # a rehearsal asks for whole distributions
            logprobs_mode="processed_logprobs",  # of the distribution sampled from, temperature included
            seed=seed,
            trust_remote_code=False,
            disable_log_stats=True,
            async_scheduling=False,  # as on a CPU
            worker_extension_cls=EXTENSION,
        )
        if dtype == "bf16":
            settings["hf_overrides"] = {"head_dtype": "float32"}  # bfloat16 logits between 16 and 32 are steps of 0.125
        if device == "cpu":
            settings |= dict(enforce_eager=True, block_size=32)
        if think is not None:
            settings["reasoning_config"] = _reasoning_config(think)
        self._workers = int(options.get("tensor_parallel_size", 1))
        if self._workers > 1:
            settings["distributed_executor_backend"] = "mp"  # its own choice in an actor would be actors of its own
            Thread(target=_end_with_workers, name="workers", daemon=True).start()
        self._think, self._longest, self._seats = think, max_model_len, options.get("max_num_seqs", 256)
        self._pace = Pace(device != "cpu")
        try:
            self._llm = LLM(**(settings | dict(options)))
        except Exception:
            time.sleep(_NOTICED_S * (self._workers > 1))  # if it is that a worker was killed, this process ends now
            raise
        gc.unfreeze()
        self._engine = self._llm.llm_engine
        self._stop_ids = list(stop_ids)
        self._names = checkpoint_names(checkpoint)
        self._version = 0
        self._wakefulness = Wakefulness()
        self._open: dict[str, tuple[Request, Request]] = {}  # by id of what vLLM samples: that, and the request that it is of
        self._done: dict[str, list[Completion]] = {}
        self._chains: dict[str, tuple[Request, Chains]] = {}  # by id of the request
        self._chain: dict[str, tuple[str, int]] = {}  # by id of what vLLM samples for a chain: its request, and its place

    def advance(self, requests: Sequence[Request], seconds: float) -> list[tuple[str, list[Completion]]]:
        """Take `requests` in, sample for about `seconds` or until nothing is left, return the groups finished by then by request id."""
        self._wakefulness.needed("sample")
        self._pace.begin(sum(request.group_size for request in requests))
        for request in requests:
            if request.short is not None:
                self._start_chains(request)
                continue
            for half in halves(request, self._think):
                self._open[half.id] = half, request
                self._engine.add_request(half.id, {"prompt_token_ids": list(half.prompt_ids)}, self._params(half))
        finished: list[tuple[str, list[Completion]]] = []
        deadline = time.monotonic() + seconds
        while sequences := self._engine.get_num_unfinished_requests():
            outputs = self._engine.step()
            finished += self._grown([output for output in outputs if output.request_id in self._chain])
            for output in outputs:
                if output.finished and output.request_id in self._open:
                    finished += self._group(output)
            self._pace.stepped(min(sequences, self._seats))
            if time.monotonic() >= deadline:
                break
        return finished

    def pace(self) -> Sums:
        """How fast it sampled since this was asked last."""
        return self._pace.take()

    def load(self, parcel: Parcel, version: int) -> dict[str, int]:
        """Replace the weights on every worker, drop every cache made under the old ones, and return the digests of what arrived.

        Raises:
            Undelivered: it did not arrive whole; until something does, nothing can be sampled.
            RuntimeError: groups are being sampled, names are missing or extra, the version goes backwards, or workers got different bytes.
        """
        check_load(self._names, parcel.names, version, self._version, len(self._open) + len(self._chains))
        self._wakefulness.loading(version)
        held: dict[str, torch.Tensor] = {}
        if isinstance(parcel, Stored) and self._workers > 1:  # which do not speak to Ray
            held = {name: packed.tensor() for name, packed in parcel.items()}
            parcel = share(held, {})
        (first, why), *others = self._engine.collective_rpc("take_weights", args=(parcel,))
        if why := next((said for _, said in others if said), why):
            raise Undelivered(why)
        for worker, (found, _) in enumerate(others, 1):
            if wrong := [name for name in first if found.get(name) != first[name]]:
                raise RuntimeError(
                    f"worker {worker} of the engine got other bytes of {wrong[0]} than worker 0 ({len(wrong)} tensors differ)"
                )
        if not self._engine.reset_prefix_cache():
            raise RuntimeError(f"vLLM kept its prefix cache after weights version {version} were loaded")
        self._wakefulness.loaded()
        self._version = version
        return first

    def sleep(self) -> None:
        """Give the memory of weights and caches away, and keep nothing of them (vLLM's level 2); a CPU build keeps them, but knows that it sleeps.

        Raises:
            RuntimeError: groups are being sampled.
        """
        if sampling := len(self._open) + len(self._chains):
            raise RuntimeError(f"an engine was sent to sleep while {sampling} groups are being sampled")
        self._llm.sleep(level=2)
        self._wakefulness.sleep()

    def wake(self, part: Part) -> None:
        """Take the memory of a part again, which `load` then fills; nothing where it was not given away."""
        self._llm.wake_up([part])
        self._wakefulness.wake(part)

    def score(self, sequences: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """Logprobs (nats, temperature 1) that the current weights give to tokens 1.. of each sequence, float32 [len - 1]."""
        self._wakefulness.needed("score")
        from vllm import SamplingParams

        params = SamplingParams(max_tokens=1, prompt_logprobs=0, detokenize=False, flat_logprobs=True)
        outputs = self._llm.generate([{"prompt_token_ids": list(ids)} for ids in sequences], params, use_tqdm=False)
        return [
            np.asarray(output.prompt_logprobs.logprobs[-(len(ids) - 1) :], np.float32)
            for output, ids in zip(outputs, sequences, strict=True)
        ]

    def moments(self, sequences: Sequence[Sequence[int]], temperature: float) -> list[np.ndarray]:
        """Of tokens 1.. of each sequence: logprob, and entropy and variance of its distribution, float64 [3, len - 1], nats.

        vLLM hands out whole distributions of prompts only, number by number, at some 70 bytes each: for small batches, a sequence at a time.
        """
        from vllm import SamplingParams

        params = SamplingParams(max_tokens=1, prompt_logprobs=-1, detokenize=False, flat_logprobs=True)
        found = []
        for ids in sequences:
            [output] = self._llm.generate([{"prompt_token_ids": list(ids)}], params, use_tqdm=False)
            flat = output.prompt_logprobs
            own_TK, logp_TK = (
                np.asarray(values[flat.start_indices[1] :]).reshape(len(ids) - 1, -1) for values in (flat.token_ids, flat.logprobs)
            )  # the token itself, then all from the likeliest on
            logp_TV = np.full((len(ids) - 1, int(own_TK.max()) + 1), -np.inf)
            np.put_along_axis(logp_TV, own_TK, logp_TK / temperature, axis=1)
            logp_TV -= np.logaddexp.reduce(logp_TV, axis=1, keepdims=True)
            found.append(moments(logp_TV, np.asarray(ids[1:])))
        return found

    def rehearse(self, requests: Sequence[Request]) -> list[tuple[list[int], np.ndarray, np.ndarray]]:
        """See rollout/honesty."""
        return rehearse(self, requests)

    def process_id(self) -> int:
        """The operating system's id of the process, for people and fault tests."""
        return os.getpid()

    def _params(self, request: Request) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        budget = allowance(request, self._think)
        if budget is None and self._think is not None:
            budget = (
                self._longest
            )  # where requests with and without a budget meet, vLLM's CPU runner closes thinking in rows that have none
        return SamplingParams(
            n=1 if request.short else request.group_size,
            temperature=request.temperature,
            top_p=request.top_p,
            top_k=request.top_k,
            max_tokens=request.max_tokens,
            stop_token_ids=self._stop_ids,
            logprobs=0 if request.logprobs else None,  # the sampled token's own; 1 would cost a third of the speed
            flat_logprobs=True,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA if request.short else RequestOutputKind.FINAL_ONLY,
            thinking_token_budget=budget,
        )

    def _start_chains(self, request: Request) -> None:
        """Each chain is a request of its own: an abort of one child of n > 1 ends all."""
        self._chains[request.id] = request, Chains(request)
        for chain in range(request.group_size):
            self._chain[id_ := f"{request.id} chain {chain}"] = request.id, chain
            self._engine.add_request(id_, {"prompt_token_ids": list(request.prompt_ids)}, self._params(request))

    def _grown(self, outputs: Sequence[Any]) -> list[tuple[str, list[Completion]]]:
        """Take what chains were sampled to in a step, stop those that have lost, and give the groups that are whole."""
        touched = {}
        for output in outputs:
            request_id, chain = self._chain[output.request_id]
            [sample], (request, chains) = output.outputs, self._chains[request_id]
            logprobs = sample.logprobs.logprobs if request.logprobs and sample.logprobs else []
            chains.take(chain, list(sample.token_ids), logprobs, _finish(sample) if output.finished else None)
            touched[request_id] = chains
        for request_id, chains in touched.items():
            self._engine.abort_request([f"{request_id} chain {chain}" for chain in chains.stop()])
        done = [(request_id, chains) for request_id, chains in touched.items() if chains.done]
        for request_id, chains in done:
            del self._chains[request_id]
            for chain in range(len(chains.finish)):
                del self._chain[f"{request_id} chain {chain}"]
        return [(request_id, chains.completions(self._version)) for request_id, chains in done]

    def _group(self, output: Any) -> list[tuple[str, list[Completion]]]:
        """The group that an output completes, if it does."""
        half, request = self._open.pop(output.request_id)
        self._done[half.id] = self._completions(half, output)
        ids = [half.id for half in halves(request, self._think)]
        if any(id_ not in self._done for id_ in ids):
            return []
        return [(request.id, joined(request, [self._done.pop(id_) for id_ in ids], self._think))]

    def _completions(self, request: Request, output: Any) -> list[Completion]:
        completions = []
        for sample in sorted(output.outputs, key=lambda sample: sample.index):
            ids = np.asarray(sample.token_ids, np.int32)
            completions.append(
                Completion(
                    ids=ids,
                    logprobs=np.asarray(sample.logprobs.logprobs if request.logprobs else [], np.float32),
                    finish=_finish(sample),
                    versions=np.full(len(ids), self._version, np.int32),
                    sources=sources(request, ids, self._think),
                )
            )
        return completions


def _finish(sample: Any) -> Finish:
    return sample.finish_reason if sample.finish_reason in ("stop", "length") else "abort"


def _reasoning_config(think: ThinkIds) -> Any:
    """vLLM's, with the ids themselves: it would make them of strings, with a tokenizer of its own."""
    from vllm.config import ReasoningConfig

    config = ReasoningConfig()
    config._reasoning_start_token_ids = list(think.open)
    config._reasoning_end_token_ids = config._natural_reasoning_end_token_ids = [think.close]
    return config
