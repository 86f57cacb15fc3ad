"""The learner: DeepSpeed ranks as Ray actors that turn weighted rows into a better policy.

Claim: the update depends on the rows and their weights alone, not on micro-batches, ranks or ZeRO stage: every rank adds
up its share of one weighted sum, and gradients are reduced once per update. The learner is blind to algorithms.
Simplification: parameters are loaded whole on every rank before ZeRO-3 shards them.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import nullcontext
from itertools import count
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from recipes.cluster import turns
from recipes.objectives import Objective
from recipes.schema import Recipe
from rl import objective, sharding
from rl.adapters import save_model, without_adapters
from rl.algorithm import FIELDS, asked
from rl.batching import dealt
from rl.deepspeed_config import RESTING_STATES, deepspeed_config, moves_states, saved_classes
from rl.logprobs import ScoringHead
from rl.meeting import Member, Place
from rl.outbox import NEEDS_WHOLE, Outbox
from rl.policy import MicroBatch, Row, by_row, load_policy, padded
from rl.sums import correction_metrics, merge_sums
from rollout.peers import WHY_DEAD, Call, Failed, Gone, Peer, died, first, taken
from rollout.variables import gpu_environment
from rollout.weights import DTYPES, checkpoint_names

log = logging.getLogger(__name__)

_START_S = 600.0  # to come up, and to load the policy then
_DEADLINE_S = 3600.0  # to load, save or hand out weights
_PASS_S = 900.0  # for one micro-batch of ranks that run; how many there are in an update is nobody's fault
_MEANS = {"clip_fraction": "clipped", "ratio/mean": "ratio", "kl": "kl", "entropy": "entropy"}  # metric: sum


class LearnerError(RuntimeError):
    """A learner rank failed; the message names it and what it said."""


class LearnerLost(LearnerError):
    """A rank died, is frozen or hangs, and the policy with it; one that begins anew from a checkpoint need not."""


class LearnerRank(Member):
    """One DeepSpeed process. All ranks are called together, with the same method.

    What passes micro-batches through the model is a generator that stops after each: `begin` makes it, `go_on` takes it one further.
    """

    def start(self, at: Place, checkpoint: Path, recipe: Recipe, device: str) -> None:
        """Meet the other ranks and load the policy, on each node from `checkpoint`. Raises MeetingError: a rank does not come."""
        settings = recipe.learner
        os.environ.update(RANK=str(self._rank), WORLD_SIZE=str(settings.ranks), LOCAL_RANK="0")
        torch.set_num_threads(settings.threads)
        backend = "nccl" if device == "cuda" else "gloo"
        self.meet(at, settings.ranks, backend)
        import deepspeed

        if (
            device == "cpu"
        ):  # gloo serves; its shared-memory all-reduce is compiled at first use and waits forever on the lock of a killed build
            deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        deepspeed.init_distributed(backend, auto_mpi_discovery=False, verbose=False)
        dtype = DTYPES[recipe.model.dtype]
        common = checkpoint, dtype, recipe.sampler.temperature, settings.logit_chunk_tokens
        policy = load_policy(*common, settings.gradient_checkpointing, settings.adapter, recipe.seed)
        trained = [weight for weight in policy.parameters() if weight.requires_grad]
        self._engine, *_ = deepspeed.initialize(model=policy, model_parameters=trained, config=deepspeed_config(recipe))
        self._norm = float("nan")
        if settings.zero_stage == 0:
            self._engine.clip_fp32_gradients = self._clip  # DeepSpeed's own forgets the norm
        self._reference: Any = None
        self._adapts = settings.adapter.kind != "full"
        if recipe.reads_reference and not self._adapts:  # a policy with adapters is its own reference without them
            self._reference = load_policy(*common).to(device).requires_grad_(False)
        self._device, self._ranks = device, settings.ranks
        self._zero_stage = settings.zero_stage
        self._offloads, self._moves = turns(recipe.cluster).offload, moves_states(recipe)
        self._outbox = Outbox(
            self._engine.module.model, checkpoint_names(checkpoint), self._rank, settings.ranks, device, stays=self._zero_stage < 3
        )
        self._checkpoint = checkpoint
        self._passes: Generator[None, None, Any] | None = None

    def begin(self, method: str, *arguments: Any) -> None:
        """Start `update` or `measure`."""
        self._passes = getattr(self, method)(*arguments)

    def go_on(self) -> tuple[Any] | None:
        """Pass one micro-batch more; None while there are others, in the end what the method returns."""
        assert self._passes is not None
        try:
            return next(self._passes)
        except StopIteration as end:
            return (end.value,)

    def update(
        self, updates: Sequence[Sequence[Sequence[Row]]], settings: Objective, lr: float, entropy_coef: float, temperature: float
    ) -> Generator[None, None, tuple[dict[str, float], list[str], dict[str, int]]]:
        """One optimiser update for each entry of `updates` (its micro-batches), left out on all ranks if a number in it is not finite.

        Returns:
            Sums over this rank's tokens (see objective.Loss) of the updates that were made, plus `grad_norm_max` and `updates`; what was
            wrong with those that were not, "" where another rank knows; and tokens that a mismatch correction kept, by row id.
        """
        for group in self._engine.optimizer.param_groups:
            group["lr"] = lr
        self._engine.module.temperature = temperature
        prepared = [[padded(rows, self._device) for rows in batches] for batches in updates]
        sums: dict[str, float] = {}
        faults: list[str] = []
        kept: dict[str, int] = {}
        still_old = True  # the policy is the one that the engines sample from: no update of this step was made yet
        for given, batches in zip(updates, prepared, strict=True):
            made: dict[str, float] = {"updates": 1.0}
            kept_here: dict[str, int] = {}
            fault, pull = "", 0.0
            if settings.hinge.weight and not still_old:
                distance, tokens_moved = yield from self._moved(batches)
                pull = objective.pull(distance, tokens_moved, settings.hinge)
            for rows, tensors in zip(given, batches, strict=True):
                if still_old:
                    tensors.stay = None  # nothing has moved that could be held
                tokens = tensors.tokens(*self._engine(*tensors.inputs, entropy_coef > 0))
                loss, stats, kept_R = objective.loss(tokens, settings, entropy_coef, pull)
                numbers = {name: float(value) for name, value in stats.items()}
                if still_old or settings.old_logprobs == "learner":
                    numbers["compared"] = numbers["tokens"]
                else:  # what earlier updates of the step moved is no gap of the engine's
                    del numbers["mismatch"], numbers["mismatch_max"]
                merge_sums(made, numbers)
                if not all(map(isfinite, numbers.values())):
                    found = objective.culprit(tokens)
                    fault = fault or (f"rollout {rows[found[1]].id}: {found[0]}" if found else "the loss")
                    loss = loss * float("nan")  # a clipped infinity may have a finite gradient; so every rank learns of it
                if kept_R is not None:
                    kept_here |= zip((row.id for row in rows), kept_R.tolist(), strict=True)
                self._engine.backward(loss * self._ranks, scale_wrt_gas=False)  # DeepSpeed averages over ranks
                yield
            self._engine.step()
            norm = self._norm if self._zero_stage == 0 else float(self._engine.get_global_grad_norm())
            if isfinite(norm) and self._engine.was_step_applied():
                merge_sums(sums, made | {"grad_norm_max": norm})
                kept |= kept_here
                still_old = False
            else:
                faults.append(fault)
        return sums, faults, kept

    @torch.no_grad()
    def _moved(self, batches: Sequence[MicroBatch]) -> Generator[None, None, tuple[float, float]]:
        """Sum over an update's tokens, on all ranks, of old logp - logp, and their number."""
        sums = torch.zeros(2, dtype=torch.float64, device=self._device)
        for tensors in batches:
            tokens = tensors.tokens(*self._engine(*tensors.inputs))
            distance = torch.where(tokens.mask, tokens.old_logp - tokens.logp, 0.0)
            sums += torch.stack([distance.double().sum(), tokens.mask.double().sum()])
            yield
        if self._ranks > 1:
            torch.distributed.all_reduce(sums)
        return float(sums[0]), float(sums[1])

    @torch.no_grad()
    def measure(
        self, batches: Sequence[Sequence[Row]], what: Sequence[str], temperature: float
    ) -> Generator[None, None, dict[str, np.ndarray]]:
        """See Learner.measure."""
        policy = self._engine.module
        asked = [name for name in ("logp", "entropy", "variance") if name in what]
        found: dict[str, np.ndarray] = {}
        if "influence" in what:
            yield from self._by_group(batches, what, temperature, found)
            return found
        for rows in batches:
            tensors = padded(rows, self._device)
            parts: dict[str, torch.Tensor] = {}
            if asked:
                policy.temperature = temperature
                parts |= zip(("logp", "entropy", "variance"), self._engine(*tensors.inputs, False, "variance" in asked), strict=False)
            if "ref_logp" in what:
                parts["ref_logp"] = self._reference_logp(tensors, temperature)
            found |= by_row(rows, torch.stack([parts[name] for name in what]))
            yield
        return found

    def _reference_logp(self, tensors: MicroBatch, temperature: float) -> torch.Tensor:
        policy = self._engine.module if self._adapts else self._reference
        policy.temperature = temperature
        with without_adapters(policy) if self._adapts else nullcontext():
            return (self._engine if self._adapts else policy)(*tensors.inputs)[0]

    def _by_group(
        self, batches: Sequence[Sequence[Row]], what: Sequence[str], temperature: float, found: dict[str, np.ndarray]
    ) -> Generator[None, None, None]:
        """`measure` where influence is asked for: bodies by micro-batch, the head by group, whose hidden states are kept until all are there."""
        head = self._engine.module.model.get_output_embeddings()
        missing = Counter(row.group for rows in batches for row in rows)
        held: dict[str, list[tuple[Row, dict[str, torch.Tensor]]]] = {group: [] for group in missing}
        for rows in batches:
            tensors = padded(rows, self._device)
            parts = {"hidden": self._engine(tensors.ids, tensors.predicts, None)[0]}
            if "ref_logp" in what:
                parts["ref_logp"] = self._reference_logp(tensors, temperature)
            sizes = [len(row.ids) for row in rows] or [len(tensors.targets)]
            split = {name: value_N.split(sizes) for name, value_N in parts.items()}
            for index, row in enumerate(rows):
                held[row.group].append((row, {name: pieces[index] for name, pieces in split.items()}))
            missing.subtract(row.group for row in rows)
            with self._gathered(head):
                for group in [group for group, count in missing.items() if count == 0]:
                    del missing[group]
                    found |= self._influences(head, held.pop(group), what, temperature)
            yield

    def _influences(
        self, head: ScoringHead, members: Sequence[tuple[Row, dict[str, torch.Tensor]]], what: Sequence[str], temperature: float
    ) -> dict[str, np.ndarray]:
        rows = [row for row, _ in members]
        whole = {name: torch.cat([parts[name] for _, parts in members]) for name in members[0][1]}
        targets_N = torch.from_numpy(np.concatenate([row.ids for row in rows]).astype(np.int64)).to(self._device)
        toward_N = torch.from_numpy(np.concatenate([row.toward * row.mask_T for row in rows]).astype(np.float32)).to(self._device)
        names = ("logp", "entropy", "influence")
        whole |= zip(names, head.influence(whole["hidden"], targets_N, toward_N, temperature, self._engine.module.chunk), strict=True)
        return by_row(rows, torch.stack([whole[name] for name in what]))

    @torch.no_grad()
    def score(self, sequences: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """Logprobs (nats, temperature 1) of tokens 1.. of each sequence, float32 [len - 1]."""
        self._engine.module.temperature = 1.0
        scores = []
        for ids in sequences:
            ids_T = torch.tensor(list(ids), device=self._device)
            logp, _ = self._engine(ids_T[None], torch.ones(1, len(ids) - 1, dtype=torch.bool, device=self._device), ids_T[1:])
            scores.append(logp.cpu().numpy())
        return scores

    def weights(self, how: str = "store", *arguments: Any) -> Any:
        """A step of a push; see rl/outbox."""
        with self._gathered() if how in NEEDS_WHOLE else nullcontext():
            return getattr(self._outbox, how)(*arguments)

    def rest(self, resting: bool) -> None:
        """See Learner.rest."""
        if self._offloads and self._moves and resting:
            self._engine.offload_states(RESTING_STATES, pin_memory=False)
        elif self._offloads and self._moves:
            self._engine.reload_states()
        if self._offloads and self._reference is not None:
            self._reference.to("cpu" if resting else self._device)
        if self._device == "cuda":
            torch.cuda.empty_cache()

    def save(self, folder: Path) -> None:
        """Write the policy as a Hugging Face checkpoint into `folder` and DeepSpeed's state into `folder`/learner."""
        with self._gathered():
            if self._rank == 0:
                save_model(self._engine.module.model, folder)
        self._engine.save_checkpoint(str(folder / "learner"), tag="state", save_latest=False, exclude_frozen_parameters=self._adapts)

    def restore(self, folder: Path) -> None:
        """Read what `save` wrote; tensors and plain containers only, whatever the file holds."""
        os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
        with torch.serialization.safe_globals(saved_classes()):
            path, _ = self._engine.load_checkpoint(str(folder / "learner"), tag="state", load_module_strict=not self._adapts)
        if path is None:
            raise LearnerError(f"{folder}/learner: DeepSpeed found no state to resume from")

    def keep_state(self, file: Path) -> None:
        """Write what the optimiser holds, all ranks' together, into a file (rl/sharding)."""
        state = sharding.whole(self._engine)
        if self._rank == 0:
            save_file(state, file)

    def take_state(self, file: Path) -> None:
        """Hold what a file of `keep_state` says, whatever ranks it is of; weights that do not train are its own already."""
        with safe_open(file, "pt") as state:
            sharding.put(self._engine, state.get_tensor)

    def process_id(self) -> int:
        """The operating system's id of the process."""
        return os.getpid()

    def _clip(self) -> None:
        """What ZeRO-0 does before an optimiser step: bound the gradient, and keep its norm for the record. No finite norm, no step."""
        self._norm = float(torch.nn.utils.clip_grad_norm_(self._engine.module.parameters(), self._engine.gradient_clipping()))
        if not isfinite(self._norm):
            self._engine.module.zero_grad(set_to_none=True)

    def _gathered(self, part: torch.nn.Module | None = None) -> Any:
        import deepspeed

        whole = part or self._engine.module
        return deepspeed.zero.GatheredParameters(list(whole.parameters())) if self._zero_stage == 3 else nullcontext()


class Learner:
    """The ranks behind one door; the controller's view.

    Args:
        checkpoint: where the policy starts; also the KL reference.
        options: Ray's, of the actor of a rank: the room that it takes; None: none.

    Attributes:
        entropy: the control of its bonus; has state (rl/state).
    """

    def __init__(self, recipe: Recipe, checkpoint: Path, device: str, options: Callable[[int], dict[str, Any]] | None = None):
        self._recipe = recipe
        self.entropy = objective.EntropyControl(recipe.objective.entropy)
        self._resting = False
        threads = str(recipe.learner.threads)
        environment = {"OMP_NUM_THREADS": threads, "GOMP_SPINCOUNT": "2000", "TOKENIZERS_PARALLELISM": "false", "TQDM_DISABLE": "1"}
        environment["TORCHDYNAMO_DISABLE"] = "1"  # else DeepSpeed's import has an optimiser compiled that nobody uses: 2 s of a start
        environment |= {"DS_ACCELERATOR": "cpu"} if device == "cpu" else gpu_environment()
        self._ranks = [
            ray.remote(LearnerRank)
            .options(**(options(rank) if options else {"num_cpus": 0}), runtime_env={"env_vars": environment})
            .remote(rank)
            for rank in range(recipe.learner.ranks)
        ]
        self._peers = [Peer(f"learner rank {rank}", actor) for rank, actor in enumerate(self._ranks)]
        self._addresses = [rank.address.remote() for rank in self._ranks]
        at = self._ranks[0].listen.remote(*self._addresses)
        self._started = [rank.start.remote(at, checkpoint, recipe, device) for rank in self._ranks]

    def wait_ready(self) -> list[int]:
        """Block until every rank has loaded; their process ids. Raises LearnerError naming the one that does not come."""
        nodes = self._get(self._addresses, "its start", _START_S)
        if len(set(nodes)) > 1:
            for peer, node in zip(self._peers, nodes, strict=True):
                peer.name += f" on {node}"
        self._get(self._started, "loading", _START_S)
        return self._all("process_id", seconds=_START_S)

    def update(self, updates: Sequence[Sequence[Row]], step: int) -> dict[str, float | None]:
        """One optimiser update per entry of `updates`; the step's statistics by metric name (None without updates: nothing was learned).

        Raises:
            NonFinite: a loss or gradient is not finite, and learner.nonfinite is stop. That update was not made; others of the step may have been.
            ValueError: a row lacks logprobs that the objective reads (rl/algorithm.measured).
        """
        recipe = self._recipe.at(step)
        settings = recipe.learner
        if self._resting:
            raise LearnerError("an update was asked of a learner that rests")
        for row in (row for rows in updates for row in rows):
            if missing := [name for name in asked(recipe.objective) if getattr(row, FIELDS[name]) is None]:
                raise ValueError(f"rollout {row.id} comes to the update without {missing[0]}, which the objective reads")
        lr = settings.lr * min(1.0, (step + 1) / max(settings.warmup_steps, 1))
        if recipe.objective.entropy.kind == "fixed":
            self.entropy.coef = recipe.objective.entropy.coef  # which a schedule may have moved
        bonus = self.entropy.weight
        known: dict[str, float | None] = {"lr": lr, "entropy/weight": bonus}
        shares = [dealt(rows, settings.micro_batch_tokens, settings.ranks) for rows in updates]
        per_rank = [[share[rank] for share in shares] for rank in range(settings.ranks)]
        given = recipe.objective, lr, bonus, recipe.sampler.temperature
        answers = self._in_passes("update", per_rank, *given) if updates else []
        faults = [next(filter(None, said), "") for said in zip(*(faults for _, faults, _ in answers), strict=True)]
        for fault in faults:
            words = fault or "the gradient, though every loss is finite"
            if settings.nonfinite == "stop":
                raise objective.NonFinite(
                    f"NaN or infinity in {words}; the update was not made. learner.nonfinite=skip goes on without such updates"
                )
            log.warning("step %d: NaN or infinity in %s; the update was left out", step, words)
        sums: dict[str, float] = {}
        kept: dict[str, int] = {}
        for answer, _, kept_here in answers:
            merge_sums(sums, answer)
            kept |= kept_here
        known["updates/skipped"] = len(faults)
        if not sums:
            return known | {"tokens/trained": 0} | dict.fromkeys(("loss", "grad_norm", "mismatch/mean", "mismatch/max", *_MEANS))
        tokens = max(sums["tokens"], 1.0)
        means: dict[str, float | None] = {metric: sums[name] / tokens for metric, name in _MEANS.items()}
        if recipe.objective.kl.coef == 0:
            means["kl"] = None  # not measured
        self.entropy.after(sums["entropy"] / tokens)
        return known | {
            "loss": sums["loss"] / (sums["updates"] / settings.ranks),
            "tokens/trained": sums["tokens"],
            "mismatch/mean": sums["mismatch"] / max(sums["compared"], 1.0),
            "mismatch/max": sums["mismatch_max"],
            "grad_norm": sums["grad_norm_max"],
            **means,
            **correction_metrics(sums, updates, kept),
        }

    def measure(self, parts: Sequence[Sequence[Row]], what: Sequence[str], temperature: float | None = None) -> dict[str, np.ndarray]:
        """What one forward pass says of the rows' tokens, float32 [len(what), T] by row id, nats.

        Args:
            parts: rows by update; each part is cut into micro-batches as its update will be.
            what: of "logp", "entropy", "variance" (of the policy's distribution: of its logprob), "ref_logp" (the reference's logprob;
                needs objective.kl.coef above 0) and "influence" on the rows' group (ScoringHead.influence; by `toward`; not with "variance"), in the
                order of the answer. All but the reference's are of one forward pass.
            temperature: of the distributions; None: the one that training begins to sample at.
        """
        settings = self._recipe.learner
        temperature = self._recipe.sampler.temperature if temperature is None else temperature
        shares = [dealt(rows, settings.micro_batch_tokens, settings.ranks, whole="influence" in what) for rows in parts if rows]
        if not shares:
            return {}
        per_rank = [[batch for share in shares for batch in share[rank]] for rank in range(settings.ranks)]
        found: dict[str, np.ndarray] = {}
        for answer in self._in_passes("measure", per_rank, what, temperature):
            found |= answer
        return found

    def score(self, sequences: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """Logprobs of fixed sequences under the current policy; see LearnerRank.score."""
        return self._all("score", sequences)[0]

    def weights(self) -> tuple[Any, dict[str, int]]:
        """A Ray reference to the packed weights, and their digests."""
        refs = [rank.weights.options(num_returns=2).remote() for rank in self._ranks]
        self._get([reference for _, reference in refs], "weights", _DEADLINE_S)
        return refs[0][0], ray.get(refs[0][1])

    def hand_out(self, how: str, *arguments: Any) -> Callable[[float], list[Any]]:
        """Begin a step of a push (rl/outbox) on every rank; what is returned waits for so many seconds, and gives each rank's answer."""
        calls = [rank.weights.remote(how, *arguments) for rank in self._ranks]
        return lambda seconds: self._get(calls, f"weights ({how})", seconds)

    def rest(self, resting: bool) -> None:
        """Leave the GPU to engines as far as the recipe says, or come back. What rests keeps its weights: all but `update` and reference logprobs goes on."""
        self._all("rest", resting)
        self._resting = resting

    def save(self, folder: Path) -> None:
        """Write policy and optimiser state; see LearnerRank.save."""
        self._all("save", folder)

    def restore(self, folder: Path) -> None:
        """Read policy and optimiser state; see LearnerRank.restore."""
        self._all("restore", folder)

    def keep_state(self, file: Path) -> None:
        """Write the optimiser's state whole; see LearnerRank.keep_state."""
        self._all("keep_state", file)

    def take_state(self, file: Path) -> None:
        """Read the optimiser's state; see LearnerRank.take_state."""
        self._all("take_state", file)

    def stop(self) -> None:
        """Kill the ranks."""
        for rank in self._ranks:
            ray.kill(rank)

    def _in_passes(self, method: str, per_rank: Sequence[Any], *given: Any) -> list[Any]:
        """What each rank returns of a method that stops after every micro-batch, asked with its own rows and what all are given; each of them has a deadline of its own."""
        self._get([rank.begin.remote(method, own, *given) for rank, own in zip(self._ranks, per_rank, strict=True)], "begin", _PASS_S)
        for number in count(1):
            calls = [rank.go_on.remote() for rank in self._ranks]
            answers = self._get(calls, f"{method} (micro-batch {number})", _PASS_S)
            if answers[0] is not None:
                return [answer for (answer,) in answers]
        raise AssertionError("counting does not end")

    def _all(self, method: str, *given: Any, seconds: float = _DEADLINE_S) -> list[Any]:
        return self._get([getattr(rank, method).remote(*given) for rank in self._ranks], method, seconds)

    def _get(self, calls: Sequence[Any], what: str, seconds: float) -> list[Any]:
        """Wait for all ranks; the first failure ends the wait, since the others hang in a collective then."""
        left = [Call(peer, call, what, seconds) for peer, call in zip(self._peers, calls, strict=True)]
        try:
            while left:
                left.remove(call := first(left))
                taken(call)
        except Gone as gone:
            raise LearnerLost(str(gone)) from gone
        except Failed as error:
            if len(self._peers) > 1 and (dead := died(self._peers)):  # the others fail in what they do together, and say so first
                raise LearnerLost(f"{dead.name} died in {what}: {WHY_DEAD}; {dead.about()}") from error
            raise LearnerError(str(error)) from error
        return ray.get(list(calls))
