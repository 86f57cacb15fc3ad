"""Jobs of Slurm: which commands are run, what their answers come to, and what is refused. The commands are scripts here; the real ones are asked in tests/cluster."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from launch import cli
from launch.jobs import Job, Jobs, JobsError, UnknownJob
from launch.slurm import Slurm, sbatch
from recipes.loader import load

SAYS = """#!{python}
import json, os, pathlib, sys
here = pathlib.Path({folder!r})
name = pathlib.Path(sys.argv[0]).name
with open(here / "heard", "a") as file:
    file.write(json.dumps([name, *sys.argv[1:], os.getcwd(), os.environ["LACONIC_PYTHON"]]) + "\\n")
code, out, err = json.loads((here / (name + ".json")).read_text())
print(out, end="")
print(err, end="", file=sys.stderr)
sys.exit(code)
"""
WORDS = ["submit", "dler", "--scale", "tiny", "device=cpu", "--slurm", "--cpus", "2", "--memory-gb", "8", "--time", "10"]
Answers = Callable[..., None]


@pytest.fixture
def answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Answers:
    """Have a command of Slurm print something, with an exit code."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("LACONIC_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)

    def answer(command: str, out: str = "", err: str = "", code: int = 0) -> None:
        program = tmp_path / "bin" / command
        program.write_text(SAYS.format(python=sys.executable, folder=str(tmp_path)))
        program.chmod(0o755)
        (tmp_path / f"{command}.json").write_text(json.dumps([code, out, err]))

    return answer


def heard(folder: Path) -> list[list[str]]:
    return [json.loads(line) for line in (folder / "heard").read_text().splitlines()]


