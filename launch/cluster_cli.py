"""The commands of clusters: a head here, jobs on it or elsewhere, and files that other schedulers take."""

from __future__ import annotations

import re
import secrets
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from launch.doors import Overrides, RecipeName, Scale, errors, say, table
from launch.memory import size
from recipes.schema import Recipe
from rl.progress import clock

if TYPE_CHECKING:
    from launch.bundle import Bundle
    from launch.jobs import Job, Jobs
    from launch.manifests import Nodes

app = typer.Typer()
cluster_app = typer.Typer(no_args_is_help=True, help="Start and end a Ray head on this machine, for submitted jobs.")
app.add_typer(cluster_app, name="cluster")
manifest_app = typer.Typer(no_args_is_help=True, help="Write a recipe as a job of Kubernetes (KubeRay) or Slurm.")
app.add_typer(manifest_app, name="manifest")

Dashboard = Annotated[
    str | None,
    typer.Option(
        "--address",
        help="Dashboard of the cluster, http://HOST:8265, or auto, the head of `laconic cluster up` (default: RAY_API_SERVER_ADDRESS, else auto).",
    ),
]
JobName = Annotated[str, typer.Argument(metavar="JOB", help="As `laconic submit` printed it, or `laconic jobs` lists it.")]
Count = Annotated[int | None, typer.Option("--nodes", min=1, help="Nodes that there are (default: cluster.nodes, else 1).")]
Gpus = Annotated[
    int | None, typer.Option("--gpus", min=0, help="GPUs of a node (default: cluster.gpus_per_node, else 8; device=cpu: none).")
]
GpuMemory = Annotated[int, typer.Option("--gpu-gb", min=1, help="Memory of a GPU, GB.")]
Cores = Annotated[int, typer.Option("--cpus", min=1, help="Cores that a node gives.")]
Memory = Annotated[int, typer.Option("--memory-gb", min=1, help="Main memory that a node gives, GB.")]
Time = Annotated[str, typer.Option("--time", help="That the job may take, as Slurm writes it.")]
_OF_SLURM = ("folder", "partition", "time", "nodes", "gpus", "gpu_gb", "cpus", "memory_gb")  # options of `submit --slurm` alone


@cluster_app.command("up")
def up(
    cpus: Annotated[int | None, typer.Option(min=1, help="CPUs that Ray may hand out (default: this machine's cores).")] = None,
    gpus: Annotated[int | None, typer.Option(min=0, help="GPUs that Ray may hand out (default: those that CUDA shows).")] = None,
    port: Annotated[int, typer.Option("--dashboard-port", min=1, max=65535, help="Port of the dashboard, which takes jobs.")] = 8265,
) -> None:
    """Start a Ray head that listens on 127.0.0.1 alone and wants a token; say where it is if it runs."""
    with errors():
        from launch.head import up as start

        head, new = start(cpus, gpus, port)
        say(
            f"{'started' if new else 'it runs'}: {head.url} takes jobs (`laconic submit`), drivers join {head.address} (`--address auto`); its token: {head.token}"
        )


@cluster_app.command("down")
def down() -> None:
    """Stop the jobs of the head that `laconic cluster up` started, which save a checkpoint first, and end it; nothing else."""
    with errors():
        from launch.head import down as end
        from launch.head import this_head

        if running := this_head():
            _stop_all(running.url)
        head = end()
        say(f"ended: {head.url}" if head else "no head of `laconic cluster up` runs here")


def _stop_all(url: str) -> None:
    """Stop the jobs of a head; one that cannot be asked, or that does not stop, ends with it."""
    from launch.jobs import Cluster, JobsError
    from launch.manifests import GRACE_S

    with suppress(JobsError):
        cluster = Cluster(url)
        for job in [job for job in cluster.jobs() if not job.is_done]:
            say(f"stopping {job.id}, which saves a checkpoint first")
            cluster.stop(job.id, GRACE_S + 30)


