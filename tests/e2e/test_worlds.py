"""The three ways to start a world, and what happens when one is lost (it is not relaunched yet: jobs end with an error that says so)."""
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time
import urllib.error
import urllib.request

import pytest
from conftest import CHORALE, MPI_ENV, generate, mpirun, run, serving, shared

JOB = {"prompt": "Once upon a time", "max_tokens": 20, "temperature": 0.7, "seed": 3}


@pytest.fixture
def expected(tmp_path):
    return generate(shared("models/stories260K"), [JOB], tmp_path)[0][0]["text"]


def complete(url, **changes):
    request = urllib.request.Request(url + "/v1/completions", data=json.dumps({**JOB, **changes}).encode(),
                                     headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())["choices"][0]["text"]


def num_running(url):
    text = urllib.request.urlopen(url + "/metrics", timeout=10).read().decode()
    line = next(line for line in text.splitlines() if line.startswith("vllm:num_requests_running{"))
    return float(line.rsplit(" ", 1)[1])


def workers_of(pid):
    """Process ids of the ranks below a process (mpirun starts them; orted may stand between)."""
    found = []
    for child in subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True).stdout.split():
        command = open(f"/proc/{child}/cmdline", "rb").read().split(b"\0")
        found += [int(child)] if command[0].endswith(CHORALE.name.encode()) and b"worker" in command else workers_of(child)
    return found


