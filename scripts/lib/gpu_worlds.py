"""The part of scripts/gpu-check with several ranks: worlds under mpirun must give the answers of one rank, bit by bit, over each
communicator that there is; then Chorale's own benches on such ranks. With more ranks than GPUs, ranks share one.
"""
import contextlib
import json
import os
import random
import re
import select
import shutil
import signal
import subprocess
import threading
import time

import random_model
from gpu_runner import LEAST_SECONDS, NO_TIME, Child, outcome_of

WORLD_SECONDS, BENCH_SECONDS, READY_SECONDS = 300, 1200, 600
LAYOUTS = ("2x1", "1x2", "4x1", "2x2")  # those that NCCL and MPI are tried with on any number of GPUs
# NCCL takes ranks that share a GPU for ranks of several hosts when their host ids differ; then they talk over loopback. What the
# user set stays.
SHARED_GPU = {"NCCL_SOCKET_IFNAME": "lo", "NCCL_IB_DISABLE": "1", "NCCL_MAX_CTAS": "2", "NCCL_NVLS_ENABLE": "0"}
OWN_HOST_ID = 'export NCCL_HOSTID="${NCCL_HOSTID:-rank-$OMPI_COMM_WORLD_RANK}"; exec "$@"'
REFUSES_SHARED_GPU, CANNOT_SHARE = re.compile(r"Duplicate GPU detected", re.I), "this NCCL refuses several ranks on one GPU"
SIZES = {  # of the benches
    "cuda": {"engine": ["-p", "512", "-n", "128", "-b", "1,16,64", "-r", "3"], "scaling": ["-p", "512", "-n", "64", "-r", "2"],
             "serve": ["--num-requests", "256", "--concurrency", "64", "--prompt-len", "128", "--max-tokens", "64"],
             "comm": ["--sizes", "8K,32K,128K,512K,2M,16M"]},
    "emulator": {"engine": ["-p", "4", "-n", "2", "-b", "2", "-r", "1"], "scaling": ["-p", "4", "-n", "2", "-r", "1"],
                 "serve": ["--num-requests", "2", "--concurrency", "2", "--prompt-len", "4", "--max-tokens", "2"],
                 "comm": ["--sizes", "1K", "--iterations", "20"]},
}
MPI_AS_ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


def make_jobs(vocab):
    """Greedy and drawn, short prompts and one that crosses the attention's split of 256 keys, penalties, two choices."""
    source = random.Random(random_model.SEED)

    def prompt(length):
        return [source.randrange(3, vocab) for _ in range(length)]

    return [{"prompt": prompt(270), "max_tokens": 5, "temperature": 0},
            {"prompt": prompt(3), "max_tokens": 12, "temperature": 0, "logprobs": 3},
            {"prompt": prompt(17), "max_tokens": 10, "temperature": 0.9, "seed": 5, "top_p": 0.9, "top_k": 40},
            {"prompt": prompt(31), "max_tokens": 8, "temperature": 0.8, "seed": 6, "repetition_penalty": 1.2, "presence_penalty": 0.2},
            {"prompt": prompt(9), "max_tokens": 8, "temperature": 1.1, "seed": 7, "n": 2}]


def answers_in(output):
    return [line for line in output.splitlines() if line.startswith('{"index"')]


def difference(got, want):
    """Where the answers of two worlds part, in words."""
    for a, b in zip(got, want):
        a, b = json.loads(a), json.loads(b)
        for key in ("token_ids", "logprobs"):
            if a.get(key) != b.get(key):
                place = next((i for i, (x, y) in enumerate(zip(a[key], b[key])) if x != y), min(len(a[key]), len(b[key])))
                return f"job {a['index']} choice {a['choice']}: {key} differ from those of one rank at {place}"
        if a != b:
            return f"job {a['index']} choice {a['choice']} differs from that of one rank"
    return f"{len(got)} answers instead of {len(want)}"


