"""The figures that scripts/gpu-check asks of a GPU, without one: models of real shapes with themselves and with the CPU, peers, ratios, what is
missing. Programs and libraries are stand-ins; test_gpu_check.py has the emulator.
"""
import json
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from test_gpu_check import Scripted

sys.path.insert(0, str(ROOT / "scripts/lib"))
import gpu_peers  # noqa: E402
import gpu_ratios  # noqa: E402
import gpu_results  # noqa: E402
import gpu_runner  # noqa: E402
import gpu_shapes  # noqa: E402
import gpu_tests  # noqa: E402
import gpu_worlds  # noqa: E402
import random_model  # noqa: E402


class Check:
    """Stands for gpu_check.Check: keeps the rows and figures of a part."""

    def __init__(self, runner, folder, **arguments):
        self.runner, self.rows, self.figures, self.results, self.shape = runner, {}, {}, self, "8b"
        self.arguments = type("Arguments", (), {"shapes": "", "models": [], **arguments})
        self.worlds = gpu_worlds.Worlds(runner, folder, 1, False)

    def add(self, section, row, output=""):
        self.rows[row["name"]] = row

    def skip(self, name, reason):
        self.rows[name] = {"name": name, "outcome": "skipped", "reason": reason}

    def add_figures(self, bench, figures, is_whole):
        self.figures[bench] = figures


# ---- models of real shapes --------------------------------------------------------------------------------------------------------------

class ShapeRunner(Scripted):
    """Answers as a device and a CPU that agree, but for what a case changes. The first token after a prompt of n is n."""

    def __init__(self, **changes):
        super().__init__((0, ""), (0, ""))
        self.changes = changes

    def run(self, command, seconds, extra=()):
        if "--help" in command:
            return super().run(command, seconds)
        if "plan" in command:
            return 0, json.dumps({"ranks": [{"layers": 8, "vocab_range": [0, 500]}]}), 0.1
        self.commands.append(command)
        jobs = [json.loads(line) for line in Path(command[command.index("--jobs") + 1]).read_text().splitlines()]
        lines = [self.answer(index, job, "cpu" in command, command) for index, job in enumerate(jobs)]
        preempted = f"info {3 if self.changes.get('preempts', True) else 0} preemptions, 0 prompt tokens\n"
        return 0, preempted + "".join(json.dumps(line) + "\n" for line in lines), 0.1

    def answer(self, index, job, is_cpu, command):
        ids = [len(job["prompt"]) + i for i in range(job["max_tokens"])]
        logprobs = [-2.0] * len(ids)
        if is_cpu:
            logprobs = [-2.0 - self.changes.get("difference", 0)]
            if self.changes.get("margin") and "logit_bias" not in job and len(job["prompt"]) == 15:
                ids, logprobs = [499], [-2.0 + self.changes["margin"]]
        if self.changes.get("bits") in command:
            logprobs[-1] -= 1e-7
        return {"index": index, "choice": 0, "token_ids": ids, "logprobs": logprobs}


def look_at_shape(folder, **changes):
    runner = ShapeRunner(**changes)
    check = Check(runner, folder, models=[Path("toy")])
    gpu_shapes.run_shapes(check)
    rows = {name.removeprefix("toy: "): row for name, row in check.rows.items() if name.startswith("toy: ")}
    return rows, check.figures["toy: answers of the device against the CPU's"], runner.commands


def failed_of(rows):
    return {name for name, row in rows.items() if row["outcome"] == "failed"}


def test_a_shape_passes_where_all_is_as_it_should(tmp_path):
    rows, figures, commands = look_at_shape(tmp_path)
    assert not failed_of(rows) and len(rows) == 9
    assert figures == [{"tokens": 18, "other tokens": 0, "largest difference": 0, "tolerance": 0.2, "largest margin": 0}]
    assert [command.count("{mpirun}") for command in commands[:9]] == [0] * 6 + [1, 1, 0]


def test_other_bits_fail_by_the_name_of_what_changed_them(tmp_path):
    rows, _, _ = look_at_shape(tmp_path, bits="--no-cuda-graphs")
    assert failed_of(rows) == {"no graphs", "no graphs, few blocks", "tp=2, no graphs, chunks of 7 tokens"}
    assert "logprobs differ from those of one rank" in rows["no graphs"]["reason"]


def test_a_check_of_preemption_that_preempts_nothing_fails(tmp_path):
    rows, _, _ = look_at_shape(tmp_path, preempts=False)
    assert failed_of(rows) == {"few blocks", "no graphs, few blocks"}


@pytest.mark.parametrize("changes,reason", [({"difference": 0.19}, None), ({"difference": 0.21}, "differs by 0.21, more than 0.2"), ({"margin": 0.39}, None),
                                            ({"margin": 0.41}, "prefers its own by 0.41")])
def test_answers_may_differ_from_the_cpus_within_the_tolerance(tmp_path, changes, reason):
    rows, (figures,), _ = look_at_shape(tmp_path, **changes)
    row = rows["against the CPU"]
    assert row["outcome"] == ("failed" if reason else "passed") and (not reason or reason in row["reason"]), row
    if "margin" in changes:
        assert figures["other tokens"] > 0 and figures["largest margin"] == pytest.approx(changes["margin"])


