"""What an evaluation found, as it is written to evals/*.json and read again.

Claim: one type for all who write, read, compare or draw evaluations. Values that do not exist (an interval over one problem, the length of
right samples where none is right) are None, never a number that stands for it.
Simplification: fields that came later have a value that says "not recorded", so that older files are read.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt

from rollout.records import CHARACTERS

IMPORTED = "imported"  # the engine of samples that others made
_KINDS = ("forced", "extended", "requested", "short")  # of budgets, in their order


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Estimate(_Frozen):
    """A mean over problems with its 95 % interval; the bounds are None for one problem."""

    mean: float
    low: float | None
    high: float | None


class Share(Estimate):
    """A mean share; of one problem, or of problems that are all alike, the interval is Wilson's, so that there always is one."""

    low: float
    high: float


class Majority(Share):
    """Share of right majority votes among k samples (maj@k; cons@k where those are all), over all choices of them."""

    k: int


class Lengths(Estimate):
    """Length of samples, in units of the ruler: mean over problems, the others over samples."""

    median: float
    p90: float
    right: float | None
    wrong: float | None
    truncated: float | None = None


class Overlap(Share):
    """Token F1 of answers in words, over the problems that have such a gold. It says nothing of right and wrong."""

    problems: int


class Outcome(_Frozen):
    """Mean lengths of the samples of one outcome; thinking and answer of those that closed their thinking, whose share is `closed`; all three None where nobody counted thinking."""

    samples: int
    closed: float | None
    thinking: float | None
    answer: float | None
    total: float | None


class Cell(_Frozen):
    """Problems of one family and level: means over problems, `tokens_right` over right samples."""

    family: str
    level: int
    problems: int
    accuracy: float
    tokens: float
    tokens_right: float | None = None


class Point(_Frozen):
    """Accuracy within a budget in tokens, and the mean of min(length, budget)."""

    budget: int
    accuracy: float
    low: float | None
    high: float | None
    tokens: float


class Forced(_Frozen):
    """What the engine put into samples to close their thinking, or to have it go on, which counts as nobody's tokens.

    Attributes:
        closed: share of samples whose thinking was closed; this and the others as means over problems.
        tokens: put into a sample.
        waits: how often a sample was told to go on; None where none is.
        beyond: share of samples that thought on behind the mark that was put there, and closed a second time.
    """

    closed: float
    tokens: float
    waits: float | None = None
    beyond: float = 0.0


class Adherence(_Frozen):
    """How far samples kept to the budget that their prompts asked for: share of them within it, and mean tokens over it, as means over problems."""

    within: float
    ratio: float


class Parallel(_Frozen):
    """What votes of parallel chains cost, as means over problems of means over their votes; accuracy is then that of votes, and a length that of a vote.

    Attributes:
        votes: of a problem, each of chains of its own.
        tokens: of thinking, of all chains until the last that may vote had thought to the end.
        time: of thinking, of that one: what an answer is waited for.
        stopped: share of chains that were stopped.
    """

    votes: float
    tokens: float
    time: float
    stopped: float


class ProblemScore(_Frozen):
    """One problem: right samples (or votes, see Parallel) of all, their mean length, and what majorities of them say (`Evaluation.majority`)."""

    id: str
    family: str = ""
    level: int
    right: NonNegativeInt
    samples: PositiveInt
    tokens: float
    majority: float | None = None
    token_f1: float | None = None

    @property
    def share(self) -> float:
        """Right samples of all."""
        return self.right / self.samples


class Budget(_Frozen):
    """A budget that samples were made at: thinking closed by the engine (`forced`), or asked for in the prompt (`requested`).

    Attributes:
        limit: tokens.
    """

    kind: str
    limit: int

    @property
    def name(self) -> str:
        """In files and tables: `forced-1024`."""
        return f"{self.kind}-{self.limit}"

    @property
    def words(self) -> str:
        """For people."""
        return f"{self.limit:,} tokens {self.kind}"

    @property
    def at(self) -> str:
        """Among others of its kind."""
        return f"{self.limit:,}"

    @property
    def option(self) -> str:
        """Of `laconic eval`, which asks for it."""
        return f"--{self.kind} {self.limit}"

    @property
    def place(self) -> tuple[int, int, int]:
        """Among budgets in their order."""
        return _KINDS.index(self.kind) if self.kind in _KINDS else len(_KINDS), self.limit, 0


class Extended(Budget):
    """A budget of thinking that is used: thinking that ends before is told to go on (s1's budget forcing, 2501.19393), and closed at the limit.

    Attributes:
        waits: so often at most.
        word: that is put in the place of the mark that would close it.
    """

    kind: Literal["extended"] = "extended"
    waits: int
    word: str = "Wait"

    @property
    def name(self) -> str:
        """In files and tables: `extended-2-of-4096`, and the word where it is another than s1's, as addresses write it: `-Wait%2C`."""
        own = "" if self.word == "Wait" else "-" + "".join(one if one.isalnum() else quote(one, safe="") for one in self.word)
        return f"extended-{self.waits}-of-{self.limit}{own}"

    @property
    def words(self) -> str:
        """For people."""
        return f"{self.limit:,} tokens extended by {self.at.partition(' by ')[2]}"

    @property
    def at(self) -> str:
        """Among others of its kind."""
        return f"{self.limit:,} by {self.waits} × {self.word!r}".replace("'", '"')

    @property
    def option(self) -> str:
        """Of `laconic eval`, which asks for it."""
        return shlex.join(["--extended", f"{self.waits}@{self.limit}" + (f":{self.word}" if self.word != "Wait" else "")])

    @property
    def place(self) -> tuple[int, int, int]:
        """Among budgets in their order."""
        return _KINDS.index(self.kind), self.limit, self.waits


