"""The part of scripts/gpu-check that holds a GPU to its word on models of real shapes: one answer, bit by bit, over batches, chunks,
preemption, CUDA graphs and two ranks; and answers near the CPU's.
"""
import json
import math
import os
import random
import re
from pathlib import Path

import gpu_worlds
import random_model
from gpu_runner import outcome_of

SHAPE_SECONDS, PLAN_SECONDS = 400, 120  # of one run, loading included
NUM_COMPARED = 4  # jobs that the CPU answers too
SHAPES = {"cuda": ("135m", "1.1b", "8b"), "emulator": ("tiny",)}
# Log-probabilities of tensor cores, which round q and p to bf16 (relative 2^-9), were bounded by 0.1 for two layers and logits below 8
# (tests/e2e/test_emulator.py). The errors of layers are independent: they add up as the root of their number.
TOLERANCE_OF_TWO_LAYERS = 0.1
BLOCK_TOKENS = 16
PREEMPTED = re.compile(r"(\d+) preemptions")


def tolerance(num_layers):
    return TOLERANCE_OF_TWO_LAYERS * math.sqrt(max(num_layers, 2) / 2)


def make_jobs(vocab, is_real):
    """Jobs that end one after the other, so that steps have every number of rows; greedy and drawn, one prompt over many splits of 256 keys.
    The first few are greedy and short: they are also given to the CPU."""
    source = random.Random(random_model.SEED)
    lengths = [9, 33, 70, 3, 1, 17, 128, 250, 31, 64] if is_real else [14, 13, 15, 14]

    def job(i):
        prompt = [source.randrange(3, vocab) for _ in range(lengths[i % len(lengths)])]
        drawn = {"temperature": 0.9, "seed": 100 + i, "top_p": 0.95, "top_k": 50 if i % 2 else 0}
        return {"prompt": prompt, "max_tokens": 4 + i * 7 % 41 if is_real else 4 + i % 2, **(drawn if i >= NUM_COMPARED and i % 3 == 0 else {"temperature": 0})}

    jobs = [job(i) for i in range(63 if is_real else 4)]
    if is_real:
        jobs.insert(NUM_COMPARED, {"prompt": [source.randrange(3, vocab) for _ in range(2100)], "max_tokens": 40, "temperature": 0})
    return jobs