@app.command("submit")
def submit(
    context: typer.Context,
    recipe: RecipeName,
    overrides: Overrides = None,
    scale: Scale = None,
    address: Dashboard = None,
    slurm: Annotated[bool, typer.Option("--slurm", help="A job of the Slurm of this machine, in place of a Ray cluster's.")] = False,
    runs: Annotated[
        str | None,
        typer.Option(
            help="Folder of the run folders, absolute, that all nodes see, or a URL of remote storage (default, with a head on this machine: runs here)."
        ),
    ] = None,
    include: Annotated[list[Path] | None, typer.Option(help="A file or folder below this one to send, too; repeatable.")] = None,
    max_mb: Annotated[int, typer.Option("--max-mb", min=1, max=500, help="What the files of the job may come to.")] = 50,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's newest whole checkpoint.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a former run of the same name.")] = False,
    follow: Annotated[
        bool, typer.Option("--follow", help="Show what the job writes until it is done; exit as `laconic status` does.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List every file that would be sent, and send nothing.")] = False,
    folder: Annotated[Path | None, typer.Option(help="With --slurm: folder for the job's files and log, which all nodes see.")] = None,
    partition: Annotated[str | None, typer.Option(help="With --slurm: the partition (default: Slurm's own).")] = None,
    time: Time = "24:00:00",
    nodes: Count = None,
    gpus: Gpus = None,
    gpu_gb: GpuMemory = 80,
    cpus: Cores = 16,
    memory_gb: Memory = 128,
) -> None:
    """Have a recipe run on a Ray cluster or by Slurm: list what is sent, send it, print the job's name. --time to --memory-gb are Slurm's."""
    with errors():
        _refuse_others(context, slurm)
        from launch.bundle import bundle
        from launch.manifests import nodes_for, refuse_hopeless
        from recipes.loader import load

        if resume and overwrite:
            raise ValueError("--resume goes on with a run, --overwrite replaces it; say one of them")
        loaded = load(recipe, scale, overrides or [])
        made = bundle(loaded, include or (), max_mb * 1_000_000)
        options = ["--resume"] * resume + ["--overwrite"] * overwrite
        if slurm:
            asked = nodes_for(loaded, nodes, gpus, gpu_gb, cpus, memory_gb)
            sent = _to_slurm(loaded, made, max_mb, folder, partition, time, asked, runs, options, dry_run)
        else:
            refuse_hopeless(loaded)
            sent = _to_ray(loaded, made, max_mb, address, runs, options, dry_run)
        if sent is None:
            return
        jobs, name = sent
        say(f"submitted: {name}. `laconic logs {name} -f` follows it, `laconic stop {name}` stops it")
        if follow:
            _follow(jobs, name)


def _refuse_others(context: typer.Context, slurm: bool) -> None:
    """Raises ValueError: an option that the other kind of cluster alone reads."""
    for name in ["address"] if slurm else _OF_SLURM:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise ValueError(f"--{name.replace('_', '-')}: {'is not for' if slurm else 'is for'} a job of Slurm (--slurm); leave it out")


def _to_ray(
    recipe: Recipe, made: Bundle, max_mb: int, address: str | None, runs: str | None, options: list[str], dry_run: bool
) -> tuple[Jobs, str] | None:
    """List and, unless it is tried only, send a job to a Ray cluster: that cluster, and the job's name."""
    from launch.bundle import RECIPE
    from launch.jobs import Cluster, dashboard
    from launch.manifests import GRACE_S
    from launch.storage import is_url
    from rl.environment import installed
    from rl.run import refuse_unwritable

    package, content = made.packed()
    url, is_here, token = dashboard(address)
    at = _runs(runs, is_here or not url)
    if token and not is_url(at):  # the head of `laconic cluster up`, whose disks are these
        refuse_unwritable(Path(at) / recipe.name, "--runs")
    _list_files(made, dry_run, f", {size(len(content))} packed, at most {max_mb} MB")
    if dry_run:
        return None
    cluster = Cluster(address)
    entrypoint = shlex.join(["python", "-m", "launch", "train", RECIPE, "--runs", at, *options])
    if not cluster.holds(package):
        cluster.send(package, content)
    name = _job_name(recipe)
    metadata = {"laconic": installed("laconic") or "not installed", "laconic_recipe": recipe.name, "laconic_runs": at}
    cluster.submit(name, entrypoint, package, {"RAY_JOB_STOP_WAIT_TIME_S": str(GRACE_S)}, metadata)
    return cluster, name


def _to_slurm(
    recipe: Recipe, made: Bundle, max_mb: int, folder: Path | None, partition: str | None, time: str, nodes: Nodes, runs: str | None, options: list[str], dry_run: bool
) -> tuple[Jobs, str] | None:  # fmt: skip
    """As `_to_ray`, by Slurm."""
    from launch.manifests import slurm
    from launch.slurm import Slurm, sbatch
    from rl.run import refuse_unwritable

    if folder is None:
        raise ValueError("--folder: name a folder that all nodes see, where the job's files and its log go")
    at = _runs(runs, here=False)
    script = slurm(recipe, nodes, at, time, options)
    _list_files(made, dry_run, f", at most {max_mb} MB, to a folder of the job's in {folder.absolute()}")
    if dry_run:
        say(f"there: {shlex.join(sbatch(partition))}, which asks for {nodes.words}; job.sh:\n{script}")
        return None
    own = folder.absolute() / _job_name(recipe)
    refuse_unwritable(own, "--folder")
    slurm_here = Slurm()
    return slurm_here, slurm_here.submit(made.files, script, own, partition, {"recipe": recipe.name, "runs": at, "asks": nodes.words})


@app.command("jobs")
def jobs(
    address: Dashboard = None, slurm: Annotated[bool, typer.Option("--slurm", help="Those that were submitted to Slurm from here.")] = False
) -> None:
    """List the jobs of a cluster, the oldest first."""
    with errors():
        rows = [(job.id, job.state.lower(), _duration(job), job.recipe) for job in _jobs("slurm:" * slurm, address).jobs()]
        table("job", rows, "state", "ran", "run")


