"""The reference engine: plain transformers sampling, deterministic to the bit, one group at a time.

Claim: a group depends on its request (prompt, seed, limit) and the weights alone, never on what else is being
sampled, when, or after which restart; so a resumed run can be held against an uninterrupted one, and vLLM against it.
Simplification: no continuous batching; meant for tests and for small checks, not for speed.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import DynamicCache

from rollout import broadcast
from rollout.honesty import moments, rehearse
from rollout.pace import Sums
from rollout.parcels import Parcel, digesting
from rollout.peers import beat
from rollout.short import Chains
from rollout.sleep import Part, Wakefulness
from rollout.thinking import ThinkIds, closes, halves, joined, sources
from rollout.types import Completion, Request
from rollout.weights import DTYPES, Undelivered, as_numbers, check_load, checkpoint_names, load_model


class ReferenceEngine:
    """An `Engine` (rollout/engine.py) over transformers. Arguments as for VllmEngine."""

    def __init__(self, checkpoint: Path, dtype: str, device: str, stop_ids: Sequence[int], think: ThinkIds | None = None):
        beat()
        self._model = load_model(checkpoint, dtype=DTYPES[dtype]).to(device).eval()
        self._device = device
        self._stop_ids = torch.tensor(list(stop_ids), device=device)
        self._think = think
        self._names = checkpoint_names(checkpoint)
        self._version = 0
        self._wakefulness = Wakefulness()
        self._waiting: list[Request] = []

    def advance(self, requests: Sequence[Request], seconds: float) -> list[tuple[str, list[Completion]]]:
        """Sample the oldest waiting group to its end. `seconds` is not needed: a group is the unit."""
        self._wakefulness.needed("sample")
        self._waiting.extend(requests)
        if not self._waiting:
            return []
        request = self._waiting.pop(0)
        return [(request.id, joined(request, [self._sample(half) for half in halves(request, self._think)], self._think))]

    @torch.no_grad()
    def load(self, parcel: Parcel, version: int) -> dict[str, int]:
        """Replace the weights; see VllmEngine.load. Raises as it does."""
        check_load(self._names, parcel.names, version, self._version, len(self._waiting))
        self._wakefulness.loading(version)
        own, found = self._model.state_dict(), dict[str, torch.Tensor]()
        try:
            for name, tensor in digesting(parcel.tensors(0, self._model.device), found):
                own[name].copy_(tensor)
        except Undelivered:
            broadcast.leave()
            raise
        self._model.tie_weights()  # a tied head follows its embedding
        self._wakefulness.loaded()
        self._version = version
        return as_numbers(found)

    def pace(self) -> Sums:
        """See VllmEngine.pace; nobody asks how fast this one is."""
        return Counter()

    def sleep(self) -> None:
        """See VllmEngine.sleep; this one keeps its memory."""
        if self._waiting:
            raise RuntimeError(f"an engine was sent to sleep while {len(self._waiting)} groups are being sampled")
        self._wakefulness.sleep()

    def wake(self, part: Part) -> None:
        """See VllmEngine.wake."""
        self._wakefulness.wake(part)

    @torch.inference_mode()
    def score(self, sequences: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """Logprobs (nats, temperature 1) of tokens 1.. of each sequence, float32 [len - 1]."""
        self._wakefulness.needed("score")
        scores = []
        for ids in sequences:
            ids_T = torch.tensor(list(ids), device=self._device)
            logprobs_TV = self._model(ids_T[None]).logits[0, :-1].float().log_softmax(-1)
            scores.append(logprobs_TV.gather(1, ids_T[1:, None])[:, 0].cpu().numpy())
        return scores

    @torch.inference_mode()
    def moments(self, sequences: Sequence[Sequence[int]], temperature: float) -> list[np.ndarray]:
        """Of tokens 1.. of each sequence: logprob, and entropy and variance of its distribution, float64 [3, len - 1], nats."""
        found = []
        for ids in sequences:
            logits_TV = self._model(torch.tensor([list(ids)], device=self._device)).logits[0, :-1].float() / temperature
            found.append(moments(logits_TV.log_softmax(-1).cpu().double().numpy(), np.asarray(ids[1:])))
        return found

    def rehearse(self, requests: Sequence[Request]) -> list[tuple[list[int], np.ndarray, np.ndarray]]:
        """See rollout/honesty."""
        return rehearse(self, requests)

    def process_id(self) -> int:
        """The operating system's id of the process, for people and fault tests."""
        return os.getpid()

    @torch.inference_mode()
    def _sample(self, request: Request) -> list[Completion]:
        generator = torch.Generator().manual_seed(request.seed)
        G = request.group_size
        input_GT = torch.tensor([request.prompt_ids] * G, device=self._device)
        cache = DynamicCache(config=self._model.config)
        done_G = torch.zeros(G, dtype=torch.bool)
        ids_G: list[list[int]] = [[] for _ in range(G)]
        logprobs_G: list[list[float]] = [[] for _ in range(G)]
        chains = Chains(request) if request.short else None
        for step in range(request.max_tokens):
            logits_GV = self._model(input_GT, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[:, -1].float().cpu()
            token_G, logprob_G = _draw(logits_GV, request, generator)
            for row in range(G):
                if not done_G[row]:
                    if self._think is not None and closes(request, ids_G[row], self._think):
                        token_G[row], logprob_G[row] = self._think.close, 0.0
                    ids_G[row].append(int(token_G[row]))
                    logprobs_G[row].append(float(logprob_G[row]))
            ended_G = ~done_G & torch.isin(token_G, self._stop_ids.cpu())
            if chains is not None:
                cut = step == request.max_tokens - 1
                for row in torch.nonzero(~done_G)[:, 0].tolist():
                    chains.take(row, ids_G[row][-1:], finish="stop" if ended_G[row] else "length" if cut else None)
                done_G[chains.stop()] = True
            done_G |= ended_G
            if bool(done_G.all()):
                break
            input_GT = token_G[:, None].to(self._device)
        return [
            Completion(
                ids=np.asarray(ids_G[row], np.int32),
                logprobs=np.asarray(logprobs_G[row] if request.logprobs else [], np.float32),
                finish=(chains and chains.finish[row]) or ("stop" if bool(done_G[row]) else "length"),
                versions=np.full(len(ids_G[row]), self._version, np.int32),
                sources=sources(request, np.asarray(ids_G[row], np.int32), self._think),
            )
            for row in range(G)
        ]


def _draw(logits_GV: torch.Tensor, request: Request, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """One token a row and its logprob under the distribution it came from (greedy at temperature 0; else top_k, then top_p, as vLLM has it)."""
    if request.temperature == 0:
        logprobs_GV = logits_GV.log_softmax(-1)
        token_G = logits_GV.argmax(-1)
        return token_G, logprobs_GV.gather(1, token_G[:, None])[:, 0]
    logprobs_GV = (logits_GV / request.temperature).log_softmax(-1)
    if 0 < request.top_k < logprobs_GV.shape[-1]:
        least_G1 = logprobs_GV.topk(request.top_k).values[:, -1:]
        logprobs_GV = logprobs_GV.masked_fill(logprobs_GV < least_G1, -torch.inf).log_softmax(-1)
    if request.top_p < 1:
        sorted_GV, order_GV = logprobs_GV.sort(-1, descending=True)
        before_GV = sorted_GV.exp().cumsum(-1) - sorted_GV.exp()
        outside_GV = torch.zeros_like(before_GV, dtype=torch.bool).scatter(1, order_GV, before_GV >= request.top_p)
        logprobs_GV = logprobs_GV.masked_fill(outside_GV, -torch.inf).log_softmax(-1)
    token_G = torch.multinomial(logprobs_GV.exp(), 1, generator=generator)[:, 0]
    return token_G, logprobs_GV.gather(1, token_G[:, None])[:, 0]
