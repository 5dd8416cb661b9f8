"""What the launch scripts, manifests and documents say: shell that parses, flags that exist, ports, labels and counts that agree."""
import re
import shutil
import subprocess
from functools import cache

import pytest
from conftest import ROOT, run

SHELL = [p for p in [*(ROOT / "scripts").rglob("*"), ROOT / "tests/net/hosts", ROOT / "tests/e2e/run"]
         if p.is_file() and p.read_bytes()[:2] == b"#!" and re.match(r"#!\S*(/| )(ba)?sh\b", p.read_text().split("\n")[0])]
SPEAK_OF_CHORALE = [p for p in [*SHELL, *(ROOT / "scripts").rglob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "README.md"]]
K8S = ROOT / "scripts/k8s"


@cache
def help_of(command):
    done = run(*command.split(), "--help")
    return done.stdout if done.returncode == 0 else None


def commands_in(text):
    """(command, its flags) of each call of chorale in a script or in a document's code."""
    text = re.sub(r"\\\n\s*", " ", text)
    for line in text.splitlines():
        for match in re.finditer(r"(?:^|[\s`/])\"?(?:\$?chorale|build/release/chorale)\"? ((?:bench )?[a-z]+)([^#`|;&)\n]*)", line):
            yield match.group(1), re.findall(r"(?<=\s)--[a-z][a-z-]*", match.group(2))


@pytest.mark.parametrize("path", SHELL, ids=lambda p: str(p.relative_to(ROOT)))
def test_shell_parses(path):
    shell = "sh" if path.read_text().startswith("#!/bin/sh") else "bash"
    done = subprocess.run([shell, "-n", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", [p for p in SHELL if p.suffix == ".sbatch" or p.name == "bundle_start"], ids=lambda p: p.name)
def test_shellcheck(path):
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed: scripts/test installs it")
    done = subprocess.run(["shellcheck", "--severity=info", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_commands_and_flags_exist():
    unknown, seen = [], set()
    for path in SPEAK_OF_CHORALE:
        for command, flags in commands_in(path.read_text()):
            if help_of(command) is None:
                continue  # prose: "chorale and its peers"
            seen.add(command)
            known = set(re.findall(r"--[a-z][a-z-]+", help_of(command)))
            unknown += [f"{path.relative_to(ROOT)}: chorale {command} has no {flag}" for flag in flags if flag not in known]
    assert unknown == []
    assert {"serve", "worker", "submit", "doctor", "bench comm"} <= seen


def test_flags_are_found_in_commands():
    text = '"$chorale" serve --model M \\\n  --tp 2 # --not\nmpirun -n 2 chorale bench comm --sizes 8K; chorale worker --x\n'
    assert list(commands_in(text)) == [("serve", ["--model", "--tp"]), ("bench comm", ["--sizes"]), ("worker", ["--x"])]


@pytest.fixture(scope="module")
def manifest():
    yaml = pytest.importorskip("yaml")
    documents = list(yaml.safe_load_all((K8S / "chorale.yaml").read_text()))
    return {d["kind"]: d for d in documents}


def pod(manifest, kind):
    replica = manifest["MPIJob"]["spec"]["mpiReplicaSpecs"][kind]
    return replica, replica["template"]["metadata"]["labels"], replica["template"]["spec"], replica["template"]["spec"]["containers"][0]


def flags_of(container):
    return dict(argument.split("=", 1) for argument in container["args"])


def test_launcher_is_the_coordinator(manifest):
    _, labels, spec, container = pod(manifest, "Launcher")
    flags, service = flags_of(container), manifest["Service"]["spec"]
    assert container["command"][1:] == ["serve"]
    assert all(flag in help_of("serve") for flag in flags)
    port, = container["ports"]
    assert str(port["containerPort"]) == flags["--port"] == str(service["ports"][0]["port"]) and flags["--host"] == "0.0.0.0"
    assert container["readinessProbe"]["httpGet"] == {"path": "/health", "port": port["name"]}
    assert service["ports"][0]["targetPort"] == port["name"]
    assert service["selector"].items() <= labels.items()
    assert not service["selector"].items() <= pod(manifest, "Worker")[1].items()
    assert flags["--hostfile"] == "/etc/mpi/hostfile"  # where the operator puts it
    assert spec["terminationGracePeriodSeconds"] > int(flags["--drain-timeout"])


def test_counts_agree(manifest):
    job, (worker, _, _, container) = manifest["MPIJob"]["spec"], pod(manifest, "Worker")
    launcher = pod(manifest, "Launcher")[3]
    flags, slots = flags_of(launcher), job["slotsPerWorker"]
    assert int(flags["--tp"]) * int(flags["--pp"]) == slots * worker["replicas"]
    assert int(flags["--tp"]) <= slots
    assert container["resources"]["limits"]["nvidia.com/gpu"] == slots
    assert {"name": "OMPI_MCA_rmaps_base_mapping_policy", "value": f"ppr:{slots}:node"} in launcher["env"]


def test_workers_take_ssh_and_share_memory(manifest):
    job, (_, _, spec, container) = manifest["MPIJob"]["spec"], pod(manifest, "Worker")
    launcher = pod(manifest, "Launcher")[3]
    assert (manifest["MPIJob"]["apiVersion"], job["sshAuthMountPath"]) == ("kubeflow.org/v2beta1", "/root/.ssh")
    assert container["command"] == ["/usr/sbin/sshd", "-De"] and container["readinessProbe"]["tcpSocket"]["port"] == 22
    assert container["image"] == launcher["image"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert mounts["shm"] == "/dev/shm" and volumes["shm"]["emptyDir"]["medium"] == "Memory"
    assert mounts["models"] == {m["name"]: m["mountPath"] for m in launcher["volumeMounts"]}["models"]
    assert flags_of(launcher)["--model"].startswith(mounts["models"] + "/")


def test_image_holds_what_the_manifest_starts(manifest):
    text = (K8S / "Containerfile").read_text()
    assert "openssh-server" in text and "/run/sshd" in text
    program = pod(manifest, "Launcher")[3]["command"][0]
    assert f"{program} --version" in text  # so the image does not build without it
    assert pod(manifest, "Launcher")[3]["image"] in text
    version = re.search(r"project\(chorale VERSION (\S+)", (ROOT / "CMakeLists.txt").read_text()).group(1)
    assert pod(manifest, "Launcher")[3]["image"].endswith(":" + version)
