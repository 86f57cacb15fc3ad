"""The model card: in the hub's format, with the numbers of that checkpoint and of no other, and nothing that its run's folder does not hold."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from evaluation.card import card, of_model
from evaluation.model import model_of
from recipes.loader import dump, load
from rl import checkpoint
from rollout.types import Group
from tests.unit.test_report import add_evaluation, make_groups

WEIGHTS = bytes(range(256)) * 800
FILES = {
    "model.safetensors": WEIGHTS,
    "config.json": b'{"model_type": "qwen3"}',
    "generation_config.json": b"{}",
    "tokenizer.json": b'{"version": "1.0"}',
    "tokenizer_config.json": b"{}",
    "chat_template.jinja": b"{{ messages }}",
    "learner/state/optimiser.pt": b"o" * 1000,
    "notes.txt": b"not for others",
}


def keep(folder: Path, files: dict[str, bytes] = FILES) -> Path:
    """A whole checkpoint."""

    def fill(new: Path) -> None:
        for name, content in files.items():
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            (new / name).write_bytes(content)

    return checkpoint.write(folder, fill, {"merge": {"base": "/home/someone/base"}})


def make_run(folder: Path, changes: Sequence[str] = (), state: str = "finished", **more: object) -> Path:
    """A run folder of 3 steps with the checkpoints step-2 and step-3, as `laconic train` leaves one, without evaluations."""
    folder.mkdir(parents=True)
    recipe = load("quickstart", None, [f"name={folder.name}", "train.steps=3", *changes])
    (folder / "recipe.yaml").write_text(dump(recipe))
    (folder / "environment.json").write_text(
        json.dumps(
            {
                "started": "2026-01-02T03:04:05Z",
                "revision": "abc123",
                "platform": "Linux-of-mine",
                "packages": {"laconic": "0.1.0", "vllm": None},
            }
        )
    )
    (folder / "status.json").write_text(json.dumps({"state": state, "reason": "", "step": 3} | more))
    (folder / "metrics.jsonl").write_text(
        "".join(json.dumps({"step": step, "accuracy": 0.5, "length/mean": 90.0}) + "\n" for step in range(3))
    )
    for step in (2, 3):
        keep(folder / "checkpoints" / f"step-{step}")
    return folder


def evaluate(folder: Path, step: int, groups: list[Group], **settings: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    made = {"temperature": 0.6, "top_p": 0.95, "max_tokens": 320, "samples": 2, "seed": 0, "engine": "vllm"}
    add_evaluation(folder, step, groups, made | settings)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Evaluated before and after: 12 and 20 of 24 problems solved, in about 210 and 60 tokens."""
    folder = make_run(tmp_path / "short-one")
    evaluate(folder, 0, make_groups(right=12, tokens=200))
    evaluate(folder, 3, make_groups(right=20, tokens=50))
    return folder


def written(run: Path, named: str | None = None, at: str = "me/short-one", **more: str) -> ModelCard:
    model = model_of(run, named)
    return ModelCard(card(model, of_model(model), at, **more))