@app.command("status")
def status(job: JobName, address: Dashboard = None) -> None:
    """Say what became of a job.

    Exit codes: 0 it succeeded, 1 it failed or cannot be asked, 3 there is no such job, 4 it waits or runs, 5 it was stopped.
    """
    with errors(), _unknown():
        _end(_jobs(job, address).job(job))


@app.command("logs")
def logs(
    job: JobName, address: Dashboard = None, follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until it is done.")] = False
) -> None:
    """Print what a job has written; with -f, the exit codes of `laconic status`."""
    with errors(), _unknown():
        asked = _jobs(job, address)
        if follow:
            _follow(asked, job)
        typer.echo(asked.log(job), nl=False)


@app.command("stop")
def stop(job: JobName, address: Dashboard = None) -> None:
    """Stop a job, which saves a checkpoint first.

    Exit codes: 0 it has ended, 1 it cannot be asked, 3 there is no such job, 4 it still runs.
    """
    from launch.manifests import GRACE_S

    with errors(), _unknown():
        found = _jobs(job, address).stop(job, GRACE_S + 30)
        say(found.words)
        if not found.is_done:
            raise typer.Exit(found.exit_code)


@manifest_app.command("kuberay")
def kuberay(
    recipe: RecipeName,
    image: Annotated[str, typer.Option(help="Container image with laconic, and with the Ray that is installed here.")],
    overrides: Overrides = None,
    scale: Scale = None,
    claim: Annotated[str, typer.Option(help="PersistentVolumeClaim for run folders, which all nodes can write to.")] = "laconic-runs",
    include: Annotated[list[Path] | None, typer.Option(help="A file or folder below this one to put in, too; repeatable.")] = None,
    nodes: Count = None,
    gpus: Gpus = None,
    gpu_gb: GpuMemory = 80,
    cpus: Cores = 16,
    memory_gb: Memory = 128,
) -> None:
    """Print a RayJob with its ConfigMap, for `kubectl apply --server-side -f -`."""
    with errors():
        from launch.manifests import kuberay as made
        from launch.manifests import nodes_for
        from recipes.loader import load

        loaded = load(recipe, scale, overrides or [])
        typer.echo(made(loaded, nodes_for(loaded, nodes, gpus, gpu_gb, cpus, memory_gb), image, claim, include or ()), nl=False)


@manifest_app.command("slurm")
def slurm(
    recipe: RecipeName,
    overrides: Overrides = None,
    scale: Scale = None,
    runs: Annotated[str, typer.Option(help="Folder of the run folders, which all nodes see, or a URL of remote storage.")] = "runs",
    time: Time = "24:00:00",
    nodes: Count = None,
    gpus: Gpus = None,
    gpu_gb: GpuMemory = 80,
    cpus: Cores = 16,
    memory_gb: Memory = 128,
) -> None:
    """Print a batch script, for `sbatch`."""
    with errors():
        from launch.manifests import nodes_for
        from launch.manifests import slurm as made
        from launch.storage import is_url
        from recipes.loader import load

        is_url(runs, written=True)
        loaded = load(recipe, scale, overrides or [])
        typer.echo(made(loaded, nodes_for(loaded, nodes, gpus, gpu_gb, cpus, memory_gb), runs, time), nl=False)


def _jobs(name: str, address: str | None) -> Jobs:
    """Whose job has such a name."""
    from launch.jobs import Cluster
    from launch.slurm import PREFIX, Slurm

    return Slurm() if name.startswith(PREFIX) else Cluster(address)


def _job_name(recipe: Recipe) -> str:
    return f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', recipe.name)[:60]}-{secrets.token_hex(3)}"


def _runs(given: str | None, here: bool) -> str:
    """Where the cluster puts run folders. Raises ValueError: nobody says so."""
    from launch.storage import is_url

    if given is None and not here:
        raise ValueError(
            "--runs: name a folder that all nodes of the cluster see, by its absolute path, or a URL (s3://bucket/runs); a job's own folder goes with it"
        )
    if given is not None and is_url(given, written=True):
        return given
    folder = Path(given or "runs")
    if not folder.is_absolute() and not here:
        raise ValueError(f"--runs: {folder} is relative, and the cluster has another working folder: write its absolute path there")
    return str(folder.absolute())


def _follow(asked: Jobs, name: str) -> None:
    """Show what a job writes, and exit as it did."""
    for text in asked.follow(name):
        typer.echo(text, nl=False)
    _end(asked.job(name))


def _end(job: Job) -> None:
    """Say what became of a job, and exit with that."""
    say(job.words)
    raise typer.Exit(job.exit_code)


@contextmanager
def _unknown() -> Iterator[None]:
    """Exit code 3 for a job that is not there."""
    from launch.jobs import UNKNOWN, UnknownJob

    try:
        yield
    except UnknownJob as error:
        say(f"error: {error}")
        raise typer.Exit(UNKNOWN) from error


def _list_files(made: Bundle, whole: bool, more: str) -> None:
    for name, length in made.listed(whole):
        say(f"{size(length):>8}  {name}")
    say(f"{size(made.total)} in all{more}")


def _duration(job: Job) -> str:
    return "" if job.seconds is None else clock(job.seconds)