def said(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(cli.app, words)
    return done.exit_code, " ".join(done.output.split())


def test_a_job_is_a_folder_of_its_own_that_sbatch_is_run_in(answers: Answers, tmp_path: Path):
    answers("sbatch", "71;cluster\n")
    code, told = said(*WORDS, "--folder", "jobs", "--runs", "/shared/runs", "--partition", "short", "--resume")
    assert code == 0 and "submitted: slurm:71. `laconic logs slurm:71 -f` follows it" in told
    (folder,) = (tmp_path / "jobs").iterdir()
    assert heard(tmp_path) == [["sbatch", "--parsable", "--partition", "short", "job.sh", str(folder), sys.executable]]
    assert folder.stat().st_mode & 0o777 == 0o700 and folder.name.startswith("dler-")
    assert (folder / "launch/__main__.py").is_file() and (folder / "recipe.yaml").is_file()
    assert "--runs /shared/runs --resume --address" in (folder / "job.sh").read_text()
    record = json.loads((tmp_path / "cache/slurm/71.json").read_text())
    assert record == {"recipe": "dler-tiny", "runs": "/shared/runs", "asks": "1 x (0 GPUs, 2 cores, 8 GB)", "folder": str(folder)}


def test_a_dry_run_shows_files_command_and_script_and_asks_nobody(answers: Answers, tmp_path: Path):
    code, told = said(*WORDS, "--folder", "jobs", "--runs", "/shared/runs", "--dry-run")
    assert code == 0 and "sbatch --parsable job.sh, which asks for 1 x (0 GPUs, 2 cores, 8 GB)" in told
    assert "launch/slurm.py" in told and "#SBATCH --time=10" in told
    assert not (tmp_path / "jobs").exists() and not (tmp_path / "heard").exists()


def test_a_job_that_may_be_preempted_does_not_replace_its_own_run(answers: Answers, tmp_path: Path):
    code, told = said(*WORDS, "cluster={kind: apart, preemptible: true}", "--folder", "jobs", "--runs", "/shared/runs", "--overwrite")
    assert code == 1 and "--overwrite: with cluster.preemptible the job may be started again" in told
    for more in ([], ["--resume"]):
        code, told = said(
            *WORDS, "cluster={kind: apart, preemptible: true}", "--folder", "jobs", "--runs", "/shared/runs", "--dry-run", *more
        )
        again = more[0] if more else "${SLURM_RESTART_COUNT:+--resume}"
        assert code == 0 and f"--runs /shared/runs {again} --address" in told and "#SBATCH --requeue #SBATCH --open-mode=append #" in told


def test_what_slurm_does_not_take_is_one_sentence_and_leaves_nothing(answers: Answers, tmp_path: Path):
    there = ["--folder", "jobs", "--runs", "/shared/runs"]
    (tmp_path / "file").write_text("")
    for words, expected in [
        (WORDS + there, "--slurm: no sbatch here; run this on a login node of the cluster"),
        (WORDS, "--folder: name a folder that all nodes see"),
        ([*WORDS, "--folder", "jobs"], "--runs: name a folder that all nodes of the cluster see"),
        ([*WORDS, "--folder", "file/jobs", "--runs", "/r"], "choose another folder (--folder)"),
        ([*WORDS, *there, "--time", "soon"], "--time: soon: write minutes"),
        ([*WORDS, *there, "--address", "x:1"], "--address: is not for a job of Slurm"),
        (["submit", "dler", "--memory-gb", "4"], "--memory-gb: is for a job of Slurm (--slurm)"),
    ]:
        code, told = said(*words)
        assert code == 1 and expected in told, told
    answers("sinfo", "all\ngpu\nall\n")
    for error, expected in [
        ("sbatch: error: invalid partition specified: x\nsbatch: error: Batch job submission failed: Invalid partition name specified\n",
         "--partition: sbatch refuses x (invalid partition specified: x; Batch job submission failed: Invalid partition name specified); there are all, gpu"),
        ("sbatch: error: no account is named\nsbatch: see our pages\nsbatch: error: Batch job submission failed: Unspecified error\n",
         "sbatch refuses: no account is named; Batch job submission failed: Unspecified error; name an account that may run here"),
        ("sbatch: error: invalid partition specified: cpu\n", "--partition: sbatch refuses x (invalid partition specified: cpu); there are all, gpu"),
        ("sbatch: error: Batch job submission failed: User's group not permitted to use this partition\n",
         "--partition: sbatch refuses x (Batch job submission failed: User's group not permitted to use this partition); there are all, gpu"),
        ("sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified\n",
         "Invalid account or account/partition combination specified; name an account that may run here (SBATCH_ACCOUNT=..."),
        ("sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)\n",
         "ask for less, or in another's name (SBATCH_ACCOUNT, SBATCH_QOS)"),
        ("sbatch: error: Batch job submission failed: Invalid qos specification\n", "specification; name a quality of service that your account has (SBATCH_QOS"),
        ("sbatch: error: Batch job submission failed: Requested reservation is invalid\n", "is invalid; name another, or none (SBATCH_RESERVATION)"),
        ("sbatch: error: Batch job submission failed: Invalid feature specification\n", "name features that nodes have, or none (SBATCH_CONSTRAINT)"),
        ("sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)\n", "(connect failure); does this machine's Slurm run"),
        ("sbatch: error: Batch job submission failed: Unspecified error\n", "Unspecified error; who runs this Slurm knows what it wants"),
        ("sbatch: error: Batch job submission failed: Requested node configuration is not available\n",
         "sbatch refuses: Batch job submission failed: Requested node configuration is not available. The job asks for 1 x (0 GPUs, 2 cores, 8 GB): --nodes"),
    ]:  # fmt: skip
        answers("sbatch", err=error, code=1)
        code, told = said(*WORDS, *there, "--partition", "x")
        assert code == 1 and expected in told, told
    assert not list((tmp_path / "jobs").iterdir()) and not list((tmp_path / "cache/slurm").iterdir())


def submitted(answers: Answers, tmp_path: Path) -> Path:
    answers("sbatch", "71\n")
    about = {"recipe": "toy", "runs": "/shared/runs", "asks": "2 x (8 GPUs, 16 cores, 128 GB)"}
    assert Slurm().submit({}, "", tmp_path / "own", None, about) == "slurm:71"
    return tmp_path / "own"


def test_a_job_is_found_among_what_a_site_has_sbatch_and_squeue_say(answers: Answers, tmp_path: Path):
    odd = (
        "Welcome to HPC 9\n80\n",
        "80;big\n\n",
        "sbatch: Submitted batch job 80\n",
        "Submitted batch job 80 on cluster big",
        "quota: 9 of 10\n 80 \n",
    )
    for index, words in enumerate(odd):
        answers("sbatch", words)
        assert Slurm().submit({}, "", tmp_path / str(index), None, {"asks": ""}) == "slurm:80"
    for words in ("", "queued"):
        answers("sbatch", f"{words}\n")
        lost = tmp_path / f"lost{words}"
        with pytest.raises(JobsError, match=f"sbatch says '{words}', which names no job: it may run .*its files are in {lost}"):
            Slurm().submit({}, "", lost, None, {"asks": ""})
        assert (lost / "job.sh").is_file()
    shutil.copy(tmp_path / "cache/slurm/80.json", tmp_path / "cache/slurm/Submitted batch job 81.json")
    answers("squeue", "Welcome|to|HPC\nto HPC\n80||None|N/A|N/A\n80|RUNNING|None|N/A|N/A\n")
    (tmp_path / "3/a-80.exit").mkdir()
    for text in ("", "abc"):
        (tmp_path / "3/b-80.exit").write_text(text)
        assert [(job.id, job.state) for job in Slurm().jobs()] == [("slurm:80", "RUNNING")]


def test_what_became_of_a_job_is_told_by_its_script_else_by_squeue_else_by_sacct(answers: Answers, tmp_path: Path):
    own = submitted(answers, tmp_path)
    (own / "toy-71.log").write_text("step 1\n")
    (own / ".laconic-71-AbCdEf").mkdir()  # as a script leaves it that is killed with its job
    for line, expected in [
        ("PENDING|Resources|N/A|N/A", ("PENDING", 4, "waits to start: Resources; it asks for 2 x (8 GPUs, 16 cores, 128 GB)")),
        ("PENDING|PartitionConfig|N/A|N/A", ("PENDING", 4, "which waiting does not mend: `laconic stop slurm:71` takes it out")),
        ("PENDING|JobHeldUser|N/A|N/A", ("PENDING", 4, ", until it is let go: `scontrol release 71`")),
        ("PENDING|JobHeldAdmin|N/A|N/A", ("PENDING", 4, ", until it is let go: `scontrol release 71` by who runs this Slurm")),
        ("REQUEUE_HOLD|launch failed requeued held|N/A|N/A", ("PENDING", 4, "`scontrol release 71`")),
        ("PENDING|DependencyNeverSatisfied|N/A|N/A", ("PENDING", 4, "`laconic stop slurm:71` takes it out")),
        ("PENDING|InvalidAccount|N/A|N/A", ("PENDING", 4, "which waiting does not mend: `laconic stop slurm:71` takes it out")),
        (
            "PENDING|ReqNodeNotAvail, UnavailableNodes:a|b|N/A|N/A",
            ("PENDING", 4, "waits to start: ReqNodeNotAvail, UnavailableNodes:a|b; it asks for 2 x (8 GPUs, 16 cores, 128 GB)"),
        ),
        ("RUNNING|None|2020-01-01T00:00:00|2999-01-01T00:00:00", ("RUNNING", 4, "slurm:71 runs")),
        ("COMPLETED|None|2020-01-01T00:00:00|2020-01-01T00:01:00", ("SUCCEEDED", 0, "succeeded; its run: /shared/runs/toy")),
        ("TIMEOUT|TimeLimit|2020-01-01T00:00:00|2020-01-01T00:01:00", ("FAILED", 1, "failed: timeout TimeLimit")),
        ("CANCELLED|None|N/A|2020-01-01T00:01:00", ("STOPPED", 5, "was stopped")),
    ]:
        answers("squeue", f"71|{line}\n")
        job = Slurm().job("slurm:71")
        assert (job.state, job.exit_code) == expected[:2] and job.words.endswith(expected[2]), job.words
        assert job.state not in ("SUCCEEDED", "FAILED") or job.seconds == 60
        assert (own / ".laconic-71-AbCdEf").is_dir() == (job.state in ("PENDING", "RUNNING"))
    assert Slurm().log("slurm:71") == "step 1\n"
    assert heard(tmp_path)[-1][:7] == ["squeue", "-h", "-t", "all", "-j", "71", "-o"]

    answers("squeue", err="slurm_load_jobs error: Invalid job id specified\n", code=1)
    answers("sacct", "71|CANCELLED by 0||2020-01-01T00:00:00|2020-01-01T00:02:00\n")
    assert (Slurm().job("slurm:71").state, Slurm().job("slurm:71").seconds) == ("STOPPED", 120)
    answers("sacct", err="Slurm accounting storage is disabled\n", code=1)
    assert (Slurm().job("slurm:71").state, Slurm().job("slurm:71").seconds) == ("STOPPED", 120), (
        "what Slurm said last stands when it forgets"
    )
    shutil.rmtree(own)
    own = submitted(answers, tmp_path)
    assert "Slurm knows it no more" in Slurm().job("slurm:71").words
    for text, state in [("0\n", "SUCCEEDED"), ("130\n", "STOPPED"), ("143\n", "STOPPED"), ("1\n", "FAILED")]:
        (own / "toy-71.exit").write_text(text)
        assert [job.state for job in Slurm().jobs()] == [state]
    assert said("status", "slurm:71")[0] == 1 and "toy" in said("jobs", "--slurm")[1]
    for name in ("slurm:72", "slurm:", "slurm:7;ls"):
        assert said("status", name)[0] == said("logs", name)[0] == 3
    answers("squeue", err="slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n", code=1)
    with pytest.raises(JobsError, match="squeue fails: Unable to contact slurm controller"):
        Slurm().job("slurm:71")


def test_a_job_that_runs_is_told_to_stop_and_one_that_waits_is_taken_out(answers: Answers, tmp_path: Path):
    submitted(answers, tmp_path)
    answers("scancel")
    for state, expected in [("RUNNING", ["--batch", "--signal=INT", "71"]), ("PENDING", ["71"])]:
        (tmp_path / "heard").unlink()
        answers("squeue", f"71|{state}|None|N/A|N/A\n")
        assert Slurm().stop("slurm:71", 0).state == state
        assert next(line for line in heard(tmp_path) if line[0] == "scancel")[1:-2] == expected


def test_a_job_that_does_not_start_says_why_every_minute(monkeypatch: pytest.MonkeyPatch):
    clock = [0.0]
    monkeypatch.setattr("launch.jobs.time.monotonic", lambda: clock[0])
    monkeypatch.setattr("launch.jobs.time.sleep", lambda seconds: clock.__setitem__(0, clock[0] + seconds))

    class Waits(Jobs):
        def jobs(self) -> list[Job]:
            return []

        def job(self, name: str) -> Job:
            return Job(name, "PENDING" if clock[0] < 150 else "SUCCEEDED", "Resources")

        def log(self, name: str) -> str:
            return "" if clock[0] < 150 else "step 1\n"

        def stop(self, name: str, within_s: float) -> Job:
            raise UnknownJob(name)

    assert list(Waits().follow("a")) == ["a waits to start: Resources\n"] * 2 + ["step 1\n"]


def test_the_script_takes_the_bundles_code_first_and_leaves_its_exit_code(tmp_path: Path):
    from launch.manifests import Nodes, slurm

    script = slurm(load("dler", "tiny"), Nodes(1, 0, 2, 4), "/r", "10", ["--overwrite"])
    assert 'PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"' in script and "--runs /r --overwrite --address" in script
    assert sbatch(None) == ["sbatch", "--parsable", "job.sh"]
    begin = script.index("again=no")
    alone = f"set -euo pipefail; cd {tmp_path}; job=$PWD/j; mkdir j; SLURM_JOB_NAME=a SLURM_JOB_ID=7; {script[begin : script.index('trap ended')]} trap ended EXIT; exit 9"
    assert subprocess.run(["bash", "-c", alone]).returncode == 9
    assert (tmp_path / "a-7.exit").read_text() == "9\n" and not (tmp_path / "j").exists()
