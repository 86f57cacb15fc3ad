"""The policy as the learner sees it: token ids in, log-probabilities of the response tokens out.

Claim: a row scores the same alone or in company. Rows are padded on the right and masks come from lengths, so under
causal attention no real token ever sees padding and no pad id has a meaning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoConfig

from recipes.adapters import Adapter, FullWeights
from rl.adapters import adapted
from rl.logprobs import ScoringHead
from rl.objective import Tokens
from rollout.weights import load_model


@dataclass(frozen=True)
class Row:
    """One rollout as the learner trains on it.

    Attributes:
        id: the rollout's.
        prompt_ids, ids: token ids, int32.
        engine_logp: behaviour logprobs of `ids`, nats.
        advantage_T: of each token of `ids`; one number is every token's.
        weight_T: of each token in the loss (rl/objective.aggregation_weights), likewise.
        mask_T: tokens that train, bool, likewise; the others are context.
        own_T: tokens whose `engine_logp` is the model's own, bool, likewise; the others began a rollout by a rule (rollout/thinking), or are context.
        old_logp, ref_logp: logprobs of `ids` under the policy before the step's first update, and under the reference, nats; None: not
            measured (Learner.measure), and for `old_logp` that the ratio divides by `engine_logp`.
        entropy, influence: of the policy before that update at each token, nats and as Learner.measure says; None where nobody asks for it.
        group: whose rows these are: all of a group are measured together where influence is.
        toward: weight of its tokens that train in the log-likelihood that influence is measured on.
        stay_T: weight of |logp - old_logp| in a token's loss (KL-Cov), which the step's first update does not read.
    """

    id: str
    prompt_ids: np.ndarray
    ids: np.ndarray
    engine_logp: np.ndarray
    advantage_T: np.ndarray = field(default_factory=lambda: np.zeros(()))
    weight_T: np.ndarray = field(default_factory=lambda: np.zeros(()))
    mask_T: np.ndarray = field(default_factory=lambda: np.ones(()))
    own_T: np.ndarray = field(default_factory=lambda: np.ones(()))
    old_logp: np.ndarray | None = None
    ref_logp: np.ndarray | None = None
    entropy: np.ndarray | None = None
    influence: np.ndarray | None = None
    group: str = ""
    toward: float = 0.0
    stay_T: np.ndarray = field(default_factory=lambda: np.zeros(()))

    def __post_init__(self) -> None:
        numbers = dict.fromkeys(("advantage_T", "weight_T", "stay_T"), np.float64)
        for name, kind in (numbers | dict.fromkeys(("mask_T", "own_T"), bool)).items():
            object.__setattr__(self, name, np.broadcast_to(np.asarray(getattr(self, name), kind), self.ids.shape))

    @property
    def tokens(self) -> int:
        return len(self.prompt_ids) + len(self.ids)


@dataclass
class MicroBatch:
    """Rows side by side, as tensors.

    Attributes:
        ids: [B, T], padded on the right.
        predicts: [B, T-1], bool: position t predicts a response token.
        targets, engine_logp, advantage, weight, mask, row: per response token, row after row, [N]; `row` is its row's number, from 0.
        old_logp, ref_logp, stay: likewise; None where the rows have none.
    """

    ids: Tensor
    predicts: Tensor
    targets: Tensor
    engine_logp: Tensor
    advantage: Tensor
    weight: Tensor
    mask: Tensor
    row: Tensor
    old_logp: Tensor | None = None
    ref_logp: Tensor | None = None
    stay: Tensor | None = None

    @property
    def inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        """What `Policy` takes."""
        return self.ids, self.predicts, self.targets

    def tokens(self, logp: Tensor, entropy: Tensor) -> Tokens:
        """What the loss reads, with what the policy now says; without `old_logp`, the ratio divides by the engine's logprobs."""
        old_logp = self.engine_logp if self.old_logp is None else self.old_logp
        return Tokens(self.mask, self.weight, self.advantage, self.row, logp, entropy, old_logp, self.engine_logp, self.ref_logp, self.stay)


