"""Runs Chorale and llama.cpp in turn and prints the table of ratios. Called by scripts/bench-peers, in the venv that it makes.

Each run of llama.cpp stands between two runs of Chorale, which also measure the machine's read bandwidth; where that differs between
the two by more than 1.3, the machine changed its state and the pair is dropped (virtual machines flip between paths to memory).
"""
import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

STATE_FACTOR = 1.3  # as in coordinator/bench/statistics.h
PROMPT, NEW, STREAMS = 512, 128, 8
OVERHEAD_STREAMS = 16
PP, TG, TGX = f"pp{PROMPT}", f"tg{NEW}", f"tg{NEW}x{STREAMS}"


def run(command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=3600)
    if done.returncode != 0:
        sys.exit(f"error: exit code {done.returncode} of {' '.join(map(str, command))}\n{done.stderr[-3000:]}")
    for line in done.stderr.splitlines():
        if "repetitions" in line:  # what bench engine dropped
            print(line, file=sys.stderr)
    return done.stdout


def mpirun(ranks):
    return ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", ranks]


class Peers:
    def __init__(self, arguments):
        self.chorale, self.model, self.gguf = arguments.chorale, arguments.model, arguments.gguf
        self.threads = arguments.threads

    def engine(self, threads, tp=1, prompt=PROMPT, new=NEW, streams=f"1,{STREAMS}", repetitions=2):
        """{test: row}"""
        out = run((mpirun(tp) if tp > 1 else []) + [
            self.chorale, "bench", "engine", "--model", self.model, "--dtype", "bf16", "--threads", threads, "--tp", tp,
            "-p", prompt, "-n", new, "-b", streams, "-r", repetitions, "--json"])
        return {row["test"]: row for row in json.loads(out)}

    def llama(self):
        """{test: tok/s}"""
        out = run([sys.executable, Path(__file__).with_name("llama_peer.py"), "--model", self.gguf, "--threads", self.threads,
                   "-p", PROMPT, "-n", NEW, "-b", f"1,{STREAMS}", "-r", 2])
        return {test: statistics.median(rates) for test, rates in json.loads(out).items()}

    def all_reduce(self):
        out = run(mpirun(2) + [self.chorale, "bench", "comm", "--backend", "shared_memory", "--sizes", "8K", "--json"])
        return next(row for row in json.loads(out) if row["test"].startswith("all_reduce"))


def busy_percent(seconds):
    """Share of all cores' time that was used during the next seconds."""
    def read():
        with open("/proc/stat") as file:
            times = [int(word) for word in file.readline().split()[1:]]
        return sum(times), times[3] + times[4]  # idle, iowait
    total, idle = read()
    time.sleep(seconds)
    total_after, idle_after = read()
    return 100 * (1 - (idle_after - idle) / max(1, total_after - total))


def same_state(a, b):
    return max(a, b) <= STATE_FACTOR * min(a, b)


def median_ratio(runs, others, test):
    """runs[i], others[i], runs[i + 1] were measured in this order. (ratio, chorale, other) as medians over the pairs that count."""
    triples = []
    for before, other, after in zip(runs, others, runs[1:]):
        if same_state(before[test]["read_gbps"], after[test]["read_gbps"]):
            ours = (before[test]["p50"] + after[test]["p50"]) / 2
            triples.append((ours / other[test], ours, other[test]))
    if not triples:
        return None
    return [statistics.median(column) for column in zip(*triples)]


