"""Engines of a plan, up for as long as they are asked, and what is asked of them before anything is sampled."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray

from launch.groups import Options, reserve
from launch.memory import context, push_bytes, workers
from launch.plan import Plan
from launch.plan_thinking import forces_thinking
from launch.ray_start import start_ray, stop_ray
from recipes.evals import ExtendedTo
from recipes.schema import Recipe
from recipes.stages import within
from rl.carriers import CARRIERS, Broadcast, Carrier
from rollout.closing import closing_outside
from rollout.collector import seed_of
from rollout.engine import EnginePool, Pool
from rollout.honesty import TOLERANCE, rehearsal
from rollout.peers import check_ray
from rollout.reference_engine import ReferenceEngine
from rollout.template import Template
from rollout.thinking import ThinkIds
from rollout.variables import engine_environment
from rollout.vllm_engine import VllmEngine


@contextmanager
def engines(made: Plan, start: Path, template: Template, first_step: int = 0) -> Iterator[tuple[EnginePool, Options]]:
    """Ray and the engine actors of a plan, up for as long as the context lasts, and the options with which its other actors start.
    Raises RayLost: a process of Ray is gone, whatever error that led to."""
    recipe, device = made.recipe, made.device
    start_ray(num_cpus=os.cpu_count() or 1, num_gpus=made.placement.total_gpus, push=push_bytes(recipe, made.shape, made.placement))
    options = reserve(made.placement, recipe.cluster.preemptible)
    think = closing(recipe, template)
    starts = Counter[int]()  # an engine that is started again must not repeat its first noise

    def start_engine(index: int) -> Any:
        actor: Any
        arguments: tuple[Any, ...]
        if recipe.engine.kind == "reference":
            actor, arguments = ray.remote(ReferenceEngine), (start, recipe.model.dtype, device, template.stop_ids, think)
        else:
            seed = seed_of(recipe.seed, "engine", index, first_step, starts[index]) % 2**31
            starts[index] += 1
            actor = ray.remote(VllmEngine)
            arguments = (start, recipe.model.dtype, device, context(recipe), template.stop_ids, seed, made.engine, think)
        one_node = {"NCCL_SOCKET_IFNAME": "lo"} if len(made.placement.nodes) == 1 else {}
        environment = {"env_vars": engine_environment(recipe.engine.threads, device) | one_node}
        return actor.options(**options("engine", index), runtime_env=environment).remote(*arguments)

    try:
        yield EnginePool(start_engine, recipe.engine.count), options
    except Exception:
        check_ray()  # if that is lost, nothing else is to blame
        raise
    finally:
        stop_ray()


def carrier(made: Plan) -> Carrier:
    """What carries weights to the engines of a plan that trains."""
    assert made.placement.carrier is not None
    name, _ = made.placement.carrier
    return Broadcast(workers(made.recipe)) if name == "broadcast" else CARRIERS[name]()


@contextmanager
def sampling(made: Plan, start: Path, template: Template, prompts: Sequence[Sequence[int]]) -> Iterator[EnginePool]:
    """Engines that have rehearsed on the first of these prompts, for stages that only sample. Raises as `rehearsed`."""
    with engines(made, start, template) as (pool, _):
        pool.wait_ready()
        rehearsed(made, pool, template, prompts[:16])
        yield pool


def rehearsed(made: Plan, pool: EnginePool, template: Template, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
    """Refuse engines that do not sample from the probabilities that they report; sampled sequences, prompts' ends and responses.
    Raises EngineError: one does not, or does not close thinking where the recipe limits it."""
    recipe = made.recipe
    temperature = recipe.sampler.temperature if recipe.samples else recipe.eval.temperature or 1.0
    seed = seed_of(recipe.seed, "rehearsal") % 2**31
    requests = rehearsal(prompts, len(template.tokenizer), temperature, seed, closing(recipe, template))
    return pool.rehearse(requests, max(TOLERANCE[recipe.model.dtype], recipe.publish.tolerance))[:16]


def stating(template: Template, recipe: Recipe, said: Iterable[str], left: int | None) -> Template:
    """The template for evaluations: prompts state what the last rl stage left of its limit. Where none did, or the evaluation names a limit of its own
    (`said`: the keys of its changes), they state that of its recipe."""
    if left is None or any(within(key, ["budget.limit", "schedule.budget.limit"]) for key in said):
        left = recipe.at(recipe.train.steps).budget.limit
    return replace(template, budget=left)


def closing(recipe: Recipe, template: Template) -> ThinkIds | None:
    """The marks of thinking if training or evaluations ask engines to close it, and they can; evaluations can do without (`closer`).
    Raises TemplateError: there is no thinking to close, a word that has it go on is none of this model, or training asks engines for what they cannot do."""
    if recipe.closes_thinking:
        return template.think_ids(at_once=recipe.sampler.no_thinking > 0)
    for budget in recipe.eval.budgets if forces_thinking(recipe) else ():
        if isinstance(budget, ExtendedTo):
            template.word_ids(budget.word)
    return template.think_ids() if forces_thinking(recipe) and not template.unseen() else None


def closer(pool: Pool, recipe: Recipe, template: Template) -> Pool:
    """What evaluations sample from: the engines, or what closes thinking for engines that cannot."""
    alone = not forces_thinking(recipe) or closing(recipe, template) is not None
    waits = any(isinstance(budget, ExtendedTo) for budget in recipe.eval.budgets)
    return pool if alone and not waits else closing_outside(pool, template, alone)
