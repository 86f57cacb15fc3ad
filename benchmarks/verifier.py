"""The verifier against plain math-verify on labelled answers, and its rate with one worker and with two.

    python benchmarks/verifier.py FILE.jsonl ... [--gold gold] [--prediction prediction] [--label correct] [--no-plain] [--json verifier.json]

Each file holds JSON lines with a gold (or a list of golds, any of which will do), a prediction and a label: whether the prediction is right.
Ours is `laconic judge`. Plain is math-verify's parse and verify with their defaults: golds and bare answers between dollar signs where they hold no maths
signs of their own, whole completions as they are (--kind names a field that says "answer" or "completion"; without it, several lines are a completion).
A false rejection is a right answer not called right ("not judged" counts), a false acceptance a wrong answer called right.
Rates: 256 integers, and a mixed batch of 1,000 of which half needs a computer algebra system, on one worker and on two, in turns.

It does not show why an answer was misjudged (`laconic judge` writes the reason of each) nor whether the label is right.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _measure import Row, column, in_turns, parser, print_table, ratio, sentence, spread, write_json
from math_verify import parse, verify

from rewards.verifier.judge import Judge
from rewards.verifier.judge_file import judge_file

WANTED = 1.8
BATCH = 1000
_SIGNS = ("$", r"\(", r"\[", r"\boxed")


def rows_of(path: Path, gold: str, prediction: str, label: str, kind: str | None) -> list[dict[str, Any]]:
    """The labelled rows of a file under our names. Raises ValueError with the place if a field is missing."""
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        row = json.loads(line)
        missing = [name for name in (gold, prediction, label) if name not in row]
        if missing:
            raise ValueError(f"{path}:{number}: no field {missing[0]}: name the fields with --gold, --prediction and --label")
        answer = row.get(kind) == "answer" if kind else "\n" not in str(row[prediction])
        rows.append({"gold": row[gold], "prediction": row[prediction], "label": bool(row[label]), "bare": answer})
    return rows


def ours(rows: list[dict[str, Any]], workers: int) -> list[bool]:
    """Whether each row is called right by `laconic judge`."""
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder, "in.jsonl"), Path(folder, "out.jsonl")
        source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        judge_file(source, out, workers=workers, wall_s=3.0, memory_mb=1024)
        return [json.loads(line)["verdict"] == "right" for line in out.read_text(encoding="utf-8").splitlines()]


def plain(rows: list[dict[str, Any]]) -> list[bool]:
    """Whether each row is called right by math-verify alone."""
    logging.disable(logging.WARNING)  # it reports each of its timeouts
    called = []
    for row in rows:
        golds = row["gold"] if isinstance(row["gold"], list) else [row["gold"]]
        prediction = _signed(str(row["prediction"])) if row["bare"] else str(row["prediction"])
        called.append(any(bool(verify(parse(_signed(str(gold))), parse(prediction))) for gold in golds))
    logging.disable(logging.NOTSET)
    return called


def _signed(text: str) -> str:
    return text if any(sign in text for sign in _SIGNS) else f"${text}$"


def counts(rows: list[dict[str, Any]], called: list[bool]) -> Row:
    """Agreement in per cent, false rejections and false acceptances."""
    pairs = [(row["label"], right) for row, right in zip(rows, called, strict=True)]
    return {
        "agreement": 100 * sum(label == right for label, right in pairs) / len(pairs),
        "false rejections": sum(label and not right for label, right in pairs),
        "false acceptances": sum(right and not label for label, right in pairs),
    }


def batch() -> list[tuple[str, str]]:
    """1,000 different answers: half are settled as numbers or words, half need reading; half of each are wrong."""
    kinds: list[Callable[[int, int], tuple[str, str]]] = [
        lambda n, off: (str(n), f"{n + off:,}"),
        lambda n, off: (f"{n}.5", rf"{n + off}\frac{{1}}{{2}}"),
        lambda n, off: (rf"\frac{{{n}}}{{7}}", f"{n + off}/7"),
        lambda n, off: (f"{n} cm", rf"{n + off}\text{{ cm}}"),
        lambda n, off: (rf"\text{{name{'abcdefghij'[n % 10]}}}", rf"name{'abcdefghij'[(n + off) % 10]}"),
        lambda n, off: (rf"{n}\sqrt{{8}}", rf"{2 * (n + off)}\sqrt{{2}}"),
        lambda n, off: (f"(x+{n})^2", f"x^2+{2 * n + off}x+{n * n}"),
        lambda n, off: (rf"\left({n},\frac{{\pi}}{{3}}\right)", rf"({n + off},\pi/3)"),
        lambda n, off: (f"(1,{n + 2}]", rf"1<x\le {n + off + 2}"),
        lambda n, off: (f"y={n}x+1", f"{n + off}x-y+1=0"),
    ]
    return [kinds[index % 10](index // 10 + 1, index // 10 % 2) for index in range(BATCH)]


def rate(pairs: list[tuple[str, str]], workers: int) -> Row:
    """Seconds that a fresh judge, started and warm, takes for pairs of a gold and an answer in a box."""
    with Judge(workers, 3.0, 1024) as judge:
        for future in [judge.compare(gold=rf"\sqrt{{{index}}}", answer=f"{index}^{{1/2}}") for index in range(2, 40)]:
            future.result()
        start = time.perf_counter()
        futures = [judge.submit(gold=gold, text=rf"\boxed{{{answer}}}", finish="stop", thinking=False) for gold, answer in pairs]
        for future in futures:
            future.result()
        return {"seconds": time.perf_counter() - start}


def main() -> None:
    options = parser(__doc__, rounds=5)
    options.add_argument("files", type=Path, nargs="*")
    options.add_argument("--gold", default="gold", help="field of the reference answer (default gold)")
    options.add_argument("--prediction", default="prediction", help="field of the answer or completion (default prediction)")
    options.add_argument("--label", default="correct", help="field that says whether it is right (default correct)")
    options.add_argument("--kind", help='field that says "answer" or "completion" (default: by line breaks)')
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--no-plain", action="store_true", help="leave math-verify alone out")
    args: Any = options.parse_args()
    table: dict[str, dict[str, Row]] = {}
    for path in args.files:
        rows = rows_of(path, args.gold, args.prediction, args.label, args.kind)
        table[path.stem] = {"ours": counts(rows, ours(rows, args.workers))} | (
            {} if args.no_plain else {"plain": counts(rows, plain(rows))}
        )
        print(f"{path.stem}: done", file=sys.stderr)
    if table:
        sides = ["ours"] if args.no_plain else ["ours", "plain"]
        header = ["", *(f"{side}: {name}" for side in sides for name in ("agreement %", "false rejections", "false acceptances"))]
        print_table(header, [[name, *_cells(each, sides)] for name, each in table.items()])
    if args.rounds < 1:
        return
    integers = [(str(n), str(n)) for n in range(256)]
    mixed = batch()
    times = in_turns(
        args.rounds,
        {"256 integers": lambda: rate(integers, 1), "one worker": lambda: rate(mixed, 1), "two workers": lambda: rate(mixed, 2)},
    )
    print_table(["", "seconds"], [[name, spread(column(each, "seconds"), 3)] for name, each in times.items()])
    result = ratio(column(times["one worker"], "seconds"), column(times["two workers"], "seconds"))
    print(f"{BATCH} mixed answers, two workers against one: {sentence(result, WANTED)}")
    write_json(args.json, benchmark="verifier", **result, wanted=WANTED, sets=table, rounds=times)


def _cells(sets: dict[str, Row], sides: list[str]) -> list[str]:
    return [
        f"{sets[side][name]:.1f}" if name == "agreement" else str(int(sets[side][name]))
        for side in sides
        for name in ("agreement", "false rejections", "false acceptances")
    ]


if __name__ == "__main__":
    main()
