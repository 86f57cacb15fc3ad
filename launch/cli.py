"""The `laconic` command: train, evaluate, look; and what helps with that. Heavy libraries load only where they are needed."""

from __future__ import annotations

import json
import os
import re
import shlex
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from launch import cluster_cli
from launch.convert import convert
from launch.doors import Address, Overrides, RecipeName, Runs, Scale, errors, out, say, table
from launch.head import joined_address
from launch.memory import many
from launch.merge import merge
from recipes.schema import Judge, Recipe
from rl.progress import terminal

if TYPE_CHECKING:
    from launch.plan import Plan

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Teach reasoning models to reach the same answers in fewer tokens.",
)
recipes_app = typer.Typer(invoke_without_command=True, help="List the shipped recipes, or show one.")
app.add_typer(recipes_app, name="recipes")
app.add_typer(cluster_cli.app)
TAUGHT_NOTHING = 3  # exit code

_OVERRIDE = re.compile(r"[a-z_]+(\.[\w-]+)*=")  # a change to a recipe


@app.command()
def train(
    recipe: RecipeName,
    overrides: Overrides = None,
    scale: Scale = None,
    runs: Runs = "runs",
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's newest whole checkpoint.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a former run of the same name.")] = False,
    address: Address = None,
) -> None:
    """Run a recipe's stages on this machine, or on the Ray cluster that --address names.

    Exit codes: 0 done, 1 an error, 3 the run taught nothing (no group had a signal, or the weights did not move), 130 stopped.
    """
    with errors():
        from launch.plan import check_runnable
        from recipes.loader import load

        loaded = load(recipe, scale, overrides or [])
        made = _planned(loaded)
        check_runnable(made)  # what cannot work is said before torch takes seconds to load
        from launch.storage import is_url, refuse_unshared, run_storage

        refuse_unshared(runs, [part.placement for part in made.stages])
        from launch.stages import run_recipe
        from rl.run import nothing_left

        with run_storage(runs, loaded.name, resume, overwrite, loaded.cluster.preemptible) as (here, mirror):
            folder = here / loaded.name
            if not (resume and is_url(runs) and nothing_left(made.recipe, folder)):  # else what storage had refused is sent
                folder = run_recipe(made, here, resume=resume, overwrite=overwrite, mirror=mirror)
        from evaluation.comparisons import read
        from evaluation.words import headline, single

        found = read([folder])
        said = headline(found.comparisons) + [single(one) for one in found.alone]
        for words in said:
            say(words)
        if (status := json.loads((folder / "status.json").read_text(encoding="utf-8")))["state"] == "no-effective-update":
            whole = "This run" if [stage.kind for stage in loaded.stages].count("rl") < 2 else "This run's last rl stage"
            out.print(
                f"[red]{whole} taught nothing:[/red] {escape(status['reason'])}. Its samples: {escape(str(folder))}/samples", soft_wrap=True
            )
            raise typer.Exit(TAUGHT_NOTHING)
        last = next((part.step for part in reversed(made.stages) if part.step.stage.makes_model), None)
        model = f" Its model: {last.folder(folder)}/checkpoint." if last and last.stage.kind != "rl" else ""
        place = f"{runs.rstrip('/')}/{loaded.name}" if is_url(runs) else str(folder)
        done = f"{escape(f'{place} is complete.{model}')} Look at it: [bold]laconic report {escape(shlex.quote(place))}[/bold]"
        out.print(done, soft_wrap=True)


