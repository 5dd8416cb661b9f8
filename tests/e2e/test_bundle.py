"""scripts/bundle in a root that has /bin/sh, glibc and nothing else: no packages, no Python, no Open MPI, no network but loopback."""
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import CHORALE, MPI_ENV, ROOT, generate, shared

sys.path.insert(0, str(ROOT / "scripts/lib"))
import bundle as bundle_script  # noqa: E402

HOSTS = ROOT / "tests/net/hosts"
GLIBC = ("ld-linux-x86-64.so.2", "libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libutil.so.1", "libresolv.so.2")
DEBIAN_12 = (2, 36)
JOB = {"prompt": "Once upon a time", "max_tokens": 16, "temperature": 0}

# Becomes a machine of its own: the root is $1, with the file systems of a container; of the network only loopback exists. Runs $2.
ENTER = r"""
mount --bind "$1" "$1" && cd "$1" &&
mount -t proc proc proc && mount -t sysfs -o ro sysfs sys && mount -t tmpfs tmpfs tmp && mount -t tmpfs tmpfs dev && mkdir dev/shm dev/pts &&
mount -t tmpfs tmpfs dev/shm && mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts && ln -s pts/ptmx dev/ptmx || exit 99
for node in null zero random urandom; do : >dev/$node && mount --bind /dev/$node dev/$node || exit 99; done
hostname node1
exec chroot . /bin/env -i PATH=/bin HOME=/tmp OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 /bin/sh -c "ip link set lo up; $2"
"""
# Serves with the command $serve, prints the seconds until it was ready and one answer, and drains. Fails with the log.
SERVE_AND_ASK = r"""
mkfifo /tmp/ready
read -r start idle </proc/uptime
$serve --model /model --device cpu --host 127.0.0.1 --port 8000 --ready-file /tmp/ready >/tmp/log 2>&1 &
server=$!
url=$(timeout 30 cat /tmp/ready)
[ -n "$url" ] || { cat /tmp/log; exit 1; }
read -r ready idle </proc/uptime
echo "ready $start $ready"
chorale submit --url "$url" --prompt "Once upon a time" --max-tokens 16 --temperature 0 --json || { cat /tmp/log; exit 1; }
ls -l /proc/[0-9]*/exe | sed -n 's/.* -> //p' | sort | uniq -c
kill -USR1 $server
wait $server || { echo "serve ended with $?"; cat /tmp/log; exit 1; }
"""


