"""The recipe schema: every knob of Laconic, its default, its unit and what it means. Nothing else holds a default.

A recipe is the method: a choice at each of a few independent slots. This module imports no torch, so that a
recipe can be checked, explained and submitted from any laptop. Lengths are policy tokens, times are seconds,
log-probabilities are nats, schedules run in steps of the RL loop.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PrivateAttr, model_validator

from recipes.adapters import Adapter, FullWeights
from recipes.advantages import Advantage, AllRollouts, AllTokens, Select, Selection, TokenChoice
from recipes.budgets import Budget, ConstantBudget, refuse_unfit
from recipes.cluster import AutoCluster, Cluster
from recipes.columns import NumberColumn
from recipes.credit import Credit, EvenCredit, refuse_misfits, refuse_right_below_wrong
from recipes.data import Data, DataSet, named_sets
from recipes.evals import Eval
from recipes.objectives import Objective
from recipes.schedules import MOVABLE, Schedule, at_step, line, moved, refuse_leaving, turning, value_at
from recipes.section import Count, FolderName, Natural, NonNegative, Positive, Section, Share
from recipes.stages import AnyStage, RlStage, refuse_order, refuse_twice
from recipes.term import Case, Waiver
from recipes.terms import (
    KlTerm,
    RewardTerm,
    TruncateTerm,
    VerdictTerm,
    least_of_right,
    margin,
    refuse_misplaced,
    refuse_telling_wrong_apart,
    refuse_wrong_before_right,
    worth_of,
)

_NULLS = AfterValidator(lambda options: {name: value for name, value in options.items() if value is not None})  # are taken out
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


class Model(Section):
    path: str = Field(
        "tiny",
        description="`tiny` (the reasoner that a cold start makes, before all stages), a checkpoint folder, or a Hugging Face hub id.",
    )
    revision: str | None = Field(None, description="Hub revision (branch, tag or commit); only for a hub id.")
    dtype: Literal["fp32", "bf16"] = Field(
        "fp32", description="Arithmetic of learner and engines. fp32 for about 1M parameters on a CPU, bf16 from about 25M."
    )

    @property
    def on_hub(self) -> bool:
        """Whether `path` is the id of a model on the hub, owner/name, and not a folder that is here or is missing here."""
        folder = Path(self.path).expanduser()
        return bool(_HUB_ID.fullmatch(self.path)) and not (folder.is_dir() or folder.parent.is_dir() or self.path.startswith("runs/"))


class Tiny(Section):
    """The tiny reasoner: its problems, its verbosity and its size."""

    layers: Count = Field(4, description="Transformer layers.")
    width: Annotated[int, Field(ge=16, multiple_of=16)] = Field(128, description="Hidden width; heads are 32 wide.")
    families: list[Literal["chain", "product", "sum", "linear"]] = Field(
        ["chain", "product"], description="Problem families, drawn in equal shares."
    )
    recheck: Share = Field(0.85, description="Chance that a step of a cold-start trace is followed by re-checks.")
    rederive: Share = Field(0.8, description="Chance that a finished cold-start trace derives everything again.")
    slip: Share = Field(0.04, description="Chance that a step of a cold-start trace goes wrong (a later re-check may repair it).")


class ColdStart(Section):
    """The tiny reasoner's first training, on verbose traces, with TRL's SFTTrainer."""

    steps: Count = Field(1150, description="Optimiser steps.")
    batch: Count = Field(16, description="Traces per step; small batches learn most from a trace.")
    lr: Positive = Field(
        0.02,
        description="Peak learning rate of the weight matrices (Muon); embeddings and norms take a tenth (AdamW). Cosine, 5 % warm-up.",
    )


class Sampler(Section):
    prompts: Count = Field(32, description="Groups a step trains on (P).")
    group_size: Count = Field(8, description="Rollouts of a prompt (G).")
    temperature: Positive = Field(1.0, description="Sampling temperature; behaviour logprobs and the learner use the same.")
    keep_groups: Literal["all", "raw", "shaped"] = Field(
        "raw", description="Dynamic sampling: keep a group only if its correctness (`raw`) or its reward (`shaped`) is not constant."
    )
    no_thinking: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0,
        description="Share of a group that begins with the mark that closes thinking; that mark, and what the others begin with, train with the probability of their share (AdaptThink: 0.5).",
    )
    max_refills: Natural = Field(
        10,
        description="Replacement prompts allowed in a step, as a multiple of `prompts`; past it the step trains on what there is and says so.",
    )

    @property
    def closed(self) -> int:
        """Rollouts of a group that begin with the mark that closes thinking."""
        return round(self.no_thinking * self.group_size)


class Judge(Section):
    workers: Count = Field(2, description="Child processes that compare answers symbolically.")
    wall_s: Positive = Field(3.0, description="Seconds a comparison may take before its process is killed.")
    memory_mb: Count = Field(1024, description="Memory that a judging process may add to what it starts with.")
    not_judged_limit: Share = Field(0.01, description="Largest share of a step's answers that may stay without a verdict.")
    over_limit: Literal["stop", "warn"] = Field(
        "stop", description="What a step beyond `not_judged_limit` does: stops the run, or warns and trains on the groups judged whole."
    )
    audit: Natural = Field(
        4, description="Verdicts of each step that a second checker, plain math-verify, gives again; disagreements are counted."
    )


class Wires(Section):
    """Signs of collapse: each bound is of one step, over all that was sampled."""

    empty_thinking: Share = Field(0.5, description="Most rollouts whose thinking was closed empty.")
    repetition: Share = Field(0.3, description="Most rollouts of which over half the 8-grams were there before.")
    cut: Share = Field(0.9, description="Most rollouts that run into the limit.")
    short: Share = Field(0.1, description="Least mean length, as a share of that of the first five steps.")
    entropy: NonNegative = Field(0.005, description="Least mean entropy of trained tokens, nats.")
    action: Literal["warn", "stop"] = Field("warn", description="What a tripped wire does: says so in words, or stops the run, too.")


class Learner(Section):
    ranks: Count = Field(1, description="DeepSpeed processes (one GPU each on a GPU machine).")
    zero_stage: Literal[0, 1, 2, 3] = Field(
        2, description="DeepSpeed ZeRO stage. 0 is fastest for small fp32 models; bf16 needs at least 1 (fp32 master weights)."
    )
    lr: Positive = Field(1e-6, description="Learning rate.")
    warmup_steps: Natural = Field(0, description="Steps of linear warm-up.")
    weight_decay: NonNegative = Field(0.01, description="AdamW weight decay.")
    grad_clip: Positive = Field(1.0, description="Bound on the global gradient norm.")
    updates_per_step: Count = Field(1, description="Optimiser updates a step's groups are split into.")
    micro_batch_tokens: Count = Field(
        4096, description="Padded tokens of a micro-batch (rows x longest row); gradients accumulate over micro-batches."
    )
    nonfinite: Literal["stop", "skip"] = Field(
        "stop",
        description="A NaN or infinite reward, logprob, loss or gradient stops the run; or its group or update is left out and counted. Either names the cause.",
    )
    logit_chunk_tokens: Count = Field(4096, description="Tokens whose logits exist at one time: bounds the [tokens, vocabulary] memory.")
    gradient_checkpointing: bool = Field(False, description="Recompute activations in the backward pass.")
    adapter: Adapter = FullWeights()
    threads: Count = Field(2, description="CPU threads of a rank.")


class Engine(Section):
    kind: Literal["vllm", "reference"] = Field(
        "vllm", description="vLLM, or the deterministic transformers engine that tests and resume checks use."
    )
    count: Count = Field(1, description="Engine actors.")
    threads: Count = Field(1, description="CPU threads of an engine; on a CPU, engines x threads should not exceed the cores.")
    vllm: Annotated[dict[str, Any], _NULLS] = Field(
        {}, description="Options handed to vLLM under its own names (tensor_parallel_size, ...); null takes out one of a scale or a parent."
    )


class Publish(Section):
    check_every: Count = Field(
        20,
        description="Steps between comparisons of engine and learner logprobs, on a fixed batch and on what was sampled; always done before the first update.",
    )
    tolerance: Positive = Field(1e-3, description="Largest mean difference allowed in either, nats. fp32: 1e-3; bf16: 0.05.")


class Train(Section):
    steps: Count = Field(60, description="Steps of the rl stage.")
    checkpoint_every: Natural = Field(20, description="Steps between checkpoints; 0: only the last.")
    keep_checkpoints: Count = Field(2, description="Newest checkpoints kept; older ones go after the new one was read back.")
    keep_best: Natural = Field(0, description="So many more: the best on the first held-out set of eval.every (ties: fewer tokens).")
    samples_per_step: Natural = Field(8, description="Whole rollouts kept of each step (shortest, longest, right, wrong, cut, not judged).")


class Recipe(Section):
    """What to run. `extends` (a recipe this one starts from) is resolved by the loader and does not appear here."""

    name: FolderName = Field("unnamed", description="Names the run folder: at most 100 bytes of printable characters, no path.")
    schedule: dict[str, Schedule] = Field(
        {},
        description="Numbers that move over training, by key (`budget.limit: {kind: linear, to: 87}`); they start where the recipe puts them.",
    )
    seed: Natural = Field(0, description="The one seed: data order, sampling, learner, evaluation.")
    stages: list[AnyStage] = Field(
        [RlStage(kind="rl")],
        min_length=1,
        description="What runs, in this order; each stage's checkpoint is the next one's start. A bare kind (`rl`), or a mapping.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="`auto`: the GPUs, if the machine has any and what is installed can use them; else the CPU."
    )
    on_cuda: dict[str, Any] = Field(
        {}, description="Changes that hold where the device is a GPU: keys as in a recipe. What is said after it holds on every device."
    )
    model: Model = Model()
    tiny: Tiny = Tiny()
    cold_start: ColdStart = ColdStart()
    data: Data = Data()
    sampler: Sampler = Sampler()
    budget: Budget = ConstantBudget()
    reward: list[RewardTerm] = Field(
        [VerdictTerm(kind="verdict"), TruncateTerm(kind="truncate")], min_length=1, description="Terms that add up to a rollout's reward."
    )
    waive: list[Waiver] = Field(
        [],
        description="Promises that the reward may break, said by plan, status and report: that right beats wrong, that length pays no wrong answer.",
    )
    judge: Judge = Judge()
    advantage: Advantage = Advantage()
    select: Select = AllRollouts()
    credit: Credit = EvenCredit()
    tokens: TokenChoice = AllTokens()
    objective: Objective = Objective()
    wires: Wires = Wires()
    cluster: Cluster = AutoCluster()
    learner: Learner = Learner()
    engine: Engine = Engine()
    publish: Publish = Publish()
    train: Train = Train()
    eval: Eval = Eval()
    wandb: str | None = Field(None, description="Weights & Biases project; null: not used.")
    _unit: int = PrivateAttr(0)
    _overridden: tuple[str, ...] = PrivateAttr(())

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if nested := {"on_cuda", "device", "name"} & self.on_cuda.keys():
            raise ValueError(f"on_cuda: {min(nested)} has no place in it; it holds what changes once the device is known")
        refuse_twice("on_cuda", self.on_cuda)
        if self.sampler.group_size < 2:
            raise ValueError(
                f"sampler.group_size: {self.sampler.group_size}: advantage.centre {self.advantage.centre} compares rollouts of one prompt and needs at least 2"
            )
        if self.advantage.combine != "sum" and "right_beats_wrong" not in self.waive:
            raise ValueError(
                f"advantage.combine: {self.advantage.combine} gives every term its own scale, so a right answer may rank below a wrong one; say waive: [right_beats_wrong]"
            )
        if self.advantage.combine != "sum" and any(term.kind == "leash" for term in self.reward):
            raise ValueError(
                f"reward: leash moves its own weight, which advantage.combine {self.advantage.combine} normalises away; say combine: sum, or take another length term"
            )
        refuse_unfit(
            self.budget, "{budget}" in self.data.instruction, self.model.path == "tiny", self.sampler.prompts, self.sampler.group_size
        )
        if self.sampler.no_thinking:
            if not 0 < self.sampler.closed < self.sampler.group_size:
                raise ValueError(
                    f"sampler.no_thinking: {self.sampler.no_thinking:g} of {self.sampler.group_size} rollouts is none or all of them; take 0.5, or more rollouts"
                )
            if self.objective.old_logprobs == "engine":
                raise ValueError(
                    "objective.old_logprobs: engine compares the rule that begins rollouts (sampler.no_thinking) with the learner; take learner"
                )
        if self.sampler.prompts % self.learner.updates_per_step:
            raise ValueError(
                f"learner.updates_per_step: {self.learner.updates_per_step} does not divide sampler.prompts {self.sampler.prompts}"
            )
        if self.model.dtype == "bf16" and self.learner.zero_stage == 0:
            raise ValueError("learner.zero_stage: 0 with model.dtype bf16 would train without fp32 master weights; use 1 or more")
        if twice := [word for index, word in enumerate(self.waive) if word in self.waive[:index]]:
            raise ValueError(f"waive: {twice[0]} is said twice; say it once")
        refuse_misplaced(self.reward)
        refuse_misfits(self.credit, self.objective, self.select, self.budget.kinds, self.sampler.keep_groups)
        self._refuse_schedules()
        self._refuse_steps()
        refuse_order(self.stages, self.model.path == "tiny")
        if self.eval.temperature == 0 and self.eval.samples > 1:
            raise ValueError(f"eval.samples: {self.eval.samples} greedy rollouts (eval.temperature 0) would all be the same; set 1")
        return self

    def _refuse_schedules(self) -> None:
        """Raise ValueError for a schedule of a number that is not there or cannot move, or that leaves what the key allows."""
        terms = [
            f"reward.{term.kind}.{name}" for term in self.reward for name, value in term if type(value) is float and term.kind != "leash"
        ]
        kinds = ("budget", "select", "credit", "tokens")
        there = [name for name in MOVABLE if name.partition(".")[0] not in kinds or hasattr(*self._slot(name))]
        for name, schedule in self.schedule.items():
            slot, *parts = name.split(".")
            if name in MOVABLE and name not in there:
                if slot == "budget" and (also := [part.kind for part in self.budget.also if hasattr(part, parts[0])]):
                    raise ValueError(
                        f"schedule: {name}: is a number of {also[0]} in budget.also, which stays; make {also[0]} the first kind (budget.kind), or take the schedule out (null)"
                    )
                raise ValueError(
                    f"schedule: {name}: {slot}.kind {self._slot(name)[0].kind} has no {parts[0]}; take a kind that has, or the schedule out (null)"
                )
            if slot == "reward" and len(parts) == 2 and all(term.kind != parts[0] for term in self.reward):
                raise ValueError(f"schedule: {name}: reward has no {parts[0]} term; add one, or take the schedule out (null)")
            if name not in (*there, *terms):
                can = ", ".join(word.replace(".", " ") for word in (*there, *terms))
                raise ValueError(f"schedule: {name} cannot move; these can (with dots): {can}")
            if name in terms and sum(term.kind == parts[0] for term in self.reward) > 1:
                raise ValueError(
                    f"schedule: {name}: reward has more than one {parts[0]} term, and each its own number; keep one, or move none"
                )
            if name == "objective.entropy.coef" and self.objective.entropy.kind == "adaptive":
                raise ValueError(
                    f"schedule: {name}: with objective.entropy.kind adaptive the weight adapts; say kind: fixed, or take the schedule out"
                )
            if schedule.kind == "exponential" and schedule.least is not None and schedule.least > self.number(name):
                raise ValueError(f"schedule: {name}: least {schedule.least:g} is above {self.number(name):g}, where it starts")
            if not self.number(name) and (schedule.kind in ("exponential", "decays") or getattr(schedule, "share", None) is not None):
                raise ValueError(f"schedule: {name}: {schedule.kind} multiplies, and starts at 0; take linear with an end (to)")
        refuse_leaving(self, {name: self.by_step(name) for name in self.schedule})

    def _refuse_steps(self) -> None:
        """Raise ValueError for what breaks a rule between slots in a step, with the numbers that it has then."""
        for step, select in self.each("select").items() if isinstance(self.select, Selection) else ():
            if not 2 <= select.keep <= self.sampler.group_size:
                why = f"expected 2 to sampler.group_size {self.sampler.group_size} rollouts"
                raise ValueError(self._blamed("select", step, f"select.keep: {select.keep}: {why}", why))
        before = 0
        for step, (reward, case) in self.rewards().items():
            if self._misled(reward, case):
                between = bisect_left(range(before, step), True, key=lambda one: bool(self._misled(*self.rewards([one])[one])))
                first = before + between
                why = self._misled(*self.rewards([first])[first])
                written = self._misled(self.reward, self._case(self.reward, self.budget, None))  # then no schedule is to blame
                raise ValueError(written or self._blamed("reward budget", first, why, why.removeprefix("reward: ")))
            before = step + 1

    def _misled(self, reward: list[RewardTerm], case: Case) -> str:
        """Why a step's reward would not train towards right answers; "" if it does."""
        try:
            refuse_wrong_before_right(reward, case, self.waive)
            refuse_right_below_wrong(self.credit, min(least_of_right(reward, case)[:2]))
            if self.select.kind in ("shortest", "efficient"):
                refuse_telling_wrong_apart(reward, case, f"select.kind: {self.select.kind}")
        except ValueError as error:
            return str(error)
        return ""

    def _blamed(self, slots: str, step: int, still: str, moving: str) -> str:
        """What is said of a broken rule: `still`, or where numbers of these slots have moved by the step, `moving`, of the schedules that moved them."""
        now = {name: self.at(step).number(name) for slot in slots.split() for name in self.schedule if name.startswith(f"{slot}.")}
        moved_to = {name: value for name, value in now.items() if value != self.number(name)}
        return f"{at_step(moved_to, step)} is not allowed: {moving}" if moved_to else still

    def _slot(self, name: str) -> tuple[Any, str]:
        """The slot of a dotted key, and the number's name in it."""
        slot, _, number = name.partition(".")
        return getattr(self, slot), number

    @property
    def held_out_sets(self) -> list[DataSet]:
        """The sets of eval.data, each with its split filled in; data.problem and data.answer hold for those that have these columns (rollout.sources)."""
        return named_sets(self.eval.data, "test")

    @property
    def held_out_names(self) -> list[str]:
        """What the sets of eval.data, then eval.benchmarks are called in files and reports: by their source, and by what tells sets of one source apart."""
        sets = self.held_out_sets
        names = [one.source for one in sets]
        for part in ("split", "problem", "answer"):
            names = [
                name if names.count(name) == 1 else f"{name} {getattr(one, part) or ''}".strip()
                for name, one in zip(names, sets, strict=True)
            ]
        names += [word.partition("@")[0] for word in self.eval.benchmarks]
        return [name if names.count(name) == 1 else f"{name} {names[:index].count(name) + 1}" for index, name in enumerate(names)]

    def rewards(
        self, steps: Sequence[int] | None = None, rights: Sequence[float] | None = None
    ) -> dict[int, tuple[list[RewardTerm], Case]]:
        """The terms of the reward, and what their bounds depend on, by the first step in which these hold.

        Args:
            steps: in these (default: all in which a bound may be worst).
            rights: of groups with these shares of right rollouts (default: any).
        """
        moving = {name: self.number(name) for name in self.schedule if name.startswith(("reward.", "budget."))}
        asked = turning(self.schedule, moving, self.train.steps) if steps is None else steps
        held = self.together("reward", "budget", steps=asked)
        return {step: (reward, self._case(reward, budget, rights)) for step, (reward, budget) in held.items()}

    def _case(self, reward: list[RewardTerm], budget: Budget, rights: Sequence[float] | None) -> Case:
        times, above = budget.beyond(rights)
        size, limit, most = self.sampler.group_size, budget.most_limit, budget.most_tokens
        return worth_of(reward, Case(group_size=size, unit=self.unit, limit=limit, most=most, times=times, above=above))

    def at(self, step: int) -> Recipe:
        """The recipe as it holds at a step: plain numbers where a schedule moves them."""
        now: Recipe = self
        for name, schedule in self.schedule.items():
            now = moved(now, name.split("."), value_at(schedule, self.number(name), step, self.train.steps))
        if not self.schedule:
            return self
        now = now.model_copy(update={"schedule": {}})  # what has moved does not move again
        now._unit = self.unit
        return now

    def each(self, slot: str) -> dict[int, Any]:
        """All that a slot holds in turn, each by the first step in which it does; one, if nothing of it moves."""
        return {step: held for step, (held,) in self.together(slot).items()}

    def together(self, *slots: str, steps: Iterable[int] | None = None) -> dict[int, tuple[Any, ...]]:
        """The same of several slots side by side, in these steps (default: all)."""
        names = [name for name in self.schedule if name.partition(".")[0] in slots]
        lines = [self.by_step(name) for name in names]
        first: dict[tuple[float, ...], int] = {}
        for step in (range(self.train.steps) if steps is None else steps) if names else [0]:
            first.setdefault(tuple(line[step] for line in lines), step)
        held = {}
        for values, step in first.items():
            now = {slot: getattr(self, slot) for slot in slots}
            for name, value in zip(names, values, strict=True):
                slot, _, number = name.partition(".")
                now[slot] = moved(now[slot], number.split("."), value)
            held[step] = tuple(now.values())
        return held

    @property
    def overridden(self) -> tuple[str, ...]:
        """Where a recipe extends several that say different words: which of them holds, a sentence each."""
        return self._overridden

    @property
    def unit(self) -> int:
        """budget.limit as the recipe writes it, tokens: what prices per token are given for, in every step."""
        return self._unit or self.budget.limit

    def number(self, name: str) -> float:
        """A number by its dotted key; terms of the reward go by their kind (`reward.triangle.weight`)."""
        value: Any = self
        for part in name.split("."):
            value = next(term for term in value if term.kind == part) if isinstance(value, list) else getattr(value, part)
        return value

    def ends(self, name: str) -> tuple[float, float]:
        """The smallest and the largest value that a number has in any step."""
        values = self.by_step(name)
        return min(values), max(values)

    def most(self, name: str) -> float:
        """The largest value that a number has in any step."""
        return self.ends(name)[1]

    def by_step(self, name: str) -> Sequence[float]:
        """The number at every step; once, if it stays."""
        start = self.number(name)
        return line(self.schedule[name], start, self.train.steps) if name in self.schedule else [start]

    @property
    def most_tokens(self) -> int:
        """The most that any rollout of training is sampled to, whatever the step."""
        return self.budget.sampled(int(self.most("budget.limit")))

    @property
    def margin(self) -> float:
        """The least that recipes.terms.margin is in any step."""
        return min(margin(reward, case) for reward, case in self.rewards().values())

    @property
    def kl_reward(self) -> KlTerm | None:
        """The term `kl`, if the reward has one."""
        return next((term for term in self.reward if isinstance(term, KlTerm)), None)

    @property
    def number_columns(self) -> list[NumberColumn]:
        """Columns of the training data that must hold a number in every row."""
        in_budget = [NumberColumn(column, key) for key, column in self.budget.columns.items()]
        in_centre = [NumberColumn("reference_accuracy", "advantage.centre")] if self.advantage.centre == "reference" else []
        return in_budget + in_centre + [NumberColumn(name, f"the reward term {term.kind}") for term in self.reward for name in term.reads]

    @property
    def reads_columns(self) -> bool:
        """Whether training reads columns of the data beside problem and gold."""
        return bool(self.number_columns) or any(term.kind == "function" for term in self.reward)

    @property
    def trains(self) -> bool:
        """Whether a stage is reinforcement learning."""
        return any(stage.kind == "rl" for stage in self.stages)

    @property
    def samples(self) -> bool:
        """Whether a stage samples training problems."""
        return any(stage.kind in ("rl", "reference") for stage in self.stages)

    @property
    def closes_thinking(self) -> bool:
        """Whether training asks engines to close thinking."""
        return self.trains and ("thinking" in self.budget.kinds or self.sampler.no_thinking > 0)

    @property
    def reads_reference(self) -> bool:
        """Whether training compares the policy with the model that the stage starts from."""
        return self.most("objective.kl.coef") > 0 or self.kl_reward is not None