class Worlds:
    """`runner` starts programs (gpu_runner.Runner), `folder` takes jobs, and models where `models` names no folder that keeps them."""

    def __init__(self, runner, folder, num_devices, has_nccl, models=None):
        self.runner, self.folder, self.num_devices, self.models = runner, folder, num_devices, models or folder
        self.chorale = runner.program(["{build}/chorale"])
        self.backends = ["mpi", *(["nccl"] if has_nccl else [])]

    def layouts(self):
        return [*LAYOUTS, *(["8x1", "4x2"] if self.num_devices >= 8 else [])]

    def shares(self, num_ranks):
        return self.runner.device == "cuda" and num_ranks > self.num_devices

    def mpirun(self, num_ranks, backend):
        command = [*self.runner.program(["{mpirun}"]), "--oversubscribe", "--bind-to", "none", "-n", str(num_ranks)]
        return [*command, "sh", "-c", OWN_HOST_ID, "sh"] if backend == "nccl" and self.shares(num_ranks) else command

    def environment(self, num_ranks, backend):
        shared = SHARED_GPU if backend == "nccl" and self.shares(num_ranks) else {}
        return {**MPI_AS_ROOT, **{name: os.environ.get(name, value) for name, value in shared.items()}}

    def device_flags(self, backend=None):
        return ["--device", self.runner.device, *(["--comm", backend] if backend else [])]

    def generate(self, layout, backend, extra=()):
        tp, pp = map(int, layout.split("x"))
        command = [] if tp * pp == 1 else self.mpirun(tp * pp, backend)
        command += [*self.chorale, "generate", "--model", self.model("tiny"), "--jobs", str(self.folder / "jobs.jsonl"), "--json", "--tp", str(tp),
                    "--pp", str(pp), "--max-model-len", "320", "--num-kv-blocks", "512", *extra,
                    *self.device_flags(backend if tp * pp > 1 else None)]
        return self.runner.run(command, WORLD_SECONDS, self.environment(tp * pp, backend))

    def path_of(self, shape):
        return self.models / f"chorale-random-{shape}"

    def model(self, shape):
        path = self.path_of(shape)
        if not path.exists():
            partial = path.with_name(path.name + ".part")
            try:
                random_model.write_model(partial, shape, self.runner.go_on)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)  # the disk may be full
                raise
            partial.rename(path)
        return str(path)

    def where(self, num_ranks):
        if self.runner.device != "cuda":
            return "emulated"
        return "on one GPU" if self.num_devices == 1 else f"on {min(num_ranks, self.num_devices)} GPUs"

    def check(self, layouts):
        """Rows of outcomes and their outputs: each layout over each communicator against one rank alone."""
        (self.folder / "jobs.jsonl").write_text("".join(json.dumps(job) + "\n" for job in make_jobs(2048)))
        code, output, seconds = self.generate("1x1", None, ("--max-num-seqs", "1"))
        want = answers_in(output)
        first = {"name": "world 1x1", "seconds": round(seconds, 1), **outcome_of(code, output, WORLD_SECONDS)}
        if code == 0 and not want:
            first.update(outcome="failed", reason="it printed no answers")
        yield first, output
        for layout in layouts if first["outcome"] == "passed" or code == NO_TIME else ():
            tp, pp = map(int, layout.split("x"))
            for backend in self.backends:
                code, output, seconds = self.generate(layout, backend)
                row = {"name": f"world {layout}" + (f" {backend}" if backend else "") + f" {self.where(tp * pp)}", "seconds": round(seconds, 1),
                       **outcome_of(code, output, WORLD_SECONDS)}
                if row["outcome"] == "failed" and code is not None and backend == "nccl" and self.shares(tp * pp) and REFUSES_SHARED_GPU.search(output):
                    row.update(outcome="skipped", reason=CANNOT_SHARE)
                elif code == 0 and answers_in(output) != want:
                    row.update(outcome="failed", reason=difference(answers_in(output), want))
                yield row, output

    # Benches that end by themselves give (name, command, environment); `serve` is apart.

    def sizes(self, kind):
        return SIZES[self.runner.device][kind]

    def counts(self):
        """Of ranks, in worlds with a GPU for each."""
        most = self.num_devices if self.runner.device == "cuda" else 2
        return [n for n in (1, 2, 4, 8) if n <= most]

    def bench_engine(self, shape):
        # What the fixed order costs shows beside the libraries' own, which want a GPU.
        answers = [[], ["--answer", "fast"]] if self.runner.device == "cuda" else [[]]
        for num in self.counts():
            for backend in self.backends if num > 1 else [None]:
                start = self.mpirun(num, backend) if num > 1 else []
                for answer in answers:
                    yield (" ".join(filter(None, [f"engine tp={num}", backend, *answer[1:]])),
                           [*start, *self.chorale, "bench", "engine", "--json", "--model", self.model(shape), "--tp", str(num), "--max-model-len", "1024",
                            *answer, *self.device_flags(backend), *self.sizes("engine")], self.environment(num, backend))

    def bench_comm(self, shape):
        """Needs no model; two ranks share a GPU that is alone."""
        for num in [n for n in self.counts() if n > 1] or [2]:
            for backend in self.backends:
                yield (" ".join(filter(None, [f"comm tp={num}", backend])),
                       [*self.mpirun(num, backend), *self.chorale, "bench", "comm", "--json", *self.device_flags(backend),
                        *self.sizes("comm")], self.environment(num, backend))

    def bench_scaling(self, shape):
        several = [n for n in self.counts() if n > 1]
        layouts = ",".join(["1x1", *(f"{n}x1" for n in several), *(f"1x{n}" for n in several if self.num_devices > 1)])
        flags = ["--device", self.runner.device]  # handed to bench engine
        yield ("scaling", [*self.chorale, "bench", "scaling", "--json", "--model", self.model(shape), "--layouts", layouts, "--out",
                           str(self.folder / "scaling"), *flags, *self.sizes("scaling")], MPI_AS_ROOT)

    def bench_serve(self, shape):
        """(exit code as of Runner.run, output) of the load on a server with one rank a GPU (two when emulated)."""
        self.runner.go_on()
        num = min(self.num_devices, 8) if self.runner.device == "cuda" else 2
        num = 1 << (num.bit_length() - 1)  # heads divide by powers of two
        backend = self.backends[-1]
        fifo = self.folder / "ready"
        with contextlib.suppress(FileNotFoundError):
            fifo.unlink()
        os.mkfifo(fifo)
        command = [*(self.mpirun(num, backend) if num > 1 else []), *self.chorale, "serve", "--model", self.model(shape), "--tp", str(num), "--port", "0",
                   "--ready-file", str(fifo), "--max-model-len", "1024", *self.device_flags(backend if num > 1 else None)]
        environment, log = self.environment(num, backend), self.folder / "serve.log"
        with log.open("w") as file:
            server = self.runner.start(command, environment, stdout=file, stderr=subprocess.STDOUT)
        begun = time.monotonic()
        try:
            url = first_line(fifo, server, min(READY_SECONDS, self.runner.left()))
            if not url:
                return NO_TIME if self.runner.left() < LEAST_SECONDS else 1, log.read_text(errors="replace")
            code, output, _ = self.runner.run([*self.chorale, "bench", "serve", "--url", url, "--json", *self.sizes("serve")], BENCH_SECONDS)
            server.send_signal(signal.SIGUSR1)
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(max(0, min(60, self.runner.left())))
            return code, output
        finally:
            self.runner.end(server)
            self.runner.children.append(Child(command, environment, server.returncode, time.monotonic() - begun, log.read_text(errors="replace"), ""))

    def has_room(self, shape):
        return self.path_of(shape).exists() or shutil.disk_usage(self.models).free > 1.5 * random_model.weight_bytes(shape)


def cannot_share(command, output):
    """Whether a world ended since its ranks share a GPU, which not every NCCL lets them."""
    return OWN_HOST_ID in command and REFUSES_SHARED_GPU.search(output) is not None


def first_line(fifo, process, seconds):
    """What is written to the fifo first; nothing when the process ends or the time passes before."""
    fd = os.open(fifo, os.O_RDWR)  # a writer of our own, so that the watcher can end the wait
    threading.Thread(target=lambda: (process.wait(), os.write(fd, b"\n")), daemon=True).start()
    ready, _, _ = select.select([fd], [], [], max(0, seconds))
    return os.read(fd, 4096).decode().strip() if ready else ""
