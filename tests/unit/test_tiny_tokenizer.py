"""The tiny tokenizer: what it decodes is what was encoded, and what judges read."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from rollout.tiny.task import LEVELS, problem, trace
from rollout.tiny.tokenizer import build_tokenizer


@pytest.fixture(scope="module", params=["built", "loaded"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    built = build_tokenizer()
    if request.param == "built":
        return built
    folder: Path = tmp_path_factory.mktemp("tokenizer")
    built.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


@given(cell=st.sampled_from([(f, level) for f, levels in LEVELS.items() for level in range(1, levels + 1)]), seed=st.integers(0, 10**9))
@settings(max_examples=200, deadline=None)
def test_questions_and_traces_survive_the_round_trip(tokenizer: PreTrainedTokenizerBase, cell: tuple[str, int], seed: int):
    rng = Random(seed)
    drawn = problem(*cell, rng)
    for text in (drawn.text, trace(drawn, rng, 0.6, 0.45, 0.1)):
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.decode(ids) == text
        assert tokenizer.decode(ids, skip_special_tokens=True) == text  # think tags and boxes are text, not special
        assert tokenizer.unk_token_id not in ids


def test_a_box_decodes_contiguous(tokenizer: PreTrainedTokenizerBase):
    ids = tokenizer("</think>\n\\boxed{42}")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == ["</think>", "\n", "\\boxed{", "4", "2", "}"]
    assert tokenizer.decode([*ids, tokenizer.eos_token_id], skip_special_tokens=True) == "</think>\n\\boxed{42}"


def test_tokens_decode_one_by_one_to_the_same_text(tokenizer: PreTrainedTokenizerBase):
    ids = tokenizer("check 47 * 6: 7 * 6 = 42, 4 * 6 + 4 = 28 -> 282, yes\n")["input_ids"]
    assert "".join(tokenizer.decode([id]) for id in ids) == tokenizer.decode(ids)


def test_the_generation_prompt_opens_the_thinking_block(tokenizer: PreTrainedTokenizerBase):
    message = [{"role": "user", "content": "Multiply: 47 * 6"}]
    ids = tokenizer.apply_chat_template(message, add_generation_prompt=True, return_dict=False)
    assert tokenizer.decode(ids) == "<|user|>Multiply: 47 * 6<|assistant|><think>\n"
    whole = [*message, {"role": "assistant", "content": "<think>\n47 * 6 = 282\n</think>\n\\boxed{282}"}]
    assert tokenizer.apply_chat_template(whole, return_dict=False)[: len(ids)] == ids
    assert tokenizer.apply_chat_template(whole, return_dict=False)[-1] == tokenizer.eos_token_id


def test_pad_end_and_unknown_are_three_tokens(tokenizer: PreTrainedTokenizerBase):
    assert len({tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id}) == 3


def test_text_outside_the_task_becomes_unknown(tokenizer: PreTrainedTokenizerBase):
    assert tokenizer.unk_token_id in tokenizer("Prove Fermat's theorem")["input_ids"]
