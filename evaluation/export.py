"""An evaluation in the forms of other tools: lm-eval's results and samples, OckBench's results.

Claim: what they read of it means there what it means here: shares of right samples as means over problems, lengths in generated tokens, how each sample ended.
Fields that we have and they do not stand beside theirs under names of their own; what nobody recorded (prompts, latencies, few-shot examples) is null or left out.
`laconic import` reads both back to the same numbers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from pydantic import ValidationError

from evaluation.efficiency import failures_at_limit, ock
from evaluation.measured import grouped
from evaluation.results import Evaluation
from evaluation.statistics import standard_error
from rollout.records import CHARACTERS

FORMS = ("lm-eval", "ockbench")
_COLUMNS = [
    "problem_id",
    "family",
    "level",
    "problem",
    "answer",
    "golds",
    "sample",
    "text",
    "tokens",
    "think_tokens",
    "finish",
    "verdict",
    "reason",
    "extracted",
]


def export(path: Path, form: str, folder: Path, overwrite: bool = False) -> list[Path]:
    """Write the evaluations of a folder, a run or one NAME.json to `folder`; the files.

    lm-eval: NAME/results_DATE.json and NAME/samples_SOURCE_DATE.jsonl. OckBench: NAME.json, a record for each sample.

    Raises:
        ValueError: another form, nothing whole to export, or lengths in characters where tokens are wanted.
        FileExistsError: a file is there already, and `overwrite` is off.
    """
    if form not in FORMS:
        raise ValueError(f"--format: {form!r}: expected {' or '.join(FORMS)}")
    content: dict[Path, str] = {}
    for file in _files(path):
        evaluation, problems = _read(file)
        if evaluation.parallel is not None:
            continue  # of votes, which no other tool has a form for
        written = _lm_eval(evaluation, problems) if form == "lm-eval" else _ockbench(file, evaluation, problems)
        content |= {folder / f"{file.stem}{rest}": text for rest, text in written.items()}
    if not content:
        raise ValueError(
            f"{path}: holds votes of chains that were stopped, which other tools have no form for; export the natural evaluation"
        )
    for target in content:
        earlier = [target, *target.parent.glob("results_*.json")] if form == "lm-eval" else [target]
        if not overwrite and (there := next((one for one in earlier if one.exists()), None)):
            raise FileExistsError(f"{there}: exported before; replace it (--overwrite) or choose another folder (--out)")
    for target, text in content.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    return list(content)


def _files(path: Path) -> list[Path]:
    """The NAME.json of evaluations that have their samples beside them. Raises ValueError: there is none."""
    if not path.exists():
        raise ValueError(f"{path} does not exist; name a folder of evaluations, a run or one NAME.json")
    held = path / "evals" if (path / "evals").is_dir() else path
    files = [path] if path.is_file() else sorted(file for file in held.glob("*.json") if file.with_suffix(".parquet").is_file())
    if not files or not files[0].with_suffix(".parquet").is_file():
        raise ValueError(
            f"{path}: no evaluation with its samples, NAME.json and NAME.parquet, lies there; name a folder that `laconic eval` wrote"
        )
    return files


def _read(file: Path) -> tuple[Evaluation, list[list[dict[str, Any]]]]:
    """An evaluation and the rows of its samples by problem. Raises ValueError: it is not whole."""
    try:
        evaluation = Evaluation.model_validate_json(file.read_text(encoding="utf-8"))
        rows = grouped(pq.read_table(file.with_suffix(".parquet"), columns=_COLUMNS)).to_pylist()
    except (ValidationError, OSError, ValueError) as error:
        raise ValueError(f"{file} is no whole evaluation ({' '.join(str(error).split())[:150]}); evaluate again") from error
    by_id: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_id.setdefault(row["problem_id"], []).append(row)
    return evaluation, list(by_id.values())


def _lm_eval(evaluation: Evaluation, problems: Sequence[Sequence[dict[str, Any]]]) -> dict[str, str]:
    """The two files, by what stands behind NAME; fields as lm-eval 0.4.9 has them."""
    now = datetime.now(UTC)
    date, task, settings = now.strftime("%Y-%m-%dT%H-%M-%S.%f"), evaluation.source, evaluation.settings
    share_N = np.array([np.mean([row["verdict"] == "right" for row in rows]) for rows in problems])
    error = standard_error(share_N) if len(problems) > 1 else None
    unit = settings.unit
    kwargs = {
        "do_sample": settings.temperature != 0,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "max_gen_toks": settings.max_tokens,
    } | ({"top_k": settings.top_k} if settings.top_k else {})
    results = {
        "results": {
            task: {
                "alias": task,
                "sample_len": len(problems),
                "exact_match,none": float(share_N.mean()),
                "exact_match_stderr,none": error if error is not None else "N/A",
                f"{unit},none": evaluation.tokens.mean,
                "truncated,none": evaluation.truncated,
            }
        },
        "group_subtasks": {task: []},
        "configs": {
            task: {
                "task": task,
                "output_type": "generate_until",
                "repeats": evaluation.samples,
                "num_fewshot": 0,
                "generation_kwargs": kwargs,
                "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
            }
        },
        "versions": {task: None},
        "n-shot": {task: 0},
        "higher_is_better": {task: {"exact_match": True}},
        "n-samples": {task: {"original": len(problems), "effective": len(problems)}},
        "config": {"model": settings.engine, "model_args": {"pretrained": evaluation.checkpoint}, "random_seed": settings.seed, "gen_kwargs": kwargs},
        "date": now.timestamp(),
        "model_source": settings.engine,
        "model_name": evaluation.checkpoint,
        "model_name_sanitized": "".join(letter if letter.isalnum() or letter in "-." else "_" for letter in evaluation.checkpoint),
        "laconic": json.loads(evaluation.model_dump_json(exclude={"per_problem", "budget_curve"})),
    }  # fmt: skip
    name = "".join(letter if letter.isalnum() or letter in "-._" else "-" for letter in task)
    lines = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in _lm_eval_samples(problems, kwargs, unit))
    return {f"/results_{date}.json": json.dumps(results, indent=2, ensure_ascii=False), f"/samples_{name}_{date}.jsonl": lines}


def _lm_eval_samples(problems: Sequence[Sequence[dict[str, Any]]], kwargs: dict[str, Any], unit: str) -> Iterator[dict[str, Any]]:
    """A line a problem, with all its samples."""
    for place, rows in enumerate(problems):
        first = rows[0]
        doc = {name: first[name] for name in ("problem_id", "problem", "answer", "golds", "family", "level")}
        yield {
            "doc_id": place,
            "doc": doc,
            "target": first["answer"],
            "arguments": {"gen_args_0": {"arg_0": first["problem"], "arg_1": kwargs}},
            "resps": [[row["text"] for row in rows]],
            "filtered_resps": [[row["extracted"] or "" for row in rows]],
            "filter": "none",
            "metrics": ["exact_match"],
            "doc_hash": _hash(json.dumps(doc, indent=2, ensure_ascii=False)),
            "prompt_hash": _hash(first["problem"]),
            "target_hash": _hash(first["answer"]),
            "exact_match": float(np.mean([row["verdict"] == "right" for row in rows])),
            unit: [row["tokens"] for row in rows],
            "think_tokens": [row["think_tokens"] for row in rows],
            "finish_reasons": [row["finish"] for row in rows],
            "verdicts": [row["verdict"] for row in rows],
        }


def _ockbench(file: Path, evaluation: Evaluation, problems: Sequence[Sequence[dict[str, Any]]]) -> dict[str, str]:
    """The one file, in OckBench's schema 2.0. `ock_score` is what their code makes of these records, `ock10` what their published table does."""
    settings = evaluation.settings
    if settings.template == CHARACTERS:
        raise ValueError(f"{file}: lengths are in characters, and OckBench's are in tokens; count them with `laconic import --tokenizer`")
    records = [_record(row) for rows in problems for row in rows]
    totals = {name: sum(record["tokens"][name] for record in records) for name in records[0]["tokens"]}
    right = sum(record["correct"] for record in records)
    tokens_S, failed_S = (
        np.array(values)
        for values in zip(*((one["tokens"]["output_tokens"], one["finish_reason"] == "abort") for one in records), strict=True)
    )
    mean = float(failures_at_limit(tokens_S, failed_S, settings.max_tokens).mean())  # what was never made is not short
    summary = {
        "total_problems": len(records),
        "correct_count": right,
        "accuracy": 100 * right / len(records),
        **{name if name == "total_tokens" else f"total_{name}": total for name, total in totals.items()},
        "avg_tokens_per_problem": totals["output_tokens"] / len(records),
        "avg_latency": 0.0,
        "total_duration": 0.0,
        "error_count": sum(record["error"] is not None for record in records),
        "ock_score": float(ock(right / len(records), mean, base="ln")),
        "ock10": float(ock(right / len(records), mean)),
    }
    config = {
        "dataset_path": evaluation.source, "dataset_name": evaluation.source, "provider": settings.engine, "model": evaluation.checkpoint,
        "temperature": settings.temperature, "top_p": settings.top_p, "max_output_tokens": settings.max_tokens, "evaluator_type": "math",
        "notes": "prompt tokens and latencies were not recorded; a record is a sample",
    }  # fmt: skip
    whole = {"schema_version": "2.0", "config": config, "results": records, "summary": summary, "timestamp": datetime.now(UTC).isoformat()}
    return {".json": json.dumps(whole | {"dataset_name": evaluation.source}, indent=2, ensure_ascii=False)}


def _record(row: dict[str, Any]) -> dict[str, Any]:
    thinking = row["think_tokens"] or 0
    return {
        "problem_id": row["problem_id"],
        "question": row["problem"],
        "ground_truth": row["answer"] if len(row["golds"] or ()) < 2 else row["golds"],
        "model_response": row["text"],
        "extracted_answer": row["extracted"],
        "correct": row["verdict"] == "right",
        "tokens": {
            "prompt_tokens": 0,
            "answer_tokens": row["tokens"] - thinking,
            "reasoning_tokens": thinking,
            "output_tokens": row["tokens"],
            "total_tokens": row["tokens"],
        },
        "latency": 0.0,
        "error": row["reason"] if row["verdict"] == "not_judged" else None,
        "extraction_method": "laconic",
        "finish_reason": row["finish"],
        "sample": row["sample"],
    }


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
