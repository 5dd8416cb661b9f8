"""Ranks that exchange activations over NCCL: the build's stand-in for the library (tests/support/fake_nccl.cc) under emulated ranks in
processes of their own. The bits are those of one rank and of MPI; lost, frozen and failing peers end every worker with one line. What
takes a step's whole deadline of 30 s (a call that hangs) is tested with shorter ones in tests/unit/{comm,worker}/nccl*_test.cc.
"""
import concurrent.futures
import contextlib
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
from pathlib import Path

import pytest
from conftest import CHORALE, MPI_ENV, generate, mpirun, run, serving
from test_emulator import BF16_TOLERANCE, EMULATOR, make_jobs, with_library, write_model
from test_worlds import complete, eventually, num_running, workers_of


def library(name="nccl", **more):
    """The environment in which ranks find a stand-in."""
    path = CHORALE.parent / f"fake_libraries/libfake_{name}.so"
    if not path.exists():
        pytest.skip(f"no {path}: build the tests")
    return {"CHORALE_NCCL_PATH": str(path), **more}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module", autouse=True)
def rooms():
    """Ranks that were killed before they all met leave the shared memory that they would have met in."""
    yield
    for path in Path("/dev/shm").glob("fake_nccl_*"):
        path.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def jobs():
    return make_jobs(384)[1:4]


@pytest.fixture(scope="module")
def one_rank(model, jobs, tmp_path_factory):
    return generate(model, jobs, tmp_path_factory.mktemp("one"), *EMULATOR)[1]


@pytest.mark.parametrize("tp,pp", [(2, 1), (2, 2), (4, 1), (1, 2), (4, 2)])
def test_the_bits_of_one_rank(model, jobs, one_rank, tmp_path, tp, pp):
    _, text, done = generate(model, jobs, tmp_path, *EMULATOR, "--tp", tp, "--pp", pp, "--log-level", "info", ranks=tp * pp,
                             env=library())
    assert text == one_rank
    assert done.stderr.count(", NCCL") == tp * pp, done.stderr[-2000:]


def test_a_fast_answer_leaves_sums_to_the_library(model, jobs, tmp_path):
    """Near the one answer; what exactly it is, is the libraries' affair."""
    flags = (*EMULATOR, "--tp", 2)
    one, _, _ = generate(model, jobs[:1], tmp_path, *flags, ranks=2, env=library())
    fast, _, done = generate(model, jobs[:1], tmp_path, *flags, "--answer", "fast", "--log-level", "info", ranks=2,
                             env={**library(), **with_library("right")})
    assert done.stderr.count(", NCCL") == 2, done.stderr[-2000:]
    assert fast[0]["token_ids"] == one[0]["token_ids"]
    assert fast[0]["logprobs"] == pytest.approx(one[0]["logprobs"], abs=BF16_TOLERANCE)


def test_mpi_where_asked(model, jobs, one_rank, tmp_path):
    _, text, done = generate(model, jobs, tmp_path, *EMULATOR, "--tp", 2, "--comm", "mpi", "--cuda-graphs", "--log-level", "info", ranks=2,
                             env=library())
    assert text == one_rank and ", NCCL" not in done.stderr
    assert done.stderr.count("--cuda-graphs: none are recorded, since with tp > 1 over MPI ") == 1, done.stderr[-2000:]
    assert "CUDA graphs of decode steps" not in done.stderr, done.stderr[-2000:]


UNFIT = {  # libraries that cannot be used, and why
    "old": ("nccl", {"FAKE_NCCL_VERSION": "21003"}, "libfake_nccl.so: it is version 2.10.3; 2.18.0 or newer is needed"),
    "missing": ("nccl_missing", {}, "libfake_nccl_missing.so: it has no ncclGroupEnd"),
    "nowhere": ("nccl", {"CHORALE_NCCL_PATH": "/nonexistent/libnccl.so.2"}, "/nonexistent/libnccl.so.2: cannot open shared object file"),
    "unset": ("nccl", {"CHORALE_NCCL_PATH": ""}, "the emulator takes NCCL only from CHORALE_NCCL_PATH, which is not set"),
    "blocking": ("nccl", {"NCCL_COMM_BLOCKING": "1"}, "NCCL_COMM_BLOCKING=1 makes its calls wait for lost peers without a deadline")}


