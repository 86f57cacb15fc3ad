"""Length terms of a reward, by kind: their numbers as the papers have them, and the bounds that follow.

Where a formula is for right and wrong answers alike, `gate: right` counts it for right ones only; a recipe that keeps to a paper which
pays wrong answers for their length waives the promise.
"""

from __future__ import annotations

from math import exp, sqrt
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from recipes.columns import REFERENCE
from recipes.section import Count, NonNegative, Positive, Share
from recipes.term import Bounds, Case, Erases, Gate, Term

Of = Annotated[
    Literal["total", "thinking", "answer"], Field(description="Which tokens it sees: all, those of the thinking, or those behind it.")
]
Weight = Annotated[Positive, Field(description="Factor.")]


class LengthTerm(Term):
    """A term that sees lengths; wrong answers earn nothing by it, unless it says so."""

    sees_length: ClassVar[bool] = True
    weight: Weight = 1.0
    of: Of = "total"

    def value(self, right: bool, case: Case) -> Bounds:
        """Least and most before weight and gate."""
        raise NotImplementedError

    def adds(self, right: bool, case: Case) -> Bounds:
        low, high = self.value(right, case) if right or self.sees_wrong() else (0.0, 0.0)
        return self.weight * low, self.weight * high

    def sees_wrong(self) -> bool:
        """Whether wrong answers earn something by it, too."""
        return False

    def sees_length_of_wrong(self) -> bool:
        return self.sees_wrong()


class GatedTerm(LengthTerm):
    """One whose formula is for right and wrong answers alike."""

    gate: Gate = "none"

    def sees_wrong(self) -> bool:
        return self.gate == "none"


class L1ExactTerm(GatedTerm):
    reads_limit: ClassVar[bool] = True
    kind: Literal["l1_exact"] = Field(
        ..., description="-|limit - tokens| / budget.limit (L1-Exact, arXiv 2503.04697: 3e-4 a token of 4000)."
    )
    weight: Weight = 1.2

    def value(self, right: bool, case: Case) -> Bounds:
        return -max(case.limit, case.above) / case.unit, 0.0


class L1MaxTerm(LengthTerm):
    reads_limit: ClassVar[bool] = True
    kind: Literal["l1_max"] = Field(..., description="Times clip(alpha (limit - tokens) + delta, 0, 1) (L1-Max, arXiv 2503.04697).")
    alpha: Positive = Field(1.2, description="Slope, per budget.limit tokens (3e-4 a token of 4000).")
    delta: Share = Field(0.5, description="Share that a right answer of exactly the limit keeps.")
    form: Literal["paper", "code"] = Field("paper", description="As above, or the release's (clip(alpha (limit - tokens), -1, 1) + 1) / 2.")

    def value(self, right: bool, case: Case) -> Bounds:
        low, high = (case.worth * (self._factor(left / case.unit) - 1) for left in (-case.above, case.limit))
        return low, high

    def _factor(self, left: float) -> float:
        """Of an answer that leaves so much of the limit, per budget.limit."""
        if self.form == "code":
            return (min(max(self.alpha * left, -1.0), 1.0) + 1) / 2
        return min(max(self.alpha * left + self.delta, 0.0), 1.0)

    def erases(self) -> Erases:
        return "by degrees"

    def doubts(self) -> list[str]:
        unread = self.form == "code" and self.delta != type(self).model_fields["delta"].default
        return [f"l1_max.delta: {self.delta:g} says nothing, as form is code"] if unread else []


class KimiTerm(GatedTerm):
    kind: Literal["kimi"] = Field(
        ...,
        description="0.5 - (tokens - least) / (most - least) of the group; of wrong answers no more than 0 (Kimi k1.5, arXiv 2501.12599).",
    )
    weight: Weight = 0.4

    def value(self, right: bool, case: Case) -> Bounds:
        return (-0.5, 0.5) if right else (-0.5, 0.0)


