"""What a run's record says of its speed, what is refused, and the command that asks."""

from __future__ import annotations

import json
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from launch.cli import app
from launch.forecast import (
    SIZES,
    TraceError,
    _of_lengths,
    _of_speed,
    best_of_each,
    calibrate,
    filtered,
    forecast,
    layouts,
    seated,
    sizes,
    words,
    work_of,
)
from launch.machine import Machine
from launch.plan import plan
from launch.simulate import Layout
from recipes.loader import dump, load
from recipes.schema import Recipe

STEP: dict[str, Any] = {
    "engines/step": 0.010, "engines/step_each": 0.001, "engines/take": 0.002, "engines/core": 0.8, "engines/busy": 0.9, "engines/calls": 20,
    "length/q_0": 10.0, "length/q_50": 100.0, "length/q_100": 300.0, "length/between": 0.25, "groups/sampled": 20, "groups/trained": 8,
    "groups/surplus": 2, "tokens/sampled": 16_000, "tokens/trained": 4_800, "seconds/judge": 0.32, "seconds/score": 0.16, "seconds/poll": 0.04,
    "seconds/sample": 4.0, "seconds/update": 2.4, "seconds/publish": 0.1, "seconds/step": 7.3,
}  # fmt: skip
WORDS = ["model.path=tiny", "device=cpu", "sampler.prompts=8", "budget.limit=320", "engine.count=1", "learner.ranks=1"]


def made(folder: Path, *words: str, steps: int = 6, device: str = "cpu", **changes: Any) -> Path:
    """A run folder; `time` leaves 0.5 s between steps. What is None is not recorded."""
    folder.mkdir()
    (folder / "recipe.yaml").write_text(dump(load("quickstart", overrides=[*WORDS, *words])))
    (folder / "environment.json").write_text(json.dumps({"cpus": 2, "gpus": ["of the driver's node"], "device": device}))
    rows = [{"step": step} | STEP | {"time": 7.8 * (step + 1)} | changes for step in range(steps)]
    rows[0]["seconds/step"] = 100.0  # the first does not count
    rows = [{name: value for name, value in row.items() if value is not None} for row in rows]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_a_trace_is_what_the_steps_but_the_first_say(tmp_path: Path):
    """Engines got 0.8 of a core: 2 / 0.8 = 2.5 threads wanted one, 1.13 of them ours; a rank then got 2 / (1 + 1.37) of one."""
    found = calibrate(made(tmp_path / "run"))
    trace, others = found.trace, 2 / 0.8 - 1 - 0.13
    assert found.layout.others == pytest.approx(others) and (found.layout.cores, found.layout.engines, found.layout.ranks) == (2, 1, 1)
    assert (trace.step, trace.each, trace.take) == pytest.approx((0.010, 0.001, 0.002))
    assert (list(trace.shares), list(trace.lengths), trace.alike) == ([0, 0.5, 1], [10, 100, 300], 0.25)
    assert trace.kept == 0.5 and trace.trained == pytest.approx(4800 / (16_000 * 8 / 20))
    assert (trace.judge, trace.score, trace.poll) == pytest.approx((0.32 / 160, 0.16 / 160, 0.04 / 20))
    assert trace.update == pytest.approx(2.4 * min(1, 2 / (1 + others)) / 4800)
    own = 2 / (1 + others)  # of a core, a driver's alone
    assert trace.push == pytest.approx(0.1 * own) and trace.rest == pytest.approx(own * (7.3 - 4.0 - 2.4 - 0.1) / 160)
    assert trace.between == pytest.approx(0.5) and trace.turn is None


def test_where_a_run_was_says_its_record_whatever_the_recipe_and_the_machine_of_its_driver_have(tmp_path: Path):
    found = {device: calibrate(made(tmp_path / device, "device=auto", device=device)) for device in ("cpu", "cuda")}
    assert {device: one.layout.cores for device, one in found.items()} == {"cpu": 2, "cuda": inf}
    older = made(tmp_path / "older", "device=auto", device="")  # of a version that did not say it
    assert calibrate(older).layout.cores == inf