@app.command()
def plan(
    recipe: RecipeName,
    overrides: Overrides = None,
    scale: Scale = None,
    address: Address = None,
    simulate: Annotated[
        str | None, typer.Option(metavar="RUN", help="Predict a step's time and cost instead, by this run of the model (folder or URL).")
    ] = None,
    gpus: Annotated[str, typer.Option(help="With --simulate: sizes, e.g. 8,64,512; of a run on a CPU, cores (default: 1 to 4,096).")] = "",
    price: Annotated[float | None, typer.Option(min=0, help="With --simulate: of a GPU and hour, in whatever money.")] = None,
    gpu_gb: Annotated[
        int | None,
        typer.Option(min=1, help="Of a machine without GPUs, or whose GPUs do not tell: memory of those that are meant, GB (default: 80)."),
    ] = None,
) -> None:
    """Say in words what a recipe would do here, and refuse what cannot work; or simulate its step at other sizes. Starts nothing."""
    with errors():
        from launch.explain import explain
        from recipes.loader import load

        if simulate is None and (gpus or price is not None):
            raise ValueError("--gpus, --price: of a simulation, which needs a run to know speeds by: --simulate RUN")
        if price is not None and not isfinite(price):
            raise ValueError(f"--price: {price} is no price; say what a GPU costs an hour")
        made = _planned(load(recipe, scale, overrides or []), gpu_gb)
        if gpu_gb and not made.assumed:
            raise ValueError(
                "--gpu-gb: says what GPUs would be like where none is or tells its own; "
                + ("here are some" if any(node.gpus for node in (made.machine, *made.others)) else "the recipe takes none")
            )
        if simulate is not None:
            from launch.forecast import sizes, words
            from launch.storage import local

            say(words(made, local(simulate), sizes(gpus), price))
            return
        say(explain(made))
        if made.blockers:
            raise typer.Exit(1)


TopK = Annotated[
    int | None, typer.Option(min=0, help="Sample from so many of the likeliest tokens only, 20 say as Qwen3 is published; 0: from all.")
]
Forced = Annotated[list[int] | None, typer.Option(min=1, help="Sample once more with thinking closed after so many tokens; repeatable.")]
Requested = Annotated[
    list[int] | None, typer.Option(min=1, help="Sample once more with prompts that ask for at most so many tokens; repeatable.")
]
Extended = Annotated[
    list[str] | None,
    typer.Option(
        metavar="N@TOKENS[:WORD]",
        help='Sample once more, and tell thinking that ends before TOKENS to go on, N times at most (s1\'s "Wait"); repeatable.',
    ),
]
Short = Annotated[
    list[str] | None,
    typer.Option(
        metavar="M@K", help="Sample once more, K chains together, the others stopped once M have thought to the end and vote; repeatable."
    ),
]
Logprobs = Annotated[bool, typer.Option("--logprobs", help="Keep every token's logprob; by their mean the best of k samples is told.")]
ShowPrompt = Annotated[bool, typer.Option("--show-prompt", help="Print the first prompt as the model sees it, and sample nothing.")]
Lenient = Annotated[bool, typer.Option("--lenient", help="Read answers that are stated without a box, too, and report both rates.")]


@app.command("eval")
def evaluate(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CHECKPOINT... [KEY=VALUE...]",
            help="Checkpoint folders or Hugging Face hub ids (with --engine-url, what the server's model was made of, or none), "
            "and changes to the recipe that they are evaluated with, e.g. eval.max_tokens=4096.",
        ),
    ] = None,
    data: Annotated[
        list[str] | None, typer.Option(help="tiny, a file or folder of problems, or hub:owner/name/config:split; repeatable.")
    ] = None,
    benchmark: Annotated[
        list[str] | None,
        typer.Option(
            help="A benchmark's name (`laconic benchmarks`), with the settings of DeepSeek-R1 where nothing else is said; repeatable."
        ),
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder that holds the benchmarks' files, in place of the hub.")] = None,
    samples: Annotated[int | None, typer.Option(min=1, help="Rollouts of a problem.")] = None,
    top_k: TopK = None,
    forced: Forced = None,
    extended: Extended = None,
    requested: Requested = None,
    short: Short = None,
    no_natural: Annotated[bool, typer.Option("--no-natural", help="Sample at the budgets alone.")] = False,
    out_dir: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Folder for scores and samples, of several checkpoints with a folder for each (default: evals/CHECKPOINT here)."
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Begin anew; without it, what is there already is kept and gone on with.")
    ] = False,
    lenient: Lenient = False,
    logprobs: Logprobs = False,
    show_prompt: ShowPrompt = False,
    engine_url: Annotated[
        str | None,
        typer.Option(help="Ask an OpenAI-compatible server, http://host:8000/v1 say, and start no engine; its key in LACONIC_ENGINE_KEY."),
    ] = None,
    engine_model: Annotated[str, typer.Option(help="The model of that server, as it calls it (default: the only one).")] = "",
    engine_requests: Annotated[int, typer.Option(min=1, help="Samples that the server is asked for at a time.")] = 64,
) -> None:
    """Sample held-out problems and report accuracy and tokens, with intervals and at every smaller budget.

    An evaluation that was stopped goes on where it was when the same is asked again.
    """
    with errors():
        from launch.evaluate import Question, budgets, evaluate_checkpoints

        checkpoints = [word for word in words or () if not _OVERRIDE.match(word) or Path(word).exists()]
        if not (checkpoints or engine_url):
            raise ValueError("eval: no checkpoint: name a folder or a hub id, or a server with --engine-url")
        if engine_url and len(checkpoints) > 1:
            raise ValueError("--engine-url: the server has one model; name one checkpoint that it was made of, or none")
        given = {
            "data": data or None,
            "samples": samples,
            "top_k": top_k,
            "budgets": budgets(forced or [], extended or [], requested or [], short or []) or None,
        }
        changes = [word for word in words or () if word not in checkpoints]
        changes += [f"eval.{key}={json.dumps(value, ensure_ascii=False)}" for key, value in given.items() if value is not None]
        named = _named(benchmark or [], data_dir)
        question = Question(changes, named, lenient, not no_natural, logprobs)
        if engine_url:
            from launch.server import evaluate_server

            known = checkpoints[0] if checkpoints else None
            evaluate_server(engine_url, engine_model, known, question, out_dir, overwrite, out, show_prompt, engine_requests)
        else:
            evaluate_checkpoints(checkpoints, question, out_dir, overwrite, out, show_prompt)


