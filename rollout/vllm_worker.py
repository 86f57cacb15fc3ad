"""What every worker of a vLLM engine can do beside vLLM's own: fetch weights and load its part of them (vLLM's `worker_extension_cls`).

vLLM's calls for weights live here and in rollout/vllm_engine alone, since their names move between releases.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rollout import broadcast
from rollout.parcels import Parcel, digesting
from rollout.weights import Undelivered, as_numbers

EXTENSION = "rollout.vllm_worker.TakesWeights"


class TakesWeights:
    """Mixed into vLLM's worker class, of which it knows `rank`, `device`, `get_model` and `reload_weights`."""

    rank: int
    device: torch.device
    model_config: Any

    def take_weights(self, parcel: Parcel) -> tuple[dict[str, int], str]:
        """Load all tensors of a parcel; the digests of what arrived, and why not all did ("" if they did)."""
        found: dict[str, Tensor] = {}
        worker: Any = self
        model = worker.get_model()
        try:
            worker.reload_weights(weights_iterator=digesting(parcel.tensors(self.rank, self.device), found))
        except Undelivered as error:
            from vllm.model_executor.model_loader.reload import finalize_layerwise_reload

            broadcast.leave()
            finalize_layerwise_reload(model, self.model_config)  # layers half loaded would count the next push to theirs
            return {}, str(error)
        repack_tied_head(model)
        return as_numbers(found), ""


def repack_tied_head(model: torch.nn.Module) -> None:
    """Renew the CPU kernel's own copy of a tied output head, which `reload_weights` leaves at the old weights, silently."""
    head = getattr(model, "lm_head", None)
    if head is None or not getattr(model.config, "tie_word_embeddings", False) or not hasattr(head, "cpu_linear"):
        return
    from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm

    dispatch_cpu_unquantized_gemm(head, remove_weight=False)
