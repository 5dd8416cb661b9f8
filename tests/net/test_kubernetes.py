"""The launcher of scripts/k8s/chorale.yaml over hosts that look as the MPI Operator's pods do: sshd, domain names, its hostfile and variables."""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "e2e"))
from conftest import CHORALE, MPI_ENV, ROOT, generate, shared, wait_until_ready  # noqa: E402

yaml = pytest.importorskip("yaml")
HOSTS = ROOT / "tests/net/hosts"
JOB = {"prompt": "Once upon a time", "max_tokens": 16, "temperature": 0}


def hosts(*args):
    return subprocess.run([HOSTS, *map(str, args)], capture_output=True, text=True, timeout=60)


@pytest.fixture
def pods():
    """n1 for the launcher, n2 and n3 for the workers, which are known by domain names only."""
    if (possible := hosts("check")).returncode == 77:
        pytest.skip(possible.stdout.strip())
    hosts("down")
    assert hosts("up", 3).returncode == 0
    try:
        names = Path("/run/chorale-hosts/hosts")  # mounted in each host as /etc/hosts, so it must stay the same file
        known = names.read_text()
        for k in (2, 3):
            known = known.replace(f" n{k}\n", f" chorale-worker-{k - 2}.chorale.default.svc\n")
        names.write_text(known)
        yield
    finally:
        hosts("down")


def test_launcher_serves_on_all_workers(pods, tmp_path):
    job = next(d for d in yaml.safe_load_all((ROOT / "scripts/k8s/chorale.yaml").read_text()) if d["kind"] == "MPIJob")["spec"]
    replicas = job["mpiReplicaSpecs"]["Worker"]["replicas"]
    launcher = job["mpiReplicaSpecs"]["Launcher"]["template"]["spec"]["containers"][0]
    model = shared("models/stories260K")
    hostfile, ready = tmp_path / "hostfile", tmp_path / "ready"
    hostfile.write_text("".join(f"chorale-worker-{k}.chorale.default.svc slots={job['slotsPerWorker']}\n" for k in range(replicas)))
    os.mkfifo(ready)
    here = {"/opt/chorale/bin/chorale": str(CHORALE), "--hostfile=/etc/mpi/hostfile": f"--hostfile={hostfile}"}
    command = [f"--model={model}" if a.startswith("--model=") else here.get(a, a) for a in launcher["command"] + launcher["args"]]
    settings = dict(line.split("=", 1) for line in hosts("env").stdout.splitlines())
    operator = {"K_MPI_JOB_ROLE": "launcher", "OMPI_MCA_orte_keep_fqdn_hostnames": "true", "OMPI_MCA_orte_default_hostfile": str(hostfile),
                "OMPI_MCA_plm_rsh_args": "-o ConnectionAttempts=10"}
    own = {variable["name"]: variable["value"] for variable in launcher["env"] if "value" in variable}
    environment = {**os.environ, **MPI_ENV, **settings, **operator, **own}
    with open(tmp_path / "log", "w+") as log:
        process = subprocess.Popen([HOSTS, "run", "n1", *command, "--device=cpu", f"--ready-file={ready}"], env=environment, stdout=log,
                                   stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True)
        try:
            wait_until_ready(process, ready, tmp_path / "log", 60)
            done = subprocess.run([HOSTS, "run", "n3", CHORALE, "submit", "--url", "http://10.93.0.11:8000", "--prompt", JOB["prompt"],
                                   "--max-tokens", "16", "--temperature", "0", "--json"], capture_output=True, text=True, timeout=60)
            ranks = [line for line in (tmp_path / "log").read_text().splitlines() if " joined from " in line]
            environments = [Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") for pid in map(int, filter(str.isdigit, os.listdir("/proc")))
                            if b"worker\0--coordinator" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        finally:
            os.killpg(process.pid, 9)
            process.wait()
    assert done.returncode == 0, done.stderr
    expected, _, _ = generate(model, [JOB], tmp_path, "--device", "cpu")
    assert json.loads(done.stdout)["response"]["choices"][0]["text"] == expected[0]["text"]
    # Ranks 0 to 3 on the first worker and 4 to 7 on the second, with NCCL's settings.
    num = job["slotsPerWorker"]
    for rank in range(num * replicas):
        assert any(f"rank {rank} joined from n{2 + rank // num}:" in line for line in ranks), ranks
    with_nccl = [e for e in environments if b"NCCL_SOCKET_IFNAME=eth0" in e and any(v.startswith(b"OMPI_COMM_WORLD_RANK=") for v in e)]
    assert len(with_nccl) == num * replicas
