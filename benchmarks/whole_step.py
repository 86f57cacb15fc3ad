"""One whole step of ours against one whole step of TRL's GRPOTrainer: sample, judge, update, and be ready to sample again.

Both train the same checkpoint in fp32 on the same prompts, 8 rollouts each, with the same limit, temperature, verdict reward (our
judge, handed to TRL in its own reward signature), clip range, token-mean loss and batch-wise scaling, no KL penalty, one update a step,
on two threads. They take turns, step by step: TRL gets the prompts ours has just used. The learning rate is so small that lengths do
not drift while measuring. TRL sits in a process of its own and waits while ours works, and the other way round.

    python benchmarks/whole_step.py [--rounds 5] [--limit 320] [--json whole_step.json]

ours: collector (2 vLLM engines of 1 thread), prepare, DeepSpeed update (2 threads), publish, as rl/loop.py calls them. Recording is
left out.
trl: its fastest variant on a CPU that works: transformers' generate, micro-batches of 32 rollouts, 8 accumulated, no gradient
checkpointing. vLLM inside TRL fails on a CPU at its first weight sync. Timed from on_step_begin to on_step_end, so its data loading and
set-up are left out.
What counts is sampled tokens a second over the whole step, since the lengths of random rollouts differ a little.

It does not show a GPU (where TRL can use vLLM), large models, several ranks, or learning: only speed is compared. With lengths that are
nearly equal (a low --limit) a static batch wastes little and the ratio is smaller.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import ray
import torch
from _measure import (
    Row,
    checkpoint_options,
    column,
    in_turns,
    machine,
    parser,
    print_table,
    ratio,
    recipe_and_checkpoint,
    sampler,
    sentence,
    spread,
    timed,
    write_json,
)
from transformers import AutoModelForCausalLM, TrainerCallback

from recipes.schema import Recipe
from rewards.verifier.judge import Judge
from rl import algorithm
from rl.learner import Learner
from rl.publisher import Publisher
from rollout.collector import Collector, PromptStream
from rollout.engine import EnginePool
from rollout.template import load_template
from rollout.types import Group

WANTED = 2.5
MICRO_BATCH = 32  # rollouts; TRL's best on two cores
THREADS = 2


class StepClock(TrainerCallback):
    """Times steps where the trainer says they begin and end."""

    seconds = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._start = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.seconds = time.perf_counter() - self._start


class TrlTrainer:
    """TRL's GRPOTrainer, one step at a time."""

    def __init__(self, checkpoint: Path, recipe: Recipe, folder: str):
        from trl import GRPOTrainer

        torch.set_num_threads(THREADS)
        self._template = load_template(checkpoint)
        self._judge = Judge(recipe.judge.workers, recipe.judge.wall_s, recipe.judge.memory_mb)
        self._clock, self._tokens, self._right = StepClock(), 0, 0.0
        self._trainer = GRPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32),
            args=trl_settings(recipe, folder),
            reward_funcs=self._verdict,
            train_dataset=_dataset([("", "")] * recipe.sampler.prompts),
            processing_class=self._template.tokenizer,
            callbacks=[self._clock],
        )

    def step(self, problems: Sequence[tuple[str, str]]) -> Row:
        """Train one step on (prompt text, gold answer) pairs."""
        self._trainer.train_dataset = _dataset(problems)
        self._trainer.train()
        return {"seconds": self._clock.seconds, "tokens": self._tokens, "right": self._right}

    def token_ids(self, prompts: list[str]) -> list[list[int]]:
        """What the trainer makes of prompts."""
        return self._trainer._tokenize_prompts(prompts)[0]

    def _verdict(self, completion_ids: list[list[int]], answer: list[str], **_: Any) -> list[float]:
        """1 for a right answer that ended by itself, else 0: our verdict and truncation terms together."""
        futures = []
        for ids, gold in zip(completion_ids, answer, strict=True):
            finished = ids[-1] in self._template.stop_ids
            text = self._template.tokenizer.decode(ids[:-1] if finished else ids, skip_special_tokens=False)
            finish = "stop" if finished else "length"
            futures.append(self._judge.submit(gold=gold, text=text, finish=finish, thinking=self._template.thinking))
        scores = [float(future.result().status == "right") for future in futures]
        self._tokens, self._right = sum(map(len, completion_ids)), sum(scores) / len(scores)
        return scores