def test_two_ranks_of_a_trace_have_half_the_tokens_each_and_turns_are_taken_out_of_the_push(tmp_path: Path):
    two = made(tmp_path / "run", "learner.ranks=2", **{"engines/core": 1.0, "seconds/turns": 0.06})
    trace = calibrate(two).trace
    assert trace.update == pytest.approx(2.4 * 2 / 4800) and trace.turn == pytest.approx(0.06) and trace.push == pytest.approx(0.07)
    assert trace.rest == pytest.approx((7.3 - 4.0 - 2.4 - 0.1 - 0.03) / 160)


@pytest.mark.parametrize(
    ("words", "changes", "said"),
    [
        ([], {"steps": 2}, "has 1 step behind its first, and 4 are needed"),
        ([], {"length/q_50": None, "engines/step": None}, "lacks engines/step, length/q_50: an earlier version made it"),
        ([], {"engines/step": float("nan")}, "has 0 steps behind its first, and 4 are needed"),
        ([], {"groups/trained": 0, "tokens/trained": 0}, "trained behind its first step, so nothing tells what an update takes"),
        ([], {"seconds/update": None, "time": None}, "lacks time, seconds/update: an earlier version made it"),
        ([], {"engines/calls": 0, "groups/sampled": 0, "engines/core": 0}, "lacks engines/core, engines/calls, groups/sampled"),
        ([], {"engines/step": -0.01, "length/q_50": -1}, "lacks engines/step, length/q_50"),
        (["engine.kind=reference"], {"engines/step": None}, "lacks engines/step: its engines (engine.kind: reference) keep no time"),
    ],
)
def test_a_run_that_does_not_tell_its_speed_is_refused_with_what_is_missing(tmp_path: Path, words: list[str], changes: dict, said: str):
    folder = made(tmp_path / "run", *words, **changes)
    with pytest.raises(TraceError) as refused:
        calibrate(folder)
    assert said in str(refused.value)


def test_a_torn_last_line_is_left_out_and_a_folder_without_its_environment_is_no_run(tmp_path: Path):
    run = made(tmp_path / "run")
    whole = calibrate(run)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 99, "leng')
    assert calibrate(run) == whole
    (run / "environment.json").unlink()
    with pytest.raises(TraceError, match="is no run folder: name one that"):
        calibrate(run)


def test_lines_that_are_no_steps_and_steps_that_lack_what_others_have_change_nothing(tmp_path: Path):
    run = made(tmp_path / "run")
    whole, file = calibrate(run), run / "metrics.jsonl"
    first, second, *rest = file.read_text().splitlines(keepends=True)
    file.write_text("".join(["[]\n", "3\n", first, "null\n", second, *rest]))
    assert calibrate(run) == whole
    bare = {name: value for name, value in json.loads(second).items() if not name.startswith("length/")}
    file.write_text("".join([first, json.dumps(bare) + "\n", *rest]))
    assert calibrate(run).trace == whole.trace
    idle = {"engines/core": 0, "seconds/sample": 0}
    file.write_text("".join([first, json.dumps(json.loads(second) | idle) + "\n", *rest]))
    assert calibrate(run).layout.others == pytest.approx(0.8 * whole.layout.others)
    file.write_text("".join([first, json.dumps(json.loads(second) | {"seconds/sample": 0}) + "\n", *rest]))
    assert calibrate(run).layout.others == pytest.approx(whole.layout.others + 0.13 / 5)


