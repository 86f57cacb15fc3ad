"""The cold start: the tiny reasoner, from random weights to a model that thinks too long, with TRL's SFTTrainer.

The result is an ordinary Hugging Face folder (safetensors and tokenizer). It is cached under the hash of the settings that made it
and appears whole or not at all. Simplifications: fp32 on the CPU only; every trace is seen once.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase, PrinterCallback, Qwen3Config, Qwen3ForCausalLM, TrainerCallback, set_seed
from trl import SFTConfig, SFTTrainer

from recipes.schema import Recipe
from rollout import tiny_task
from rollout.tiny_tokenizer import build_tokenizer

_THREADS = 2
_HEAD_DIM = 32
_MAX_TRACE_TOKENS = 300  # longer traces are drawn again: a rollout limit of 320 leaves room for all of them

Progress = Callable[[int, int, float], None]


def cold_start(recipe: Recipe, cache_dir: Path, progress: Progress | None = None) -> Path:
    """The folder of the recipe's tiny reasoner; trained first if `cache_dir` does not hold it yet (minutes on two cores).

    Args:
        recipe: `tiny`, `sft` and `seed` are read.
        cache_dir: made if missing; holds one folder for each setting.
        progress: called with (steps done, steps in all, loss in nats per token) about a hundred times.

    Raises:
        RuntimeError: if the loss is not a number.
    """
    folder = cache_dir / f"tiny-{_settings_hash(recipe)}"
    if folder.is_dir():
        return folder
    cache_dir.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=cache_dir))
    try:
        _train(recipe, unfinished, progress)
        unfinished.chmod(0o755)
        try:
            os.replace(unfinished, folder)
        except OSError:
            if not folder.is_dir():  # else another run with these settings was faster: its folder is as good
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def sft_example(tokenizer: PreTrainedTokenizerBase, question: str, response: str) -> dict[str, list[int]]:
    """`input_ids` and `labels` of one trace: the prompt carries no loss (-100), the end token does."""
    prompt_ids = prompt_token_ids(tokenizer, question)
    response_ids = [*tokenizer(response, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    return {"input_ids": prompt_ids + response_ids, "labels": [-100] * len(prompt_ids) + response_ids}


def prompt_token_ids(tokenizer: PreTrainedTokenizerBase, question: str) -> list[int]:
    message = [{"role": "user", "content": question}]
    return list(tokenizer.apply_chat_template(message, add_generation_prompt=True, return_dict=False))


def _settings_hash(recipe: Recipe) -> str:
    settings = [tiny_task.TASK_VERSION, recipe.tiny.model_dump(mode="json"), recipe.sft.model_dump(mode="json"), recipe.seed]
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def _train(recipe: Recipe, folder: Path, progress: Progress | None) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(_THREADS)
    try:
        set_seed(recipe.seed)
        tokenizer = build_tokenizer()
        model = Qwen3ForCausalLM(_model_config(recipe, tokenizer))
        dataset = Dataset.from_list(list(_examples(recipe, tokenizer)))
        reporter = _Reporter(recipe.sft.steps, progress)
        trainer = SFTTrainer(
            model, _sft_config(recipe, folder / "trainer"), train_dataset=dataset, processing_class=tokenizer, callbacks=[reporter]
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    finally:
        torch.set_num_threads(threads)
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


def _examples(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> Iterator[dict[str, Any]]:
    """One trace of each training problem, `sft.steps x sft.batch` of them."""
    tiny = recipe.tiny
    rng = Random(f"traces/{recipe.seed}")
    for problem in tiny_task.problems("train", tiny.families, recipe.seed, 0, recipe.sft.steps * recipe.sft.batch):
        while True:
            example = sft_example(tokenizer, problem.text, tiny_task.trace(problem, rng, tiny.recheck, tiny.rederive, tiny.slip))
            if len(example["input_ids"]) <= _MAX_TRACE_TOKENS:
                break
        yield example | {"length": len(example["input_ids"])}


def _sft_config(recipe: Recipe, folder: Path) -> SFTConfig:
    return SFTConfig(
        output_dir=str(folder),
        max_steps=recipe.sft.steps,
        per_device_train_batch_size=recipe.sft.batch,
        learning_rate=recipe.sft.lr,
        lr_scheduler_type="cosine",
        warmup_steps=max(1, recipe.sft.steps // 20),
        weight_decay=0.0,
        adam_beta2=0.98,  # 0.999 remembers longer than a run of minutes lasts
        seed=recipe.seed,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        max_length=None,
        train_sampling_strategy="group_by_length",
        logging_steps=max(1, recipe.sft.steps // 100),
        logging_nan_inf_filter=False,  # the filter would hide a lost loss behind the last good one
        disable_tqdm=True,
        report_to="none",
        save_strategy="no",
        dataloader_num_workers=0,
    )


class _Reporter(TrainerCallback):
    """Hands the loss on, and stops a run whose loss is lost."""

    def __init__(self, steps: int, progress: Progress | None) -> None:
        self.steps, self.progress = steps, progress

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        if logs is None or "loss" not in logs:
            return
        if not logs["loss"] < float("inf"):
            raise RuntimeError(f"cold start: loss is {logs['loss']} at step {state.global_step} of {self.steps}; lower sft.lr")
        if self.progress is not None:
            self.progress(state.global_step, self.steps, logs["loss"])