def bundle(*flags):
    return subprocess.run([ROOT / "scripts/bundle", "--build", CHORALE.parent, *map(str, flags)], capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder, its tarball, and what the script printed."""
    for tool in ("patchelf", "readelf", "ompi_info"):
        if not shutil.which(tool):
            pytest.skip(f"{tool} is not installed: scripts/test installs it")
    out = tmp_path_factory.mktemp("bundle")
    done = bundle("--out", out)
    assert done.returncode == 0, done.stderr
    folder, = (p for p in out.iterdir() if p.is_dir())
    return folder, folder.with_name(folder.name + ".tar.gz"), done.stdout


class BareRoot:
    def __init__(self, path):
        self.path = path

    def run(self, script, seconds=60):
        return subprocess.run(["unshare", "--mount", "--uts", "--ipc", "--pid", "--net", "--fork", "--kill-child", "/bin/sh", "-c", ENTER, "sh",
                               self.path, script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=seconds,
                              stdin=subprocess.DEVNULL)


@pytest.fixture
def bare(made, tmp_path):
    """A root with busybox, glibc, a model in /model and the bundle unpacked in /opt/chorale."""
    busybox = shutil.which("busybox")
    if not busybox or subprocess.run(["ldd", busybox], capture_output=True).returncode == 0:
        pytest.skip("no static busybox: scripts/test installs it (busybox-static)")
    if os.geteuid() != 0 or subprocess.run(["unshare", "--mount", "--net", "--pid", "--fork", "true"], capture_output=True).returncode:
        pytest.skip("this kernel or container allows no namespaces, or not to this user")
    root, libraries = tmp_path / "root", "lib/x86_64-linux-gnu"
    for folder in ("bin", "proc", "sys", "dev", "tmp", "etc", "opt", "srv", "lib64", libraries, "usr/local"):
        (root / folder).mkdir(parents=True)
    shutil.copy(busybox, root / "bin/busybox")
    for applet in subprocess.run([busybox, "--list"], capture_output=True, text=True).stdout.split():
        if applet not in ("busybox", "dpkg", "dpkg-deb", "rpm"):
            (root / "bin" / applet).symlink_to("busybox")
    for name in GLIBC:
        shutil.copy(Path("/") / libraries / name, root / libraries / name)
    (root / "lib64" / GLIBC[0]).symlink_to(f"../{libraries}/{GLIBC[0]}")
    (root / "etc/passwd").write_text("root:x:0:0:root:/tmp:/bin/sh\n")
    (root / "etc/hosts").write_text("127.0.0.1 localhost node1\n")
    shutil.copytree(shared("models/stories260K"), root / "model")
    shutil.copy(made[1], root / "bundle.tar.gz")
    machine = BareRoot(root)
    unpacked = machine.run("cd /opt && tar xzf /bundle.tar.gz && mv chorale-* chorale && cd chorale && sha256sum -c -s SHA256SUMS")
    assert unpacked.returncode == 0, unpacked.stdout
    return machine


def answer_in(output):
    line, = (line for line in output.splitlines() if line.startswith("{"))
    return json.loads(line)["response"]["choices"][0]["text"]


def expected_answer(tmp_path):
    results, _, _ = generate(shared("models/stories260K"), [JOB], tmp_path, "--device", "cpu")
    return results[0]["text"]


def test_is_small_and_whole(made):
    folder, tarball, printed = made
    assert bundle_script.size_of(folder) < 60 * 2**20 and tarball.stat().st_size < 60 * 2**20
    assert bundle_script.verify(folder) <= DEBIAN_12
    assert re.search(r"executable +\d.*ICU +\d.*folder +\d.*tarball +\d", printed, re.S), printed


def test_refuses_what_is_too_large_or_not_whole(made, tmp_path):
    refused = bundle("--out", tmp_path, "--limit", 5, "--folder-only")
    assert refused.returncode == 1 and "over the limit of 5 MiB" in refused.stderr
    assert list(tmp_path.iterdir()) == []
    (tmp_path / made[0].name).mkdir()
    (tmp_path / made[0].name / "thesis.txt").write_text("mine")
    assert "holds other things" in bundle("--out", tmp_path, "--folder-only").stderr

    damaged = tmp_path / "damaged"
    shutil.copytree(made[0], damaged, symlinks=True)
    (damaged / "lib/shared/libpmix.so.2").unlink()
    with pytest.raises(SystemExit, match="libpmix.so.2, which the bundle lacks"):
        bundle_script.verify(damaged)


def test_a_bare_root_serves_on_two_ranks(bare, made, tmp_path, capsys):
    done = bare.run("command -v python3 mpirun; ls /usr/local; cd /opt/chorale; libexec/chorale --version && bin/chorale doctor")
    assert done.returncode == 0 and done.stdout.startswith("chorale "), done.stdout
    assert re.search(r"^ok +mpi +mpirun \(Open MPI\)", done.stdout, re.M), done.stdout

    started = bare.run("PATH=/opt/chorale/bin:$PATH; serve='mpirun --oversubscribe -n 2 chorale serve --tp 2'" + SERVE_AND_ASK)
    assert started.returncode == 0, started.stdout
    assert answer_in(started.stdout) == expected_answer(tmp_path)
    assert re.search(r" 2 /opt/chorale/libexec/chorale\n", started.stdout), started.stdout
    since, ready = map(float, re.search(r"^ready (\S+) (\S+)", started.stdout, re.M).groups())
    with capsys.disabled():
        print(f"\nbundle of {bundle_script.mib(bundle_script.size_of(made[0]))}, tarball of {bundle_script.mib(made[1].stat().st_size)}; "
              f"2 ranks in a bare root ready after {ready - since:.2f} s")


def test_takes_the_newer_cpp_runtime(bare, made):
    """A node's plugins, which need its newer one, are loaded into the same process."""
    loaded = "LD_DEBUG=files /opt/chorale/bin/chorale --version 2>&1 | sed -n 's/.*calling init: //p' | grep -E 'libstdc|libgcc'"
    assert set(bare.run(loaded).stdout.split()) == {"/opt/chorale/libexec/../lib/shared/libstdc++.so.6",
                                                    "/opt/chorale/libexec/../lib/shared/libgcc_s.so.1"}
    system = bare.path / "lib/x86_64-linux-gnu"
    shutil.copy(made[0] / "lib/shared/libstdc++.so.6", system / "libstdc++.so.6.0.99")
    (system / "libstdc++.so.6").symlink_to("libstdc++.so.6.0.99")
    shutil.copy(made[0] / "lib/shared/libgcc_s.so.1", system)
    assert set(bare.run(loaded).stdout.split()) == {"/lib/x86_64-linux-gnu/libstdc++.so.6", "/lib/x86_64-linux-gnu/libgcc_s.so.1"}


def test_runs_after_a_move_to_a_path_with_spaces(bare, tmp_path):
    """And by a link in PATH; here the coordinator starts mpirun."""
    done = bare.run("mkdir '/srv/a place' && mv /opt/chorale '/srv/a place/' && ln -s '/srv/a place/chorale/bin/chorale' /bin/chorale\n"
                    "serve='chorale serve --tp 2'" + SERVE_AND_ASK)
    assert done.returncode == 0, done.stdout
    assert answer_in(done.stdout) == expected_answer(tmp_path)
    assert re.search(r" 3 /srv/a place/chorale/libexec/chorale\n", done.stdout), done.stdout


@pytest.mark.parametrize("lost", ["lib/shared/libmpi.so.40", "lib/openmpi/mca_ess_hnp.so", "lib/shared/libstdc++.so.6"])
def test_the_bare_root_lends_nothing(bare, lost):
    """What these tests show would show nothing if the root had an Open MPI or a C++ library of its own."""
    done = bare.run(f"rm -r /opt/chorale/{lost} && /opt/chorale/bin/mpirun -n 2 /opt/chorale/bin/chorale --version")
    assert done.returncode not in (0, 99) and "\nchorale 0" not in done.stdout, done.stdout


def test_normalises_text_with_the_small_icu_data(made, tmp_path):
    tokenizer = json.loads(shared("models/stories260K/tokenizer.json").read_text())
    tokenizer["normalizer"] = {"type": "NFKC"}
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(tokenizer))
    ids = [subprocess.run([chorale, "tokenize", "--model", path], input=json.dumps(text), capture_output=True, text=True, check=True).stdout
           for chorale in (CHORALE, made[0] / "bin/chorale") for text in ("\ufb01ne \u2460 \uff21", "fine 1 A")]
    assert len(set(ids)) == 1 and ids[0].startswith("["), ids