def _named(benchmarks: list[str], folder: Path | None) -> list[str]:
    """Benchmarks by name, with the folder of their files if there is one. Raises ValueError: there is one, and no benchmark."""
    if folder and not benchmarks:
        raise ValueError("--data-dir: holds the files of --benchmark, which is not said; name a file of your own with --data")
    return [f"{name}@{folder}" if folder and "@" not in name else name for name in benchmarks]


@app.command("import")
def import_samples(
    file: Annotated[
        Path,
        typer.Argument(
            help="Problems with golds and completions: JSON lines, JSON, parquet or CSV; lm-eval's, lighteval's and OckBench's, too."
        ),
    ],
    out_dir: Annotated[Path | None, typer.Option("--out", help="Folder for scores and samples (default: evals/MODEL here).")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace earlier results of the same name in that folder.")] = False,
    source: Annotated[str | None, typer.Option(help="The set of problems, as a benchmark is called (default: the file's name).")] = None,
    model: Annotated[str | None, typer.Option(help="Whose samples they are; picks those of one model.")] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="Checkpoint folder whose tokenizer counts lengths (default: the file's tokens, else characters).")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Where the samples' engine stopped (default: the longest).")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, help="With which they were sampled; recorded.")] = None,
    top_p: Annotated[float | None, typer.Option(min=0, max=1, help="With which they were sampled; recorded.")] = None,
    top_k: Annotated[int | None, typer.Option(min=0, help="With which they were sampled; recorded, 0: all.")] = None,
    lenient: Lenient = False,
    problem: Annotated[str | None, typer.Option(help="Path of the problem, e.g. doc.question (default: recognised).")] = None,
    gold: Annotated[str | None, typer.Option(help="Path of the gold, e.g. doc.answer (default: recognised).")] = None,
    prediction: Annotated[str | None, typer.Option(help="Path of the completions, e.g. resps[0] (default: recognised).")] = None,
    score: Annotated[str | None, typer.Option(help="Path of a number by which the best of several samples is told.")] = None,
) -> None:
    """Judge, score and keep samples that others made, as an evaluation that report and compare read."""
    with errors():
        from launch.imported import import_samples as read

        read(
            file, out_dir, overwrite, out, source=source, model=model, tokenizer=tokenizer, max_tokens=max_tokens,
            temperature=temperature, top_p=top_p, top_k=top_k, lenient=lenient,
            problem=problem, gold=gold, prediction=prediction, score=score,
        )  # fmt: skip


@app.command("export")
def export_evaluations(
    evaluation: Annotated[Path, typer.Argument(help="A folder of evaluations, a run, or one NAME.json with its parquet.")],
    form: Annotated[str, typer.Option("--format", help="lm-eval (results and samples) or ockbench (a record for each sample).")],
    to: Annotated[Path, typer.Option("--out", help="Folder for the files.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what was exported before.")] = False,
) -> None:
    """Write evaluations in the forms of other tools."""
    with errors():
        from evaluation.export import export

        for file in export(evaluation, form, to, overwrite):
            say(f"{file}")


