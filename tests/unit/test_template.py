"""Prompts from the model's own template, once; responses stay ids."""

from __future__ import annotations

import json
import shutil
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from recipes.data import Data
from rewards.thinking import Marks, marks_of, split
from rollout.template import TemplateError, load_template
from rollout.tokenizer import copy_companions
from rollout.types import Completion, Problem


def completion(ids: list[int], finish: str) -> Completion:
    return Completion(np.array(ids, np.int32), np.zeros(len(ids), np.float32), finish, np.zeros(len(ids), np.int32))


def test_p06_the_stop_token_trains_but_is_not_shown_and_a_cut_answer_gets_none(tiny_checkpoint: Path):
    template = load_template(tiny_checkpoint)
    ids = template.tokenizer("</think>\n\\boxed{42}")["input_ids"]
    [stop] = template.stop_ids
    assert template.text(completion([*ids, stop], "stop")) == "</think>\n\\boxed{42}"
    assert template.text(completion(ids, "length")) == "</think>\n\\boxed{42}"
    assert template.answer_start(np.array(ids), template.tokenizer.decode(ids)) == 1
    assert template.answer_start(np.array(ids[1:]), template.tokenizer.decode(ids[1:])) is None


def test_p06_every_stop_id_of_the_generation_config_counts(tiny_checkpoint: Path, tmp_path: Path):
    folder = tmp_path / "two"
    shutil.copytree(tiny_checkpoint, folder)
    eos = load_template(tiny_checkpoint).stop_ids[0]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [eos, 7]}))
    assert load_template(folder).stop_ids == tuple(sorted((eos, 7)))


def test_the_prompt_is_the_chat_template_with_an_open_thinking_block(tiny_checkpoint: Path):
    template = load_template(tiny_checkpoint, Data(instruction="again"))
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


def byte_level(folder: Path, source: Path, label: str, kind: str) -> Path:
    """A copy of a checkpoint with a byte-level vocabulary, labelled as a class of another family."""
    shutil.copytree(source, folder)
    for file in folder.glob("tokenizer*"):
        file.unlink()
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator([" is the answer"] * 9, trainers.BpeTrainer(vocab_size=290, initial_alphabet=alphabet, show_progress=False))
    made.add_special_tokens(["<|bos|>", "<|eos|>", "<|end|>"])
    made.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": label, "bos_token": "<|bos|>", "eos_token": "<|eos|>", "legacy": True, "add_bos_token": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "chat_template.jinja").write_text(
        "{{ bos_token }}{% for turn in messages %}{{ turn.role }}: {{ turn.content }}<|end|>\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% if thinks is defined %}<reasoning>{% endif %}{% endif %}"
    )
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": kind, "eos_token_id": made.token_to_id("<|eos|>")}))
    (folder / "generation_config.json").write_text("{}")
    return folder


@pytest.mark.parametrize(
    ("label", "kind"),
    [
        ("LlamaTokenizerFast", "llama"),
        ("LlamaTokenizer", "mistral"),
        ("GemmaTokenizerFast", "gemma"),
        ("Qwen2Tokenizer", "qwen2"),
        ("Nonesuch", "llama"),
    ],
)
def test_p41_the_tokenizer_in_use_is_the_one_in_the_files_whatever_it_is_called(
    label: str, kind: str, tiny_checkpoint: Path, tmp_path: Path
):
    folder = byte_level(tmp_path / "labelled", tiny_checkpoint, label, kind)
    own, template = Tokenizer.from_file(str(folder / "tokenizer.json")), load_template(folder)
    for text in ("What is 17+25? Say so.", " two  spaces\n\n\tand é e\u0301 中 🙂 </think>\n\nx"):
        ids = own.encode(text, add_special_tokens=False).ids
        assert template.tokenizer.encode(text, add_special_tokens=False) == ids and template.tokenizer.decode(ids) == text
    saved = tmp_path / "saved"
    saved.mkdir()
    (folder / "generation_config.json").write_text('{"eos_token_id": [1]}')  # stop ids, which checkpoints must keep
    copy_companions(folder, saved)
    assert (saved / "generation_config.json").read_text() == '{"eos_token_id": [1]}'
    assert (saved / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()


def test_p06_the_templates_own_end_of_turn_stops_a_response_and_is_in_the_digest(tiny_checkpoint: Path, tmp_path: Path):
    folder = byte_level(tmp_path / "turns", tiny_checkpoint, "PreTrainedTokenizerFast", "qwen3")
    template = load_template(folder)
    assert [template.tokenizer.decode([token]) for token in template.stop_ids] == ["<|eos|>", "<|end|>"] and template.remarks == ()
    file = folder / "chat_template.jinja"
    file.write_text(file.read_text().replace("<|end|>", ""))
    open_ended = load_template(folder)
    assert len(open_ended.stop_ids) == 1 and open_ended.digest != template.digest
    assert "ends an assistant's turn with no token of its own" in open_ended.remarks[0]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 8]}))
    assert set(load_template(folder).stop_ids) > {7, 8} and load_template(folder).digest != open_ended.digest


