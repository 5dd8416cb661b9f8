"""One answer: the same jobs give the same bits for every layout, thread count, batch, chunking, prefix cache and preemption.

The reference is one rank, one thread, one job at a time. `logprobs` are printed as %.9g of a float32, so equal bits print equal text
and whole lines are compared with ==.
"""
import itertools
import re

import pytest
from conftest import generate

LAYOUTS = [(1, 1), (2, 1), (4, 1), (3, 1), (1, 2), (2, 2), (1, 3), (2, 3)]
ALONE, TOGETHER = ("--max-num-seqs", "1"), ("--max-num-seqs", "16")
WHOLE, CHUNKED = (), ("--max-num-batched-tokens", "7")
CACHE, NO_CACHE = (), ("--no-enable-prefix-caching",)
ROOMY, TIGHT = (), ("--num-kv-blocks", "14", "--max-model-len", "208")

TOPICS = ["the sea", "a small robot", "bread", "prime numbers", "the moon", "an old train", "rain in the city", "music"]


def make_jobs():
    """16 jobs: greedy and sampled, short and long prompts, some with a shared prefix, penalties, a stop string, n = 2."""
    jobs = []
    for i, topic in enumerate(TOPICS):
        jobs.append({"prompt": f"Here is a short text about {topic}. It says that", "max_tokens": 20, "temperature": 0})
        sampled = {"messages": [{"role": "user", "content": f"Write one sentence about {topic}."}], "max_tokens": 20,
                   "temperature": 0.9, "seed": 1000 + i, "top_p": 0.95, "top_k": 50 if i % 2 else 0}
        jobs.append(sampled)
    jobs[0]["prompt"] = "Once upon a time, " * 20 + "there was"
    jobs[3].update(repetition_penalty=1.2, presence_penalty=0.3, frequency_penalty=0.2)
    jobs[5].update(min_p=0.05, logit_bias={"260": -5, "28": 2.5})
    jobs[8].update(stop=["."])
    jobs[9].update(n=2)
    jobs[11].update(min_tokens=12)
    return jobs


@pytest.fixture(scope="module")
def reference(smollm2, tmp_path_factory):
    results, text, done = generate(smollm2, make_jobs(), tmp_path_factory.mktemp("reference"), "--threads", "1", *ALONE)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(results) == 17  # one job has two choices
    assert all(len(r["logprobs"]) == len(r["token_ids"]) > 0 for r in results)
    return text


def check(smollm2, reference, tmp_path, tp, pp, threads, *axes):
    flags = ["--tp", tp, "--pp", pp, "--threads", threads, *itertools.chain(*axes)]
    _, text, done = generate(smollm2, make_jobs(), tmp_path, *flags, "--log-level", "info", ranks=tp * pp if tp * pp > 1 else 0)
    assert text == reference
    # That the axes do what they are for:
    preempted, cached = map(int, re.search(r"(\d+) preemptions, (\d+) prompt tokens from the prefix cache", done.stderr).groups())
    assert preempted > 0 or TIGHT not in axes or TOGETHER not in axes
    assert (cached > 0) == (NO_CACHE not in axes)


# Every layout once, the other axes so that each pair of their values occurs, but alone with few blocks, which preempts nothing.
PAIRWISE = [
    (1, TOGETHER, WHOLE, CACHE, ROOMY), (2, TOGETHER, CHUNKED, NO_CACHE, ROOMY), (1, TOGETHER, WHOLE, NO_CACHE, TIGHT),
    (2, TOGETHER, CHUNKED, CACHE, TIGHT), (1, ALONE, CHUNKED, CACHE, ROOMY), (2, ALONE, WHOLE, NO_CACHE, ROOMY),
    (1, TOGETHER, CHUNKED, NO_CACHE, TIGHT), (2, TOGETHER, WHOLE, CACHE, TIGHT)]


@pytest.mark.parametrize("layout,axes", list(zip(LAYOUTS, PAIRWISE)), ids=lambda v: "x".join(map(str, v)) if len(v) == 2 else "")
def test_every_layout_gives_the_same_bits(smollm2, reference, tmp_path, layout, axes):
    check(smollm2, reference, tmp_path, *layout, *axes)


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda v: "x".join(map(str, v)))
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("batch", [ALONE, TOGETHER], ids=["alone", "together"])
@pytest.mark.parametrize("chunks", [WHOLE, CHUNKED], ids=["whole", "chunked"])
@pytest.mark.parametrize("cache", [CACHE, NO_CACHE], ids=["cache", "no-cache"])
@pytest.mark.parametrize("blocks", [ROOMY, TIGHT], ids=["roomy", "tight"])
def test_the_full_matrix_gives_the_same_bits(smollm2, reference, tmp_path, layout, threads, batch, chunks, cache, blocks):
    check(smollm2, reference, tmp_path, *layout, threads, batch, chunks, cache, blocks)