@app.command("benchmarks")
def list_benchmarks(
    of: Annotated[
        Path | None,
        typer.Argument(metavar="RUN_OR_EVAL", help="Whose commits of the sets to show: further evaluations there read the same."),
    ] = None,
) -> None:
    """List the benchmarks by name: rows, samples of a problem, licence, where they are read, and at which commit.

    The pinned commit is read; it is said and recorded, and what is evaluated into the same folder or run reads that one.
    NAME@hub:OWNER/NAME@COMMIT reads another one, NAME@hub:OWNER/NAME@main the newest.
    """
    with errors():
        from evaluation.benchmarks import BENCHMARKS

        held: dict[str, str] = {}
        if of:
            from launch.evaluations import held_commits

            if not of.is_dir():
                raise ValueError(f"{of}: no such folder; name a run, or a folder that `laconic eval` wrote")
            held = held_commits(of / "evals" if (of / "evals").is_dir() else of)
        commits = {one.name: one.copies[0].commit[:7] for one in BENCHMARKS.values()} | held
        rows = [
            (one.name, f"{one.rows:,}", str(one.samples), one.licence, one.copies[0].place, commits[one.name], one.about)
            for one in BENCHMARKS.values()
        ]
        table("benchmark", rows, "rows", "samples", "licence", "of", "commit", "")


Margin = Annotated[
    float | None,
    typer.Option(help='Loss of accuracy, a share, up to which "as accurate" is said (default: what the evaluation recorded beforehand).'),
]


@app.command()
def report(
    of: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN_OR_EVAL...",
            help="Run folders, here or by URL, and folders of evaluations; the first is what others are compared with.",
        ),
    ],
    to: Annotated[Path | None, typer.Option("--out", help="Where it goes (default: report.FORMAT in the only folder).")] = None,
    form: Annotated[str, typer.Option("--format", help="html (a page), md, json, or svg (a picture of accuracy against tokens).")] = "html",
    margin: Margin = None,
) -> None:
    """Make one self-contained page of any mix of training runs and evaluations."""
    with errors():
        from evaluation.report import report as make_report
        from launch.storage import local

        say(f"{make_report([local(one) for one in of], to, form, margin)}")


@app.command()
def compare(
    of: Annotated[list[str], typer.Argument(metavar="RUN_OR_EVAL...", help="One run (its end with its start), or several of either.")],
    margin: Margin = None,
) -> None:
    """Compare what runs and evaluations arrived at with the first of them: paired numbers, and what may be said."""
    with errors():
        from launch.compare import compare_in_terminal
        from launch.storage import local

        compare_in_terminal([local(one) for one in of], margin, out)


Licence = Annotated[
    str | None,
    typer.Option("--license", help="Licence of the model by the hub's name (apache-2.0, mit, ...); the card names none otherwise."),
]


@app.command()
def card(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run folder, here or by URL.")],
    to: Annotated[Path | None, typer.Option("--out", help="Where it goes (default: README.md in the run folder).")] = None,
    licence: Licence = None,
) -> None:
    """Write the model card of what a run made, in the Hugging Face hub's format, with its picture beside it."""
    with errors():
        from launch.publish import write_card
        from launch.storage import local

        write_card(local(run), to, licence, out)