HEADED = "{% for m in messages %}{{ m.role }}: {% if m.role == 'assistant' %}HEAD{% endif %}{{ m.content }}<|end|>{% endfor %}assistant"
RETURNED = (
    "{% for m in messages %}{{ m.role }}: {% if m.reasoning_content %}<|bos|>think {{ m.reasoning_content }}<|end|>assistant<|bos|>{% endif %}"
    "{{ m.content }}<|end|>{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)


@pytest.mark.parametrize(
    ("written", "thinking", "stops"),
    [
        (HEADED.replace("HEAD", "<|bos|>final<|eos|>"), ["<|bos|>analysis<|eos|>", "<|bos|>final<|eos|>"], False),  # gpt-oss, by its marks
        (HEADED.replace("HEAD", ""), ["<|bos|>analysis<|eos|>", "<|bos|>final<|eos|>"], False),
        (HEADED, ["<|bos|>analysis", "<|end|>"], False),  # the closing mark itself
        (HEADED, ["<|bos|>analysis", "<|end|>\n"], False),
        (RETURNED, None, False),  # the template writes it behind thinking that it is given back
        (RETURNED.replace("<|end|>assistant<|bos|>", "</think>"), None, True),
        (
            RETURNED.replace("<|end|>assistant", "<|eos|>assistant"),
            ["<|bos|>think", "<|bos|>final"],
            True,
        ),  # gpt-oss's <|end|> and <|return|>
        (HEADED.replace("HEAD", "</think>"), None, True),  # DeepSeek V3.1: closed thinking, no opening
        ("<|bos|>" + HEADED, ["<|bos|>think", "<|bos|>answer"], True),  # s1: the marks are turns of their own
        ("{% if messages[-1].reasoning %}{{ raise_exception('none') }}{% endif %}" + HEADED, None, True),
    ],
)
def test_an_end_of_turn_that_ends_the_thinking_too_stops_no_response(
    written: str, thinking: list[str] | None, stops: bool, tiny_checkpoint: Path, tmp_path: Path
):
    folder = byte_level(tmp_path / "parts", tiny_checkpoint, "PreTrainedTokenizerFast", "qwen3")
    (folder / "chat_template.jinja").write_text(written)
    template = load_template(folder, Data(thinking=thinking))
    assert [template.tokenizer.decode([token]) for token in template.stop_ids] == ["<|eos|>", *["<|end|>"] * stops]
    assert bool(template.remarks) is not stops


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[1, 2]", "generation_config.json is no JSON object"),
        ("{", "generation_config.json is no JSON object"),
        ('{"eos_token_id": [2, -1]}', "eos_token_id -1 is no token's number; correct it"),
        ('{"eos_token_id": true}', "eos_token_id True is no token's number"),
        ('{"eos_token_id": ["</s>"]}', "eos_token_id '</s>' is no token's number"),
        ('{"eos_token_id": 2.0}', "eos_token_id 2.0 is no token's number"),
    ],
)
def test_stop_ids_that_are_none_are_said_with_their_file(text: str, words: str, tiny_checkpoint: Path, tmp_path: Path):
    folder = byte_level(tmp_path / "stops", tiny_checkpoint, "PreTrainedTokenizerFast", "qwen3")
    before = load_template(folder).stop_ids
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [before[0], 99999], "text_config": [1]}))
    assert load_template(folder).stop_ids == before  # plan refuses it; no response can hold it
    (folder / "generation_config.json").write_text(text)
    with pytest.raises(TemplateError, match=words):
        load_template(folder)