class AroraTerm(LengthTerm):
    kind: Literal["arora"] = Field(
        ...,
        description="Times 1 - alpha x sigmoid of the standardised length among the group's right answers; 0 for what was cut off (Arora and Zanette, arXiv 2502.04463).",
    )
    alpha: Share = Field(0.1, description="Most that it takes off; 0.05 to 0.4 in the paper.")

    def value(self, right: bool, case: Case) -> Bounds:
        return -self.alpha * case.worth, 0.0

    def erases(self) -> Erases:
        return "at once"  # of answers that were cut off

    def erased(self, case: Case) -> float:
        return -self.weight * case.worth


class O1PrunerTerm(GatedTerm):
    replaces_verdict: ClassVar[bool] = True
    kind: Literal["o1_pruner"] = Field(
        ...,
        description="In the verdict's place: clip((reference - tokens) / tokens + alpha (right - reference_accuracy)), from the data's columns (arXiv 2501.12570).",
    )
    alpha: NonNegative = Field(5.0, description="Weight of accuracy.")
    low: float = Field(-2.0, description="Least.")
    high: float = Field(4.0, description="Most.")
    reads = ("reference_tokens", "reference_accuracy")

    @model_validator(mode="after")
    def _leaves_room(self) -> O1PrunerTerm:
        alike = "what is right and what is wrong would earn the same"
        if self.low == self.high:
            raise ValueError(f"low: {self.low:g} is high, too: {alike}")
        if self.alpha == 0 and self.gate == "none":
            raise ValueError(f"alpha: 0 leaves out whether an answer is right: {alike}; take more, or say gate: right")
        return self

    def value(self, right: bool, case: Case) -> Bounds:
        verdict = case.worth if right else case.wrong
        return self.low - verdict, self.high - verdict


class AlpTerm(GatedTerm):
    reads_limit: ClassVar[bool] = True
    kind: Literal["alp"] = Field(
        ..., description="-tokens / limit x the group's share of right answers, at least 1 / rollouts (ALP, arXiv 2506.05256)."
    )
    weight: Weight = 0.1

    def value(self, right: bool, case: Case) -> Bounds:
        return -case.times, 0.0


class ShorterBetterTerm(GatedTerm):
    kind: Literal["shorterbetter"] = Field(
        ...,
        description="-|tokens - those of the group's shortest right answer, else the group's mean| / budget.limit (arXiv 2504.21370: 1e-3 a token of 6000).",
    )
    weight: Weight = 6.0

    def value(self, right: bool, case: Case) -> Bounds:
        return -case.most / case.unit, 0.0


class LaserTerm(LengthTerm):
    reads_limit: ClassVar[bool] = True
    kind: Literal["laser"] = Field(..., description="1 for a right answer within the limit (LASER, arXiv 2505.15612).")
    weight: Weight = 0.5
    explore: bool = Field(False, description="Also for a wrong answer beyond it that does not repeat itself (LASER-DE).")

    def value(self, right: bool, case: Case) -> Bounds:
        exceeds = case.above > 0
        return float(right and not exceeds), float(right or exceeds)

    def sees_wrong(self) -> bool:
        return self.explore


class OverlongTerm(GatedTerm):
    reads_limit: ClassVar[bool] = True
    kind: Literal["overlong"] = Field(
        ..., description="0 up to limit - buffer, from there in a line to -1 at the limit and beyond (DAPO, arXiv 2503.14476)."
    )
    buffer: Annotated[float, Field(gt=0, le=1)] = Field(0.2, description="Share of the limit before it in which it falls (4096 of 20480).")
    hard: NonNegative = Field(
        0.0,
        description="Right answers that finished lose it times the group's share of right ones to this power: hard prompts are spared (PipelineRL).",
    )

    def value(self, right: bool, case: Case) -> Bounds:
        return -1.0, 0.0