def rename_source(run: Path, name: str) -> None:
    for file in run.glob("**/evals/*.json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"source": name}))


def test_the_hub_reads_accuracy_and_tokens_with_their_noise_out_of_the_front_matter(run: Path) -> None:
    data = written(run).data
    assert (data.library_name, data.pipeline_tag, data.tags) == ("transformers", "text-generation", ["laconic", "reasoning"])
    accuracy, tokens = data.eval_results
    assert (accuracy.task_type, accuracy.dataset_type, accuracy.dataset_name) == ("text-generation", "tiny", "tiny")
    assert (accuracy.metric_type, accuracy.metric_value) == ("accuracy", 0.8333)
    assert re.fullmatch(r"Accuracy, 24 problems x 2, 95 % interval 0\.\d+ to [01]\.\d+", accuracy.metric_name)
    assert (tokens.metric_type, tokens.metric_value) == ("mean_tokens", 61.5)
    assert tokens.metric_name.startswith("Mean tokens, at most 320, 95 % interval")


def test_a_base_model_and_data_of_the_hub_are_linked_and_those_of_a_folder_or_made_here_are_not(tmp_path: Path) -> None:
    hub = make_run(
        tmp_path / "a",
        ["stages=[rl, eval]", "model.path=some-org/Base-1.5B", "model.revision=v2", "data.train=[hub:some-org/set/main:train, tiny]"],
    )
    data = written(hub).data
    assert (data.base_model, data.datasets) == ("some-org/Base-1.5B", ["some-org/set"])
    assert "[some-org/Base-1.5B](https://huggingface.co/some-org/Base-1.5B) at v2" in written(hub).text
    for name, path in (("b", "/home/Jane Doe/models/base"), ("c", "runs/other/checkpoints/step-3"), ("d", "tiny")):
        made = written(make_run(tmp_path / name, [f"model.path={path}", *(["stages=[rl, eval]"] if path != "tiny" else [])]))
        assert made.data.base_model is None and made.data.datasets is None and made.data.license is None
        assert "huggingface.co" not in str(made)
    assert written(hub, licence="mit").data.license == "mit"


def test_evaluations_of_hub_sets_and_benchmarks_carry_the_id_of_their_data_set(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", ["eval.data=[hub:org/set/main:dev]", "eval.benchmarks=[math500, aime24@/data/sets, amc@hub:org/amc]"])
    evaluate(run, 3, make_groups(right=20, tokens=50))
    for source, id_, split in (
        ("hub:org/set/main:dev", "org/set", "dev"), ("math500", "HuggingFaceH4/MATH-500", None), ("aime24", "aime24", None), ("amc", "org/amc", None),
    ):  # fmt: skip
        rename_source(run, source)
        result = written(run).data.eval_results[0]
        assert (result.dataset_type, result.dataset_split, result.dataset_name) == (id_, split, source)


def test_the_text_says_what_may_be_claimed_with_tables_and_curves(run: Path) -> None:
    text = written(run).text
    assert "More accurate (95 % interval" in text and "Mean tokens 212 → 62 (−71 %" in text
    assert "| mean tokens | 212 | 62 | −71 % [" in text
    assert re.search(r"\| +\| within 10 \| within 20 \| within 40 \| within 80 \| within 160 \| within 320 \|", text)
    assert "![Accuracy within a budget" in text and "(accuracy.svg)" in text
    assert "reinforcement learning for 3 steps" in text and "laconic train recipe.yaml" in text
    assert "One run with one seed (0)" in text and "Measured on tiny and on nothing else" in text


def test_a_checkpoint_gets_the_numbers_that_were_measured_on_it_and_no_others(run: Path) -> None:
    assert written(run, "step-2").data.eval_results is None
    text = written(run, "step-2").text
    assert "not evaluated in its run" in text and "83.3 %" not in text and "svg" not in text and "2 of 3 steps" in text
    evaluate(run, 2, make_groups(right=16, tokens=90))
    assert written(run, "step-2").data.eval_results[0].metric_value == 0.6667
    assert written(run).data.eval_results[0].metric_value == 0.8333


def test_a_merge_that_nobody_evaluated_does_not_pass_for_what_it_was_merged_from(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", ["stages=[rl, eval, merge]"])
    for step, right in ((0, 12), (3, 20)):
        evaluate(run, step, make_groups(right=right, tokens=100))
    model = model_of(run)
    assert model.called == "stages/merge/checkpoint"
    assert written(run).data.eval_results is None and "a merge of the largest 25 % of the changes" in written(run).text
    assert written(run, "step-3").data.eval_results[0].metric_value == 0.8333


def test_an_eval_stage_behind_what_it_was_handed_speaks_of_that(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", ["stages=[rl, eval, merge, {kind: eval, name: merged}]"])
    for step, right in ((0, 12), (3, 20)):
        evaluate(run, step, make_groups(right=right, tokens=100))
    evaluate(run / "stages" / "merged", 0, make_groups(right=18, tokens=60))
    assert written(run).data.eval_results[0].metric_value == 0.75
    assert "accuracy 50.0 % → 75.0 %" in written(run).text
    assert written(run, "step-3").data.eval_results[0].metric_value == 0.8333


def test_a_supervised_stage_is_what_an_eval_behind_it_speaks_of(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", ["stages=[{kind: sft, data: [hub:org/chats]}, eval]"])
    evaluate(run, 0, make_groups(right=20, tokens=50))
    made = written(run)
    assert (model_of(run).called, made.data.datasets) == ("stages/sft/checkpoint", ["org/chats"])
    assert made.data.eval_results[0].metric_value == 0.8333
    assert "On tiny: accuracy 83.3 %" in made.text and "supervised fine-tuning on hub:org/chats" in made.text


@pytest.mark.parametrize(
    ("stages", "first", "words"),
    [
        ("[rl, eval]", "", "Before is the model that the run began with."),
        ("[reference, dpo, rl, eval]", "", "Before is what the stage dpo made."),
        ("[{kind: eval, name: start}, reference, dpo, rl, eval]", "stages/start", "Before is the model that the run began with."),
        ("[{kind: rl, name: first}, eval, rl, eval]", "stages/first", "Before is the model that the run began with."),
    ],
)
def test_it_is_said_what_the_model_is_compared_with(tmp_path: Path, stages: str, first: str, words: str) -> None:
    run = make_run(tmp_path / "a", [f"stages={stages}"])
    evaluate(run / first, 0, make_groups(right=12, tokens=200))
    evaluate(run, 3, make_groups(right=20, tokens=50))
    assert words in written(run).text and "accuracy 50.0 % → 83.3 %" in written(run).text


def test_samples_made_at_a_budget_are_shown_apart(run: Path) -> None:
    evaluate(run, 3, make_groups(right=20, tokens=50))
    file = run / "evals" / "step-3.json"
    forced = json.loads(file.read_text())
    forced["settings"]["budget"] = {"kind": "forced", "limit": 1024}
    (run / "evals" / "step-3-forced.json").write_text(json.dumps(forced))
    made = written(run)
    assert "### Sampled at a budget" in made.text and "On tiny:\n\n" in made.text and "| 1,024 tokens forced | 83.3 % [" in made.text
    assert len(made.data.eval_results) == 2


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("failed", "The run failed at step 3: engine 1 died."),
        ("stopped", "The run was stopped at step 3: engine 1 died."),
        ("no-effective-update", "The run taught nothing"),
        ("running", "The run was still going when this was written"),
    ],
)
def test_how_a_run_ended_is_said_where_it_is_not_well(tmp_path: Path, state: str, words: str) -> None:
    text = written(make_run(tmp_path / "a", state=state, reason="engine 1 died")).text
    assert words in text and "there is no result to state" in text and "nothing is known of its accuracy" in text


def test_waived_promises_overlaps_and_samples_that_nobody_judged_are_limits(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", ["waive=[right_beats_wrong]"])
    evaluate(run, 3, make_groups(right=20, tokens=50))
    (run / "overlap.jsonl").write_text(json.dumps({"eval": "tiny", "train_row": "r7", "eval_row": "e1"}) + "\n")
    file = run / "evals" / "step-3.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"not_judged": 0.25}))
    limits = written(run).text.partition("## Limits")[2].partition("## How")[0]
    assert "Promises that the recipe waives: right beats wrong." in limits
    assert "1 training rows are also rows of tiny (r7" in limits and "25.00 % of the samples could not be judged" in limits


def test_no_folder_of_this_machine_and_no_token_gets_into_a_card(tmp_path: Path) -> None:
    secret = "hf_" + "a1B2" * 8
    run = make_run(
        tmp_path / "a",
        [
            "stages=[rl, eval]", "model.path=/home/Jane Doe/models/base", "data.train=[/srv/data/mine.jsonl, ~/more/rows.jsonl]",
            "eval.data=[/srv/other sets/held.jsonl, 'file:///srv/x/y.jsonl']", f"engine.vllm.hf_token={secret}",
        ],
        state="failed", reason="/home/jane/x/y.py:3: no room in /scratch/tmp/ray",
    )  # fmt: skip
    evaluate(run, 3, make_groups(right=20, tokens=50))
    rename_source(run, "/srv/other sets/held.jsonl")
    text = str(written(run))
    for private in ("jane", "Jane", "Doe", "srv", "other sets", "scratch", secret, "Linux-of-mine", str(tmp_path)):
        assert private not in text, private
    for shown in ("…/base", "…/mine.jsonl", "…/rows.jsonl", "…/held.jsonl", "…/y.py:3"):
        assert shown in text, shown


def test_names_and_reasons_cannot_write_markdown_or_leave_the_block_of_the_recipe(tmp_path: Path) -> None:
    hostile = "x\n\n# Big ![pixel](http://evil/p) <img src=x> | y"
    run = make_run(tmp_path / "a", ["data.instruction='say\n```\n</details>\n# Out'"], state="failed", reason=hostile)
    evaluate(run, 3, make_groups(right=20, tokens=50))
    rename_source(run, hostile)
    made = written(run)
    assert made.data.eval_results[0].dataset_name == hostile
    outside = re.sub(r"^(`{3,})\w*\n.*?\n\1$", "", made.text, flags=re.DOTALL | re.MULTILINE)
    assert "# Out" not in outside and "# Big" in outside
    assert not re.search(r"^# Big|^# Out|<img|!\[pixel\]\(|```", outside, re.MULTILINE)


MOVING = "schedule={budget.limit: {kind: linear, to: 17}}"  # prompts are to state what was trained to


@pytest.mark.parametrize(
    "changes", [[], ["data.instruction='Use {budget} \"tokens\"'", "data.template={enable_thinking: false, effort: low}", MOVING]]
)
def test_the_code_that_a_card_shows_is_python_with_the_settings_of_the_evaluation(tmp_path: Path, changes: list[str]) -> None:
    run = make_run(tmp_path / "a", changes)
    evaluate(run, 3, make_groups(right=20, tokens=50))
    blocks = re.findall(r"```python\n(.*?)```", written(run, at="me/it", revision="short").text, re.DOTALL)
    values = [
        {node.arg: ast.unparse(node.value) for node in ast.walk(ast.parse(block)) if isinstance(node, ast.keyword)} for block in blocks
    ]
    assert [(one["temperature"], one["top_p"], one["revision"]) for one in values] == [("0.6", "0.95", "'short'")] * 2
    assert (values[0]["max_new_tokens"], values[1]["max_tokens"]) == ("320", "320")
    evaluate(run, 3, make_groups(right=20, tokens=50), temperature=0.0)
    greedy = re.findall(r"```python\n(.*?)```", written(run).text, re.DOTALL)
    assert "generate(**inputs, do_sample=False, max_new_tokens=320)" in greedy[0] and "SamplingParams(temperature=0.0, " in greedy[1]
    if changes:
        assert values[0]["enable_thinking"] == "False" and ast.literal_eval(values[1]["chat_template_kwargs"])["effort"] == "low"
        assert all('"\\n\\nUse {budget} \\"tokens\\"".replace("{budget}", "17"' in block for block in blocks)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda run: (run / "recipe.yaml").unlink(), "holds no recipe.yaml, so it is no run folder"),
        (lambda run: (run / "recipe.yaml").write_text("nonsense: 1"), "nonsense"),
        (lambda run: (run / "recipe.yaml").write_text(dump(load("evaluate"))), "make no model of their own"),
    ],
)
def test_what_is_no_run_of_a_model_is_refused_in_words(run: Path, harm: Callable[[Path], object], words: str) -> None:
    harm(run)
    with pytest.raises(ValueError, match=words):
        written(run)
