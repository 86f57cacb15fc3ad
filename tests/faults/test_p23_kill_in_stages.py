"""Kill and resume (P23) in a run of seven stages: it is killed in each of them and resumed; another is left alone."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from rl.supervised import Training, drawn, sft
from rollout.template import load_template
from rollout.tokenizer import load_tokenizer
from rollout.types import Example, Problem
from tests.faults.test_p23_kill_anywhere import Killer, record, rollouts

STAGES = (
    "stages=[{kind: reference, samples: 6}, {kind: sft, batch: 2, epochs: 2, lr: 1e-5}, {kind: dpo, batch: 2, epochs: 4, lr: 1e-5}, "
    "{kind: rl, name: phase_1, changes: {budget.limit: 9, train.steps: 3}}, eval, "
    "{kind: rl, changes: {reward: [{kind: verdict}, {kind: o1_pruner, gate: right, low: 0.05}]}}, eval, merge, {kind: eval, name: merged}]"
)
KILLS = [  # where, and in which call of the process: each leaves the run in the next stage
    ("mid-sampling", 2),  # reference
    ("mid-supervised", 1),  # sft, whose trainer kept its second step
    ("mid-supervised", 2),  # dpo: sft kept its last step before
    ("between-metrics-and-checkpoint", 1),  # phase_1
    ("mid-sampling", 2),  # the evaluation after its last step, two of whose problems are kept
    ("before-an-evaluation-is-kept", 1),
    ("between-metrics-and-checkpoint", 3),  # the last rl stage, step-2 of which is kept
    ("between-stages", 1),
    ("mid-merge", 2),
    ("before-an-evaluation-is-kept", 1),  # of the merged model
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "problems.jsonl"
    path.write_text("".join(json.dumps({"problem": f"{n} + {n + 1}", "answer": str(2 * n + 1)}) + "\n" for n in range(1, 5)))
    return path


@pytest.fixture(scope="module")
def learned(tiny_checkpoint: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that answers these problems, mostly right, at once or with some thought."""
    template, tokenizer = load_template(tiny_checkpoint), load_tokenizer(tiny_checkpoint)
    rows = []
    for line in map(json.loads, data.read_text().splitlines()):
        prompt = template.prompt_ids(Problem(line["problem"], line["problem"], line["answer"]))
        for thought in ("", f"{line['problem']} = {line['answer']} " * 2):
            text = f"{thought}</think> \\boxed{{{line['answer']}}}"
            rows.append(Example(prompt, [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]))
    how = Training("learned", batch=8, lr=1e-2, seed=0, checkpoint_every=0)
    return sft(tiny_checkpoint, tmp_path_factory.mktemp("learned"), drawn([rows], [1.0], 0, 8, epochs=150 * 8 / len(rows)), how)


def arguments(start: Path, runs: Path, data: Path, *more: str) -> list[str]:
    return [
        "train", "quickstart", "name=run", f"model.path={start}", f"data.train={data}", STAGES, "engine.kind=reference", "engine.count=1",
        "sampler.prompts=2", "sampler.group_size=4", "sampler.keep_groups=all", "budget.limit=24", "budget.cut_stop=1.0", "train.steps=4",
        "train.checkpoint_every=2", "train.samples_per_step=100", "learner.ranks=1", "learner.threads=1", "judge.workers=1",
        f"eval.data=[{data}]", "eval.samples=2", "eval.max_tokens=24", "--runs", str(runs), *more,
    ]  # fmt: skip


def left_behind(run: Path) -> dict[str, Any]:
    """What a run and its stages hold, without clocks."""
    found: dict[str, Any] = {str(path.relative_to(run)): path.read_bytes() for path in run.glob("**/checkpoint*/**/model.safetensors")}
    for folder in (run, run / "stages" / "phase_1"):
        found |= {f"{folder.name} metrics": record(folder), f"{folder.name} samples": rollouts(folder)}
    for file in run.glob("**/evals/*.json"):
        scores = json.loads(file.read_text())
        found[str(file.relative_to(run))] = scores | {"checkpoint": scores["checkpoint"].removeprefix(str(run))}
    parts = [row for part in (run / "stages" / "reference").glob("part-*.parquet") for row in pq.read_table(part).to_pylist()]
    return found | {"reference": sorted(parts, key=lambda row: (row["request"], row["sample"]))}


@pytest.mark.timeout(600)
def test_p23_a_run_killed_in_each_of_its_stages_leaves_what_one_leaves_that_was_left_alone(
    learned: Path, data: Path, killer: Killer, tmp_path: Path
):
    code, output = killer.run(arguments(learned, tmp_path / "alone", data), actors=False)
    assert code == 0, output[-3000:]
    assert f"Its model: {tmp_path}/alone/run/stages/merge/checkpoint" in output.replace("\n", "")
    assert "Mean tokens" in output
    resumed = 0
    for number, (point, count) in enumerate(KILLS):
        code, output = killer.run(arguments(learned, tmp_path, data, *(["--resume"] if number else [])), point, count, actors=False)
        assert code == -signal.SIGKILL, f"{point}: {output[-3000:]}"
        resumed += output.count(".parts: ")
    code, output = killer.run(arguments(learned, tmp_path, data, "--resume"), actors=False)
    assert code == 0, output[-3000:]
    alone, killed = left_behind(tmp_path / "alone" / "run"), left_behind(tmp_path / "run")
    assert killed.keys() == alone.keys()
    assert [name for name, found in killed.items() if found != alone[name]] == []
    resumed += output.count(".parts: ")
    assert resumed == 3 and not list(
        tmp_path.glob("**/*.parts")
    )  # the two evaluations that were killed when all was sampled, and the one in its midst
    names = {path.parent.parent.name for path in (tmp_path / "run").glob("stages/**/model.safetensors")}
    assert names == {"sft", "dpo", "merge", "checkpoints"}
    assert len({alone[name] for name in alone if name.endswith("safetensors")}) == sum(name.endswith("safetensors") for name in alone)