class CosineTerm(GatedTerm):
    replaces_verdict: ClassVar[bool] = True
    reads_limit: ClassVar[bool] = True
    kind: Literal["cosine"] = Field(
        ..., description="In the verdict's place: along a half cosine over the limit, from one value to another (arXiv 2502.03373)."
    )
    right_short: float = Field(2.0, description="Of a right answer of no tokens.")
    right_long: float = Field(1.0, description="Of a right answer of limit tokens.")
    wrong_short: float = Field(-10.0, description="Of a wrong answer of no tokens.")
    wrong_long: float = Field(0.0, description="Of a wrong answer of limit tokens.")
    beyond: float = Field(-10.0, description="Of whatever is longer than the limit, or was cut off.")

    @model_validator(mode="after")
    def _tells_right_from_wrong(self) -> CosineTerm:
        if (self.right_short, self.right_long) == (self.wrong_short, self.wrong_long):
            raise ValueError(
                f"right_short: {self.right_short:g} to {self.right_long:g} is what wrong answers earn, too: nothing would tell them apart"
            )
        return self

    def value(self, right: bool, case: Case) -> Bounds:
        ends = (self.right_short, self.right_long) if right else (self.wrong_short, self.wrong_long)
        verdict = case.worth if right else case.wrong
        return min(*ends, self.beyond) - verdict, max(*ends, self.beyond) - verdict


class RepetitionTerm(Term):
    kind: Literal["repetition"] = Field(..., description="-1 x the share of token n-grams that were there before (arXiv 2502.03373).")
    weight: Weight = 1.0
    gate: Gate = "none"
    size: Count = Field(40, description="n.")
    form: Literal["share", "dense"] = Field(
        "share",
        description="As above, or -1 x the tokens in such n-grams / budget.limit (the paper's dense form, 0.05 a token, is weight 0.05 x budget.limit: 200 at 4000).",
    )

    def adds(self, right: bool, case: Case) -> Bounds:
        most = 0.0 if case.most <= self.size else 1.0 if self.form == "share" else case.most / case.unit
        return (-self.weight * most, 0.0) if right or self.gate == "none" else (0.0, 0.0)

    def sees_length_of_wrong(self) -> bool:
        return self.gate == "none" and self.form == "dense"


class ClosingsTerm(Term):
    kind: Literal["closings"] = Field(..., description="-|marks that close thinking - 1| (NeMo-RL).")
    weight: Weight = 0.1
    gate: Gate = "none"
    most: Count = Field(4, description="Marks too many that count at most.")

    def adds(self, right: bool, case: Case) -> Bounds:
        return (-self.weight * self.most, 0.0) if right or self.gate == "none" else (0.0, 0.0)


class LeadTerm(LengthTerm):
    kind: Literal["lead"] = Field(
        ..., description="exp(-alpha z) - 1, z the standardised length among the group's right answers (GRPO-LEAD, arXiv 2504.09696)."
    )
    alpha: Positive = Field(0.05, description="Sharpness.")
    least: NonNegative = Field(
        0.0,
        description="Acts where the three shortest right answers of the group have more than this share of budget.limit on average (0: always).",
    )

    def value(self, right: bool, case: Case) -> Bounds:
        most = (case.group_size - 1) / sqrt(case.group_size) if case.most > self.least * case.unit else 0.0
        return exp(-self.alpha * most) - 1, exp(min(self.alpha * most, 700.0)) - 1  # e^700 is beyond any reward


class TriangleTerm(GatedTerm):
    reads_limit: ClassVar[bool] = True
    kind: Literal["triangle"] = Field(
        ..., description="tokens / limit up to the limit, then down to 0 at twice the limit (arXiv 2508.08940)."
    )
    gate: Gate = "right"

    def value(self, right: bool, case: Case) -> Bounds:
        return 0.0, 1.0


class BandTerm(GatedTerm):
    reads_limit: ClassVar[bool] = True
    kind: Literal["band"] = Field(..., description="1 up to the limit, then down to 0 at twice the limit (arXiv 2508.08940).")
    gate: Gate = "right"

    def value(self, right: bool, case: Case) -> Bounds:
        return max(2 - case.times, 0.0), 1.0


class LinearTerm(GatedTerm):
    kind: Literal["linear"] = Field(..., description="-tokens / the group's most, times its mean verdict, at least 0 (prime-rl).")
    weight: Weight = 0.25
    gate: Gate = "right"

    def value(self, right: bool, case: Case) -> Bounds:
        return -case.worth, 0.0


