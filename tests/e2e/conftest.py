"""Fixtures of the end-to-end tests: the real executable, real MPI ranks in processes of their own, real sockets and files."""
import contextlib
import json
import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHORALE = Path(os.environ.get("CHORALE_BIN", ROOT / "build/release/chorale"))
SHARED = Path(os.environ.get("CHORALE_SHARED", ROOT.parent / "shared"))
CACHE = Path(os.environ.get("CHORALE_CACHE", Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "chorale"))
DEFAULT_MODEL = Path(os.environ.get("CHORALE_DEFAULT_MODEL", CACHE / "models/SmolLM2-135M-Instruct.Q4_1.gguf"))
MPI_ENV = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
START_TIMEOUT_S = 120


def shared(relative):
    """A path below the shared test data, or a skip with the reason."""
    path = SHARED / relative
    if not path.exists():
        pytest.skip(f"no shared data: {relative} (set CHORALE_SHARED)")
    return path


@pytest.fixture(scope="session")
def smollm2():
    if not DEFAULT_MODEL.exists():
        pytest.skip("the default model is not in the cache: run scripts/fetch-model")
    return DEFAULT_MODEL


def mpirun(num_ranks):
    return ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(num_ranks)]


def run(*args, ranks=0, stdin=None, timeout=300, env=None):
    """Runs `chorale ARGS` (under mpirun when `ranks`) to its end."""
    command = (mpirun(ranks) if ranks else []) + [str(CHORALE), *map(str, args)]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=timeout,
                          env={**os.environ, **MPI_ENV, **(env or {})})


def generate(model, jobs, tmp_path, *flags, ranks=0, timeout=300, env=None):
    """Result lines of `chorale generate --jobs`, in input order, and the raw text of standard output."""
    path = tmp_path / "jobs.jsonl"
    path.write_text("".join(json.dumps(job) + "\n" for job in jobs))
    done = run("generate", "--model", model, "--jobs", path, "--json", *flags, ranks=ranks, timeout=timeout, env=env)
    assert done.returncode in (0, 1), f"exit {done.returncode}\n{done.stderr[-4000:]}"
    return [json.loads(line) for line in done.stdout.splitlines()], done.stdout, done


class Server:
    """A running `chorale serve`. `url` is set once /health answers 200."""

    def __init__(self, process, url, log):
        self.process, self.url, self.log = process, url, log

    def drain(self, timeout=60):
        self.process.send_signal(signal.SIGUSR1)
        return self.process.wait(timeout)


@contextlib.contextmanager
def serving(model, *flags, ranks=0, tmp_path, env=None, timeout=START_TIMEOUT_S):
    """Starts a server on a free port and yields it; kills what is left of it afterwards. Its log is in `server.log`."""
    ready = tmp_path / "ready"
    os.mkfifo(ready)
    command = (mpirun(ranks) if ranks else []) + [
        str(CHORALE), "serve", "--model", str(model), "--host", "127.0.0.1", "--port", "0", "--ready-file", str(ready),
        *map(str, flags)]
    with open(tmp_path / "server.log", "w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                   env={**os.environ, **MPI_ENV, **(env or {})}, start_new_session=True)
        try:
            yield Server(process, wait_until_ready(process, ready, tmp_path / "server.log", timeout), tmp_path / "server.log")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            ready.unlink()


def wait_until_ready(process, fifo, log, timeout):
    """The address that serve writes to `fifo`. Fails with the log when the process ends or the time passes before."""
    fd = os.open(fifo, os.O_RDWR)  # a writer of our own: the read below ends when serve or the watcher writes
    watcher = threading.Thread(target=lambda: (process.wait(), os.write(fd, b"\n")), daemon=True)
    watcher.start()
    timer = threading.Timer(timeout, lambda: os.write(fd, b"\n"))
    timer.start()
    with os.fdopen(os.dup(fd)) as stream:
        url = stream.readline().strip()
    timer.cancel()
    assert url, f"the server did not become ready (exit {process.poll()}):\n{log.read_text()[-4000:]}"
    return url