def test_starts_its_daemons_on_other_hosts(made, tmp_path):
    possible = subprocess.run([HOSTS, "check"], capture_output=True, text=True)
    if possible.returncode == 77:
        pytest.skip(possible.stdout.strip())
    subprocess.run([HOSTS, "down"], capture_output=True)
    subprocess.run([HOSTS, "up", "2"], check=True, capture_output=True, timeout=60)
    try:
        hostfile = tmp_path / "hostfile"
        hostfile.write_text(subprocess.run([HOSTS, "file", "1"], capture_output=True, text=True, check=True).stdout)
        settings = dict(line.split("=", 1) for line in subprocess.run([HOSTS, "env"], capture_output=True, text=True).stdout.splitlines())
        # Each rank tells its host and the program that started it, then meets the other through Open MPI.
        tell = 'echo "$(hostname) $(readlink /proc/$PPID/exe)"; exec chorale bench comm --device cpu --backend mpi --sizes 1K --json'
        done = subprocess.run([HOSTS, "run", "n1", made[0] / "bin/mpirun", "--hostfile", hostfile, "--map-by", "ppr:1:node", "-n", "2", "sh", "-c",
                               tell], env={**os.environ, **MPI_ENV, **settings}, capture_output=True, text=True, timeout=60)
    finally:
        subprocess.run([HOSTS, "down"], capture_output=True)
    assert done.returncode == 0, done.stderr
    assert f"n1 {made[0]}/libexec/mpirun" in done.stdout and f"n2 {made[0]}/libexec/orted" in done.stdout, done.stdout
    assert '"ranks":2' in done.stdout
