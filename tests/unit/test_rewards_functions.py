"""Functions of the user's own as rewards: what they are given, what they may return, and what is said of those that cannot serve."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from recipes.schema import VerdictTerm
from recipes.terms import FunctionTerm
from rewards.functions import Asked, TrainerState, load_function, reads_messages, sample, scores, trial
from rewards.terms import Facts, rewards
from rollout.collector import sampling_metrics
from rollout.types import Completion, Group, Problem, Request, Rollout

VERDICT = VerdictTerm(kind="verdict")
THOUGHT = "<think>\n1 + 1\n</think>\n\\boxed{2}"


def asked(completions: list[str], columns: dict | None = None, step: int = 0) -> Asked:
    G = len(completions)
    return Asked(
        "p",
        [{"role": "user", "content": "1 + 1?"}],
        completions,
        [[1]] * G,
        columns or {},
        TrainerState(step, 9),
        [f"id{g}" for g in range(G)],
    )


def group(terms, right, completions=None, columns=None):
    """Rewards by term of rollouts that ended by themselves."""
    G = len(right)
    right_G, finished_G, tokens_G = np.array(right, dtype=bool), np.ones(G, dtype=bool), np.full(G, 10)
    given = asked(completions or ["x"] * G, columns)
    return rewards(terms, Facts(right_G, finished_G, tokens_G, np.zeros(G, dtype=int), 100, 100, given))


def term(name: str, low: float = -1, high: float = 1) -> FunctionTerm:
    return FunctionTerm.model_construct(
        kind="function", name=name, gate="right", low=low, high=high
    )  # also of names that a recipe may not hold


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    (tmp_path / "own_rewards.py").write_text(
        "import numpy as np\n"
        "def length(prompts, completions, completion_ids, **columns):\n"
        "    assert prompts == ['p'] * 2 and completion_ids == [[1], [1]] and columns['answer'] == ['7', '7']\n"
        "    return [float(len(c)) for c in completions]\n"
        "def only(completions, **kwargs): return [1] * (len(completions) - 1)\n"
        "def nan(completions, **kwargs): return [1.0, float('nan')]\n"
        "def none(completions, **kwargs): return [None, 1.0]\n"
        "def inf(completions, **kwargs): return [0.0, float('inf')]\n"
        "def text(completions, **kwargs): return 'ab'\n"
        "def nothing(completions, **kwargs): pass\n"
        "def rows(completions, **kwargs): return [[1, 2], 3]\n"
        "def column(completions, **kwargs): return np.ones((len(completions), 1))[:, 0]\n"
        "def narrow(texts): return texts\n"
        "def few(completion_ids, answer): return [len(a) / 2 for a in answer]\n"
        "def by_name(completions, solution, source='-'): return [float(a == '7' and s == 'web') for a, s in zip(solution, source)]\n"
        "def warm(completions, trainer_state, **columns): return [trainer_state.global_step / trainer_state.max_steps] * len(completions)\n"
        "def listed(completions, **columns): return [float('wait' in c[0]['content']) for c in completions]\n"
        "def said(completions: 'list[str]', **columns): return [1 / len(c) for c in completions]\n"
        "def odd(completions, **columns): return [1 / (len(c) - 5) if len(c) < 8 else 0 for c in completions]\n"
        "def both(prompts, completions, **columns): return [float(p[-1]['role'] == 'user' and c[0]['role'] == 'assistant') for p, c in zip(prompts, completions)]\n"
        "def asks(completions, environments): return [0] * len(completions)\n"
        "class Short:\n"
        "    def __call__(self, completions, **columns): return [float(len(c) < 4) for c in completions]\n"
        "short = Short()\n"
        "async def later(completions, **kwargs): return [1]\n"
        "constant = 3\n"
        "def keyed(completions, **columns): return {c: 1.0 for c in completions}\n"
        "def tells(completions, log_extra, **columns): return log_extra('x', 5) or [0.0] * len(completions)\n"
        "def counts(completions, log_metric, **columns): return log_metric('x', [1, 2]) or [0.0] * len(completions)\n"
        "def unnamed(completions, log_metric, **columns): return log_metric(' ', 1) or [0.0] * len(completions)\n"
    )
    (tmp_path / "own_broken.py").write_text("import does_not_exist_at_all\n")
    (tmp_path / "own_syntax.py").write_text("def f(:\n")
    (tmp_path / "own_raising.py").write_text("raise KeyError('two\\nlines')\n")
    (tmp_path / "own_script.py").write_text("raise SystemExit(0)\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("own_rewards", None)


def test_a_trl_reward_function_is_called_with_strings_ids_and_repeated_columns(own_module):
    term = FunctionTerm(kind="function", name="own_rewards:length", weight=2, high=3)
    out = group([VERDICT, term], [1, 0], completions=["abc", "a"], columns={"answer": "7", "problem": "?"})
    assert {name: values.tolist() for name, values in out.items()} == {"verdict": [1, 0], "own_rewards:length": [6, 2]}


@pytest.mark.parametrize(
    ("name", "rollout", "value"),
    [("text", "id0", "'a'"), ("rows", "id0", r"\[1, 2\]")],
)
def test_a_reward_that_is_no_number_names_its_rollout_and_term(own_module, name, rollout, value):
    with pytest.raises(
        ValueError, match=rf"reward function own_rewards:{name}: returned {value} for rollout {rollout}; return a list with one"
    ):
        group([FunctionTerm(kind="function", name=f"own_rewards:{name}")], [1, 1])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("keyed", r"returned \{'x': 1.0\}; return a list with one number for each completion"),
        ("tells", r"log_extra\('x', ...\) takes a list with one value for each completion, not 5 \(own_rewards.py, line \d+\)"),
        ("counts", r"log_metric\('x', ...\) takes one number, not \[1, 2\] \(own_rewards.py, line \d+\)"),
        ("unnamed", r"log_metric\(' ', ...\): a metric needs a name of one line \(own_rewards.py, line \d+\)"),
    ],
)
def test_what_a_function_returns_or_logs_wrongly_is_said_by_its_own_line(own_module, name, words):
    with pytest.raises(ValueError, match=rf"reward function own_rewards:{name}: .*{words}"):
        group([FunctionTerm(kind="function", name=f"own_rewards:{name}")], [1, 1])


@pytest.mark.parametrize(("name", "what"), [("only", "1 rewards for 2 completions"), ("nothing", "None")])
def test_a_wrong_number_of_rewards_is_an_error(own_module, name, what):
    with pytest.raises(ValueError, match=f"reward function own_rewards:{name}: returned {what}; return a list with one"):
        group([FunctionTerm(kind="function", name=f"own_rewards:{name}")], [1, 1])


@pytest.mark.parametrize("name", ["nan", "inf"])
def test_a_reward_that_is_not_finite_is_for_the_recipe_to_decide_on(own_module, name):
    value = group([FunctionTerm(kind="function", name=f"own_rewards:{name}")], [1, 1])[f"own_rewards:{name}"][1]
    assert not np.isfinite(value)


@pytest.mark.parametrize(
    ("low", "high", "said"), [(0, 2, "3 for rollout id0, outside of 0 to 2"), (2, 3, "1 for rollout id1, outside of 2 to 3")]
)
def test_p13_a_reward_outside_of_its_bounds_names_its_rollout(own_module, low, high, said):
    with pytest.raises(ValueError, match=f"reward function own_rewards:length: returned {said}; correct the function"):
        group(
            [FunctionTerm(kind="function", name="own_rewards:length", low=low, high=high)],
            [1, 1],
            completions=["abc", "a"],
            columns={"answer": "7"},
        )


def test_an_array_of_rewards_will_do(own_module):
    assert group([FunctionTerm(kind="function", name="own_rewards:column")], [1, 0])["own_rewards:column"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere_at_all:f", "no module nowhere_at_all"),
        ("own_broken:f", "no module does_not_exist_at_all"),
        ("own_rewards:missing", "has no function missing"),
        ("own_rewards:constant", "has no function constant"),
        (
            "own_rewards:narrow",
            "missing a required argument: 'texts'; there is answer, completion_ids, completions, level, log_extra, log_metric, problem, prompts, ",
        ),
        ("builtins:dict", "no signature found for builtin .*; write a function that takes completions"),
        ("own_syntax:f", r"importing own_syntax failed \(SyntaxError: .*own_syntax.py, line 1\)\); correct"),
        ("own_raising:f", r"importing own_raising failed \(KeyError: 'two\\nlines'\)"),
        ("own_script:f", r"importing own_script failed \(SystemExit: 0\)"),
        (".foo:bar", r"importing \.foo failed \(TypeError: "),
        (":bar", r"importing  failed \(ValueError: "),
        ("own_rewards:later", "asynchronous"),
    ],
)
def test_an_unusable_reward_function_is_refused_by_name(own_module, name, message):
    with pytest.raises(ValueError, match=message) as error:
        scores(term(name), sample())
    assert str(error.value).startswith(f"reward function {name}: ") and "\n" not in str(error.value)


def test_a_function_gets_what_it_names_of_what_there_is(own_module):
    columns = {"problem": "?", "answer": "7", "level": 2, "source": "web"}
    for name, expected in (("few", 0.5), ("by_name", 1.0), ("short", 1.0)):
        assert scores(term(f"own_rewards:{name}"), asked(["x", "yy"], columns)).tolist() == [expected] * 2
    assert scores(term("own_rewards:by_name"), asked(["x"], columns | {"solution": "8"})).tolist() == [
        0
    ]  # the data's own column goes first
    assert scores(term("own_rewards:warm"), asked(["x"], step=3)).tolist() == [3 / 9]
    with pytest.raises(ValueError, match="own_rewards:asks: missing a required argument: 'environments'; there is answer"):
        scores(term("own_rewards:asks"), asked(["x"], columns))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("trl.rewards:think_format_reward", [1, 0]),
        ("trl.rewards:accuracy_reward", [1, 0]),
        ("trl.rewards:reasoning_accuracy_reward", [1, 0]),
        ("own_trl:cosine", [1, -0.5]),
        ("own_trl:repetition", [0, 0]),
        ("own_trl:overlong", [0, 0]),
    ],
)
def test_trls_own_functions_get_messages_ids_and_the_gold_as_their_trainer_gives_them(name, expected, tmp_path, monkeypatch):
    (tmp_path / "own_trl.py").write_text(
        "from trl.rewards import get_cosine_scaled_reward, get_repetition_penalty_reward, get_soft_overlong_punishment\n"
        "cosine = get_cosine_scaled_reward(max_len=1_000_000, max_value_wrong=-1, min_value_wrong=-0.5)\n"
        "repetition = get_repetition_penalty_reward(ngram_size=3, max_penalty=-1.0)\n"
        "overlong = get_soft_overlong_punishment(max_completion_len=100, soft_punish_cache=20)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    given = asked([THOUGHT, "2"], {"problem": "1 + 1?", "answer": "2", "level": 0})
    assert scores(term(name), given).tolist() == pytest.approx(expected, abs=1e-6)
    assert len(scores(term(name), sample(limit=8))) == 4


def test_none_has_no_say_as_in_trl(own_module):
    """accuracy_reward returns it for a gold that it cannot read; TRL leaves it out of the sum."""
    assert group([VERDICT, term("own_rewards:none")], [1, 1])["own_rewards:none"].tolist() == [0, 1]
    assert scores(term("trl.rewards:accuracy_reward"), asked(["2"], {"answer": "the blue one"})).tolist() == [0]
    with pytest.raises(ValueError, match=r"returned 0 for rollout id0, outside of 0\.5 to 1"):
        scores(term("own_rewards:none", low=0.5), asked(["x", "y"]))


def test_a_function_that_reads_messages_is_known_by_its_annotation_or_on_a_sample(own_module):
    known = {name: reads_messages(load_function(f"own_rewards:{name}")) for name in ("listed", "both", "said", "few", "short", "column")}
    assert known == {"listed": True, "both": True, "said": False, "few": False, "short": False, "column": False}
    assert scores(term("own_rewards:listed"), asked(["so", "wait"])).tolist() == [0, 1]
    assert scores(term("own_rewards:both"), asked(["so", ""])).tolist() == [1, 1]


@pytest.mark.parametrize(
    ("name", "completions", "said"),
    [
        ("said", ["abc", "", "x"], r"raised ZeroDivisionError: division by zero \(own_rewards.py, line 18\) for rollout id1; .*completions are texts\)"),
        ("odd", ["abc", "abcdefghi", "12345"], r"raised ZeroDivisionError: .* for rollout id2; correct it"),
        ("listed", ["abc"], None),
        ("length", ["abc", "a"], r"raised KeyError: 'answer' \(own_rewards.py, line 3\) for rollout id0; correct it"),
    ],
)  # fmt: skip
def test_a_function_that_raises_is_named_with_rollout_error_and_place(own_module, name, completions, said):
    if said is None:
        scores(term(f"own_rewards:{name}"), asked(completions))
        return
    with pytest.raises(ValueError, match=rf"^reward function own_rewards:{name}: {said}") as error:
        scores(term(f"own_rewards:{name}", high=9), asked(completions))
    assert "\n" not in str(error.value)


def test_plan_tries_functions_and_loads_no_torch_of_its_own(own_module, tmp_path):
    code = (
        "import sys\nfrom launch.plan import plan\nfrom recipes.loader import load\n"
        "for name in ('short', 'said'):\n"
        "    made = plan(load('quickstart', None, ['reward=[{kind: verdict}, {kind: function, gate: right, name: \"own_rewards:%s\"}]' % name]))\n"
        "    print([blocker for blocker in made.blockers if 'reward' in blocker])\n"
        "print([name for name in ('torch', 'transformers', 'ray', 'vllm', 'trl') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}, capture_output=True, text=True, timeout=240)
    passed, refused, loaded = done.stdout.splitlines()
    assert passed == loaded == "[]", done.stderr
    assert "reward function own_rewards:said: raised ZeroDivisionError" in refused and "for rollout 4 of a trial" in refused


def test_a_metric_that_is_no_finite_number_is_refused_where_it_is_logged_and_none_is_no_number(tmp_path, monkeypatch):
    (tmp_path / "metric_rewards.py").write_text(
        "def logs(completions, log_metric, level, **_):\n"
        "    log_metric('fine', 1), log_metric('ratio', level[0])\n"
        "    return [0.0] * len(completions)\n"
        "def sometimes(completions, **_): return [0.0 if text else float('nan') for text in completions]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for value in (float("nan"), float("inf"), float("-inf"), np.float32("nan")):
        said = rf"reward function metric_rewards:logs: log_metric of ratio was given {float(value)}, no finite number, .*log None"
        for tried in (asked(["x", "y"], {"level": value}), sample({"level": value})):
            with pytest.raises(ValueError, match=said):
                scores(term("metric_rewards:logs"), tried)
    given = asked(["x", "y"], {"level": None})
    scores(term("metric_rewards:logs"), given)
    assert given.logged.metrics == {"fine": [1.0], "ratio": []}
    request = Request("r", Problem("p", "q", "1"), (1,), 1, 9, 1.0, 1.0, 0)
    completion = Completion(np.zeros(1, np.int32), np.zeros(1, np.float32), "stop", np.zeros(1, np.int32))
    logged = Group(request, [Rollout("0", 0, completion, "", None)], given.logged.metrics)
    assert sampling_metrics([logged], Counter(), 1.0)["function/ratio"] is None
    trial(term("metric_rewards:sometimes"), sample(), "skip")
    with pytest.raises(
        ValueError, match=r"metric_rewards:sometimes: returned nan for rollout 4 of a trial, which ends a run; .*nonfinite=skip"
    ):
        trial(term("metric_rewards:sometimes"), sample(), "stop")


def test_what_a_function_logs_is_kept_by_rollout_and_by_group(tmp_path, monkeypatch):
    (tmp_path / "logging_rewards.py").write_text(
        "def seen(completions, log_extra, log_metric, **_):\n"
        "    log_extra('letters', [len(text) for text in completions])\n"
        "    log_metric('longest', max(map(len, completions)))\n"
        "    log_metric('longest', 0)\n"
        "    return [0.0] * len(completions)\n"
        "def short(completions, log_extra, **_):\n"
        "    log_extra('letters', [1])\n"
        "    return [0.0] * len(completions)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    given = asked(["x", "yyy"])
    scores(term("logging_rewards:seen"), given)
    assert given.logged.extra == {"letters": ["1", "3"]} and given.logged.metrics == {"longest": [3.0, 0.0]}
    with pytest.raises(ValueError, match="log_extra of letters has 1 values for 2 completions"):
        scores(term("logging_rewards:short"), asked(["x", "yyy"]))