class LogarithmTerm(LengthTerm):
    reads_limit: ClassVar[bool] = True
    kind: Literal["logarithm"] = Field(
        ...,
        description="log(1 + sharpness (1 - tokens / limit)) / log(1 + sharpness): 1 for a right answer of no tokens, 0 from the limit on (Acoer, arXiv 2606.22716).",
    )
    weight: Weight = 0.5
    sharpness: Positive = Field(5.0, description="How soon it falls near the limit.")

    def value(self, right: bool, case: Case) -> Bounds:
        return 0.0, 1.0


class RelativeTerm(LengthTerm):
    kind: Literal["relative"] = Field(
        ..., description="Times a factor by the other right answers of the group, above all the shortest (open-instruct); at least `floor`."
    )
    shape: Literal["linear", "exponential", "rank", "binary", "soft", "saving"] = Field(
        "exponential",
        description="With e the share by which it exceeds the shortest: 1 - strength e; e^(-strength e); 1 / (1 + its rank); 1 for the shortest alone; 1 up to strength x median and 0 at twice that; 1 + what it saves of the mean (never less than 1).",
    )
    strength: Positive = Field(0.25, description="See shape.")
    floor: Share = Field(
        0.5, description="Least factor. At 0 such rewards train guessing: measured, answers of 8 tokens at half the accuracy."
    )

    def value(self, right: bool, case: Case) -> Bounds:
        if self.shape == "saving":
            return 0.0, case.worth
        excess = self.strength * (case.most - 1)  # of the longest, beside one of a token
        least = {
            "linear": 1 - excess,
            "exponential": exp(-excess),
            "rank": 1 / case.group_size,
            "soft": min(2 - case.most / self.strength, 1.0),
        }
        return -(1 - max(self.floor, least.get(self.shape, 0.0))) * case.worth, 0.0

    def erases(self) -> Erases:
        return "" if self.floor or self.shape == "saving" else "by degrees"

    def doubts(self) -> list[str]:
        said = "relative.floor: 0 leaves a long right answer as little as a wrong one, which trains guessing (docs/methods.md); take 0.5"
        idle = {"rank": ("strength",), "binary": ("strength",), "saving": ("strength", "floor")}.get(self.shape, ())
        fields = type(self).model_fields
        unread = [
            f"relative.{name}: {getattr(self, name):g} says nothing, as shape is {self.shape}"
            for name in idle
            if getattr(self, name) != fields[name].default
        ]
        return [said] * bool(self.erases()) + unread


class ShortestTerm(LengthTerm):
    kind: Literal["shortest"] = Field(..., description="1 for the shortest right answer of the group (NeMo-RL).")
    weight: Weight = 0.1
    top: Share = Field(
        0.0, description="Only if its reward by the terms before this one is at least that of this share of right answers, from below."
    )

    def value(self, right: bool, case: Case) -> Bounds:
        return 0.0, 1.0


class LongestTerm(LengthTerm):
    kind: Literal["longest"] = Field(..., description="-1 for the longest of the group's right answers (NeMo-RL).")
    weight: Weight = 0.1
    top: Share = Field(
        0.0,
        description="Of those only whose reward by the terms before this one is at least that of this share of right answers, from below.",
    )

    def value(self, right: bool, case: Case) -> Bounds:
        return -1.0, 0.0


class ProfiledTerm(GatedTerm):
    kind: Literal["profiled"] = Field(
        ..., description="-1 from the reference's mean length on the prompt plus some deviations on (NeMo-RL). From the data's columns."
    )
    weight: Weight = 0.1
    gate: Gate = "right"
    deviations: NonNegative = Field(1.0, description="Of the reference's lengths.")
    reads = REFERENCE

    def value(self, right: bool, case: Case) -> Bounds:
        return -1.0, 0.0