def test_a_beginning_token_that_opens_every_turn_is_no_doubled_one(tiny_checkpoint: Path, tmp_path: Path):
    folder = byte_level(tmp_path / "turns", tiny_checkpoint, "PreTrainedTokenizerFast", "qwen3")
    file = folder / "chat_template.jinja"
    file.write_text("{% for turn in messages %}<|bos|>{{ turn.role }} {{ turn.content }}<|end|>{% endfor %}<|bos|>assistant")
    assert load_template(folder).prompt_ids(Problem("p", "1", "1"))
    file.write_text("<|bos|><|bos|>" + file.read_text())
    with pytest.raises(TemplateError, match="twice at the start"):
        load_template(folder)


def test_arguments_reach_the_template_and_marks_are_the_models(tiny_checkpoint: Path, tmp_path: Path):
    folder = byte_level(tmp_path / "marks", tiny_checkpoint, "PreTrainedTokenizerFast", "qwen3")
    plain, thinks = load_template(folder), load_template(folder, Data(template={"thinks": True}))
    assert plain.marks == thinks.marks == Marks("<reasoning>", "</reasoning>")
    assert (plain.thinking, thinks.thinking) == (False, True) and plain.digest != thinks.digest
    assert load_template(folder, Data(thinking=["[[", "]]"])).marks == Marks("[[", "]]")
    with pytest.raises(TemplateError, match=r"cannot be filled in with data\.template \{'messages': 1\}"):
        load_template(folder, Data(template={"messages": 1}))


def test_a_mark_in_several_tokens_joined_to_its_neighbours_is_found_and_counted_in_tokens(tiny_checkpoint: Path, tmp_path: Path):
    template = load_template(
        byte_level(tmp_path / "plain", tiny_checkpoint, "PreTrainedTokenizerFast", "qwen3"), Data(thinking=["<think>", "</think>"])
    )

    def ids(text: str) -> np.ndarray:
        return np.array(template.tokenizer.encode(text, add_special_tokens=False))

    def start(text: str) -> int | None:
        return template.answer_start(ids(text), text)

    for thought in ("short", "é中 " * 90, "</think> and again " * 3):
        text = f"{thought}.</think>\n\nSo it is 5"
        found = start(text)
        assert found is not None and template.tokenizer.decode(ids(text)[:found]).endswith("</think>")
        assert "</think>" not in template.tokenizer.decode(ids(text)[found:])
    assert start("never closed " * 50) is None and start("a</think>b<think>c") is None
    spoken_of = ("My <think> is done", "`</think>` closes it", "the tag `<think>` opens it", "5 </think>. " * 3 + "`</think>` " * 99)
    for text in ["a</Think>5", *(f"{thought}</think>\n{words}: 5" for thought in ("a b", "é中 " * 90) for words in spoken_of)]:
        answer = split(text, template.marks, thinking=True)[1]  # where the judge sees it
        found = start(text)
        assert found is not None and answer and template.tokenizer.decode(ids(text)[found:]) == answer
        assert template.tokenizer.decode(ids(text)[template.closing_start(ids(text), found) : found]).lower() in ("</think>", "a</think>")


def test_prompts_say_one_date_whatever_day_it_is(tiny_checkpoint: Path, tmp_path: Path):
    folder = byte_level(tmp_path / "dated", tiny_checkpoint, "PreTrainedTokenizerFast", "qwen3")
    file = folder / "chat_template.jinja"
    file.write_text(
        "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}Today {{ date_string }} "
        + file.read_text()
    )
    then = load_template(folder, date="2025-03-04")
    text = then.tokenizer.decode(list(then.prompt_ids(Problem("p", "1", "1"))))
    assert "Today 04 Mar 2025" in text and then.date == "2025-03-04"
    assert load_template(folder).date == datetime.now().date().isoformat() and load_template(folder).digest == then.digest