def test_the_command_refuses_what_it_cannot_simulate(tmp_path: Path):
    def asked(*words: str) -> str:
        result = CliRunner().invoke(app, ["plan", "quickstart", *WORDS, *words])
        assert result.exit_code == 1 and "Traceback" not in result.output
        return " ".join(result.output.split())

    run = made(tmp_path / "run")
    assert f"{tmp_path} is no run folder" in asked("--simulate", str(tmp_path)).replace(" /", "/").replace("--simulate: ", "")
    assert "--gpus: '1,x' is no list of whole numbers above 0" in asked("--simulate", str(run), "--gpus", "1,x")
    assert "--gpus: 10,000,000 is more than can be simulated in seconds; name 65,536 at most" in asked(
        "--simulate", str(run), "--gpus", "8,10000000"
    )
    assert "--price: inf is no price" in asked("--simulate", str(run), "--price", "inf")
    assert "--simulate RUN" in asked("--gpus", "8") and "--simulate RUN" in asked("--price", "2")
    assert "and this recipe trains tiny in fp32: name a run of the same model" in asked(
        "--simulate", str(made(tmp_path / "wide", "tiny.width=64"))
    )


def test_a_step_is_that_of_the_stage_whose_record_is_the_runs_own(tmp_path: Path):
    """What that stage changes holds, what one before it changes does not."""
    stages = "stages=[{kind: cold_start}, {kind: rl, name: first, changes: {sampler.prompts: 8}}, {kind: rl, name: last, changes: {sampler.prompts: 64}}]"
    run = made(tmp_path / "run")
    lines = CliRunner().invoke(app, ["plan", "quickstart", *WORDS, stages, "--simulate", str(run), "--gpus", "2"]).output.splitlines()
    assert [line for line in lines if line.startswith("step ")] == ["step     64 prompts x 8, at most 320 tokens"], lines


def test_the_command_shows_a_row_for_each_size_and_way_and_what_it_costs(tmp_path: Path):
    run = made(tmp_path / "run")
    result = CliRunner().invoke(
        app, ["plan", "quickstart", *WORDS, "budget.limit=400", "--simulate", str(run), "--gpus", "1, 4, 300", "--price", "3"]
    )
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert "warning  the run's responses ended at 320 tokens, so longer ones are not foreseen" in lines
    head, *rows = lines[lines.index("") + 1 :]
    assert (
        "5 steps: 1 engine, 1 rank on 2 cores" in lines[0]
        and "price a step" in head
        and [row.split()[0] for row in rows[:3]] == ["1", "4", "4"]
    )
    assert "1 + 1 shared" in rows[0] and "4 + 4 shared" in rows[1] and "shared" not in rows[2]
    assert " of 300  " in rows[3] and "+ 64  " in rows[3]  # no more ranks than rows of an update
    assert not [line for line in lines if "speeds are those of" in line]
    other = ["learner.adapter={kind: lora}", "learner.gradient_checkpointing=true", "engine.vllm={tensor_parallel_size: 4}"]
    shown = CliRunner().invoke(app, ["plan", "quickstart", *WORDS, *other, "--simulate", str(run), "--gpus", "2,8"]).output
    assert (
        "learner.gradient_checkpointing False (here True), learner.adapter full (here lora of rank 32 on all), engine.vllm.tensor_parallel_size 1 (here 4); what"
        in shown
    )
    assert "none     2 " in shown and "none     8 " not in shown
    assert "device" not in shown and "engine.kind" not in shown and "that they did in updates and pushes is a guess" in shown
    quiet = made(tmp_path / "quiet", device="cuda", **{"engines/core": 1.0})
    other = ["engine.kind=reference", "engine.threads=3", "learner.threads=2"]
    threads = ", engine.threads 1 (here 3), learner.threads 1 (here 2)"
    for of, unlike in (
        (run, f"engine.kind vllm (here reference){threads}"),
        (quiet, "device cuda (here cpu), engine.kind vllm (here reference)"),
    ):
        shown = CliRunner().invoke(app, ["plan", "quickstart", *WORDS, *other, "--simulate", str(of), "--gpus", "2"]).output
        assert f"speeds are those of {unlike}; what" in shown and ("is a guess" in shown) == (of == run)
    for row in rows:
        *_, hours, cost = row.split()
        assert float(cost) == pytest.approx(3 * float(hours), rel=0.02)
    shown = CliRunner().invoke(app, ["plan", "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"}).output
    assert "--simulate" in shown and "--gpus" in shown and "--price" in shown


