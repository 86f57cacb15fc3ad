"""What may be set against what: the same problems, one ruler, truncation as the engine said it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.evaluation_numbers import blocks, drawn
from evaluation import attempts, comparisons, efficiency, lengths, scores, statistics, word_overlap
from evaluation import measured as measured_module
from evaluation.measured import Measured, accuracy_change, aligned, length_change, of_evaluation, one_ruler
from evaluation.results import Evaluation, ProblemScore, Settings
from evaluation.statistics import Interval, difference_interval, difference_shown
from rollout.records import CHARACTERS


def measured(share: list[float], length: list[float] | None = None, ruler: str = "tokenizer-a") -> Measured:
    return Measured(tuple(map(str, range(len(share)))), np.array(share), np.array(length or [1.0] * len(share)), ruler)


def turned(model: Measured) -> Measured:
    return Measured(model.ids[::-1], model.share[::-1], model.length[::-1], model.ruler)


def test_accuracy_change_hand_example() -> None:  # A6 paired
    change = difference_interval(accuracy_change(measured([1, 0.5, 0, 0.75, 1]), measured([0.75, 0.5, 0.25, 0.25, 0.5])))
    assert change == pytest.approx((0.2, -0.05, 0.45))
    assert not difference_shown(change, problems=5)


def test_problems_are_matched_by_id_not_by_position() -> None:
    model = measured([1, 0.5, 0], [10, 20, 30])
    assert accuracy_change(model, turned(model)).tolist() == [0, 0, 0]
    assert length_change(model, turned(model)) == Interval(0, 0, 0)
    assert aligned(model, turned(model)).length.tolist() == [10, 20, 30]


def test_other_problems_are_refused_and_named() -> None:
    with pytest.raises(ValueError, match=r"2 problems are in one evaluation only \(2, 3"):
        accuracy_change(measured([1, 0.5, 0, 0]), measured([1, 0.5]))


def test_length_change_is_a_ratio_of_means_and_proportional_lengths_have_no_noise() -> None:
    base, right = [100.0, 200.0, 300.0, 400.0, 500.0, 600.0], [1.0] * 6
    assert length_change(measured(right, [length / 4 for length in base]), measured(right, base)) == pytest.approx((-0.75,) * 3)


@pytest.mark.parametrize("problems", [6, 10])
def test_lengths_that_did_not_change_are_shown_to_no_more_often_than_sign_flips_err(problems: int) -> None:
    """Lengths of one distribution, 4 samples a problem."""
    rng, shown = np.random.default_rng(0), 0
    for _ in range(100):
        base_N = np.exp(rng.normal(8, 0.7, problems))
        new_N, old_N = (np.exp(rng.normal(np.log(base_N), 0.5, (4, problems))).mean(axis=0) for _ in range(2))
        shown += difference_shown(
            length_change(measured([1] * problems, new_N.tolist()), measured([1] * problems, old_N.tolist())), problems
        )
    assert shown <= 8  # of these 100 looks 4 and 7; by the bootstrap alone 11 and 15


@pytest.mark.parametrize("other", ["tokenizer-b", CHARACTERS, ""])
def test_lengths_of_other_rulers_are_not_compared_but_accuracies_are(other: str) -> None:
    a, b = measured([1, 0, 1]), measured([1, 1, 0], ruler=other)
    with pytest.raises(ValueError, match="tokenizer-a"):
        length_change(a, b)
    assert accuracy_change(a, b).tolist() == [0, -1, 1]


def test_characters_are_a_ruler_of_their_own_that_all_texts_share() -> None:
    assert one_ruler(CHARACTERS, CHARACTERS) == CHARACTERS
    a, b = (replace(measured([1, 0], [50, 70]), ruler=CHARACTERS) for _ in range(2))
    assert length_change(a, b).mean == 0


def test_an_evaluation_file_names_its_ruler() -> None:
    a = ProblemScore(id="a", level=1, right=1, samples=4, tokens=12.5)
    rows = [a, ProblemScore(id="b", level=1, right=2, samples=2, tokens=3)]
    found = of_evaluation(Evaluation.model_construct(per_problem=rows, settings=Settings(max_tokens=9, template="9f3a")))
    assert (found.ids, found.share.tolist(), found.length.tolist(), found.ruler) == (("a", "b"), [0.25, 1], [12.5, 3], "9f3a")


def test_twins_are_called_better_at_most_5_percent_of_the_time() -> None:  # P36, 2,000 trials
    rng = np.random.default_rng(7)
    better = 0
    for _ in range(2000):
        skill_N = rng.beta(0.8, 0.4, 40)
        a, b = (measured(list(rng.binomial(4, skill_N) / 4)) for _ in range(2))
        better += difference_interval(accuracy_change(a, b), 500).low > 0
    assert better / 2000 <= 0.05


def test_the_page_on_numbers_names_functions_that_exist() -> None:  # docs/evaluation.md, last column
    page = (Path(__file__).parents[2] / "docs/evaluation.md").read_text(encoding="utf-8")
    cells = [
        line.split("|")[-2]
        for line in page.partition("\n## Numbers\n")[2].partition("\n## ")[0].splitlines()
        if line.startswith("| ") and "`" in line
    ]
    named = [name.split(".")[-1] for cell in cells for name in re.findall(r"`([^`]+)`", cell)]
    modules = (attempts, comparisons, efficiency, lengths, measured_module, scores, statistics, word_overlap)
    assert len(named) > 20 and [name for name in named if not any(callable(getattr(module, name, None)) for module in modules)] == []


def test_the_benchmark_of_all_numbers_runs():
    made = [drawn(8, 8, shorter, seed) for seed, shorter in enumerate((1.0, 0.5))]
    assert all(block() is not None for block in blocks(*made).values())
