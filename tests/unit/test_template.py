"""Prompts from the model's own template, once; responses stay ids."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from rollout.template import TemplateError, load_template
from rollout.types import Completion, Problem


def completion(ids: list[int], finish: str) -> Completion:
    return Completion(np.array(ids, np.int32), np.zeros(len(ids), np.float32), finish, np.zeros(len(ids), np.int32))


def test_p06_the_stop_token_trains_but_is_not_shown_and_a_cut_answer_gets_none(tiny_checkpoint: Path):
    template = load_template(tiny_checkpoint)
    ids = template.tokenizer("</think>\n\\boxed{42}")["input_ids"]
    [stop] = template.stop_ids
    assert template.text(completion([*ids, stop], "stop")) == "</think>\n\\boxed{42}"
    assert template.text(completion(ids, "length")) == "</think>\n\\boxed{42}"
    assert template.answer_start(np.array(ids)) == 1
    assert template.answer_start(np.array(ids[1:])) is None


def test_p06_every_stop_id_of_the_generation_config_counts(tiny_checkpoint: Path, tmp_path: Path):
    folder = tmp_path / "two"
    shutil.copytree(tiny_checkpoint, folder)
    eos = load_template(tiny_checkpoint).stop_ids[0]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [eos, 7]}))
    assert load_template(folder).stop_ids == tuple(sorted((eos, 7)))


def test_the_prompt_is_the_chat_template_with_an_open_thinking_block(tiny_checkpoint: Path):
    template = load_template(tiny_checkpoint, instruction="again")
    assert template.thinking
    text = template.tokenizer.decode(list(template.prompt_ids(Problem("p", "Add: 1 + 2", "3"))))
    assert text.count("Add: 1 + 2\n\nagain") == 1 and text.rstrip().endswith("<think>")


def test_a_problems_system_text_is_the_system_turn_of_its_prompt(tiny_checkpoint: Path, tmp_path: Path):
    folder = tmp_path / "system"
    shutil.copytree(tiny_checkpoint, folder)
    [file] = folder.glob("chat_template*")
    file.write_text("{% for turn in messages %}{{ turn.content }} = {% endfor %}")
    template = load_template(folder)
    decoded = [
        template.tokenizer.decode(list(template.prompt_ids(problem)))
        for problem in (Problem("p", "1", "1"), Problem("p", "1", "1", system="2"))
    ]
    assert [text.split() for text in decoded] == [["1", "="], ["2", "=", "1", "="]]


def test_another_template_or_vocabulary_has_another_digest(tiny_checkpoint: Path, tmp_path: Path):
    folder = tmp_path / "other"
    shutil.copytree(tiny_checkpoint, folder)
    [file] = folder.glob("chat_template*")
    file.write_text(file.read_text() + " ")
    assert load_template(folder).digest != load_template(tiny_checkpoint).digest
    assert load_template(tiny_checkpoint).digest == load_template(tiny_checkpoint).digest


def test_a_checkpoint_without_tokenizer_or_template_is_refused_with_the_remedy(tiny_checkpoint: Path, tmp_path: Path):
    with pytest.raises(TemplateError, match="no usable tokenizer"):
        load_template(tmp_path)
    folder = tmp_path / "plain"
    shutil.copytree(tiny_checkpoint, folder)
    for file in folder.glob("chat_template*"):
        file.unlink()
    with pytest.raises(TemplateError, match="no chat template"):
        load_template(folder)