def test_its_own_setting_is_predicted_as_it_was_when_there_is_nothing_to_guess(tmp_path: Path):
    """Equal lengths of 100, no filter, all calls free: one engine, 64 sequences. 64 x 2 ms and 100 steps of 10 + 64 x 1 ms."""
    flat = {f"length/q_{share}": 100.0 for share in (0, 50, 100)} | {"seconds/poll": 0.0, "seconds/score": 0.0, "seconds/judge": 0.0}
    kept = {"groups/sampled": 8, "groups/surplus": 0, "tokens/sampled": 6_400, "tokens/trained": 6_400, "engines/core": 1.0}
    found = calibrate(made(tmp_path / "run", "sampler.keep_groups=all", **flat, **kept))
    foreseen = forecast(found.trace, work_of(plan(found.recipe)), found.layout)
    assert foreseen.parts.sample == pytest.approx(64 * 0.002 + 100 * (0.010 + 64 * 0.001))
    assert foreseen.parts.update == pytest.approx(2.4) and foreseen.parts.push == pytest.approx(0.1)
    assert foreseen.parts.rest == pytest.approx(7.3 - 4.0 - 2.4 - 0.1) and foreseen.mean == pytest.approx(foreseen.p95)


def test_groups_of_equal_answers_train_where_nothing_filters_and_what_another_filter_keeps_is_not_guessed(tmp_path: Path):
    """Of 20 groups 8 trained, 2 were surplus; 6 were all right, 3 all wrong, 1 not judged, which no filter keeps. Those that trained had 1.2 times as many tokens."""
    left_out = {"groups/all_right": 6, "groups/all_wrong": 3, "groups/flat": 0, "groups/not_judged": 1, "tokens/trained": 7_680}
    raw = calibrate(made(tmp_path / "run", "sampler.keep_groups=raw", **left_out))

    def of(*words: str) -> tuple[float, float, list[str]]:
        trace, unknown = filtered(raw, load("quickstart", overrides=[*WORDS, "sampler.keep_groups=raw", *words]))
        return trace.kept, round(trace.trained, 9), unknown

    assert of() == of("reward=[{kind: verdict, wrong: -1.0}]") == (10 / 20, 1.2, [])  # right or wrong is what raw looks at
    assert of("sampler.keep_groups=all", "sampler.group_size=4") == (19 / 20, 1.0, [])
    assert of("sampler.keep_groups=shaped", "sampler.group_size=4") == (10 / 20, 1.2, ["sampler.keep_groups", "sampler.group_size"])
    assert of("credit={kind: decs}", "reward=[{kind: verdict}]")[2] == ["credit.kind"]
    shaped = calibrate(made(tmp_path / "shaped", "sampler.keep_groups=shaped"))
    other = ["sampler.keep_groups=shaped", "reward=[{kind: verdict, wrong: -1.0}]", "budget.room=2"]
    assert filtered(shaped, load("quickstart", overrides=[*WORDS, *other]))[1] == ["reward", "budget"]


def test_what_an_update_passes_and_trains_is_said_where_the_run_has_another(tmp_path: Path):
    run = made(tmp_path / "run")

    def asked(*words: str) -> str:
        shown = CliRunner().invoke(app, ["plan", "quickstart", *WORDS, *words, "--simulate", str(run), "--gpus", "2"])
        assert shown.exit_code == 0, shown.output
        return shown.output

    assert "speeds are those of" not in asked() and "groups train by" not in asked()
    other = [
        "objective.kl.coef=0",
        "objective.old_logprobs=learner",
        "credit={kind: nthr}",
        "select={kind: shortest, keep: 4}",
        "budget.cut=mask",
    ]
    assert (
        "the run's speeds are those of objective.kl.coef above 0 (here 0), objective.old_logprobs engine (here learner), credit.kind even (here nthr), "
        "select all (here shortest 4), budget.cut score (here mask); what"
    ) in asked(*other)
    assert "speeds are those of" not in asked("select={kind: shortest, keep: 4, others: zero}")  # the others are passed, too
    assert "warning  50% of the groups train by the run's sampler.keep_groups, which is another here; what" in asked(
        "sampler.keep_groups=shaped"
    )