@pytest.mark.parametrize("name,env,why", UNFIT.values(), ids=UNFIT)
def test_a_library_that_cannot_be_used_is_refused_with_the_reason(model, name, env, why):
    done = run("generate", "--model", model, *EMULATOR, "--tp", 2, "--comm", "nccl", "--prompt", "a", "--max-tokens", 1, ranks=2,
               env=library(name, **env))
    assert done.returncode == 1, done.stderr
    for words in ("--comm nccl: rank 0 on ", why, "(--comm mpi does without it)"):
        assert words in done.stderr, done.stderr


@pytest.mark.parametrize("flags,words", [
    (("--device", "cpu", "--comm", "nccl"), ["--comm nccl: rank 0 on ", "computes on the CPU (--comm mpi does without it)"]),
    ((*EMULATOR, "--comm", "gloo"), ["--comm gloo: one of auto, nccl, mpi"])], ids=["cpu", "unknown"])
def test_what_cannot_be_is_refused(model, flags, words):
    done = run("generate", "--model", model, *flags, "--tp", 2, "--prompt", "a", "--max-tokens", 1, ranks=2, env=library())
    assert done.returncode in (1, 2) and all(word in done.stderr for word in words), done.stderr


def test_one_rank_may_be_given_any_of_them(model, jobs, one_rank, tmp_path):
    """It has nobody to talk to; a library is not even looked for."""
    assert generate(model, jobs, tmp_path, *EMULATOR, "--comm", "nccl", env=library("nccl_missing"))[1] == one_rank


@pytest.mark.parametrize("name,env,why", UNFIT.values(), ids=UNFIT)
def test_a_library_that_cannot_be_used_is_passed_over(model, jobs, one_rank, tmp_path, name, env, why):
    _, text, done = generate(model, jobs, tmp_path, *EMULATOR, "--tp", 2, "--log-level", "info", ranks=2, env=library(name, **env))
    assert text == one_rank
    assert done.stderr.count("communicator ") == 2 and ", NCCL" not in done.stderr, done.stderr[-2000:]


@pytest.mark.parametrize("devices,flags,words", [
    ("0000:01:00.0/a,0000:02:00.0/b", (), None),
    ("0000:01:00.0/a", (), "ranks 0 and 1 on {host} share a GPU"),
    ("0000:01:00.0/a,0000:01:00.0/b", (), "ranks 0 and 1 on {host} have parts (MIG) of one GPU, 0000:01:00.0, which NCCL takes for one"),
    ("0000:01:00.0/a,0000:01:00.0/b", ("--comm", "nccl"), None)], ids=["two", "shared", "parts", "insisted"])
def test_ranks_on_one_gpu_are_told_by_its_address(model, jobs, one_rank, tmp_path, devices, flags, words):
    _, text, done = generate(model, jobs, tmp_path, *EMULATOR, "--tp", 2, *flags, "--log-level", "info", ranks=2,
                             env=library(CHORALE_EMULATOR_DEVICES=devices))
    assert text == one_rank
    assert done.stderr.count(", NCCL") == (0 if words else 2), done.stderr
    why = [line.split("activations travel ")[1] for line in done.stderr.splitlines() if "activations travel " in line]
    assert why == ([f"over MPI, by way of the host: {words.format(host=socket.gethostname())}"] if words else [])


def said(log):
    return [line for line in log.splitlines() if " error [" in line or line.startswith(("chorale: ", "error: "))]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
