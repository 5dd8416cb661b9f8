"""The same server over 2 and 4 hosts (network namespaces with sshd), by hostfile: same tokens as one rank on one host."""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "e2e"))
from conftest import CHORALE, MPI_ENV, generate, shared, wait_until_ready  # noqa: E402

HOSTS = Path(__file__).resolve().parent / "hosts"
PROMPTS = ["Once upon a time", "The little dog", "Lily and Tom went to"]


def hosts(*args):
    return subprocess.run([HOSTS, *map(str, args)], capture_output=True, text=True, timeout=120)


@pytest.fixture(params=[2, 4], ids=["2 hosts", "4 hosts"])
def world(request, tmp_path):
    """Hosts that are up, a hostfile with one slot each, and the environment that mpirun needs between them."""
    possible = hosts("check")
    if possible.returncode == 77:
        pytest.skip(possible.stdout.strip())
    hosts("down")
    started = hosts("up", request.param)
    assert started.returncode == 0, started.stderr
    try:
        hostfile = tmp_path / "hostfile"
        hostfile.write_text(hosts("file", 1).stdout)
        settings = dict(line.split("=", 1) for line in hosts("env").stdout.splitlines())
        yield request.param, hostfile, {**os.environ, **MPI_ENV, **settings}
    finally:
        hosts("down")


def on_first_host(environment, *command, **options):
    return subprocess.Popen([HOSTS, "run", "n1", *map(str, command)], env=environment, stdin=subprocess.DEVNULL, text=True,
                            start_new_session=True, **options)


def ask(environment, url, jobs_path):
    done = on_first_host(environment, CHORALE, "submit", "--url", url, "--jobs", jobs_path, "--json", stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE)
    out, err = done.communicate(timeout=120)
    assert done.returncode == 0, err
    answers = sorted((json.loads(line) for line in out.splitlines()), key=lambda answer: answer["index"])
    return [answer["response"]["choices"][0]["text"] for answer in answers]


@pytest.mark.parametrize("how", ["coordinator starts mpirun", "mpirun starts all"])
def test_serves_over_hosts(world, tmp_path, how):
    num_hosts, hostfile, environment = world
    model = shared("models/stories260K")
    jobs = [{"prompt": p, "max_tokens": 24, "temperature": 0.8, "seed": 5} for p in PROMPTS]
    expected, _, _ = generate(model, jobs, tmp_path)
    jobs_path = tmp_path / "hosts.jsonl"
    jobs_path.write_text("".join(json.dumps(j) + "\n" for j in jobs))

    tp, pp = (2, 1) if num_hosts == 2 else (2, 2)
    ready = tmp_path / "ready"
    os.mkfifo(ready)
    serve = [CHORALE, "serve", "--model", model, "--tp", tp, "--pp", pp, "--host", "127.0.0.1", "--port", 0, "--ready-file", ready]
    if how == "mpirun starts all":
        command = ["mpirun", "--hostfile", hostfile, "-n", num_hosts, *serve]
    else:
        command = [*serve, "--hostfile", hostfile]
    with open(tmp_path / "log", "w+") as log:
        process = on_first_host(environment, *command, stdout=log, stderr=subprocess.STDOUT)
        try:
            url = wait_until_ready(process, ready, tmp_path / "log", 120)
            assert ask(environment, url, jobs_path) == [r["text"] for r in expected]
        finally:
            os.killpg(process.pid, 9)
            process.wait()
