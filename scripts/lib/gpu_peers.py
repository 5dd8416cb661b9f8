"""What other programs do on the same GPU, where they are installed: torch's attention, transformers and vLLM on the same random weights.

As a program (`gpu_peers.py sdpa|transformers|vllm [--model FOLDER] [--device NAME]`) it measures one and prints a JSON object a line;
run_peers starts that for scripts/gpu-check, which sets the figures beside Chorale's (gpu_ratios.py).
"""
import argparse
import json
import os
import sys
import time
from pathlib import Path

from gpu_runner import NO_TIME, last_line, outcome_of

PEER_SECONDS, IMPORT_SECONDS = 540, 120
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
NEEDS = {"sdpa": ("torch",), "transformers": ("torch", "transformers"), "vllm": ("torch", "vllm")}
HEADS, KV_HEADS, HEAD_DIM = 32, 8, 128  # of an 8B Llama, as in tests/bench/gpu_kernel_bench.cc
PREFILL_ROWS = (1024, 4096, 8192, 16384)
PROMPT, NEW_TOKENS, STREAMS, REPETITIONS = 512, 128, (1, 16, 64), 3  # as bench engine is run (gpu_worlds.SIZES)


# ---- run by scripts/gpu-check -----------------------------------------------------------------------------------------------------------

def run_peers(check):
    """The part of gpu-check. Each peer has a process of its own, which takes its memory of the GPU along."""
    runner = check.runner
    # As this process was started: what a packed build sets for its own programs is not for them.
    plain = {name: os.environ.get(name, "") for name, value in runner.base.items() if os.environ.get(name) != value} | OFFLINE
    for peer, modules in NEEDS.items():
        name, finds_gpu = f"peer {peer}", "; assert torch.cuda.is_available(), 'torch finds no GPU'"
        if runner.device != "cuda":
            check.skip(name, "peers are measured on GPUs")
            continue
        code, output, _ = runner.run([sys.executable, "-c", f"import {', '.join(modules)}{finds_gpu}"], IMPORT_SECONDS, plain)
        if code not in (0, NO_TIME):
            check.skip(name, f"not done after {IMPORT_SECONDS} s" if code is None else last_line(output))
            continue
        model = [] if peer == "sdpa" else ["--model", check.worlds.model(check.shape)]
        code, output, seconds = runner.run([sys.executable, __file__, peer, *model], PEER_SECONDS, plain)
        figures = [json.loads(line) for line in output.splitlines() if line.startswith('{"peer"')]
        row = {"name": name, "seconds": round(seconds, 1), **outcome_of(code, output, PEER_SECONDS)}
        if code == 0 and not figures:
            row.update(outcome="failed", reason="it printed no figures")
        check.results.add_figures(name, figures, is_whole=code == 0)
        check.add("tests", row, output)


# ---- the program ------------------------------------------------------------------------------------------------------------------------

def say(**row):
    print(json.dumps(row), flush=True)


def median_seconds(torch, device, work):
    """Of some calls after one that warms up, by the host's clock around a synchronised device."""
    work()
    times = []
    for _ in range(REPETITIONS):
        if device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


def sdpa(device, rows=PREFILL_ROWS):
    """Causal attention of one prompt, keys and values in one piece."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention
    for n in rows:
        q, k, v = (torch.randn(1, heads, n, HEAD_DIM, device=device, dtype=torch.bfloat16) for heads in (HEADS, KV_HEADS, KV_HEADS))
        try:
            scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
            grouped = {"enable_gqa": True}
        except (TypeError, RuntimeError):  # an older torch, or no kernel of this device for groups of heads
            k, v = (x.repeat_interleave(HEADS // KV_HEADS, 1) for x in (k, v))
            grouped = {}
        calls = 20 if device == "cuda" else 1

        def work():
            for _ in range(calls):
                scaled_dot_product_attention(q, k, v, is_causal=True, **grouped)

        seconds = median_seconds(torch, device, work) / calls
        operations = 0.5 * n * (n + 1) * HEADS * HEAD_DIM * 4
        say(peer=f"torch {torch.__version__} sdpa", shape=f"{n} rows", us=round(seconds * 1e6, 1), **{"TFLOP/s": operations / seconds / 1e12})


def transformers(device, model_folder):
    """generate() without a compiler, and with its static cache, which compiles where it can. Tests are named as bench engine names them."""
    import torch
    import transformers as library
    load = library.AutoModelForCausalLM.from_pretrained
    try:
        model = load(model_folder, dtype=torch.bfloat16)
    except TypeError:  # before 4.56
        model = load(model_folder, torch_dtype=torch.bfloat16)
    model = model.to(device).eval()
    vocab = model.config.vocab_size
    for name, kind in (("eager", {}), ("static cache", {"cache_implementation": "static"})):
        def run(streams, prompt, new_tokens):
            ids = torch.randint(3, vocab, (streams, prompt), device=device)
            with torch.inference_mode():
                out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=new_tokens, min_new_tokens=new_tokens, do_sample=False,
                                     pad_token_id=0, **kind)
            assert out.shape == (streams, prompt + new_tokens), out.shape

        report(torch, device, f"transformers {library.__version__} {name}", run)


def vllm(device, model_folder):
    import random
    import torch
    import vllm as library
    engine = library.LLM(model=model_folder, skip_tokenizer_init=True, max_model_len=1024, gpu_memory_utilization=0.7, enable_prefix_caching=False)
    vocab = json.loads((Path(model_folder) / "config.json").read_text())["vocab_size"]

    def run(streams, prompt, new_tokens):
        prompts = [{"prompt_token_ids": [random.randrange(3, vocab) for _ in range(prompt)]} for _ in range(streams)]
        sampling = library.SamplingParams(temperature=0, max_tokens=new_tokens, ignore_eos=True, detokenize=False)
        outputs = engine.generate(prompts, sampling, use_tqdm=False)
        assert [len(output.outputs[0].token_ids) for output in outputs] == [new_tokens] * streams

    report(torch, device, f"vllm {library.__version__}", run)


def report(torch, device, peer, run):
    seconds = median_seconds(torch, device, lambda: run(1, PROMPT, 1))
    say(peer=peer, test=f"pp{PROMPT}", **{"tok/s": PROMPT / seconds})
    for streams in STREAMS:
        seconds = median_seconds(torch, device, lambda: run(streams, 1, NEW_TOKENS))
        say(peer=peer, test=f"tg{NEW_TOKENS}" + (f"x{streams}" if streams > 1 else ""), **{"tok/s": streams * NEW_TOKENS / seconds})


def main():
    parser = argparse.ArgumentParser(description="Measures one peer and prints a JSON object a line.")
    parser.add_argument("peer", choices=NEEDS)
    parser.add_argument("--model", help="Hugging Face folder")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    arguments = parser.parse_args()
    if arguments.peer == "sdpa":
        sdpa(arguments.device)
    else:
        {"transformers": transformers, "vllm": vllm}[arguments.peer](arguments.device, arguments.model)


if __name__ == "__main__":
    sys.exit(main())