class Table:
    HEADER = ["", "Chorale", "beside it", "ratio", "wanted", "met"]

    def __init__(self):
        self.rows = []

    def add(self, what, ours, other, ratio, wanted, met):
        self.rows.append([what, ours, other, ratio, wanted, {True: "yes", False: "**no**", None: ""}[met]])

    def add_ratio(self, what, ratio, other_name, wanted):
        if ratio is None:
            self.add(what, "-", "-", "no steady pair", f">= {wanted}" if wanted else "", None)
            return
        value, ours, other = ratio
        self.add(what, f"{ours:.2f} tok/s", f"{other_name} {other:.2f} tok/s", f"**{value:.2f}**",
                 f">= {wanted}" if wanted else "", value >= wanted if wanted else None)

    def __str__(self):
        lines = [self.HEADER, ["---"] * len(self.HEADER), *self.rows]
        return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def measure(peers, rounds):
    whole, split, llama = [], [], []  # tp=1 with all threads; tp=2 with half of them each; llama.cpp
    total = 3 * rounds + 3
    done = 0

    def step(what, result):
        nonlocal done
        done += 1
        print(f"[{done}/{total}] {what}", file=sys.stderr)
        return result

    whole.append(step("chorale tp=1", peers.engine(peers.threads)))
    for _ in range(rounds):
        llama.append(step("llama.cpp", peers.llama()))
        split.append(step("chorale tp=2", peers.engine(max(1, peers.threads // 2), tp=2)))
        whole.append(step("chorale tp=1", peers.engine(peers.threads)))
    reduce = step("all-reduce", peers.all_reduce())
    many = step("16 streams", peers.engine(peers.threads, prompt=0, streams=str(OVERHEAD_STREAMS), repetitions=3))
    return whole, split, llama, reduce, many[f"{TG}x{OVERHEAD_STREAMS}"]


def tabulate(peers, whole, split, llama, reduce, many):
    table = Table()
    threads = f"{peers.threads} threads"
    table.add_ratio(f"decode, one stream, bf16, {threads}", median_ratio(whole, llama, TG), "llama.cpp", 0.9)
    table.add_ratio(f"prefill {PROMPT}, bf16, {threads}", median_ratio(whole, llama, PP), "llama.cpp", 0.9)
    table.add_ratio(f"decode, {STREAMS} streams together, bf16, {threads}", median_ratio(whole, llama, TGX), "llama.cpp", None)
    halves = [{test: row["p50"] for test, row in run.items()} for run in split]
    for test, what in ((TG, "decode"), (PP, f"prefill {PROMPT}")):
        ratio = median_ratio(whole, halves, test)
        if ratio:  # here the split layout is the one that is judged
            ratio = [1 / ratio[0], ratio[2], ratio[1]]
        table.add_ratio(f"{what}, tp=2 x {max(1, peers.threads // 2)} thread", ratio, f"tp=1 x {threads}", 0.9)
    for test, what, wanted in ((TG, "decode: weights read, of the measured read bandwidth", 0.8),
                               (PP, f"prefill {PROMPT}: operations, of the measured peak", None)):
        fraction = statistics.median(run[test]["fraction"] for run in whole)
        beside = statistics.median(run[test]["read_gbps" if test == TG else "peak_gops"] for run in whole)
        table.add(what, f"{100 * fraction:.1f} %", f"{beside:.1f} {'GB/s' if test == TG else 'Gop/s'}", "",
                  f">= {100 * wanted:.0f} %" if wanted else "", fraction >= wanted if wanted else None)
    table.add("all-reduce 8 KiB, 2 ranks, shared memory", f"{reduce['p50']:.2f} us p50, {reduce['p99']:.2f} us p99", "", "",
              "<= 5 us p50", reduce["p50"] <= 5)
    overhead = many["overhead_us_per_token"]
    table.add(f"coordinator overhead, {OVERHEAD_STREAMS} streams", f"{overhead:.1f} us/token",
              f"{many['coordinator_us_per_token']:.1f} us/token of work, mostly during steps", "", "<= 100 us/token", overhead <= 100)
    return table


def report(peers, table, whole, arguments):
    version = run([peers.chorale, "--version"]).strip()
    cpu = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")),
               platform.processor())
    reads = [run[TG]["read_gbps"] for run in whole]
    command = f"scripts/bench-peers --rounds {arguments.rounds} --out {arguments.out or 'FILE'}"
    return f"""# Chorale beside llama.cpp

Made by `{command}`: medians over the rounds, runs of both taken in turn, each of 2 repetitions
after a warm-up. The model is `scripts/make-random-model --shape {Path(peers.model).name.removeprefix('random-')}`, the same weights for both programs.

{version}; llama-cpp-python {importlib.metadata.version('llama-cpp-python')}; {cpu}, {os.cpu_count()} cores; class
`{whole[0][TG]['class']}`; read bandwidth {min(reads):.1f} to {max(reads):.1f} GB/s during the runs.

{table}
llama.cpp is timed as its llama-bench does it: no sampling, no server. Chorale's times are of whole jobs through its engine, sampling
included. A pair of runs counts only when the read bandwidth before and after it is of one state (within a factor {STATE_FACTOR}).
"""


def main():
    parser = argparse.ArgumentParser()
    for name in ("chorale", "model", "gguf"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--max-busy", type=float, default=10)
    arguments = parser.parse_args()
    busy = busy_percent(seconds=3)
    if busy > arguments.max_busy:
        sys.exit(f"error: the cores are {busy:.0f} % busy with other work, which would spoil the numbers; wait, or give --max-busy")
    peers = Peers(arguments)
    results = measure(peers, arguments.rounds)
    text = report(peers, tabulate(peers, *results), results[0], arguments)
    print(text)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text)


if __name__ == "__main__":
    main()
