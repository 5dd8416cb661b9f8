"""scripts/gpu-check without a GPU: what it packs runs elsewhere with python3 alone, ranks on the emulator; what is wrong is found and said."""
import json
import os
import re
import shutil
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
from conftest import CHORALE, MPI_ENV, ROOT, shared

sys.path.insert(0, str(ROOT / "scripts/lib"))
import gpu_check  # noqa: E402
import gpu_pack  # noqa: E402
import gpu_worlds  # noqa: E402

FAKE_NCCL = CHORALE.parent / "fake_libraries/libfake_nccl.so"


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    """What --pack made, unpacked from its tarball elsewhere."""
    for tool in ("patchelf", "ompi_info"):
        if not shutil.which(tool):
            pytest.skip(f"{tool} is not installed: scripts/test installs it")
    folder = tmp_path_factory.mktemp("made") / "gpu-pack"
    listed = gpu_check.list_build(CHORALE.parent)
    # Two tests stand for all of them here: their own entries run every one.
    listed["tests"] = [t for t in listed["tests"] if t["name"] in ("gpu.CudaDevice", "mpi.comm_2_ranks")]
    listed["benches"] = []
    if missing := [p for p in gpu_pack.programs_of(listed) if not (CHORALE.parent / p).exists()]:
        pytest.skip(f"not built: {', '.join(missing)}")
    assert len(listed["tests"]) == 2
    (CHORALE.parent / "gpu-check-test.json").write_text(json.dumps(listed))
    done = subprocess.run([sys.executable, ROOT / "scripts/lib/gpu_check.py", "pack", "--manifest", CHORALE.parent / "gpu-check-test.json", "--into",
                           folder, "--models", shared("models/stories260K")], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    tarball = folder.with_name("gpu-pack.tar.gz")
    sizes = dict(re.findall(r"^(folder|tarball) +([0-9.]+) MiB ", done.stdout, re.M))
    assert abs(float(sizes["tarball"]) * 2**20 - tarball.stat().st_size) < 2**20 and float(sizes["folder"]) > float(sizes["tarball"]), done.stdout
    for program in gpu_pack.programs_of(listed):
        assert "no symbols" in subprocess.run(["nm", folder / "libexec" / program], capture_output=True, text=True).stderr, "not stripped"
    shutil.rmtree(folder)
    there = tmp_path_factory.mktemp("unpacked")
    subprocess.run(["tar", "xzf", tarball, "-C", there], check=True)
    return there / "gpu-pack"


def run_pack(pack, results, *flags, **environment):
    """As on a machine that has no Open MPI in its PATH."""
    folder = results / "bin"
    folder.mkdir(parents=True)
    (folder / "python3").symlink_to(os.path.realpath(sys.executable))
    for tool in ("sh", "env", "dirname", "readlink", "ssh"):
        (folder / tool).symlink_to(shutil.which(tool))
    return subprocess.run([pack / "gpu-check", "--device", "emulator", "--results", results, *flags], capture_output=True, text=True, timeout=300,
                          env={"PATH": str(folder), "HOME": str(results), **environment})


def results_in(folder):
    path, = folder.glob("*-emulator.json")
    return json.loads(path.read_text()), path.with_suffix(".md").read_text()


def test_a_packed_build_checks_worlds_and_benches(pack, tmp_path):
    done = run_pack(pack, tmp_path, **({"CHORALE_NCCL_PATH": str(FAKE_NCCL)} if FAKE_NCCL.exists() else {}))
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    results, table = results_in(tmp_path)
    assert results["mpirun"] == f"{pack}/bin/mpirun"
    outcomes = {row["name"]: row["outcome"] for row in results["tests"]}
    skipped = {name for name, outcome in outcomes.items() if outcome == "skipped"}
    assert set(outcomes.values()) == {"passed", "skipped"}
    assert skipped - {"worlds over NCCL"} == {"compute-sanitizer", "peer sdpa", "peer transformers", "peer vllm"}
    assert done.stdout.splitlines()[-1].startswith(f"passed, {len(skipped)} parts skipped: ")
    assert {"gpu.CudaDevice", "mpi.comm_2_ranks", "world 1x1"} <= outcomes.keys()
    for model in ("stories260K", "tiny"):  # the checkpoint that was packed, and random weights
        for variant in ("alone", "4 together", "chunks of 7 tokens", "few blocks", "no graphs", "tp=2", "against the CPU"):
            assert outcomes[f"{model}: {variant}"] == "passed"
        against, = (row for row in results["benches"] if row["bench"].startswith(f"{model}: answers"))
        assert against["tokens"] > 10 and 0 <= against["largest difference"] < against["tolerance"]
    assert against["largest difference"] > 0, "tensor cores are compared with the CPU, which rounds no q and p"
    for layout in gpu_worlds.LAYOUTS:
        assert any(name.startswith(f"world {layout} ") for name in outcomes), outcomes
    comm = {row["test"]: row for row in results["benches"] if row["bench"].startswith("comm")}
    assert "all_reduce emulator/shared_memory 1 KiB" in comm and all(row["tp"] == 2 and row["read_gbps"] is None for row in comm.values())
    if FAKE_NCCL.exists():
        assert {"world 4x1 mpi emulated", "world 4x1 nccl emulated"} <= outcomes.keys()
        assert {"all_reduce emulator/nccl 1 KiB", "nccl_all_reduce emulator/nccl 1 KiB", "all_reduce_graph emulator/nccl 1 KiB"} <= comm.keys()
    benches = {row["bench"].split()[0] for row in results["benches"]}
    assert benches >= {"engine", "comm", "serve", "scaling"}
    engine = [row for row in results["benches"] if row["bench"].startswith("engine")]
    assert all("emulator" in row["class"] and row["fraction"] is None for row in engine)
    assert any(row["test"].endswith(" gap") and 0 <= row["device_idle"] <= 1 for row in engine)
    assert "## Benches" in table and "| world 2x2" in table


@pytest.mark.parametrize("flags,word", [(["--device", "tpu"], "gpu-check: error: argument --device: invalid choice: 'tpu'"), (["--nonsense"], "--nonsense"),
                                        (["--shapes", "9b"], "--shapes 9b: some of tiny"), (["--models", "/nowhere"], "--models: there is no /nowhere")])
def test_wrong_usage_names_what_people_typed(pack, tmp_path, flags, word):
    done = run_pack(pack, tmp_path, *flags)
    assert done.returncode in (1, 2) and word in done.stderr, done.stderr
    assert "--manifest" not in done.stdout + done.stderr and "usage: gpu-check run" not in done.stderr


def test_models_in_a_scratch_folder_are_kept(pack, tmp_path):
    scratch, written = tmp_path / "scratch", set()
    scratch.mkdir()
    for folder in ("first", "second"):
        done = run_pack(pack, tmp_path / folder, "--only", "worlds", "--layouts", "2x1", "--scratch", scratch)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        written.add((scratch / "chorale-random-tiny/model.safetensors").stat().st_mtime_ns)
    assert len(written) == 1 and [p.name for p in scratch.iterdir()] == ["chorale-random-tiny"]


def test_a_world_that_fails_is_named(pack, tmp_path):
    done = run_pack(pack, tmp_path, "--only", "worlds", "--layouts", "1x5")
    assert done.returncode == 1 and done.stdout.splitlines()[-1].startswith("failed: world 1x5"), done.stdout
    row = next(row for row in results_in(tmp_path)[0]["tests"] if row["name"].startswith("world 1x5"))
    assert row["outcome"] == "failed" and "layers" in row["reason"], row


class Scripted:
    """Stands for gpu_check.Runner: one rank and several answer as told."""
    device = "emulator"

    def __init__(self, alone, together):
        self.alone, self.together, self.commands = alone, together, []

    def program(self, command):
        return command

    def go_on(self):
        pass

    def run(self, command, seconds, extra=()):
        if "--help" in command:
            return 0, "--device --comm", 0.0
        self.commands.append((command, dict(extra)))
        return (self.together if "{mpirun}" in command else self.alone) + (0.1,)


def answer(*token_ids, logprob=-1.0):
    return json.dumps({"index": 0, "choice": 0, "token_ids": token_ids, "logprobs": [logprob] * len(token_ids)})


def check(runner, folder, num_devices=1, layouts=("2x1",), has_nccl=True):
    worlds = gpu_worlds.Worlds(runner, folder, num_devices, has_nccl)
    return [row for row, _ in worlds.check(layouts)]


@pytest.mark.parametrize("together,reason", [
    (answer(5, 7, 9), "token_ids differ from those of one rank at 2"),
    (answer(5, 7, 8, logprob=-1.5), "logprobs differ from those of one rank at 0"),
    ("", "0 answers instead of 1")])
def test_other_answers_fail(tmp_path, together, reason):
    rows = check(Scripted((0, answer(5, 7, 8)), (0, together)), tmp_path)
    assert [row["outcome"] for row in rows] == ["passed", "failed", "failed"] and reason in rows[1]["reason"]


def test_worlds_that_end_badly_fail(tmp_path):
    one = (0, answer(5))
    assert check(Scripted(one, (3, "x\nerror: lost rank 1\n")), tmp_path)[1]["reason"] == "error: lost rank 1"
    assert "not done after" in check(Scripted(one, (None, "")), tmp_path)[1]["reason"]
    assert [row["outcome"] for row in check(Scripted((1, "error: no device"), one), tmp_path)] == ["failed"]


def test_ranks_share_a_gpu_by_host_ids_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "eth7")
    monkeypatch.delenv("NCCL_HOSTID", raising=False)
    runner = Scripted((0, answer(5)), (1, "ncclInvalidUsage: Duplicate GPU detected : rank 0 and rank 1"))
    runner.device = "cuda"
    mpi, nccl = check(runner, tmp_path)[1:]
    assert mpi["outcome"] == "failed" and nccl["outcome"] == "skipped" and "refuses" in nccl["reason"]
    plain, shared = runner.commands[1:]
    assert gpu_worlds.OWN_HOST_ID not in plain[0] and not any(name.startswith("NCCL") for name in plain[1])
    assert gpu_worlds.OWN_HOST_ID in shared[0]
    assert shared[1].items() >= {"NCCL_SOCKET_IFNAME": "eth7", "NCCL_IB_DISABLE": "1", "NCCL_NVLS_ENABLE": "0", "NCCL_MAX_CTAS": "2"}.items()
    told = subprocess.run(["sh", "-c", gpu_worlds.OWN_HOST_ID, "sh", "sh", "-c", "echo $NCCL_HOSTID"], capture_output=True, text=True,
                          env={**os.environ, "OMPI_COMM_WORLD_RANK": "3"}).stdout
    assert told == "rank-3\n"

    several = Scripted((0, answer(5)), (0, answer(5)))
    several.device = "cuda"
    rows = check(several, tmp_path, num_devices=2)
    assert [row["name"] for row in rows[1:]] == ["world 2x1 mpi on 2 GPUs", "world 2x1 nccl on 2 GPUs"]
    assert all(gpu_worlds.OWN_HOST_ID not in command and "NCCL_IB_DISABLE" not in extra for command, extra in several.commands)


