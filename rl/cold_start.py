"""The cold start: the tiny reasoner, from random weights to a model that thinks too long, with TRL's SFTTrainer.

The result is an ordinary Hugging Face folder (safetensors and tokenizer). It is cached under the hash of the settings that made it
and appears whole or not at all. Simplifications: fp32 on the CPU only; every trace is seen once.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from random import Random
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase, PrinterCallback, Qwen3Config, Qwen3ForCausalLM, set_seed
from trl import SFTConfig, SFTTrainer

from recipes.schema import Recipe
from rl.muon import MuonAdamW
from rl.scratch import scratch_folder
from rl.supervised import Progress, Reporter, by_length, cpu_threads, trainer_arguments
from rollout.tiny import task as tiny_task
from rollout.tiny.tokenizer import build_tokenizer

_THREADS = 2
_HEAD_DIM = 32
_FIRST_SHARE, _RAMP = (
    0.2,
    0.75,
)  # traces start with a fifth of their verbosity and have all of it after 3/4: short ones teach arithmetic cheaply
_MAX_TRACE_TOKENS = 300  # longer traces are drawn again: a rollout limit of 320 leaves room for all of them


def cold_start(recipe: Recipe, cache_dir: Path, progress: Progress | None = None) -> Path:
    """The folder of the recipe's tiny reasoner; trained first if `cache_dir` does not hold it yet (minutes on two cores).

    Args:
        recipe: `tiny`, `cold_start` and `seed` are read.
        cache_dir: made if missing; holds one folder for each setting.
        progress: called with (steps done, steps in all, loss in nats per token) about a hundred times.

    Raises:
        RuntimeError: if the loss is not a number.
    """
    folder = cold_started(recipe, cache_dir)
    if folder.is_dir():
        return folder
    cache_dir.mkdir(parents=True, exist_ok=True)
    with scratch_folder(".unfinished-", cache_dir) as name:
        unfinished = Path(name)
        _train(recipe, unfinished, progress)
        unfinished.chmod(0o755)
        try:
            os.replace(unfinished, folder)
        except OSError:
            if not folder.is_dir():  # else another run with these settings was faster: its folder is as good
                raise
    return folder


def cold_started(recipe: Recipe, cache_dir: Path) -> Path:
    """The folder that holds the recipe's tiny reasoner, if it exists."""
    return cache_dir / f"tiny-{_settings_hash(recipe)}"


def sft_example(tokenizer: PreTrainedTokenizerBase, question: str, response: str) -> dict[str, list[int]]:
    """`input_ids` and `labels` of one trace: the prompt carries no loss (-100), the end token does."""
    prompt_ids = prompt_token_ids(tokenizer, question)
    response_ids = [*tokenizer(response, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    return {"input_ids": prompt_ids + response_ids, "labels": [-100] * len(prompt_ids) + response_ids}


def prompt_token_ids(tokenizer: PreTrainedTokenizerBase, question: str) -> list[int]:
    message = [{"role": "user", "content": question}]
    return list(tokenizer.apply_chat_template(message, add_generation_prompt=True, return_dict=False))


def _settings_hash(recipe: Recipe) -> str:
    settings = [tiny_task.TASK_VERSION, recipe.tiny.model_dump(mode="json"), recipe.cold_start.model_dump(mode="json"), recipe.seed]
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def _train(recipe: Recipe, folder: Path, progress: Progress | None) -> None:
    steps = recipe.cold_start.steps
    with cpu_threads(_THREADS):
        set_seed(recipe.seed)
        tokenizer = build_tokenizer()
        model = Qwen3ForCausalLM(_model_config(recipe, tokenizer))
        arguments = trainer_arguments(folder / "trainer", steps, recipe.cold_start.batch, recipe.seed)
        trainer = SFTTrainer(
            model,
            SFTConfig(**arguments, max_length=None, use_cpu=True, bf16=False, gradient_checkpointing=False, save_strategy="no"),
            train_dataset=Dataset.from_list(_examples(recipe, tokenizer)),
            processing_class=tokenizer,
            callbacks=[Reporter("cold start", "cold_start.lr", steps, progress)],
            optimizers=(_optimizer(model, recipe.cold_start.lr), None),  # the trainer adds the schedule
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    shutil.rmtree(folder / "trainer", ignore_errors=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _model_config(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> Qwen3Config:
    width = recipe.tiny.width
    heads = max(1, width // _HEAD_DIM)
    return Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=recipe.tiny.layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=_HEAD_DIM,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )


def _examples(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> list[dict[str, Any]]:
    """One trace of each training problem, `cold_start.steps x cold_start.batch` of them in the order to learn them in."""
    tiny, batch = recipe.tiny, recipe.cold_start.batch
    rng = Random(f"traces/{recipe.seed}")
    count = recipe.cold_start.steps * batch
    rows = []
    for index, problem in enumerate(tiny_task.problems("train", tiny.families, recipe.seed, 0, count)):
        share = min(1.0, _FIRST_SHARE + (1 - _FIRST_SHARE) * index / (_RAMP * count))
        while True:
            trace = tiny_task.trace(problem, rng, share * tiny.recheck, share * tiny.rederive, share * tiny.slip)
            row = sft_example(tokenizer, problem.text, trace)
            if len(row["input_ids"]) <= _MAX_TRACE_TOKENS:
                break
        rows.append(row)
    return [rows[index] for index in by_length([len(row["input_ids"]) for row in rows], batch, rng)]


def _optimizer(model: Qwen3ForCausalLM, lr: float) -> MuonAdamW:
    embedding = model.get_input_embeddings().weight
    matrices = [parameter for parameter in model.parameters() if parameter.ndim == 2 and parameter is not embedding]
    others = [parameter for parameter in model.parameters() if parameter.ndim != 2 or parameter is embedding]
    return MuonAdamW(matrices, others, lr)
