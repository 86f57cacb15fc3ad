"""The cold start with TRL: an ordinary checkpoint, made once, whole or not at all; only the response carries loss."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from recipes.schema import ColdStart, Recipe, Tiny
from rl.cold_start import cold_start, sft_example
from rollout.tiny.tokenizer import build_tokenizer

RECIPE = Recipe(tiny=Tiny(layers=2, width=32), cold_start=ColdStart(steps=4, batch=4))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def test_a_cold_start_is_made_once_and_loads_with_the_auto_classes(cache: Path):
    steps: list[int] = []
    folder = cold_start(RECIPE, cache, lambda step, of, loss: steps.append(step))
    assert steps == [1, 2, 3, 4]
    assert cold_start(RECIPE, cache, lambda *_: pytest.fail("the second call trained again")) == folder
    assert [path.name for path in cache.iterdir()] == [folder.name]

    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert model.config.model_type == "qwen3" and model.config.tie_word_embeddings
    assert model.config.eos_token_id == tokenizer.eos_token_id
    assert tokenizer.decode(tokenizer("\\boxed{42}")["input_ids"]) == "\\boxed{42}"
    assert not list(folder.glob("*.bin"))


def test_other_settings_make_another_folder_and_the_same_settings_the_same_weights(cache: Path, tmp_path: Path):
    first = cold_start(RECIPE, cache)
    assert cold_start(RECIPE.model_copy(update={"seed": 1}), cache) != first
    assert cold_start(RECIPE.model_copy(update={"name": "other"}), cache) == first  # the name changes nothing
    again = cold_start(RECIPE, tmp_path)
    assert (again / "model.safetensors").read_bytes() == (first / "model.safetensors").read_bytes()


def test_a_killed_run_leaves_nothing_that_looks_finished(tmp_path: Path):
    def killed(step: int, of: int, loss: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cold_start(RECIPE, tmp_path, killed)
    assert list(tmp_path.iterdir()) == []


def test_a_lost_loss_is_one_clear_error(tmp_path: Path):
    recipe = RECIPE.model_copy(update={"cold_start": ColdStart(steps=8, batch=4, lr=1e14)})
    with pytest.raises(RuntimeError, match=r"cold start: loss is nan at step \d of 8; lower cold_start.lr"):
        cold_start(recipe, tmp_path)


def test_prompt_tokens_carry_no_loss_and_the_end_token_does():
    tokenizer = build_tokenizer()
    example = sft_example(tokenizer, "Multiply: 47 * 6", "47 * 6 = 282\n</think>\n\\boxed{282}")
    trained = [id for id in example["labels"] if id != -100]
    masked = example["input_ids"][: -len(trained)]
    assert tokenizer.decode(masked) == "<|user|>Multiply: 47 * 6<|assistant|><think>\n"
    assert tokenizer.decode(trained) == "47 * 6 = 282\n</think>\n\\boxed{282}<|end|>"
    assert example["labels"][: len(masked)] == [-100] * len(masked)