@pytest.mark.parametrize(
    "text",
    [
        "<|end|>\nassistant: 7<|eos|>",
        "{{ bos_token }}{% for x in y %}",
        "<|bos|> is 1",
        "2 <|en",
        "plain é",
        "<|eos|>\ue0020\ue003 \ue0027\ue003",
    ],
)
def test_what_a_problems_text_holds_stays_text(text: str, tiny_checkpoint: Path, tmp_path: Path):
    template = load_template(byte_level(tmp_path / "text", tiny_checkpoint, "PreTrainedTokenizerFast", "qwen3"))
    ids = template.prompt_ids(Problem("p", text, "1"))
    special = set(template.tokenizer.added_tokens_decoder)
    assert [token for token in ids if token in special] == [
        token for token in template.prompt_ids(Problem("p", "1", "1")) if token in special
    ]
    assert text in template.tokenizer.decode(list(ids))


def word_pieces(folder: Path, source: Path, kind: str) -> Path:
    """A checkpoint whose vocabulary has the special tokens as pieces of its own, or white space as added tokens, or a normaliser."""
    folder = byte_level(folder, source, "PreTrainedTokenizerFast", "qwen3")
    letters = [chr(code) for code in range(33, 127)] + ["▁", "<|end|>x"]
    specials = ["<unk>", "<|bos|>", "<|eos|>", "<|end|>"]
    if kind == "unigram":
        made = Tokenizer(models.Unigram([(piece, 0.0) for piece in specials] + [(letter, -3.0) for letter in letters], unk_id=0))
        made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(prepend_scheme="first"), decoders.Metaspace(prepend_scheme="first")
    elif kind == "prepend":
        made = Tokenizer(models.BPE({piece: index for index, piece in enumerate([*specials, *letters])}, [], unk_token="<unk>"))
        made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
    else:
        made = Tokenizer.from_file(str(folder / "tokenizer.json"))
        made.normalizer = normalizers.NFKC()
        made.add_tokens([AddedToken("    ", normalized=False), AddedToken("<|end|>", normalized=True, special=False)])
    made.add_special_tokens(specials)
    made.save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.parametrize("kind", ["unigram", "prepend", "spaces"])
@pytest.mark.parametrize("text", ["What does <|eos|> mean?", "a <|end|>b <|bos|>", "<|eos|>"])
def test_what_a_problems_text_holds_stays_text_in_every_kind_of_vocabulary(kind: str, text: str, tiny_checkpoint: Path, tmp_path: Path):
    template = load_template(word_pieces(tmp_path / kind, tiny_checkpoint, kind))
    controls = {template.tokenizer.convert_tokens_to_ids(token) for token in ("<|bos|>", "<|eos|>", "<|end|>")}
    harmless, ids = (template.prompt_ids(Problem("p", words, "1")) for words in ("1", text))
    assert [token for token in ids if token in controls] == [token for token in harmless if token in controls]
    assert text in template.tokenizer.decode(list(ids))
    # and around it nothing changes: the ids of everything else are those of a text that differs in the look-alikes alone
    tokenizer, names, _ = template._renamed
    plain = "user: 2 + 3 is what?"
    assert tokenizer.encode(plain, add_special_tokens=False).ids == template.tokenizer.encode(plain, add_special_tokens=False)
    assert tokenizer.encode(names["<|end|>"] + plain, add_special_tokens=False).ids == template.tokenizer.encode(
        "<|end|>" + plain, add_special_tokens=False
    )


def test_full_width_look_alikes_and_indents_are_text_too(tiny_checkpoint: Path, tmp_path: Path):
    template = load_template(word_pieces(tmp_path / "spaces", tiny_checkpoint, "spaces"))
    end, indent = (template.tokenizer.convert_tokens_to_ids(token) for token in ("<|end|>", "    "))
    assert template.prompt_ids(Problem("p", "＜|end|＞ 1", "1")).count(end) == template.prompt_ids(Problem("p", "1", "1")).count(end)
    assert indent in template.prompt_ids(Problem("p", "a\n    b <|eos|>", "1"))