def test_benches_put_the_fixed_order_beside_the_libraries_own(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_worlds.Worlds, "model", lambda self, shape: f"model of {shape}")
    runner = Scripted((0, ""), (0, ""))
    runner.run = lambda command, seconds, extra=(): (0, "--device --comm --answer", 0.0)
    runner.device = "cuda"
    worlds = gpu_worlds.Worlds(runner, tmp_path, 2, has_nccl=True)
    names = [name for benches in (worlds.bench_engine, worlds.bench_comm, worlds.bench_scaling) for name, _, _ in benches("8b")]
    assert names == ["engine tp=1", "engine tp=1 fast", "engine tp=2 mpi", "engine tp=2 mpi fast", "engine tp=2 nccl", "engine tp=2 nccl fast",
                     "comm tp=2 mpi", "comm tp=2 nccl", "scaling"]
    _, command, _ = list(worlds.bench_comm("8b"))[-1]
    assert command[:command.index("--sizes")] == [*worlds.mpirun(2, "nccl"), "{build}/chorale", "bench", "comm", "--json", "--device", "cuda", "--comm",
                                                  "nccl"]
    assert [name for name, _, _ in gpu_worlds.Worlds(runner, tmp_path, 4, has_nccl=True).bench_comm("8b")] == [
        f"comm tp={num} {backend}" for num in (2, 4) for backend in ("mpi", "nccl")]
    refusal = "ncclInvalidUsage: Duplicate GPU detected : rank 0 and rank 1"
    shared = {name: command for name, command, _ in gpu_worlds.Worlds(runner, tmp_path, 1, has_nccl=True).bench_comm("8b")}
    assert {name: gpu_worlds.cannot_share(command, refusal) for name, command in shared.items()} == {"comm tp=2 mpi": False, "comm tp=2 nccl": True}
    rows = []
    noting = types.SimpleNamespace(results=types.SimpleNamespace(add_figures=lambda *_, **__: None), add=lambda section, row, output: rows.append(row))
    for name, command in shared.items():
        gpu_check.Check.add_bench(noting, name, 1, refusal, time.monotonic(), 600, command)
    assert [row["outcome"] for row in rows] == ["failed", "skipped"] and "refuses" in rows[1]["reason"]
    command = list(worlds.bench_comm("8b"))[-1][1]  # a GPU each
    assert not gpu_worlds.cannot_share(shared["comm tp=2 nccl"], "error: lost rank 1") and not gpu_worlds.cannot_share(command, refusal)
    runner.device = "emulator"
    assert not any("fast" in name for name, _, _ in gpu_worlds.Worlds(runner, tmp_path, 1, has_nccl=False).bench_engine("tiny"))


def test_without_a_gpu_it_is_skipped():
    if any(Path(p).exists() for p in ("/dev/nvidiactl", "/dev/dxg")):
        pytest.skip("there is a GPU here")
    done = subprocess.run([ROOT / "scripts/gpu-check", "--skip", "tests"], capture_output=True, text=True, env={**os.environ, **MPI_ENV})
    assert done.returncode == 77 and re.search("^skipped: no NVIDIA GPU", done.stdout)