def trl_settings(recipe: Recipe, folder: str) -> Any:
    """Our recipe in TRL's words; quiet, and one step to a call of `train`."""
    from trl import GRPOConfig

    rollouts = recipe.sampler.prompts * recipe.sampler.group_size
    return GRPOConfig(
        output_dir=folder,
        max_steps=1,
        per_device_train_batch_size=min(MICRO_BATCH, rollouts),
        gradient_accumulation_steps=max(1, rollouts // MICRO_BATCH),
        num_generations=recipe.sampler.group_size,
        max_completion_length=recipe.budget.limit,
        temperature=recipe.sampler.temperature,
        beta=recipe.objective.kl.coef,
        num_iterations=1,
        epsilon=recipe.objective.clip_low,
        epsilon_high=recipe.objective.clip_high,
        scale_rewards="batch",
        loss_type="dapo",  # mean over all tokens of the step
        learning_rate=recipe.learner.lr,
        lr_scheduler_type="constant",
        weight_decay=recipe.learner.weight_decay,
        max_grad_norm=recipe.learner.grad_clip,
        shuffle_dataset=False,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        logging_strategy="no",
        save_strategy="no",
        disable_tqdm=True,
    )


def _dataset(problems: Sequence[tuple[str, str]]) -> Any:
    from datasets import Dataset

    return Dataset.from_dict({"prompt": [prompt for prompt, _ in problems], "answer": [answer for _, answer in problems]})


def trl_actor(recipe: Recipe, start: Path, folder: str) -> Any:
    """TRL in a process of its own."""
    environment = {"OMP_NUM_THREADS": str(THREADS), "TOKENIZERS_PARALLELISM": "false", "TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1"}
    actor: Any = ray.remote(TrlTrainer)
    return actor.options(num_cpus=0, runtime_env={"env_vars": environment}).remote(start, recipe, folder)


class OurTrainer:
    """The slots of rl/loop.py, one step at a time; `groups` are the last step's."""

    def __init__(self, recipe: Recipe, start: Path, pool: EnginePool, stream: PromptStream, collector: Collector):
        self._recipe, self._collector = recipe, collector
        self._learner = Learner(recipe, start, "cpu")
        self._learner.wait_ready()
        pool.wait_ready()
        self._publisher = Publisher(pool, recipe.publish, [stream.template.prompt_ids(stream.source.at(0))])
        self._publisher.push(self._learner, version=0)
        self._version = 0
        self.groups: list[Group] = []

    def step(self) -> Row:
        """Sample, judge, prepare, update, publish."""
        self._version += 1
        sample_s, collected = timed(self._collector.next)
        prepare_s, batch = timed(partial(algorithm.prepare, collected.groups, self._recipe, self._learner.measure))
        update_s, _ = timed(partial(self._learner.update, batch.updates, 0))
        publish_s, _ = timed(partial(self._publisher.push, self._learner, version=self._version))
        self.groups = collected.groups
        rollouts = [rollout for group in collected.groups for rollout in group.rollouts]
        return {
            "seconds": sample_s + prepare_s + update_s + publish_s,
            "tokens": sum(rollout.tokens for rollout in rollouts),
            "right": sum(rollout.reward for rollout in rollouts) / len(rollouts),
            "sample": sample_s,
            "update": prepare_s + update_s,
            "publish": publish_s,
        }


def problems_of(groups: Sequence[Group], tokenizer: Any) -> list[tuple[str, str]]:
    """(prompt text, gold answer) of each group, special tokens written out."""
    return [(tokenizer.decode(list(group.request.prompt_ids), skip_special_tokens=False), group.problem.answer) for group in groups]


def check_same_prompts(trl: Any, groups: Sequence[Group], problems: Sequence[tuple[str, str]]) -> None:
    """Raise RuntimeError if TRL would sample from other token ids than we did."""
    theirs = ray.get(trl.token_ids.remote([prompt for prompt, _ in problems]))
    for group, (prompt, _), ids in zip(groups, problems, theirs, strict=True):
        if tuple(ids) != group.request.prompt_ids:
            raise RuntimeError(f"TRL tokenises {prompt!r} differently: the two sides would not sample the same prompts")


def print_rows(rows: dict[str, list[Row]], rollouts: int) -> None:
    """One line a side, and where our time goes."""
    table = []
    for name, each in rows.items():
        speed, lengths = [row["tokens"] / row["seconds"] for row in each], [row["tokens"] / rollouts for row in each]
        table.append([name, spread(speed, 0), spread(column(each, "seconds")), spread(lengths, 1), spread(column(each, "right"))])
    print_table(["", "tokens/s", "seconds a step", "tokens a rollout", "right and finished"], table)
    print("of ours: " + ", ".join(f"{phase} {spread(column(rows['ours'], phase))} s" for phase in ("sample", "update", "publish")))


def main() -> None:
    options = parser(__doc__, rounds=5)
    checkpoint_options(options)
    args = options.parse_args()
    recipe, start = recipe_and_checkpoint(args, "objective.kl.coef=0", f"publish.check_every={args.rounds + 2}")
    facts = machine(recipe)
    with tempfile.TemporaryDirectory() as folder, sampler(recipe, start) as (pool, stream, collector):
        trl = trl_actor(recipe, start, folder)
        ours = OurTrainer(recipe, start, pool, stream, collector)

        def their_step() -> Row:
            problems = problems_of(ours.groups, stream.template.tokenizer)
            check_same_prompts(trl, ours.groups, problems)
            return ray.get(trl.step.remote(problems))

        rows = in_turns(args.rounds, {"ours": ours.step, "trl": their_step})
    print_rows(rows, recipe.sampler.prompts * recipe.sampler.group_size)
    speeds = {name: [row["tokens"] / row["seconds"] for row in each] for name, each in rows.items()}
    result = ratio(speeds["ours"], speeds["trl"])
    print(sentence(result, WANTED))
    write_json(args.json, benchmark="whole_step", **result, wanted=WANTED, rounds=rows, limit=args.limit, machine=facts)


if __name__ == "__main__":
    main()
