"""scripts/slurm under a real Slurm: two nodes (network namespaces), slurmctld on the first, slurmd on both, batch jobs with the bundle."""
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "e2e"))
from conftest import CHORALE, MPI_ENV, ROOT, generate, shared  # noqa: E402

HOSTS = ROOT / "tests/net/hosts"
ADDRESSES = {"n1": "10.93.0.11", "n2": "10.93.0.12"}
DAEMONS = ("slurmctld", "slurmd", "munged", "sbatch")
JOB = {"prompt": "Once upon a time", "max_tokens": 16, "temperature": 0}


def settings(folder):
    nodes = "\n".join(f"NodeName={name} NodeAddr={address} CPUs=4" for name, address in ADDRESSES.items())
    return f"""ClusterName=test
SlurmctldHost=n1({ADDRESSES['n1']})
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n.spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
TmpFS={folder}/%n.tmp
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
{nodes}
PartitionName=all Nodes=n1,n2 Default=YES State=UP
"""


class Slurm:
    def __init__(self, folder, environment):
        self.folder, self.environment, self.daemons = folder, environment, []

    def start(self, host, *command, until):
        """Starts a daemon and waits until its output matches."""
        log = open(self.folder / f"{host}.{command[0]}.log", "w+", encoding="utf-8")
        process = subprocess.Popen([HOSTS, "run", host, *map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                   env=self.environment, stdin=subprocess.DEVNULL, start_new_session=True)
        self.daemons.append(process)
        killer = threading.Timer(20, process.kill)
        killer.start()
        for line in process.stdout:
            log.write(line)
            if re.search(until, line):
                killer.cancel()
                threading.Thread(target=lambda: shutil.copyfileobj(process.stdout, log), daemon=True).start()
                return
        log.seek(0)
        pytest.fail(f"{command[0]} on {host} did not start:\n{log.read()[-2000:]}")

    def run(self, *command, host="n1", timeout=60):
        done = subprocess.run([HOSTS, "run", host, *map(str, command)], capture_output=True, text=True, timeout=timeout, env=self.environment)
        assert done.returncode == 0, f"{command}: {done.stderr or done.stdout}"
        return done.stdout

    def stop(self):
        for process in self.daemons:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            process.wait()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    out = tmp_path_factory.mktemp("bundle")
    done = subprocess.run([ROOT / "scripts/bundle", "--build", CHORALE.parent, "--out", out, "--folder-only"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return next(p for p in out.iterdir())


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    for daemon in DAEMONS:
        if not shutil.which(daemon, path=os.environ["PATH"] + ":/usr/sbin"):
            pytest.skip(f"{daemon} is not installed: scripts/test installs it")
    possible = subprocess.run([HOSTS, "check"], capture_output=True, text=True)
    if possible.returncode == 77:
        pytest.skip(possible.stdout.strip())
    folder = tmp_path_factory.mktemp("slurm")
    folder.chmod(0o711)
    for name in ("state", "n1.spool", "n2.spool", "n1.tmp", "n2.tmp"):
        (folder / name).mkdir()
    (folder / "slurm.conf").write_text(settings(folder))
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o400)
    environment = {**os.environ, **MPI_ENV, "SLURM_CONF": str(folder / "slurm.conf"), "PATH": os.environ["PATH"] + ":/usr/sbin"}
    subprocess.run([HOSTS, "down"], capture_output=True)
    subprocess.run([HOSTS, "up", "2"], check=True, capture_output=True, timeout=60)
    world = Slurm(folder, environment)
    try:
        munged = subprocess.Popen(["munged", "--foreground", "--force", f"--key-file={folder}/munge.key", f"--socket={folder}/munge.socket",
                                   f"--pid-file={folder}/munged.pid", f"--seed-file={folder}/munge.seed"], env=environment, start_new_session=True,
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        world.daemons.append(munged)
        subprocess.run(["sh", "-c", f"until munge --socket={folder}/munge.socket --no-input; do :; done"], check=True, timeout=20, env=environment,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        world.start("n1", "slurmctld", "-D", "-i", "-v", until="Running as primary controller")
        for host in ADDRESSES:
            world.start(host, "slurmd", "-D", "-N", host, until="slurmd started")
        yield world
    finally:
        world.stop()
        subprocess.run([HOSTS, "down"], capture_output=True)


@pytest.mark.parametrize("script", ["serve.sbatch", "serve-srun.sbatch"])
def test_batch_job_serves_and_drains(slurm, bundle, tmp_path, script):
    model = shared("models/stories260K")
    expected, _, _ = generate(model, [JOB], tmp_path, "--device", "cpu")
    ready, log = tmp_path / "ready", tmp_path / "job.log"
    os.mkfifo(ready)
    job = slurm.run("env", f"CHORALE={bundle}/bin/chorale", "sbatch", "--parsable", "--nodes=2", "--ntasks-per-node=2", "--cpus-per-task=1",
                    "--gpus-per-node=0", f"--output={log}", ROOT / "scripts/slurm" / script, model, "--device", "cpu", "--ready-file", ready).strip()
    url = subprocess.run(["timeout", "30", "cat", ready], capture_output=True, text=True).stdout.strip()
    assert url == "http://0.0.0.0:8000", log.read_text()
    answer = slurm.run(bundle / "bin/chorale", "submit", "--url", f"http://{ADDRESSES['n1']}:8000", "--prompt", JOB["prompt"], "--max-tokens", "16",
                       "--temperature", "0", "--json", host="n2")
    assert json.loads(answer)["response"]["choices"][0]["text"] == expected[0]["text"]

    slurm.run("scancel", "--batch", "--signal=TERM", job)  # as --signal=B:TERM@120 does before the time limit
    slurm.run("sh", "-c", f"until scontrol --oneliner show job {job} | grep -qE 'JobState=(COMPLETED|FAILED|CANCELLED)'; do :; done")
    state = slurm.run("scontrol", "--oneliner", "show", "job", job)
    assert "JobState=COMPLETED" in state and "ExitCode=0:0" in state, f"{state}\n{log.read_text()}"