def test_a_model_that_cannot_be_planned_is_a_row(tmp_path):
    check = Check(Scripted((1, "error: no such model"), (0, "")), tmp_path, models=[Path("toy")])
    gpu_shapes.run_shapes(check)
    assert check.rows["toy: plan"]["reason"] == "error: no such model" and "toy: alone" not in check.rows


def test_what_there_is_no_room_or_checkpoint_for_is_a_row(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_worlds.Worlds, "has_room", lambda self, shape: False)
    monkeypatch.setattr(gpu_shapes, "checkpoints", lambda runner, named: [])
    runner = Scripted((0, ""), (0, ""))
    runner.device = "cuda"
    check = Check(runner, tmp_path)
    gpu_shapes.run_shapes(check)
    assert list(check.rows) == ["shape SmolLM2-135M", "shape 135m", "shape 1.1b", "shape 8b"]
    assert {row["outcome"] for row in check.rows.values()} == {"skipped"} and "no room" in check.rows["shape 8b"]["reason"]


def test_jobs_for_a_gpu_need_more_blocks_than_the_few():
    jobs = gpu_shapes.make_jobs(32000, True)
    few = [int(flags[flags.index("--num-kv-blocks") + 1]) for _, _, flags, preempts in gpu_shapes.variants(jobs, True) if preempts]
    assert len(jobs) == 64 and max(gpu_shapes.blocks_of(jobs)) <= few[0] < sum(gpu_shapes.blocks_of(jobs)) / 2
    assert all(job["temperature"] == 0 and len(job["prompt"]) < 100 for job in jobs[:gpu_shapes.NUM_COMPARED])


def test_a_random_model_can_be_read_by_others(tmp_path):
    """The header of a safetensors file as the format says, with what transformers insists on."""
    random_model.write_model(tmp_path, "tiny")
    data = (tmp_path / "model.safetensors").read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + size])
    assert header.pop("__metadata__") == {"format": "pt"} and size % 8 == 0
    assert max(entry["data_offsets"][1] for entry in header.values()) == len(data) - 8 - size
    assert json.loads((tmp_path / "config.json").read_text())["vocab_size"] == header["lm_head.weight"]["shape"][0]


# ---- peers ------------------------------------------------------------------------------------------------------------------------------

MODULES = {  # enough of each to run the program that measures it
    "torch": """
__version__ = "2.fake"
import torch.nn.functional, types
bfloat16 = "bf16"
cuda = types.SimpleNamespace(is_available=lambda: True, synchronize=lambda: None)
class Tensor:
    def __init__(self, shape): self.shape = tuple(shape)
    def repeat_interleave(self, times, dim): return Tensor(s * times if i == dim else s for i, s in enumerate(self.shape))
def randn(*shape, device, dtype): return Tensor(shape)
def randint(low, high, shape, device): return Tensor(shape)
def ones_like(x): return Tensor(x.shape)
class inference_mode:
    def __enter__(self): pass
    def __exit__(self, *args): pass
""",
    "torch/nn/functional": """
def scaled_dot_product_attention(q, k, v, is_causal, **kind):
    if kind: raise TypeError("an older torch")
    assert is_causal and q.shape == k.shape == v.shape, (q.shape, k.shape)
""",
    "transformers": """
__version__ = "5.fake"
import types
class Model:
    config = types.SimpleNamespace(vocab_size=100)
    def to(self, device): return self
    def eval(self): return self
    def generate(self, ids, attention_mask, max_new_tokens, min_new_tokens, do_sample, pad_token_id, **kind):
        assert max_new_tokens == min_new_tokens and kind in ({}, {"cache_implementation": "static"})
        return type(ids)((ids.shape[0], ids.shape[1] + max_new_tokens))
class AutoModelForCausalLM:
    @staticmethod
    def from_pretrained(folder, **kind):
        if "dtype" in kind: raise TypeError("before 4.56")
        assert folder == "the-model"
        return Model()
""",
}