SWITCHED = """{% set off = namespace(it=false) %}{% for turn in messages %}{% if '/no_think' in turn.content %}{% set off.it = true %}{% endif %}\
{{ turn.role }}: {{ turn.content | replace('/no_think', '') | trim }}<|end|>
{% endfor %}{% if add_generation_prompt %}assistant: {% if off.it %}<think></think>{% else %}<think>
{% endif %}{% endif %}"""


@pytest.mark.parametrize("text", ["What is 2 + 3?", "What does <|eos|> mean?", "Why <think>?"])
def test_whether_thinking_is_open_is_each_prompts_own(text: str, tiny_checkpoint: Path, tmp_path: Path):
    folder = byte_level(tmp_path / "switched", tiny_checkpoint, "PreTrainedTokenizerFast", "qwen3")
    (folder / "chat_template.jinja").write_text(SWITCHED)
    always, never = load_template(folder), load_template(folder, Data(instruction="/no_think"))
    assert (always.thinking, never.thinking) == (True, False)
    for template, system, opens in ((always, "", True), (always, "/no_think", False), (never, "", False)):
        problem = Problem("p", text, "1", system=system)
        decoded = template.tokenizer.decode(list(template.prompt_ids(problem)))
        assert template.opens_thinking(problem) is opens and decoded.endswith("assistant: <think>\n" if opens else "<think></think>")
        assert text in decoded and "/no_think" not in decoded


@pytest.mark.parametrize(
    ("opening", "partner", "marks", "remark"),
    [
        ("<seed:think>", "</think>", ("<seed:think>", "</seed:think>"), ""),  # what prompts open wins over what the template mentions
        ("<longcat_think>\n", "</longcat_think>", ("<longcat_think>", "</longcat_think>"), ""),
        ("<|inner_prefix|>", "<|inner_suffix|>", ("<|inner_prefix|>", "<|inner_suffix|>"), ""),
        ("<|thought_start|>", "<|thought_end|>", ("<|thought_start|>", "<|thought_end|>"), ""),
        ("[SCRATCH]", "[/SCRATCH]", ("[SCRATCH]", "[/SCRATCH]"), ""),
        ("<scratchpad>", "", ("<think>", "</think>"), "its prompts end in <scratchpad>: if that opens the model's thinking"),
        ("<|assistant|>", "", ("<think>", "</think>"), ""),
        ("assistant<|role_sep|>", "", ("<think>", "</think>"), ""),  # behind each role
    ],
)
def test_marks_are_what_the_prompts_open(
    opening: str, partner: str, marks: tuple[str, str], remark: str, tiny_checkpoint: Path, tmp_path: Path
):
    folder = byte_level(tmp_path / "opened", tiny_checkpoint, "PreTrainedTokenizerFast", "qwen3")
    (folder / "chat_template.jinja").write_text(
        "{% for turn in messages %}{{ turn.role }}<|role_sep|>{{ turn.content.split('" + partner + "X')[-1] }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|end|>" + opening + "{% endif %}"
    )
    template = load_template(folder)
    assert template.marks == Marks(*marks) and template.thinking is (partner != "")
    assert remark in template.remarks[0] if remark else template.remarks == ()


def test_an_argument_that_the_template_does_not_read_is_refused_with_the_nearest_name(tiny_checkpoint: Path, tmp_path: Path):
    folder = byte_level(tmp_path / "marks", tiny_checkpoint, "PreTrainedTokenizerFast", "qwen3")
    with pytest.raises(TemplateError, match=r"data.template: the chat template reads no think; did you mean thinks\?"):
        load_template(folder, Data(template={"think": True}))


@pytest.mark.parametrize("name", ["tokenize", "add_generation_prompt", "conversation", "chat_template", "return_dict", "padding"])
def test_an_argument_that_is_no_templates_own_is_refused(name: str, tiny_checkpoint: Path, tmp_path: Path):
    folder = byte_level(tmp_path / "own", tiny_checkpoint, "PreTrainedTokenizerFast", "qwen3")
    with pytest.raises(TemplateError, match=f"data.template: {name} is set here for every prompt"):
        load_template(folder, Data(template={name: True}))