class ScalingTerm(LengthTerm):
    kind: Literal["scaling"] = Field(
        ..., description="From 1 for the shortest right answer of the group to 0 for the longest, less their mean (NeMo-RL)."
    )
    weight: Weight = 0.05
    profiled: bool = Field(
        False,
        description="Acts only where right answers are longer on average than the reference's, on prompts that it solves mostly (NeMo-RL's profile gate).",
    )

    def value(self, right: bool, case: Case) -> Bounds:
        return -1.0, 1.0

    @property
    def reads(self) -> tuple[str, ...]:  # type: ignore[override]
        return REFERENCE if self.profiled else ()


class ZmadTerm(LengthTerm):
    kind: Literal["zmad"] = Field(
        ..., description="-1 for a right answer far above the median of the group's right ones, in absolute deviations (NeMo-RL)."
    )
    weight: Weight = 0.1
    threshold: Positive = Field(2.5, description="From which z on, 0.6745 (tokens - median) / MAD.")

    def value(self, right: bool, case: Case) -> Bounds:
        most = 0.6745 * (
            2 * case.most if case.group_size > 2 else 1
        )  # the least deviation is half a token; of two, half of what lies between them
        return -float(most > self.threshold), 0.0


class ProfileBandTerm(LengthTerm):
    kind: Literal["nemo_band"] = Field(
        ...,
        description="Times 1 up to the reference's mean length on the prompt, down in a line from there; the easier the prompt, the steeper (NeMo-RL). From the data's columns.",
    )
    deviations: Positive = Field(2.0, description="Width of the band, in the reference's standard deviations.")
    held: bool = Field(True, description="Beyond the band the factor stays; false: it goes on falling, to 0.")
    reads = REFERENCE

    def value(self, right: bool, case: Case) -> Bounds:
        return -case.worth * (0.4 if self.held else 1.0), 0.0

    def erases(self) -> Erases:
        return "" if self.held else "by degrees"


class Gr3Term(LengthTerm):
    kind: Literal["gr3"] = Field(
        ..., description="The verdict / (1 + alpha tokens / the group's mean) (GR3, arXiv 2603.10535); not below 0."
    )
    alpha: Positive = Field(0.33, description="Strength.")
    verdicts = ("of 0 for wrong answers, or these would earn by their length", lambda right, wrong: wrong == 0)

    def value(self, right: bool, case: Case) -> Bounds:
        return -case.worth * (1 - 1 / (1 + self.alpha * case.group_size)), 0.0


class LeashTerm(LengthTerm):
    reads_limit: ClassVar[bool] = True
    kind: Literal["leash"] = Field(
        ...,
        description="-lambda x max(0, tokens / limit - 1), the sum kept within -1 and 1; lambda follows the mean length (Leash, arXiv 2512.21540). Needs verdicts of 1 and -1.",
    )
    weight: Weight = Field(0.1, description="Where lambda starts.")
    gain: Positive = Field(0.005, description="Change of lambda in a step, per mean of tokens / limit above 1.")
    most: Positive = Field(1.0, description="Upper bound of lambda.")
    verdicts = ("1 and -1, or a long right answer would fall below a short wrong one", lambda right, wrong: (right, wrong) == (1, -1))

    @model_validator(mode="after")
    def _starts_in_bounds(self) -> LeashTerm:
        if self.weight > self.most:
            raise ValueError(f"weight: {self.weight:g} is above most {self.most:g}, where lambda must stay")
        return self

    def adds(self, right: bool, case: Case) -> Bounds:
        return (-min(2.0 * case.worth, self.most * (case.times - 1)), 0.0) if right else (0.0, 0.0)

    def erases(self) -> Erases:
        return "by degrees"


LengthTerms = (
    L1ExactTerm
    | L1MaxTerm
    | KimiTerm
    | AroraTerm
    | O1PrunerTerm
    | AlpTerm
    | ShorterBetterTerm
    | LaserTerm
    | OverlongTerm
    | CosineTerm
    | RepetitionTerm
    | ClosingsTerm
    | LeadTerm
    | TriangleTerm
    | BandTerm
    | LinearTerm
    | LogarithmTerm
    | RelativeTerm
    | ShortestTerm
    | LongestTerm
    | ProfiledTerm
    | ScalingTerm
    | ZmadTerm
    | ProfileBandTerm
    | Gr3Term
    | LeashTerm
)