def test_one_rank_without_mpirun(tmp_path, expected):
    with serving(shared("models/stories260K"), tmp_path=tmp_path) as server:
        assert complete(server.url) == expected
        assert complete(server.url, echo=True) == JOB["prompt"] + expected  # as it was sent, without the BOS that was added
        maps = open(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read()
        assert maps == ""  # no helper processes: MPI was not initialised
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 0


@pytest.mark.parametrize("tp,pp", [(2, 1), (1, 2), (3, 1)])
def test_mpirun_starts_all(tmp_path, expected, tp, pp):
    with serving(shared("models/stories260K"), "--tp", tp, "--pp", pp, ranks=tp * pp, tmp_path=tmp_path) as server:
        assert complete(server.url) == expected
        assert server.drain() == 0


def test_coordinator_starts_mpirun(tmp_path, expected):
    with serving(shared("models/stories260K"), "--tp", 2, "--pp", 2, tmp_path=tmp_path) as server:
        assert complete(server.url) == expected
        assert len(workers_of(server.process.pid)) == 4
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 0


def test_awaited_workers(tmp_path, expected):
    env = {"CHORALE_SECRET": "a secret of these two processes"}
    port = 18701
    workers = subprocess.Popen([*mpirun(2), str(CHORALE), "worker", "--coordinator", f"127.0.0.1:{port}"],
                               env={**os.environ, **MPI_ENV, **env}, stdin=subprocess.DEVNULL)
    try:
        with serving(shared("models/stories260K"), "--tp", 2, "--await-workers", "--control-host", "127.0.0.1", "--control-port", port,
                     tmp_path=tmp_path, env=env) as server:
            assert complete(server.url) == expected
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(30) == 0
        assert workers.wait(30) == 0
    finally:
        workers.kill()


def replay(recording, ranks=2):
    """Exit code, [(token id, log-probability as printed)] and standard error of `chorale worker --replay`."""
    done = run("worker", "--replay", recording, ranks=ranks, timeout=60)
    words = [line.split() for line in done.stdout.splitlines()]
    return done.returncode, [(int(w[7]), w[9]) for w in words], [e for e in done.stderr.splitlines() if e.startswith("error:")]


def test_a_recorded_world_is_replayed_without_a_coordinator(tmp_path):
    """The workers of a served job write its plans; the same plans alone give the same bits, and a damaged file or another model does not."""
    model, recording = tmp_path / "model", tmp_path / "plans.bin"
    shutil.copytree(shared("models/stories260K"), model)
    env = {"CHORALE_SECRET": "a secret of these two processes"}
    port = 18703
    workers = subprocess.Popen([*mpirun(2), str(CHORALE), "worker", "--coordinator", f"127.0.0.1:{port}", "--record", str(recording)],
                               env={**os.environ, **MPI_ENV, **env}, stdin=subprocess.DEVNULL)
    try:
        with serving(model, "--tp", 2, "--await-workers", "--control-host", "127.0.0.1", "--control-port", port,
                     tmp_path=tmp_path, env=env) as server:
            body = json.dumps({**JOB, "logprobs": 0, "return_token_ids": True}).encode()
            request = urllib.request.Request(server.url + "/v1/completions", data=body, headers={"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=60) as answer:
                choice = json.loads(answer.read())["choices"][0]
            assert server.drain() == 0
        assert workers.wait(30) == 0
    finally:
        workers.kill()

    code, tokens, errors = replay(recording)
    assert (code, errors) == (0, [])
    assert [token for token, _ in tokens] == choice["token_ids"] and len(tokens) == JOB["max_tokens"]
    float32 = [struct.unpack("f", struct.pack("f", value))[0] for value in choice["logprobs"]["token_logprobs"]]
    assert [struct.unpack("f", struct.pack("f", float(logprob)))[0] for _, logprob in tokens] == float32
    printed = re.search(r'"logprobs": \[([^]]*)\]', generate(model, [JOB], tmp_path)[1]).group(1).split(", ")
    assert [logprob for _, logprob in tokens] == printed  # %.9g on both sides: equal bits, equal text

    whole = recording.read_bytes()
    recording.write_bytes(whole[:-3])  # the writer was killed inside the last step
    code, torn, errors = replay(recording)
    assert code == 1 and len(errors) == 1 and "plans.bin ends inside plan" in errors[0], errors
    assert torn == tokens[:len(torn)] and len(torn) >= len(tokens) - 1
    for damaged, says in [(whole[:50], "ends before the cluster plan does"), (b"", "ends before the cluster plan does"),
                          (b"\x00" * 400, "is no recording of plans"), (b"\xff" * 400, "is no recording of plans")]:
        recording.write_bytes(damaged)
        code, tokens, errors = replay(recording)
        assert code == 1 and tokens == [] and len(errors) == 1 and says in errors[0], (says, errors)

    recording.write_bytes(whole)
    shutil.rmtree(model)
    code, _, errors = replay(recording)
    assert code == 1 and len(errors) == 1 and str(model) in errors[0], errors
    shutil.copytree(shared("goldens/models/llama2-mha"), model)
    code, _, errors = replay(recording)
    assert code != 0 and len(errors) == 1 and f"the model at {model} on this host is not the coordinator's" in errors[0], errors
    code, _, errors = replay(tmp_path / "absent.bin")
    assert code == 1 and len(errors) == 1 and "no recording of plans at" in errors[0], errors


def ask(url, body=None):
    """Status, headers and JSON of an answer; status 0 while nobody listens."""
    request = urllib.request.Request(url, data=body and json.dumps(body).encode(), headers={"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.headers, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, error.headers, json.loads(error.read())
    except (urllib.error.URLError, ConnectionError):
        return 0, {}, {}


def eventually(condition, what, timeout=60):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.05)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def test_the_port_is_open_while_workers_are_awaited(tmp_path, expected):
    """/health tells how far they are, other calls are 503, workers that do not fit are refused and the wait goes on."""
    env = {**os.environ, **MPI_ENV, "CHORALE_SECRET": "a secret of these processes"}
    control, url = f"127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}"
    with open(tmp_path / "server.log", "w") as log:
        server = subprocess.Popen([str(CHORALE), "serve", "--model", str(shared("models/stories260K")), "--tp", "2", "--await-workers",
                                   "--control-host", "127.0.0.1", "--control-port", control.rsplit(":")[-1], "--port", url.rsplit(":")[-1]],
                                  env=env, stderr=log)
    workers = None
    try:
        eventually(lambda: ask(url + "/health")[0] == 503, "/health answers")
        eventually(lambda: ask(url + "/health")[2]["error"]["message"] == "waiting for workers: 0 of 2 have joined", "the reason")
        status, headers, answer = ask(url + "/v1/completions", JOB)
        assert (status, answer["error"]["code"]) == (503, "not_ready") and int(headers["Retry-After"]) > 0
        wrong = run("worker", "--coordinator", control, ranks=3, env={"CHORALE_SECRET": env["CHORALE_SECRET"]}, timeout=60)
        assert wrong.returncode == 1
        assert "its world has 3 ranks, but tp=2 x pp=1 needs 2: start the workers with mpirun -n 2" in wrong.stderr
        assert "there is no rank 2 in the coordinator's world of 2" in wrong.stderr or "rank 2 of 3" not in wrong.stderr
        assert ask(url + "/health")[0] == 503 and server.poll() is None
        workers = subprocess.Popen([*mpirun(2), str(CHORALE), "worker", "--coordinator", control], env=env, stdin=subprocess.DEVNULL)
        eventually(lambda: ask(url + "/health")[0] == 200, "ready")
        assert complete(url) == expected
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0 and workers.wait(30) == 0
    finally:
        for process in filter(None, (server, workers)):
            process.kill()


def test_a_worker_says_at_once_that_nobody_answers():
    worker = subprocess.Popen([str(CHORALE), "worker", "--coordinator", f"127.0.0.1:{free_port()}"], stderr=subprocess.PIPE, text=True,
                              env={**os.environ, "CHORALE_SECRET": "a secret of nobody else"})
    try:
        line = worker.stderr.readline()
        assert "no coordinator at 127.0.0.1:" in line and "Connection refused; trying for 120 s" in line, line
    finally:
        worker.kill()


def test_a_wrong_secret_is_refused(tmp_path):
    with serving(shared("models/stories260K"), "--tp", 2, tmp_path=tmp_path, env={"CHORALE_SECRET": "the right secret here"}) as server:
        log = server.log.read_text()
        port = [w for w in log.split() if w.startswith("127.0.0.1:")]
        if not port:
            port = [a for pid in workers_of(server.process.pid) for a in open(f"/proc/{pid}/cmdline").read().split("\0") if ":" in a]
        done = run("worker", "--coordinator", port[0], env={"CHORALE_SECRET": "the wrong secret here"}, timeout=60)
        assert done.returncode != 0 and "secret" in done.stderr
        assert complete(server.url)


def test_the_secret_is_on_no_command_line(tmp_path):
    secret = "not for everybody's eyes"
    with serving(shared("models/stories260K"), "--tp", 2, tmp_path=tmp_path, env={"CHORALE_SECRET": secret}):
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                assert secret.encode() not in open(f"/proc/{pid}/cmdline", "rb").read()
            except (FileNotFoundError, ProcessLookupError):
                pass


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
def test_a_lost_worker_ends_jobs_with_an_error(tmp_path, how):
    with serving(shared("models/stories260K"), "--tp", 2, "--max-model-len", 512, tmp_path=tmp_path) as server:
        body = json.dumps({**JOB, "max_tokens": 400, "ignore_eos": True, "n": 32, "stream": True})
        request = urllib.request.Request(server.url + "/v1/completions", data=body.encode(),
                                         headers={"Content-Type": "application/json"})
        answer = urllib.request.urlopen(request, timeout=60)
        answer.readline()  # the stream has begun
        started = time.monotonic()
        victim = workers_of(server.process.pid)[-1]
        os.kill(victim, how)
        try:
            rest = answer.read().decode()
        except (urllib.error.URLError, ConnectionError) as error:
            pytest.fail(f"the stream broke off without an error: {error}")
        assert '"error"' in rest and "lost" in rest, rest[-2000:]
        assert server.process.wait(30) == 3
        assert time.monotonic() - started < 15
        if how == signal.SIGSTOP:
            os.kill(victim, signal.SIGKILL)
        else:
            said = [line for line in server.log.read_text().splitlines() if " error [" in line or line.startswith("chorale: ")]
            assert len(said) == 1 and "the world of workers is lost: rank 1 is lost: " in said[0], said


def test_a_killed_mpirun_loses_the_world_at_once(tmp_path):
    with serving(shared("models/stories260K"), "--tp", 2, "--pp", 2, tmp_path=tmp_path) as server:
        mpirun_pid = int(subprocess.run(["pgrep", "-P", str(server.process.pid)], capture_output=True, text=True).stdout)
        started = time.monotonic()
        os.kill(mpirun_pid, signal.SIGKILL)
        assert server.process.wait(30) == 3
        assert time.monotonic() - started < 2
        said = [line for line in server.log.read_text().splitlines() if " error [" in line]
        assert len(said) == 1 and "the world of workers is lost: mpirun was killed by signal 9" in said[0], said


@pytest.mark.parametrize("flags,given,seen", [([], None, "1"), ([], "0", "0"), (["--hostfile", "hosts"], None, "unset")],
                         ids=["own-host", "users", "hostfile"])
def test_mpirun_is_told_to_be_quiet_where_it_has_nothing_to_add(tmp_path, flags, given, seen):
    """Its words about a rank that died only follow the coordinator's. Who starts ranks elsewhere, or says otherwise, hears it."""
    (tmp_path / "hosts").write_text("localhost slots=2\n")
    launcher = tmp_path / "mpirun"
    launcher.write_text("#!/bin/sh\necho quiet=${OMPI_MCA_orte_execute_quiet-unset}\nexit 7\n")
    launcher.chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    env.pop("OMPI_MCA_orte_execute_quiet", None)
    done = subprocess.run([str(CHORALE), "serve", "--model", str(shared("models/stories260K")), "--tp", "2", "--port", "0", *flags],
                          env=env | ({"OMPI_MCA_orte_execute_quiet": given} if given else {}), cwd=tmp_path, capture_output=True,
                          text=True, timeout=60)
    assert done.returncode == 1 and done.stdout == f"quiet={seen}\n", (done.stdout, done.stderr)
    error = done.stderr.splitlines()[-1]
    hint = "; with OMPI_MCA_orte_execute_quiet=0 it says more" if seen == "1" else ""
    assert error == f"error: mpirun ended with code 7 before the world was ready{hint}"


def test_a_killed_rank_ends_a_world_under_mpirun(tmp_path):
    with serving(shared("models/stories260K"), "--tp", 2, ranks=2, tmp_path=tmp_path) as server:
        ranks = subprocess.run(["pgrep", "-P", str(server.process.pid)], capture_output=True, text=True).stdout.split()
        os.kill(int(ranks[-1]), signal.SIGKILL)
        assert server.process.wait(30) != 0


def test_drain_lets_running_jobs_finish(tmp_path):
    with serving(shared("models/stories260K"), tmp_path=tmp_path) as server:
        texts = []
        reader = threading.Thread(target=lambda: texts.append(complete(server.url, max_tokens=480, n=8, ignore_eos=True)))
        reader.start()
        while num_running(server.url) == 0:
            assert reader.is_alive()
        server.process.send_signal(signal.SIGTERM)
        reader.join(60)
        assert texts and texts[0]
        assert server.process.wait(30) == 0


def test_a_signal_ends_a_coordinator_that_still_waits():
    """Also before the world is ready: nobody has to wait for a world that will not come."""
    process = subprocess.Popen([str(CHORALE), "serve", "--model", str(shared("models/stories260K")), "--tp", "2", "--await-workers",
                                "--control-host", "127.0.0.1", "--control-port", "18702", "--port", "0", "--log-level", "warn"],
                               env={**os.environ, "CHORALE_SECRET": "a secret of nobody else"}, stderr=subprocess.PIPE, text=True)
    assert "waiting for 2 workers" in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 1
    assert "interrupted" in process.stderr.read()


def test_a_frozen_rank_ends_a_world_under_mpirun(tmp_path):
    with serving(shared("models/stories260K"), "--tp", 2, ranks=2, tmp_path=tmp_path) as server:
        ranks = subprocess.run(["pgrep", "-P", str(server.process.pid)], capture_output=True, text=True).stdout.split()
        os.kill(int(ranks[-1]), signal.SIGSTOP)
        assert server.process.wait(40) != 0
