"""How scripts/gpu-check runs its parts, with scripts that stand for a build's programs: a limit, a kill, a broken part or a broken disk
costs what it must and no more, and what was found is written.
"""
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "scripts/lib"))
import gpu_check  # noqa: E402
import gpu_results  # noqa: E402
import gpu_runner  # noqa: E402
import gpu_tests  # noqa: E402
import gpu_worlds  # noqa: E402
import random_model  # noqa: E402

GPU = [{"verdict": "ok", "subject": "gpu", "fact": "1 here", "advice": ""},
       {"verdict": "ok", "subject": "gpu 0", "fact": "Test GPU 3000, sm_90, 100 of 141 GiB free", "advice": ""}]
NO_DRIVER = [{"verdict": "ok", "subject": "gpu", "fact": "no NVIDIA driver (libcuda.so.1) here: the CPU computes", "advice": "install it"}]
BROKEN = [{"verdict": "warn", "subject": "gpu", "fact": "the NVIDIA driver (13.0) does not work: unknown error: the CPU computes", "advice": "restart"}]
FOREVER = "sleep 1000"


class Build:
    """A folder with a manifest and programs that are shell scripts."""

    def __init__(self, folder):
        self.folder, self.manifest = folder, {"commit": "abc", "tests": [], "benches": []}
        self.chorale("echo '" + json.dumps(GPU) + "'")

    def program(self, name, text):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/bin/sh\n" + text + "\n")
        path.chmod(0o755)

    def chorale(self, doctor, others="exit 3"):
        self.program("chorale", f'if [ "$1" = doctor ]; then {doctor}; exit; fi\n{others}')

    def test(self, name, text, timeout=60, arguments=()):
        self.program(f"tests/{name}", text)
        self.manifest["tests"] = [t for t in self.manifest["tests"] if t["name"] != name]
        self.manifest["tests"].append({"name": name, "command": [f"{{build}}/tests/{name}", *arguments], "timeout": timeout, "environment": {}})

    def bench(self, name, text):
        self.program(f"tests/{name}", text)
        self.manifest["benches"].append(f"tests/{name}")

    def command(self, *flags):
        (self.folder / "gpu-tests.json").write_text(json.dumps(self.manifest))
        return [sys.executable, ROOT / "scripts/lib/gpu_check.py", "run", "--manifest", self.folder / "gpu-tests.json", "--results",
                self.folder / "results", *flags]

    def run(self, *flags):
        return subprocess.run(self.command(*flags), capture_output=True, text=True, timeout=120)

    def path(self, ending=".json"):
        path, = (p for p in (self.folder / "results").glob("*" + ending))
        return path

    def results(self):
        return json.loads(self.path().read_text())

    def rows(self):
        return {row["name"]: row for row in self.results()["tests"]}

    def outcomes(self):
        return {name: row["outcome"] for name, row in self.rows().items()}


@pytest.fixture
def build(tmp_path):
    return Build(tmp_path)


def hears(fifo, seconds=60):
    fd = os.open(fifo, os.O_RDWR)
    try:
        assert select.select([fd], [], [], seconds)[0], "it did not start"
        os.read(fd, 100)
    finally:
        os.close(fd)


def ends(pid, seconds=30):
    """Whether a process is gone in time: who kills what is not its own child cannot wait for it."""
    try:
        fd = os.pidfd_open(int(pid))
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([fd], [], [], seconds)[0])
    finally:
        os.close(fd)


# ---- what a killed or limited run leaves ----------------------------------------------------------------------------------------------