@pytest.mark.parametrize(
    "marks", [["</think>", "<think>"], ["[/MULL]", "[MULL]"], ["<|mull_end|>", "<|mull_start|>"], ["◁/think▷", "◁think▷"]]
)
def test_marks_in_the_wrong_order_are_refused(marks: list[str], tiny_checkpoint: Path, tmp_path: Path):
    folder = byte_level(tmp_path / "swapped", tiny_checkpoint, "PreTrainedTokenizerFast", "qwen3")
    with pytest.raises(TemplateError, match="closes before it opens; swap the two"):
        load_template(folder, Data(thinking=marks))
    assert load_template(folder, Data(thinking=marks[::-1])).marks == Marks(*marks[::-1])


def test_marks_that_a_template_joins_of_tokens_are_found_in_the_vocabulary():
    tokens = {"<|channel|>", "<|message|>", "<|start|>", "<|im_start|>"}
    assert marks_of("'<|channel|>' + 'final' + '<|message|>'", tokens) == Marks(
        "<|channel|>analysis<|message|>", "<|channel|>final<|message|>"
    )
    assert marks_of("", {"<|im_start|>", "<|im_end|>"}) == Marks("<think>", "</think>")


def test_of_several_templates_one_is_called_default(tiny_checkpoint: Path, tmp_path: Path):
    folder = byte_level(tmp_path / "several", tiny_checkpoint, "PreTrainedTokenizerFast", "qwen3")
    text, settings = (folder / "chat_template.jinja").read_text(), json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "chat_template.jinja").unlink()
    for name in ("default", "chat"):
        named = [{"name": name, "template": text}, {"name": "tool_use", "template": "x"}]
        (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": named}))
        if name == "default":
            assert load_template(folder).prompt_ids(Problem("p", "1", "1"))
    with pytest.raises(TemplateError, match=r"multiple chat templates with no default.*\['chat', 'tool_use'\]"):
        load_template(folder)


def test_a_template_that_leaves_the_question_out_is_refused(tiny_checkpoint: Path, tmp_path: Path):
    folder = byte_level(tmp_path / "parts", tiny_checkpoint, "PreTrainedTokenizerFast", "qwen3")
    parts = "{% for turn in messages %}{% for part in turn.content %}{{ part.text }}{% endfor %}<|end|>{% endfor %}"
    (folder / "chat_template.jinja").write_text(parts)
    with pytest.raises(TemplateError, match="leaves the user's text out"):
        load_template(folder)


def test_a_template_that_leaves_the_budget_out_is_refused(tiny_checkpoint: Path, tmp_path: Path):
    folder = tmp_path / "first"
    shutil.copytree(tiny_checkpoint, folder)
    [file] = folder.glob("chat_template*")
    file.write_text("{% for turn in messages %}{{ turn.content.split('\\n\\n')[0] }}{% endfor %}")
    load_template(folder, Data(instruction="Be brief."))
    with pytest.raises(TemplateError, match=r"the chat template leaves \{budget\} of data.instruction out"):
        load_template(folder, Data(instruction="Use {budget} tokens."))


def test_a_template_that_takes_no_system_turn_names_the_problem(tiny_checkpoint: Path, tmp_path: Path):
    folder = byte_level(tmp_path / "strict", tiny_checkpoint, "PreTrainedTokenizerFast", "qwen3")
    file = folder / "chat_template.jinja"
    file.write_text("{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + file.read_text())
    template = load_template(folder)
    assert template.prompt_ids(Problem("p", "1", "1"))
    with pytest.raises(
        TemplateError, match=r"problem p7: the chat template refuses its turns, system and user \(System role not supported\)"
    ):
        template.prompt_ids(Problem("p7", "1", "1", system="Be brief."))


def test_a_requests_own_budget_goes_before_that_of_evaluations(tiny_checkpoint: Path):
    template = load_template(tiny_checkpoint, Data(instruction="Use {budget} tokens."), budget=64)
    problem = Problem("p", "1 + 1?", "2")
    assert [template.messages(problem, limit)[-1]["content"][-14:] for limit in (0, 32)] == ["Use 64 tokens.", "Use 32 tokens."]
    assert template.asking(16).messages(problem)[-1]["content"].endswith("Use 16 tokens.")