def padded(rows: Sequence[Row], device: str) -> MicroBatch:
    """A micro-batch of rows. Without rows: one empty row, so that a rank with nothing to do still takes part."""
    longest = max((row.tokens for row in rows), default=2)
    ids_BT = np.zeros((max(len(rows), 1), longest), np.int64)
    predicts_BT = np.zeros((max(len(rows), 1), longest - 1), bool)
    for index, row in enumerate(rows):
        ids_BT[index, : row.tokens] = np.concatenate([row.prompt_ids, row.ids])
        predicts_BT[index, len(row.prompt_ids) - 1 : row.tokens - 1] = True
    parts: dict[str, tuple[list[Any], type]] = {
        "targets": ([row.ids for row in rows], np.int64),
        "engine_logp": ([row.engine_logp for row in rows], np.float32),
        "advantage": ([row.advantage_T for row in rows], np.float32),
        "weight": ([row.weight_T for row in rows], np.float32),
        "mask": ([row.mask_T for row in rows], bool),
        "row": ([np.full(len(row.ids), index) for index, row in enumerate(rows)], np.int64),
    }
    for name in ("old_logp", "ref_logp"):
        measured = [getattr(row, name) for row in rows]
        if rows and all(value is not None for value in measured):
            parts[name] = measured, np.float32
    if any(row.stay_T.any() for row in rows):
        parts["stay"] = [row.stay_T for row in rows], np.float32
    per_token = {name: np.concatenate([np.zeros(0, kind), *arrays]).astype(kind) for name, (arrays, kind) in parts.items()}
    tensors = {name: torch.from_numpy(array).to(device) for name, array in {"ids": ids_BT, "predicts": predicts_BT, **per_token}.items()}
    return MicroBatch(**tensors)


def by_row(rows: Sequence[Row], value_N: torch.Tensor) -> dict[str, np.ndarray]:
    """A micro-batch's numbers, [..., N], as those of each row, [..., T]."""
    ends = np.cumsum([len(row.ids) for row in rows])[:-1]
    return dict(zip((row.id for row in rows), np.split(value_N.float().cpu().numpy(), ends, axis=-1), strict=True)) if rows else {}


class Policy(nn.Module):
    """A causal language model that returns logprob and entropy of response tokens, [N] float32, nats.

    Args:
        model: of transformers; its output head is a ScoringHead from then on, so it no longer makes logits.
        temperature: of the logprobs.
        chunk: most tokens whose logits exist at one time.
    """

    def __init__(self, model: Any, temperature: float, chunk: int):
        super().__init__()
        head = model.get_output_embeddings()
        model.set_output_embeddings(ScoringHead(head.weight, head.bias))
        self.model = model
        self.temperature, self.chunk = temperature, chunk

    def forward(
        self, ids_BT: Tensor, predicts_BT: Tensor, targets_N: Tensor | None, entropy_gradient: bool = False, spread: bool = False
    ) -> tuple[Tensor, ...]:
        hidden_BTH = self.model.base_model(input_ids=ids_BT, use_cache=False).last_hidden_state
        hidden_NH = hidden_BTH[:, :-1][predicts_BT]
        if targets_N is None:  # the hidden states themselves, [N, width]
            return (hidden_NH,)
        return self.model.get_output_embeddings()(hidden_NH, targets_N, self.temperature, self.chunk, entropy_gradient, spread)


def load_policy(
    checkpoint: Path,
    dtype: torch.dtype,
    temperature: float,
    chunk: int,
    gradient_checkpointing: bool = False,
    adapter: Adapter | None = None,
    seed: int = 0,
) -> Policy:
    """Read a checkpoint and make sure that body and head alone explain its logits.

    Args:
        adapter: what is put beside its weights to train; None: nothing.
        seed: of that.

    Raises:
        ValueError: the model does something to its logits that `Policy` would miss (scaling, soft-capping), lacks weights, or has no layer for the adapter.
    """
    config = AutoConfig.from_pretrained(checkpoint, trust_remote_code=False)
    for name in [name for name, value in vars(config).items() if "drop" in name and isinstance(value, float)]:
        setattr(config, name, 0.0)  # gradient checkpointing needs training mode, which must not mean dropout
    model = load_model(checkpoint, config=config, dtype=dtype, attn_implementation="sdpa")
    model.eval()  # no dropout: a ratio of 1 must be 1
    ids = torch.arange(4)[None] % model.config.vocab_size
    with torch.no_grad():
        head = model.get_output_embeddings()
        whole = model(ids).logits
        parts = nn.functional.linear(model.base_model(ids, use_cache=False).last_hidden_state, head.weight, head.bias)
    if not torch.allclose(whole, parts, atol=1e-3, rtol=1e-2):
        raise ValueError(
            f"{checkpoint}: {type(model).__name__} changes its logits behind the output head; this architecture is not supported"
        )
    if gradient_checkpointing:
        model.train()  # transformers recomputes in training mode only
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return Policy(adapted(model, adapter or FullWeights(), seed, checkpoint), temperature, chunk)