def test_a_lost_peer_ends_every_worker(model, tmp_path, how):
    with serving(model, *EMULATOR, "--tp", 2, "--pp", 2, "--max-model-len", 512, tmp_path=tmp_path, env=library()) as server:
        world = next(line for line in server.log.read_text().splitlines() if "world 1: tp=2 pp=2" in line)
        assert world.endswith(", activations over NCCL 2.28.9"), world
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            answer = pool.submit(complete, server.url, prompt=[5, 6, 7], max_tokens=400, ignore_eos=True, n=8, temperature=0)
            eventually(lambda: num_running(server.url) == 8, "the job runs")
            workers = workers_of(server.process.pid)
            started = time.monotonic()
            os.kill(workers[1], how)
            assert isinstance(answer.exception(), (urllib.error.URLError, ConnectionError))
        assert server.process.wait(30) == 3
        assert time.monotonic() - started < 15
        if how == signal.SIGSTOP:
            os.kill(workers[1], signal.SIGKILL)
        for worker in workers:  # none is left behind, waiting for the peer
            deadline = time.monotonic() + 10
            while os.path.exists(f"/proc/{worker}") and time.monotonic() < deadline:
                time.sleep(0.05)
            assert not os.path.exists(f"/proc/{worker}")
        lines = said(server.log.read_text())
        if how == signal.SIGSTOP:  # who wakes up before it is killed may say that the others are gone
            lines = [line for line in lines if not line.startswith("chorale: rank 1: lost the coordinator")]
        assert len(lines) == 1 and "the world of workers is lost: rank 1 is lost: " in lines[0], lines
        assert "mpirun" not in server.log.read_text().split(lines[0])[1], "the launcher has nothing to add"


@pytest.mark.parametrize("rank", [0, 1])  # 0 hosts the coordinator, which has to tell it
def test_an_error_of_the_library_is_one_line_with_the_operation(model, jobs, tmp_path, rank):
    path = tmp_path / "jobs.jsonl"
    path.write_text("".join(json.dumps(job) + "\n" for job in jobs))
    started = time.monotonic()
    done = run("generate", "--model", model, "--jobs", path, "--json", *EMULATOR, "--tp", 2, "--pp", 2, ranks=4, timeout=60,
               env=library(FAKE_NCCL_FAULT=f"error-op:20@{rank}"))
    assert done.returncode == 3 and time.monotonic() - started < 25, done.stderr
    ends = [json.loads(line) for line in done.stdout.splitlines()]
    assert ends == [{"index": i, "error": "the world of workers is lost"} for i in range(len(jobs))]  # the reason is said once
    lines = said(done.stderr)
    assert len(lines) == 1, done.stderr
    assert f": rank {rank} reports: step " in lines[0] and "NCCL 2.28.9 (stage 0: ranks 0, 1) all-gather no. " in lines[0] and "remote process exited" in lines[0], lines


@pytest.mark.slow
@pytest.mark.parametrize("fault,seconds,words", [
    ("hang-op:20@1", 30, [" reports: step ", "the deadline passed", "NCCL 2.28.9 (stage ", " no. "]),
    ("hang-init@1", 300, ["NCCL 2.28.9 (stage 0: ranks 0, 1) to start did not begin by the deadline: a peer is late, hung or gone"])],
    ids=["operation", "init"])
def test_a_library_that_hangs_ends_the_world_at_its_deadline(model, jobs, tmp_path, fault, seconds, words):
    path = tmp_path / "jobs.jsonl"
    path.write_text(json.dumps(jobs[0]) + "\n")
    started = time.monotonic()
    done = run("generate", "--model", model, "--jobs", path, *EMULATOR, "--tp", 2, "--pp", 2, ranks=4, timeout=400,
               env=library(FAKE_NCCL_FAULT=fault))
    assert done.returncode == 3 and seconds - 1 < time.monotonic() - started < seconds + 20, done.stderr
    assert all(word in done.stderr for word in words), done.stderr
    lines = [line for line in said(done.stderr) if line != "error: job 0: the world of workers is lost"]
    assert len(lines) == 1, done.stderr


