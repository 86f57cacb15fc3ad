r"""What a completion without a box names as its answer: for graded files only (docs/verifier.md, Where the answer is)."""

from __future__ import annotations

import gc
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.verifier.judge_file import answer_of
from rewards.verifier.symbolic import compare


@pytest.mark.parametrize(
    ("prediction", "answer"),
    [
        ("<think>8</think><answer>7</answer>", "7"),
        ("<answer>6</answer> then <answer>\n7\n</answer>", "7"),
        ("<think>it went on\n<answer>7</answer>", "7"),
        ("</think><answer>7</", "7"),
        ("</think><answer\n7\n</answer>", "7"),
        ("</think>\n</answer>\n7\n</answer>", "7"),
        ("</think>\nSo it is 7.\n</think>\n</think>\n", "7"),
        ("</think><answer>7 yards from Gate \\(G\\).</answer>", "7"),
        ("</think><answer>He earns $26 every night at the harbour.</answer>", "$26"),
        ("</think><answer>The number 144 has 15 divisors in all.</answer>", "15"),
        ("They pay 13 * $2 = $26 every night.", "$26"),
        ("So the value of $x$ is $\\frac{22}{9}$ here.", "$\\frac{22}{9}$"),
        ("The slope there is [35].", "35"),
        ("Therefore the total cost equals $1,234.50 for 3 people", "$1,234.50"),
        ("long\n#### 1,234", "1,234"),
        ("The answer is 55 minutes. #### 55", "55"),
        ("Answer here: 20.\n</answer>", "20."),
        ("so\nanswer\n45", "45"),
        ("A: 26", "26"),
        ("Final Answer: The final answer is $(8,5)$. I hope it is correct.", "$(8,5)$"),
        ("Yes, because 2 is the only even prime number", "Yes, because 2 is the only even prime number"),
        ("20 apples", "20 apples"),
        ("**Answer: C**", "C"),
        ("I pick option (C) because it is the largest.", "(C)"),
        ("Taking all of it, the best is (C) 12", "(C)"),
        ("Hence $x = 2$ or $x = 3$.", "$x = 2$ and $x = 3$"),
        ("The point there is (2, 3).", "(2, 3)"),
        ("The train then arrives at 3:30 PM.", "3:30 PM."),
        ("So the winner is Wanda.", "Wanda"),
        ("The answer is **Wanda**.", "Wanda."),
        (r"x \in (1, 2)", r"x \in (1, 2)"),
        ("3<x", "3<x"),
        ("3<a", "3<a"),
        ("0<a<b", "0<a<b"),
        ("</think>7</ans", "7"),
        ("<|begin_of_solution|>The answer is 7.<|end_of_solution|>", "7."),
        ("The answer is 7<|im_end|>\n<|im_start|>user 9", "7"),
        ("The answer is 7</s>", "7"),
        ("The answer is 5. Step 7 is complete.", "5."),
        ("The answer is 7, not 8.", "7"),
        ("The answer is 7 since 14/2 = 7.", "7"),
        ("The minimum value is 7 (attained when a = b = 1).", "7"),
        ("Answer: 7 (see figure 3)", "7"),
        ("The number of pages he did not read is 7.", "7"),
        ("If he has 3 apples, the total is 7.", "7"),
        ("The value is 8. It cannot be 7.", "8"),
        ("It is 7.\n\nCan it be 8?", "7"),
        ("### Final Answer\n7", "7"),
        ("#### Final Answer\n\n7", "7"),
        ("*Answer*: 7", "7"),
        ("Ans: 7", "7"),
        ("答案：7", "7"),
        ("The answer is:\n\\[\n7\n\\]", "\\[\n7\n\\]"),
        (r"Therefore the value is **3\sqrt{2}**.", r"$3\sqrt{2}$"),
        ("The roots are -1 and 4.", "-1 and 4"),
        ("There are 3 apples and 4 pears.", "3"),
        ("The city has 5 million people in 3 districts and the total is 5 million people.", "5 million"),
    ],
)
def test_the_named_answer_is_taken(prediction, answer):
    assert answer_of(prediction, bare=True) == (answer, "")


@pytest.mark.parametrize(
    ("prediction", "reason"),
    [
        ("<think>7", "thinking not closed"),
        (r"<think>\boxed{7}", "thinking not closed"),
        (r"<think>\boxed{7}</think>", "no answer"),
        ("<think>7</think>\n\n", "no answer"),
        ("", "no answer"),
    ],
)
def test_what_was_only_thought_is_no_answer(prediction, reason):
    assert answer_of(prediction, bare=True) == (None, reason)


@pytest.mark.parametrize(
    "prediction",
    [
        "The answer isn't 7.", "The answer is not 7.", "The answer cannot be 7.", "It can't be 7.", "7 is not a solution.", r"7\text{ is not the answer}", "We have ruled out 7.", "x is not equal to 7.",
        "The answer is 7 not.", "The answer is 7, not really.", "The answer is 7 not right.", "The answer is 7? No.", "There are at least 7.", "Suppose the answer is 7.", "Is the answer 7?", "If x = 7 then we get a contradiction.", "so it is impossible to have 7", "There is no solution other than 8, not 7",
    ],
)  # fmt: skip
def test_what_is_denied_supposed_or_asked_is_not_named(prediction):
    answer, _ = answer_of(prediction, bare=True)
    assert answer is None or compare(gold="7", answer=answer)[0] is False


def test_a_box_behind_the_thinking_goes_before_everything_else():
    assert answer_of(r"<answer>8</answer> \boxed{7} #### 9 The answer is 10.", bare=True) == ("7", "")


@given(st.text(alphabet="<>/answerthink #:$\\()[]1 .=\n", max_size=200))
def test_any_text_is_read_without_error(text):
    answer, reason = answer_of(text, bare=True)
    assert (answer is None) == bool(reason)


@pytest.mark.parametrize(
    "piece",
    [
        "<answer>",
        "</answer>",
        r"\(",
        "$",
        "$ ",
        "is ",
        "1 ",
        "####",
        "answer is ",
        " ",
        "\n",
        "<think>",
        "</think>",
        "<",
        "A: ",
        "**",
        "**a",
        "(1,",
        "1, ",
        "$x$ or ",
        "(C) ",
        r"\boxed{",
        ". ",
        "Suppose the answer is 1 ",
        "are 1, ",
        r"\boxed 1",
        "not 1 ",
    ],
)
def test_reading_takes_time_linear_in_the_text(piece):
    """Four times as much of it takes four times as long, whatever the machine; what looks back at each piece takes sixteen."""

    def seconds(length: int) -> float:
        text = (piece * length)[:length]
        gc.disable()  # else it may look through what thousands of other tests left
        try:
            start = time.process_time()
            answer_of(text, bare=True)
            answer_of("</think>" + text + "</think></think>", bare=True)
            return time.process_time() - start
        finally:
            gc.enable()

    seconds(1_000)  # for what is made once
    tries = (seconds(160_000) < 8 * max(seconds(40_000), 0.02) for _ in range(3))  # a machine that stands still spoils one
    assert any(tries)