class ShortOf(_Frozen):
    """Chains that are sampled together, of which the first to think to the end vote (short-m@k, 2505.17813).

    Attributes:
        first: so many vote (m).
        of: so many start (k).
    """

    kind: Literal["short"] = "short"
    first: int
    of: int

    @property
    def name(self) -> str:
        """In files and tables: `short-3-of-8`."""
        return f"short-{self.first}-of-{self.of}"

    @property
    def words(self) -> str:
        """For people, as the paper writes it."""
        return f"short-{self.first}@{self.of}"

    @property
    def option(self) -> str:
        """Of `laconic eval`, which asks for it."""
        return f"--short {self.first}@{self.of}"

    @property
    def place(self) -> tuple[int, int, int]:
        """Among budgets in their order."""
        return _KINDS.index(self.kind), self.of, self.first


class Settings(_Frozen):
    """How samples were made; what is None was not recorded.

    Attributes:
        top_k: 0: all tokens.
        max_tokens: where engines stop.
        samples: of a problem, asked for.
        revision: commit of the hub's set that was asked.
        template: hash of chat template and tokenizer, the ruler of all lengths.
        date: that a template states, "" for none.
        lenient: answers without a box were read, too.
        instruction: what the recipe put around every problem.
        stated_limit: tokens that `{budget}` in it stood for; None where it holds none, and at a requested budget, which is what prompts say.
        margin: the loss of accuracy, a share, that was allowed before anything was sampled.
        budget: what limited the samples beside `max_tokens`, or which of them were stopped; None: nothing did.
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    max_tokens: int
    samples: int | None = None
    seed: int | None = None
    engine: str | None = None
    revision: str | None = None
    template: str = ""
    date: str | None = None
    lenient: bool = False
    instruction: str | None = None
    stated_limit: int | None = None
    margin: float = 0.01
    budget: Extended | Budget | ShortOf | None = None

    @property
    def unit(self) -> str:
        """Of lengths: tokens or characters."""
        return CHARACTERS if self.template == CHARACTERS else "tokens"

    @property
    def ruler(self) -> str:
        """What counted lengths, in words that tell it from others."""
        if not self.template or self.unit == CHARACTERS or self.template.startswith("tokens of "):
            return self.template or "tokens of a tokenizer that was not recorded"
        return f"tokens of template {self.template}"

    @property
    def shown(self) -> dict[str, Any]:
        """What was recorded, for a table."""
        return self.model_dump(exclude_none=True)


class Evaluation(_Frozen):
    """A checkpoint on one source of problems (docs/architecture.md).

    Attributes:
        problems: that were asked.
        samples: of each, asked for.
        asked: for samples of all problems, since one that several rows ask has those of each; None: not recorded.
        truncated, no_answer, not_judged: shares of samples, as means over problems.
        no_answer_by: `no_answer` by reason.
        majority: of as many samples as every problem has; None for single samples, and where samples are votes already.
        stated: accuracy if answers stated without a box count, too; None unless they were read.
        by_outcome: of right, wrong and truncated samples.
        forced: of a forced budget.
        adherence: of a requested one.
        parallel: of chains that were stopped; all other numbers are of votes then, `samples` too.
        table: the parquet with its samples, where it was read from a file.
    """

    checkpoint: str = ""
    step: int
    source: str
    settings: Settings
    problems: int
    samples: int
    asked: int | None = None
    accuracy: Share
    tokens: Lengths
    truncated: float
    no_answer: float
    no_answer_by: dict[str, float] = {}
    not_judged: float
    token_f1: Overlap | None = None
    majority: Majority | None = None
    stated: Share | None = None
    by_outcome: dict[str, Outcome] = {}
    by_level: list[Cell]
    budget_curve: list[Point] = Field(min_length=1)
    per_problem: list[ProblemScore] = Field(min_length=1)
    forced: Forced | None = None
    adherence: Adherence | None = None
    parallel: Parallel | None = None
    table: Path | None = Field(default=None, exclude=True)

    @property
    def where(self) -> str:
        """The source, and the budget if there was one, for people."""
        return f"{self.source}, {self.settings.budget.words}" if self.settings.budget else self.source

    @property
    def wanted(self) -> int:
        """Samples that were asked for in all."""
        return self.problems * self.samples if self.asked is None else self.asked

    @property
    def tells_thinking(self) -> bool:
        """Whether somebody counted thinking apart from the answer; else what is said of it is of all of a sample."""
        return not self.by_outcome or any(one.closed is not None for one in self.by_outcome.values())