@pytest.fixture
def peer_modules(tmp_path, monkeypatch):
    for name, text in MODULES.items():
        folder = tmp_path / "modules" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "__init__.py").write_text(text)
    (tmp_path / "modules/torch/nn/__init__.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "modules"))


def look_at_peers(folder, model, device="cuda"):
    (folder / "gpu-tests.json").write_text("{}")
    check = Check(gpu_runner.Runner(folder / "gpu-tests.json", device), folder)
    check.worlds.model = lambda shape: model
    gpu_peers.run_peers(check)
    return check


def test_peers_are_measured_where_they_are_installed(peer_modules, tmp_path):
    """Stand-ins for the libraries: that the program calls them as they are, that its rows are read, and what is missing said."""
    check = look_at_peers(tmp_path, "the-model")
    assert [row["outcome"] for row in check.rows.values()] == ["passed", "passed", "skipped"], check.rows
    assert [row["shape"] for row in check.figures["peer sdpa"]] == ["1024 rows", "4096 rows", "8192 rows", "16384 rows"]
    assert [(row["peer"], row["test"]) for row in check.figures["peer transformers"]] == [
        (f"transformers 5.fake {kind}", test) for kind in ("eager", "static cache") for test in ("pp512", "tg128", "tg128x16", "tg128x64")]
    assert all(row["tok/s"] > 0 for row in check.figures["peer transformers"])
    assert "No module named 'vllm'" in check.rows["peer vllm"]["reason"]


def test_peers_that_fail_say_why(peer_modules, tmp_path):
    row = look_at_peers(tmp_path, "another-model").rows["peer transformers"]
    assert row["outcome"] == "failed" and "AssertionError" in row["reason"]


def test_peers_are_started_as_gpu_check_was(peer_modules, tmp_path, monkeypatch):
    """Not as a packed build's own programs, whose libraries are not theirs."""
    (tmp_path / "gpu-tests.json").write_text("{}")
    runner = gpu_runner.Runner(tmp_path / "gpu-tests.json", "cuda")
    runner.base |= {"LD_LIBRARY_PATH": "/pack/lib", "PATH": "/pack/bin"}
    seen = []
    runner.run = lambda command, seconds, extra=(): seen.append(dict(extra)) or (1, "error: x", 0.0)
    monkeypatch.setenv("PATH", "/usr/bin")
    gpu_peers.run_peers(Check(runner, tmp_path))
    extra = seen[-1]
    assert extra["PATH"] == "/usr/bin" and extra["LD_LIBRARY_PATH"] != "/pack/lib" and extra["HF_HUB_OFFLINE"] == "1"


# ---- what follows -------------------------------------------------------------------------------------------------------------------------

def test_ratios_set_figures_beside_each_other():
    def engine(bench, test, rate):
        return {"bench": bench, "test": test, "unit": "tok/s", "p50": rate}

    rows = [engine("engine tp=1", "tg128", 50.0), engine("engine tp=1 fast", "tg128", 60.0), engine("engine tp=2 mpi", "tg128", 40.0),
            {"bench": "engine tp=1", "test": "tg128 gap", "unit": "us", "p50": 2.0},
            {"bench": "gpu_kernel_bench", "kernel": "attention prefill", "shape": "4096 rows", "TFLOP/s": 300.0},
            {"bench": "peer sdpa", "peer": "torch 2 sdpa", "shape": "4096 rows", "TFLOP/s": 400.0},
            {"bench": "peer transformers", "peer": "transformers 5 eager", "test": "tg128", "tok/s": 25.0}]
    fast, one, library, attention = gpu_ratios.ratios(rows)
    assert fast["bench"] == "one answer against fast" and fast["ranks"] == "tp=1" and fast["one / fast"] == pytest.approx(5 / 6)
    assert (one["answer"], one["ratio"]) == ("one", 2.0) and (library["answer"], library["ratio"]) == ("fast", pytest.approx(2.4))
    assert attention["ratio"] == 0.75 and attention["unit"] == "TFLOP/s"
    assert gpu_ratios.ratios(rows[2:5]) == []


def test_results_hold_the_ratios_of_figures_from_several_runs(tmp_path):
    facts = {"date": "2026-01-02", "device": "Test GPU", "gpus": 1, "commit": "abc", "mpirun": "mpirun", "host": []}
    for name, rate in (("engine tp=1", 50.0), ("engine tp=1 fast", 60.0)):
        gpu_results.Results(tmp_path, facts).add_figures(name, [{"test": "tg128", "unit": "tok/s", "p50": rate}], is_whole=True)
    stem = tmp_path / "2026-01-02-test-gpu"
    assert [row["bench"] for row in json.loads(stem.with_suffix(".json").read_text())["ratios"]] == ["one answer against fast"]
    assert "## Ratios\n\n`one answer against fast`" in stem.with_suffix(".md").read_text()


def test_the_last_line_tells_what_was_left_out(tmp_path):
    facts = {"date": "2026-01-02", "device": "Test GPU", "gpus": 1, "commit": "abc", "mpirun": "mpirun", "host": []}
    results = gpu_results.Results(tmp_path, facts)
    for name, outcome, verdict in (("a", "passed", "all passed"), ("b", "skipped", "passed, 1 part skipped: b"), ("c", "skipped", "passed, 2 parts skipped: b, c"),
                                   ("d", "failed", "failed: d")):
        results.add("tests", {"name": name, "outcome": outcome, "seconds": 0.0})
        assert results.verdict() == verdict


def test_a_missing_sanitizer_is_a_row(tmp_path, monkeypatch):
    runner = Scripted((0, ""), (0, ""))
    runner.device = "cuda"
    monkeypatch.setattr(gpu_tests, "find_sanitizer", lambda: None)
    check = Check(runner, tmp_path)
    gpu_tests.run_sanitizers(check)
    assert check.rows["compute-sanitizer"]["outcome"] == "skipped" and "it is not here" in check.rows["compute-sanitizer"]["reason"]