def test_a_killed_run_leaves_the_rows_that_it_had(build, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    build.test("first", "exit 0")
    build.test("second", f"echo $$ > {tmp_path}/pid; echo here > {tmp_path}/fifo; exec {FOREVER}")
    run = subprocess.Popen(build.command("--only", "tests"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    hears(tmp_path / "fifo")
    run.kill()
    run.wait()
    assert build.outcomes() == {"first": "passed"}
    assert "| first | passed |" in build.path(".md").read_text()
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)  # kill -9 left no time to end it


def test_a_run_that_is_told_to_end_ends_what_it_started(build, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    build.test("first", f"setsid sh -c 'echo $$ > {tmp_path}/pid; echo here > {tmp_path}/fifo; exec {FOREVER}'")
    run = subprocess.Popen(build.command("--only", "tests"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    hears(tmp_path / "fifo")
    run.terminate()
    assert run.wait(60) == 128 + signal.SIGTERM
    assert ends((tmp_path / "pid").read_text())


def test_a_limit_ends_programs_and_names_what_is_left(build):
    build.test("first", "exit 0")
    build.test("second", FOREVER)
    build.test("third", "exit 0")
    build.bench("gpu_bench", "exit 0")
    started = time.monotonic()
    done = build.run("--seconds", "10", "--skip", "sanitizer")
    assert time.monotonic() - started < 20
    assert done.returncode == 0 and "no time left: second, third, part worlds" in done.stdout, done.stdout + done.stderr
    rows = build.rows()
    assert rows["first"]["outcome"] == "passed" and rows["second"]["seconds"] > 3 and rows["third"]["seconds"] == 0
    for name in ("second", "third", "part worlds", "part kernels-bench", "part engine", "part serve"):
        assert (rows[name]["outcome"], rows[name]["reason"]) == ("skipped", "no time left"), name


def test_the_run_s_limit_is_not_a_program_s_own(build):
    build.test("slow", FOREVER, timeout=1)
    done = build.run("--only", "tests")
    assert done.returncode == 1 and build.rows()["slow"]["reason"] == "not done after 1 s"


def test_a_model_is_not_written_past_the_limit(tmp_path):
    (tmp_path / "gpu-tests.json").write_text("{}")
    runner = gpu_runner.Runner(tmp_path / "gpu-tests.json", "emulator", seconds=0.5)
    with pytest.raises(gpu_runner.NoTimeLeft):
        gpu_worlds.Worlds(runner, tmp_path, 1, False).model("tiny")
    assert not list(tmp_path.glob("*.part")) and not list(tmp_path.glob("model-*"))


@pytest.mark.parametrize("leave", ["setsid", ""])
def test_children_of_children_end_with_their_limit(tmp_path, leave):
    """mpirun puts its ranks into groups of their own, as setsid does here."""
    (tmp_path / "gpu-tests.json").write_text("{}")
    runner = gpu_runner.Runner(tmp_path / "gpu-tests.json", "emulator")
    command = ["sh", "-c", f"{leave} sh -c 'trap \"\" TERM; echo $$ > {tmp_path}/pid; while :; do {FOREVER}; done' & echo out; echo err >&2; wait"]
    code, output, seconds = runner.run(command, 1)
    assert code is None and output == "err\nout\n" and seconds < 60
    assert ends((tmp_path / "pid").read_text())


def test_what_a_program_leaves_behind_ends_with_it(tmp_path):
    (tmp_path / "gpu-tests.json").write_text("{}")
    runner = gpu_runner.Runner(tmp_path / "gpu-tests.json", "emulator")
    assert runner.run(["sh", "-c", f"setsid {FOREVER} > /dev/null 2>&1 & echo $! > {tmp_path}/pid"], 60)[0] == 0
    assert ends((tmp_path / "pid").read_text())


# ---- parts that break -----------------------------------------------------------------------------------------------------------------

def test_a_part_that_breaks_is_a_row_and_the_others_go_on(build, tmp_path):
    build.test("first", "exit 0")
    build.bench("gpu_bench", "echo '{\"op\": \"sum\", \"us\": 2}'")
    done = build.run("--scratch", tmp_path / "missing", "--skip", "sanitizer")
    assert done.returncode == 1, done.stdout
    outcomes, rows = build.outcomes(), build.rows()
    assert outcomes["first"] == outcomes["bench gpu_bench"] == "passed"
    for part in ("worlds", "engine", "comm", "scaling", "serve"):
        assert rows[f"part {part}"]["outcome"] == "failed" and "FileNotFoundError" in rows[f"part {part}"]["reason"]
    assert "Traceback" in build.path("-failures.log").read_text()
    assert build.results()["benches"] == [{"bench": "gpu_bench", "op": "sum", "us": 2}]


def test_a_full_disk_fails_the_parts_with_models(build, tmp_path, monkeypatch, capsys):
    def full(folder, shape, go_on):
        folder.mkdir()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(random_model, "write_model", full)
    build.test("first", "exit 0")
    command = build.command("--scratch", tmp_path, "--only", "worlds,tests,engine")
    monkeypatch.setattr(sys, "argv", [str(part) for part in command[1:]])
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    assert gpu_check.main() == 1
    assert build.outcomes() == {"first": "passed", "part worlds": "failed", "part engine": "failed"}
    assert "No space left" in build.rows()["part engine"]["reason"]
    assert not list(tmp_path.glob("chorale-gpu-check-*"))


def test_a_part_that_works_again_takes_its_failure_away(build, tmp_path):
    build.chorale("echo '" + json.dumps(GPU) + "'", 'echo \'{"us": 1}\'')
    build.run("--scratch", tmp_path / "missing", "--only", "comm")
    assert build.outcomes() == {"part comm": "failed"}
    build.run("--only", "comm")
    assert "part comm" not in build.outcomes() and len(build.outcomes()) == 1


def test_results_that_cannot_be_written_are_said_at_once(build, tmp_path):
    build.test("first", f"touch {tmp_path}/ran")
    (tmp_path / "results").write_text("a file")
    done = build.run()
    assert done.returncode == 1 and "cannot write results" in done.stderr and not (tmp_path / "ran").exists()


def test_a_disk_that_is_full_for_a_while_costs_no_row(tmp_path, monkeypatch):
    results = gpu_results.Results(tmp_path, facts())
    monkeypatch.setattr(gpu_results, "replace_file", broken_disk)
    results.add("tests", row("one"))
    assert not results.is_written
    monkeypatch.undo()
    results.add("tests", row("two"))
    assert results.is_written and [r["name"] for r in json.loads(results.path(".json").read_text())["tests"]] == ["one", "two"]


def broken_disk(path, text):
    raise OSError(28, "No space left on device")


# ---- doctor ---------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("doctor,reason", [
    ("echo '[{not JSON'", "it says nothing of GPUs"), ("echo 'error: no MPI here' >&2; exit 4", "error: no MPI here"),
    ("echo '[1]'", "it says nothing of GPUs"), ("echo '" + json.dumps(BROKEN) + "'", "does not work")])
def test_a_doctor_that_fails_is_a_row(build, doctor, reason):
    build.chorale(doctor)
    build.test("first", "exit 0")
    done = build.run("--device", "cuda", "--only", "tests")
    assert done.returncode == 1, done.stdout + done.stderr
    assert build.outcomes() == {"doctor": "failed", "first": "passed"} and reason in build.rows()["doctor"]["reason"]


def test_only_a_missing_gpu_skips_the_run(build):
    build.chorale("echo '" + json.dumps(NO_DRIVER) + "'")
    build.test("first", "exit 0")
    done = build.run("--device", "cuda")
    assert done.returncode == 77 and "skipped: no NVIDIA driver" in done.stdout
    assert build.run("--device", "emulator", "--only", "tests").returncode == 0


# ---- failures -------------------------------------------------------------------------------------------------------------------------

SUITE = """case "$*" in
  *--gtest_list_tests*) printf 'Running main()\\nCudaA.\\n  Good\\n  Bad\\n  Worse\\n  After\\n  DISABLED_Never\\nP/CudaA.\\n  Each/0  # GetParam() = 1\\n';;
  *=CudaA.Bad) echo 'error: illegal address'; exit 1;;
  *=CudaA.Worse) kill -9 $$;;
  *=CudaA.After|*=P/CudaA.Each/0) exit 0;;
  *) echo '[       OK ] CudaA.Good (1 ms)'; echo 'error: illegal address'; exit 1;;
esac"""


def test_the_cases_of_a_failed_suite_run_one_by_one(build):
    build.test("gpu.CudaA", SUITE, arguments=["--gtest_filter=CudaA.*:*/CudaA.*"])
    done = build.run("--only", "tests")
    assert done.returncode == 1
    assert build.outcomes() == {"gpu.CudaA": "failed", "gpu.CudaA: CudaA.Bad": "failed", "gpu.CudaA: CudaA.Worse": "failed",
                                "gpu.CudaA: CudaA.After": "passed", "gpu.CudaA: P/CudaA.Each/0": "passed"}
    assert build.rows()["gpu.CudaA: CudaA.Worse"]["reason"] == "exit code -9"
    build.program("tests/gpu.CudaA", "exit 0")
    assert build.run("--only", "tests").returncode == 0
    assert build.outcomes() == {"gpu.CudaA": "passed"}, "the rows of its cases belong to the failure"


def test_single_cases_have_a_limit_together(build, monkeypatch):
    monkeypatch.setattr(gpu_tests, "CASES_SECONDS", 0)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    build.test("gpu.CudaA", SUITE, arguments=["--gtest_filter=CudaA.*:*/CudaA.*"])
    monkeypatch.setattr(sys, "argv", [str(part) for part in build.command("--only", "tests")[1:]])
    assert gpu_check.main() == 1
    assert build.outcomes()["gpu.CudaA: CudaA.Bad"] == "skipped" and "are over" in build.rows()["gpu.CudaA: CudaA.Bad"]["reason"]


def test_a_suite_on_a_gpu_has_two_minutes():
    class Fast:
        device, limits = "cuda", []

        def program(self, command):
            return command

        def run(self, command, seconds, extra=()):
            self.limits.append(seconds)
            return 0, "", 0.0

    class One:
        runner, tests = Fast(), [{"name": "a", "command": ["a"], "timeout": 600, "environment": {}}]

        def add(self, section, row, output=""):
            pass

    gpu_tests.run_tests(One())
    One.runner.device = "emulator"
    gpu_tests.run_tests(One())
    assert Fast.limits == [120, 600]


def test_the_log_holds_all_that_a_failed_program_printed(build):
    build.test("first", "seq 3000; seq 5000 8000 >&2; exit 5")
    build.test("second", "echo fine")
    build.run("--only", "tests")
    log = build.path("-failures.log").read_text()
    assert "\n2999\n" in log and "\n7999\n" in log and "ended with 5" in log and "tests/first" in log and "fine" not in log
    assert log.index("-- stdout") < log.index("\n2999\n") < log.index("-- stderr") < log.index("\n7999\n")
    assert len(build.rows()["first"]["reason"]) <= 200


def test_the_log_is_bounded(tmp_path, monkeypatch):
    assert gpu_results.tail_of("x" * 500, 100) == "(400 bytes left out)\n" + "x" * 100
    monkeypatch.setattr(gpu_results, "LOG_BYTES", 2000)
    results = gpu_results.Results(tmp_path, facts())
    for number in range(50):
        results.add("tests", row(f"test {number}", "failed"), "y" * 300)
    assert results.path("-failures.log").stat().st_size < 2000 + 50 * 100


# ---- several runs, one file -----------------------------------------------------------------------------------------------------------

def facts(commit="abc", device="Test GPU"):
    return {"date": "2026-01-02", "device": device, "gpus": 1, "commit": commit, "mpirun": "mpirun", "host": []}


def row(name, outcome="passed", **more):
    return {"name": name, "outcome": outcome, "seconds": 1.0, **more}


def add_all(results, *rows):
    for each in rows:
        results.add("tests", each)
    return results


def test_runs_of_a_day_add_up(tmp_path):
    first = add_all(gpu_results.Results(tmp_path, facts()), row("a"), row("b", "failed"), row("c"))
    first.add("sanitizer", row("a", tool="memcheck"))
    first.add_figures("engine", [{"tokens": 1}, {"tokens": 2}], is_whole=True)
    second = add_all(gpu_results.Results(tmp_path, facts()), row("b"), row("d"), row("c", "skipped", reason=gpu_runner.NO_TIME))
    second.add("sanitizer", row("a", "failed", tool="racecheck"))
    second.add_figures("engine", [{"tokens": 3}], is_whole=True)
    second.add_figures("comm", [{"us": 1}], is_whole=False)
    second.add_figures("engine", [{"tokens": 4}], is_whole=False)
    all_of = json.loads((tmp_path / "2026-01-02-test-gpu.json").read_text())
    assert [(r["name"], r["outcome"]) for r in all_of["tests"]] == [("a", "passed"), ("b", "passed"), ("c", "passed"), ("d", "passed")]
    assert [(r["tool"], r["outcome"]) for r in all_of["sanitizer"]] == [("memcheck", "passed"), ("racecheck", "failed")]
    assert all_of["benches"] == [{"bench": "engine", "tokens": 3}, {"bench": "comm", "us": 1}]
    assert [r["name"] for r in second.rows if r["outcome"] == "failed"] == ["a"], "the exit code is of this run"
    third = add_all(gpu_results.Results(tmp_path, facts()), row("e", "skipped", reason=gpu_runner.NO_TIME))
    add_all(third, row("e"))
    assert third.all["tests"][-1] == row("e")


def test_other_commits_and_devices_keep_their_files(tmp_path):
    add_all(gpu_results.Results(tmp_path, facts()), row("a"))
    add_all(gpu_results.Results(tmp_path, facts(commit="abd+changes.12")), row("b"))
    add_all(gpu_results.Results(tmp_path, facts(commit="abd+changes.12")), row("c"))
    add_all(gpu_results.Results(tmp_path, facts(device="Other")), row("d"))
    names = {p.name: [r["name"] for r in json.loads(p.read_text())["tests"]] for p in tmp_path.glob("*.json")}
    assert names == {"2026-01-02-test-gpu.json": ["a"], "2026-01-02-test-gpu-abd-changes-12.json": ["b", "c"], "2026-01-02-other.json": ["d"]}


def test_parts_are_chosen_by_name(build):
    build.test("first", "exit 0")
    build.bench("gpu_bench", "echo '{\"us\": 2}'")
    assert build.run("--only", "kernels-bench").returncode == 0 and build.outcomes() == {"bench gpu_bench": "passed"}
    assert build.run("--skip", "benches,worlds,shapes,peers,sanitizer").returncode == 0
    assert build.outcomes() == {"bench gpu_bench": "passed", "first": "passed"}
    wrong = build.run("--only", "tests,benchs")
    assert wrong.returncode == 1 and "--only benchs: some of tests, sanitizer, worlds, shapes, kernels-bench, engine, comm, scaling, serve, peers" in wrong.stderr
    assert build.run("--seconds", "0").returncode == 2


def test_help_lists_the_parts():
    whole = subprocess.run([ROOT / "scripts/gpu-check", "--help"], capture_output=True, text=True, check=True).stdout
    packed = subprocess.run([sys.executable, ROOT / "scripts/lib/gpu_check.py", "run", "--help"], capture_output=True, text=True, check=True).stdout
    for part in (*gpu_check.PARTS, *gpu_check.GROUPS):
        for text in (whole, packed):
            assert re.search(rf"\b{part}\b", text), part
    assert "tar xzf gpu-pack.tar.gz && gpu-pack/gpu-check" in whole