@pytest.mark.slow
def test_a_clean_stop_waits_for_the_steps_under_way(model, jobs, tmp_path):
    """Each call of NCCL takes more than a second: when the job is stopped, steps of many seconds are under way."""
    flags = (*EMULATOR, "--tp", 2, "--no-cuda-graphs")
    [whole], _, _ = generate(model, jobs[:1], tmp_path, *flags, ranks=2, env=library())
    job = dict(jobs[0], stop_token_ids=[whole["token_ids"][1]])
    started = time.monotonic()
    [cut], _, done = generate(model, [job], tmp_path, *flags, "--log-level", "debug", ranks=2, env=library(FAKE_NCCL_FAULT="slow:1400@1"))
    assert done.returncode == 0 and said(done.stderr) == [], done.stderr
    assert cut["token_ids"] == whole["token_ids"][:len(cut["token_ids"])] and len(cut["token_ids"]) <= 2
    assert time.monotonic() - started < 120


def test_a_late_peer_is_waited_for(model, jobs, one_rank, tmp_path):
    _, text, done = generate(model, jobs, tmp_path, *EMULATOR, "--tp", 2, "--log-level", "info", ranks=2,
                             env=library(FAKE_NCCL_FAULT="slow:3@1"))
    assert text == one_rank
    assert done.stderr.count(", NCCL") == 2, done.stderr[-2000:]


def waits_for_nccl(pid):
    """Whether a rank is in the memory in which ranks of the fake NCCL meet."""
    try:
        return "/fake_nccl_" in open(f"/proc/{pid}/maps").read()
    except FileNotFoundError:
        return False


def ranks_of(process):
    """Ranks that mpirun started, or that the coordinator's own mpirun did."""
    below = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    return workers_of(process.pid) or [int(pid) for pid in below]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
@pytest.mark.parametrize("launcher,says", [([], "error"), (mpirun(2), "chorale")], ids=["serve", "mpirun"])
def test_a_rank_may_be_lost_while_nccl_starts(model, tmp_path, launcher, says, how):
    """Rank 0 waits for rank 1, for minutes if it were let."""
    with open(tmp_path / "log", "w") as log:
        command = [*launcher, str(CHORALE), "serve", "--model", str(model), *EMULATOR, "--tp", "2", "--port", "0"]
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
                                   env={**os.environ, **MPI_ENV, **library(FAKE_NCCL_FAULT="hang-init@1")})
    try:
        eventually(lambda: any(map(waits_for_nccl, ranks_of(process))), "a rank waits for the other")
        started = time.monotonic()
        lost = next(pid for pid in ranks_of(process) if not waits_for_nccl(pid))
        os.kill(lost, how)
        code = process.wait(30)
        assert code == 3 or (launcher and how == signal.SIGKILL and code == 128 + signal.SIGKILL)  # mpirun's own
        assert time.monotonic() - started < 15
        lines = [line for line in (tmp_path / "log").read_text().splitlines() if " info [" not in line]
        lines = lines if not launcher else [line for line in lines if line.startswith(("chorale: ", "error: "))]
        if how == signal.SIGSTOP:  # who wakes up before it is killed may say that the others are gone
            lines = [line for line in lines if not line.startswith("chorale: rank 1: lost the coordinator")]
        assert len(lines) == 1 and lines[0].startswith(f"{says}: rank 1 was lost while it loaded: "), lines
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize("tp,pp,rank", [(2, 2, 1), (2, 1, 0)])
def test_a_rank_that_cannot_capture_costs_all_their_graphs_and_no_bit(model, jobs, one_rank, tmp_path, tp, pp, rank):
    _, text, done = generate(model, jobs, tmp_path, *EMULATOR, "--tp", tp, "--pp", pp, "--log-level", "info", ranks=tp * pp,
                             env=library(FAKE_NCCL_FAULT=f"refuse-capture@{rank}"))
    assert text == one_rank and done.returncode == 0
    warnings = [line for line in done.stderr.splitlines() if " warn" in line or "--no-cuda-graphs" in line]
    assert len(warnings) == 1, done.stderr
    assert f"rank {rank} could not capture them: NCCL 2.28.9 (stage 0: ranks 0, 1) " in warnings[0], warnings
    assert "the fault that the test asked for (--no-cuda-graphs does not try)" in warnings[0], warnings
    assert "captured " not in done.stderr
