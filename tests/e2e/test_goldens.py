"""Same text as the reference: greedy tokens equal to what Hugging Face answers, in float32, on one rank and on four."""
import json

import pytest
from conftest import SHARED, generate, shared

MODELS = sorted(p.name for p in (SHARED / "goldens/models").glob("*")) or ["none"]
GGUFS = sorted(p.name.removesuffix(".gguf") for p in (SHARED / "goldens/gguf").glob("*.gguf")) or ["none"]
# The goldens' log-probabilities are rounded to six decimals; the rest is float32 over at most a few hundred additions per logit.
LOGPROB_TOLERANCE = 2e-4


def compare(model, cases, tmp_path, *flags, ranks=0, tolerance=LOGPROB_TOLERANCE):
    jobs = [{"prompt": case["prompt"], "max_tokens": len(case["greedy"]), "temperature": 0, "ignore_eos": True,
             "add_special_tokens": False} for case in cases]
    results, _, done = generate(model, jobs, tmp_path, "--dtype", "f32", *flags, ranks=ranks)
    assert done.returncode == 0, done.stdout
    for case, result in zip(cases, results, strict=True):
        assert result["token_ids"] == case["greedy"]
        if tolerance is not None:
            assert result["logprobs"] == pytest.approx(case["logprobs"], abs=tolerance)


def tolerance_of(golden):
    """None for folders stored in 16 bits: their reference also rounded the rotary frequencies, which no checkpoint holds (the unit test
    tests/unit/worker/golden_test.cc rounds them alike and compares all logits)."""
    return LOGPROB_TOLERANCE if golden["stored_dtype"] == "float32" else None


@pytest.mark.parametrize("name", MODELS)
def test_hugging_face_folder(name, tmp_path):
    folder = shared(f"goldens/models/{name}")
    golden = json.loads((folder / "golden.json").read_text())
    compare(folder, golden["cases"], tmp_path, tolerance=tolerance_of(golden))


@pytest.mark.parametrize("name", GGUFS)
def test_gguf_file(name, tmp_path):
    path = shared(f"goldens/gguf/{name}.gguf")
    compare(path, json.loads(path.with_suffix(".golden.json").read_text())["cases"], tmp_path)


@pytest.mark.parametrize("name", ["llama3-gqa-rope", "qwen2-uneven-heads", "gpt2-small", "mistral-mqa-window"])
def test_four_ranks(name, tmp_path):
    folder = shared(f"goldens/models/{name}")
    golden = json.loads((folder / "golden.json").read_text())
    compare(folder, golden["cases"], tmp_path, "--tp", 2, "--pp", 2, ranks=4, tolerance=tolerance_of(golden))


@pytest.mark.parametrize("name", ["stories260K", "capp-gpt"])
def test_small_trained_model(name, tmp_path):
    golden = json.loads(shared(f"models/{name}/golden.json").read_text())
    expected = golden["greedy_ids"]
    if expected[:len(golden["prompt_ids"])] == golden["prompt_ids"]:
        expected = expected[len(golden["prompt_ids"]):]
    job = {"prompt": golden["prompt_ids"], "max_tokens": len(expected), "temperature": 0, "ignore_eos": True}
    results, _, _ = generate(shared(f"models/{name}"), [job], tmp_path, "--dtype", "f32")
    assert results[0]["token_ids"] == expected


def test_default_model(smollm2, tmp_path):
    cases = json.loads(shared("goldens/smollm2-135m-instruct.json").read_text())["cases"]
    jobs = []
    for case in cases:
        job = {"max_tokens": len(case["greedy"]), "temperature": 0}
        job.update({"messages": case["messages"]} if "messages" in case else {"prompt": case["prompt"]})
        jobs.append(job)
    results, _, _ = generate(smollm2, jobs, tmp_path, "--dtype", "f32")
    for case, result in zip(cases, results, strict=True):
        assert result["prompt_token_ids"] == case["prompt_ids"]
        assert result["token_ids"] == case["greedy"]
        assert result["text"] == case["text"].removesuffix("<|im_end|>")
        assert result["logprobs"] == pytest.approx(case["logprobs"], abs=LOGPROB_TOLERANCE)