@app.command()
def push(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run folder.")],
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Model repository on the Hugging Face hub; made if it is not there.")],
    private: Annotated[bool, typer.Option("--private", help="Make it private; refuse one that is there and is public.")] = False,
    revision: Annotated[str, typer.Option(metavar="BRANCH", help="Branch that it goes to; made if it is not there.")] = "main",
    checkpoint: Annotated[
        str | None, typer.Option(metavar="step-N", help="A checkpoint of the run (default: the newest that its last stage made).")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the files and their sizes, and ask nothing of the hub.")] = False,
    licence: Licence = None,
) -> None:
    """Send a run's model, tokenizer and card to the Hugging Face hub (HF_TOKEN or `hf auth login`; HF_ENDPOINT names another hub)."""
    with errors():
        from launch.publish import push as send
        from launch.storage import is_url

        if is_url(run):
            raise ValueError(
                f"{run}: weights are not fetched from remote storage; copy the run's folder here with the storage's own tools, and name that"
            )
        send(Path(run), repo, out, private=private, branch=revision, named=checkpoint, dry=dry_run, licence=licence)


app.command()(merge)
app.command()(convert)


@app.command()
def judge(
    file: Annotated[Path, typer.Argument(help="Golds and predictions: JSON lines, JSON, parquet or CSV.")],
    to: Annotated[Path | None, typer.Option("--out", help="Where the judged lines go (default: FILE.judged.jsonl).")] = None,
    workers: Annotated[int, typer.Option(min=1, max=8 * (os.cpu_count() or 1), help="Judging processes.")] = os.cpu_count() or 1,
    wall_s: Annotated[float, typer.Option(help="Seconds a comparison may take.")] = Judge().wall_s,
    memory_mb: Annotated[int, typer.Option(min=1, help="Memory a comparison may add to its process.")] = Judge().memory_mb,
    gold: Annotated[str | None, typer.Option(help="Path of the gold, e.g. doc.answer (default: recognised).")] = None,
    prediction: Annotated[str | None, typer.Option(help="Path of the prediction or samples, e.g. resps[0][0].")] = None,
    boxed: Annotated[bool, typer.Option("--boxed", help="Only boxed answers count.")] = False,
) -> None:
    """Grade (gold, prediction) lines in parallel; writes verdict, reason, extracted answer and seconds."""
    with errors():
        from rich.progress import Progress

        from rewards.verifier.judge_file import judge_file

        target = to or file.with_name(f"{file.stem}.judged.jsonl")
        with Progress(console=terminal(stderr=True), transient=True) as bar:
            task = bar.add_task("judging", total=None)
            counts = judge_file(
                file, target, workers=workers, wall_s=wall_s, memory_mb=memory_mb, bare=not boxed, gold=gold, prediction=prediction,
                progress=lambda done, total: bar.update(task, completed=done, total=total), say=say,
            )  # fmt: skip
        found = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items())
        say(f"{target}: {found}")
        graded = map(json.loads, target.read_text(encoding="utf-8").splitlines())
        if bare := [line for line, row in enumerate(graded, 1) if row["reason"] == "no gold"]:
            lines = ", ".join(map(str, bare[:5])) + ", ..." * (len(bare) > 5)
            say(f"{many(len(bare), 'row')} without a gold answer (lines {lines} of {target})")


@app.command()
def doctor(deep: Annotated[bool, typer.Option("--deep", help="Also start vLLM's import and Ray, half a minute.")] = False) -> None:
    """Check the installation and say what to do."""
    with errors():
        from launch.doctor import diagnose, render

        checks = diagnose(deep=deep)
        out.print(render(checks))
        if any(check.state == "fail" for check in checks):
            raise typer.Exit(1)


@recipes_app.callback()
def recipes(
    context: typer.Context, keys: Annotated[bool, typer.Option("--keys", help="List every key with its default and meaning.")] = False
) -> None:
    """List the shipped recipes and scales by what their methods turn, or all keys."""
    if context.invoked_subcommand:
        return
    from recipes.groups import GROUPS, grouped
    from recipes.keys import keys as all_keys

    if keys:
        table("key", [(key.name, key.allowed, key.default_text, key.description) for key in all_keys()], "allowed", "default", "meaning")
        return
    for group, found in grouped().items():
        rows = [(name, words) if out.is_terminal else (name, words, group) for name, words in found.items()]
        table(group, rows, GROUPS[group])


@recipes_app.command("show")
def show(recipe: RecipeName, overrides: Overrides = None, scale: Scale = None) -> None:
    """Print a recipe, resolved: every key with its value."""
    with errors():
        from recipes.loader import dump, load

        typer.echo(dump(load(recipe, scale, overrides or [])), nl=False)


def _planned(recipe: Recipe, gpu_gb: int | None = None) -> Plan:
    """The plan of a recipe, saying what may take long: functions of the user's own are imported and tried. `gpu_gb`: see `launch.plan.plan`."""
    from launch.plan import plan as make_plan

    if own := [term.name for term in recipe.reward if term.kind == "function"]:
        say(f"trying {', '.join(own)} on a sample", terminal(stderr=True))
    nodes = []
    if joined_address():
        from launch.inventory import joined_nodes

        nodes = joined_nodes()
    return make_plan(recipe, nodes[0] if nodes else None, nodes[1:], gpu_gb)