def blocks_of(jobs):
    return [-(-(len(job["prompt"]) + job["max_tokens"]) // BLOCK_TOKENS) for job in jobs]


def variants(jobs, is_real):
    """(name, ranks, flags, preempts): each must give the answers of jobs that run alone."""
    most, largest = len(jobs), max(blocks_of(jobs))
    together = ["--max-num-seqs", str(most)]
    few_blocks, chunk = str(largest + (8 if is_real else 1)), "61" if is_real else "7"
    yield from ((f"{n} together", 1, ["--max-num-seqs", str(n)], False) for n in ((2, 5, 16, 64) if is_real else (most,)))
    yield f"chunks of {chunk} tokens", 1, [*together, "--max-num-batched-tokens", chunk], False
    yield "few blocks", 1, [*together, "--num-kv-blocks", few_blocks, "--log-level", "info"], True
    yield "no graphs", 1, [*together, "--no-cuda-graphs"], False
    yield "no graphs, few blocks", 1, [*together, "--num-kv-blocks", few_blocks, "--no-cuda-graphs", "--log-level", "info"], True
    yield "tp=2", 2, together, False
    yield f"tp=2, no graphs, chunks of {chunk} tokens", 2, [*together, "--no-cuda-graphs", "--max-num-batched-tokens", chunk], False


class Shapes:
    """`worlds`: gpu_worlds.Worlds, whose folder takes the jobs."""

    def __init__(self, worlds):
        self.worlds, self.device = worlds, worlds.runner.device

    def generate(self, what, model, jobs, flags, ranks=1, device=None):
        """(answers or nothing, row of an outcome, output)"""
        path = self.worlds.folder / "shape-jobs.jsonl"
        path.write_text("".join(json.dumps(job) + "\n" for job in jobs))
        longest = max(len(job["prompt"]) + job["max_tokens"] for job in jobs)
        command = [*(self.worlds.mpirun(ranks, "mpi") if ranks > 1 else []), *self.worlds.chorale, "generate", "--model", str(model), "--jobs", str(path),
                   "--json", "--dtype", "bf16", "--device", device or self.device, "--tp", str(ranks), *(["--comm", "mpi"] if ranks > 1 else []),
                   "--max-model-len", str(BLOCK_TOKENS * -(-longest // BLOCK_TOKENS))]
        if "--num-kv-blocks" not in flags:
            command += ["--num-kv-blocks", str(sum(blocks_of(jobs)) + 1)]
        code, output, seconds = self.worlds.runner.run([*command, *flags], SHAPE_SECONDS, self.worlds.environment(ranks, "mpi"))
        answers = gpu_worlds.answers_in(output)
        row = {"name": what, "seconds": round(seconds, 1), **outcome_of(code, output, SHAPE_SECONDS)}
        if code == 0 and len(answers) != len(jobs):
            row.update(outcome="failed", reason=f"{len(answers)} answers instead of {len(jobs)}")
        return answers if row["outcome"] == "passed" else None, row, output

    def check(self, name, model):
        """Yields (row of an outcome, output, figures or nothing)."""
        code, output, seconds = self.worlds.runner.run([*self.worlds.chorale, "plan", "--model", str(model), "--device", "cpu", "--json"], PLAN_SECONDS)
        plans = [json.loads(line) for line in output.splitlines() if line.startswith('{"')]
        if code != 0 or not plans:
            yield {"name": f"{name}: plan", "seconds": round(seconds, 1), **outcome_of(code or 1, output, PLAN_SECONDS)}, output, None
            return
        layers, vocab = plans[0]["ranks"][0]["layers"], plans[0]["ranks"][0]["vocab_range"][1]
        jobs = make_jobs(vocab, self.device == "cuda")
        alone, row, output = self.generate(f"{name}: alone", model, jobs, ["--max-num-seqs", "1"])
        yield row, output, None
        if not alone:
            return
        for variant, ranks, flags, preempts in variants(jobs, self.device == "cuda"):
            answers, row, output = self.generate(f"{name}: {variant}", model, jobs, flags, ranks)
            preempted = PREEMPTED.search(output)
            if answers and answers != alone:
                row.update(outcome="failed", reason=gpu_worlds.difference(answers, alone))
            elif answers and preempts and (not preempted or preempted.group(1) == "0"):
                row.update(outcome="failed", reason="nothing was preempted, so that this shows nothing")
            yield row, output, None
        yield self.against_the_cpu(name, model, layers, [job | json.loads(line) for job, line in zip(jobs, alone)][:NUM_COMPARED])

    def against_the_cpu(self, name, model, layers, answered):
        """The CPU is asked, before each greedy token of the device, for its own next token, and for the log-probability of the device's: a bias
        makes it choose that, and log-probabilities are told before biases."""
        asked = []
        for answer in answered:
            for i, token in enumerate(answer["token_ids"]):
                context = {"prompt": answer["prompt"] + answer["token_ids"][:i], "max_tokens": 1, "temperature": 0}
                asked += [context, context | {"logit_bias": {str(token): 100}}]
        got, row, output = self.generate(f"{name}: against the CPU", model, asked, ["--max-num-seqs", "64"], device="cpu")
        if not got:
            return row, output, None
        figures = compare([pair for answer in answered for pair in zip(answer["token_ids"], answer["logprobs"])], [json.loads(line) for line in got],
                          tolerance(layers))
        difference, margin, most = (figures[key] for key in ("largest difference", "largest margin", "tolerance"))
        if difference > most:
            row.update(outcome="failed", reason=f"a log-probability differs by {difference:.3g}, more than {most:.3g}")
        elif margin > 2 * most:
            row.update(outcome="failed", reason=f"another token, though the CPU prefers its own by {margin:.3g}, more than twice {most:.3g}")
        return row, output, figures


def run_shapes(check):
    """The part of gpu-check."""
    worlds = check.worlds
    shapes = list(filter(None, check.arguments.shapes.split(","))) or SHAPES[worlds.runner.device]
    models = [(path.stem, path) for path in checkpoints(worlds.runner, check.arguments.models)]
    if not models:
        check.skip("shape SmolLM2-135M", "no checkpoint is here: scripts/fetch-model fetches one, --models names some")
    for name, path in [*models, *((shape, None) for shape in shapes)]:
        if path is None and not worlds.has_room(shape := name):
            check.skip(f"shape {shape}", f"{worlds.models} has no room for it: --scratch names another folder")
            continue
        for row, output, figures in Shapes(worlds).check(name, path or worlds.model(name)):
            if figures:
                check.results.add_figures(f"{name}: answers of the device against the CPU's", [figures], is_whole=True)
            check.add("tests", row, output)


def checkpoints(runner, named):
    """What to look at besides random weights: as named, else what was packed, else what scripts/fetch-model fetched."""
    if named:
        return named
    cache = os.environ.get("CHORALE_CACHE") or os.path.join(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "chorale")
    fetched = Path(cache) / "models/SmolLM2-135M-Instruct.Q4_1.gguf"
    return sorted((runner.folder / "models").glob("*")) or ([fetched] if runner.device == "cuda" and fetched.exists() else [])


def compare(of_device, of_cpu, most):
    """`of_device`: (token, log-probability) of each step; `of_cpu`: two answers each, its own choice and the device's token."""
    own, forced = of_cpu[0::2], of_cpu[1::2]
    differences, margins = [], []
    for (token, logprob), choice, same in zip(of_device, own, forced, strict=True):
        assert same["token_ids"] == [token], "the bias did not make the CPU choose the device's token"
        differences.append(abs(same["logprobs"][0] - logprob))
        if choice["token_ids"] != [token]:
            margins.append(choice["logprobs"][0] - same["logprobs"][0])
    return {"tokens": len(of_device), "other tokens": len(margins), "largest difference": max(differences), "tolerance": round(most, 4),
            "largest margin": max(margins, default=0.0)}