def test_what_an_engine_is_told_and_what_is_asked_of_it_is_said_where_the_run_has_another(tmp_path: Path):
    run = made(tmp_path / "run", "engine.vllm={block_size: 32}")
    other = ["engine.vllm={enforce_eager: true, max_num_seqs: 8}", "sampler.temperature=0.6", "data.instruction=Be brief."]
    shown = CliRunner().invoke(app, ["plan", "quickstart", *WORDS, *other, "--simulate", str(run), "--gpus", "2"]).output
    assert "the run's speeds are those of engine.vllm.block_size 32 (here None), engine.vllm.enforce_eager None (here True); what" in shown
    assert 'the run\'s lengths are those of sampler.temperature 1.0 (here 0.6), data.instruction "" (here "Be brief."); what' in shown


def test_every_slot_is_one_that_a_forecast_reads_or_that_no_step_is_slower_or_longer_for():
    """A new slot, or a new key of these, is to be put where it belongs: into launch/forecast, or here."""
    told = {name for read in (_of_speed(load("quickstart"), True), _of_lengths(load("quickstart"))) for name in read}
    of_steps = {
        "sampler.prompts",
        "sampler.group_size",
        "sampler.max_refills",
        "sampler.keep_groups",
        "learner.ranks",
        "learner.updates_per_step",
    }
    of_steps |= {
        "learner.micro_batch_tokens",
        "engine.count",
        "judge",
        "cluster",
        "device",
        "engine.vllm",
    }  # in Work, a layout, or the plan
    free = {
        "learner.lr",
        "learner.warmup_steps",
        "learner.weight_decay",
        "learner.grad_clip",
        "learner.nonfinite",
        "learner.logit_chunk_tokens",
    }
    free |= {
        "name",
        "seed",
        "schedule",
        "stages",
        "on_cuda",
        "tiny",
        "cold_start",
        "waive",
        "advantage",
        "wires",
        "publish",
        "train",
        "eval",
        "wandb",
    }
    keys = {slot for slot in Recipe.model_fields if slot not in ("sampler", "learner", "engine")}
    for slot in ("sampler", "learner", "engine"):
        keys |= {f"{slot}.{name}" for name in Recipe.model_fields[slot].annotation.model_fields}  # type: ignore[union-attr]
    assert keys - {"model"} == {
        key for key in keys if key in of_steps | free or any(name == key or name.startswith(f"{key}.") for name in told)
    }


def test_devices_are_shared_or_apart_and_ranks_no_more_than_rows():
    recipe = load("quickstart", overrides=WORDS)

    def ways(devices: int, *words: str) -> list[tuple[int, ...]]:
        found = layouts(devices, load("quickstart", overrides=[*WORDS, *words]))
        return [(one.engines, one.ranks, one.devices, *(["shared"] if one.colocated else [])) for one in found]  # type: ignore[list-item]

    assert list(layouts(1, recipe)) == [Layout(1, 1, colocated=True)]
    assert ways(8) == [(8, 8, 8, "shared"), (2, 6, 8), (4, 4, 8), (6, 2, 8)]
    few = ["sampler.prompts=1", "sampler.group_size=5"]
    assert ways(8, *few) == [(2, 5, 7), (4, 4, 8), (6, 2, 8)]  # three of eight shared ones would have no rank
    kept = ["select={kind: max_variance, keep: 2, others: drop}"]  # 2 of 8 rows of a group are trained
    assert [one[1] for one in ways(64)] == [64, 48, 32, 16] and [one[1] for one in ways(64, *kept)] == [16, 16, 16]
    assert ways(8, "engine.vllm={tensor_parallel_size: 2}") == [(1, 6, 8), (2, 4, 8), (3, 2, 8)]
    assert sizes("") == list(SIZES) and sizes("2, 8") == [2, 8]


def test_an_engine_runs_as_many_sequences_as_its_cache_has_room_for_at_their_mean_depth(tmp_path: Path):
    """Answers of 8000 tokens all run at 4000 in the mean; 1.5B of Qwen2.5: 28 layers x 2 heads x 128 numbers, keys and values, 2 bytes."""
    trace = calibrate(made(tmp_path / "run")).trace
    gpu, layout = plan(load("dler", "gpu1-24"), Machine(16, 128 * 10**9, (24 * 10**9,))), Layout(1, 1, colocated=True)
    [held] = [actor.holds["KV cache"] for actor in gpu.actors if actor.name == "engine"]
    most = gpu.engine["max_num_seqs"]
    assert gpu.shape is not None and (gpu.shape.layers, gpu.shape.kv_heads, gpu.shape.head_width) == (28, 2, 128)
    room = held // (4000 * 28 * 2 * 128 * 2 * 2)
    assert seated(gpu, layout, replace(trace, shares=[0, 1], lengths=[8000, 8000])) == (replace(layout, seats=room), "") and room < most
    assert seated(gpu, layout, trace) == (replace(layout, seats=most), "")
    cpu = plan(load("dler", "tiny"), Machine(2, 20 * 10**9))
    assert seated(cpu, layout, replace(trace, lengths=[1e6] * 3)) == (replace(layout, seats=256), "")


def test_what_plan_would_refuse_for_memory_is_left_out_and_why_is_said(tmp_path: Path):
    """Plan itself is asked for each layout: of eight GPUs of 32 GB, four ranks have none that holds what they share of 1.5B's state, six or eight have."""
    model = [f"model.path={load('dler').model.path}", "model.dtype=bf16", "learner.zero_stage=2"]
    run = made(tmp_path / "run", *model, device="cuda", **{"engines/core": 1.0})
    trace, node, recipe = calibrate(run).trace, Machine(64, 10**12, (32 * 10**9,) * 8), load("dler", "node8")
    asked = plan(recipe, node)
    why = {(way.engines, way.ranks, "colocated" if way.colocated else "apart"): seated(asked, way, trace)[1] for way in layouts(8, recipe)}
    for (engines, ranks, kind), fault in why.items():
        cluster = [f"engine.count={engines}", f"learner.ranks={ranks}", f"cluster={{kind: {kind}}}"]
        assert plan(load("dler", "node8", cluster), node).blockers == ([fault] if fault else [])
    assert [way for way, fault in why.items() if not fault] == [(8, 8, "colocated"), (2, 6, "apart")]
    shown = words(asked, run, [1, 8], None).splitlines()
    assert [line.split(": memory: ")[0] for line in shown if line.startswith("none")] == [
        "none     1 + 1 shared: plan refuses that", "none     4 + 4, 6 + 2: plan refuses them, 4 + 4 for one",
    ]  # fmt: skip
    assert [row.split()[:4] for row in shown[-2:]] == [["8", "8", "+", "8"], ["8", "2", "+", "6"]]
    carried = plan(load("dler", "node8", ["cluster={kind: apart, carrier: ipc}"]), node)
    assert "cluster.carrier: ipc: " in seated(carried, Layout(2, 6), trace)[1] and not work_of(carried).stored
    assert work_of(plan(load("dler", "node8", ["cluster={kind: apart, carrier: store}"]), node)).stored
    assert work_of(plan(load("dler", "tiny"), Machine(2, 20 * 10**9))).stored


def test_the_best_of_each_way_is_the_fastest_of_it(tmp_path: Path):
    found = calibrate(made(tmp_path / "run"))
    work = work_of(plan(found.recipe))
    ways = list(layouts(4, found.recipe))
    shared, apart = best_of_each(ways, found.trace, work)
    every = [forecast(found.trace, work, layout) for layout in ways]
    assert shared.layout.colocated and apart.mean == min(one.mean for one in every if not one.layout.colocated)
