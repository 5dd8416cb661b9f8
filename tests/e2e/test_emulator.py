"""The GPU backend without a GPU: whole worlds under mpirun whose ranks run the CUDA kernels on the emulator, activations over MPI and
shared memory. Every layout, batch, chunking and preemption gives the same bits; float32 gives the CPU's bits too, because SIMT kernels
keep its order; tensor cores round q and p to 16 bits and stay within a tolerance. A claim about order, not about a GPU's own arithmetic.
"""
import array
import json
import random
import subprocess

import pytest
from conftest import CHORALE, generate, run, serving, shared

EMULATOR = ("--device", "emulator")
LAYOUTS = [(2, 1), (3, 1), (4, 1), (1, 2), (2, 2)]
# Log-probabilities of tensor cores against the CPU: q and p are rounded to bf16 (relative 2^-9) in each of two layers; the model's
# logits stay below 8, so that a few such roundings move a log-probability by less than this.
BF16_TOLERANCE = 0.1
SEED = 20240607


def write_model(folder, *, layers=2, hidden=128, heads=4, kv_heads=2, head_dim=64, ffn=192, vocab=384):
    """A Llama folder with random bf16 weights whose head_dim the tensor core kernels are made for."""
    source = random.Random(SEED)
    tensors, data = {}, bytearray()

    def add(name, *shape, scale):
        count = 1
        for dim in shape:
            count *= dim
        values = array.array("f", (source.gauss(0, scale) if scale else 1.0 for _ in range(count))).tobytes()
        bits = bytearray(2 * count)
        bits[0::2], bits[1::2] = values[2::4], values[3::4]  # the upper half of a float32 is a bfloat16
        tensors[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [len(data), len(data) + len(bits)]}
        data.extend(bits)

    add("model.embed_tokens.weight", vocab, hidden, scale=1)
    for i in range(layers):
        layer = f"model.layers.{i}."
        add(layer + "input_layernorm.weight", hidden, scale=0)
        add(layer + "self_attn.q_proj.weight", heads * head_dim, hidden, scale=0.15)
        add(layer + "self_attn.k_proj.weight", kv_heads * head_dim, hidden, scale=0.15)
        add(layer + "self_attn.v_proj.weight", kv_heads * head_dim, hidden, scale=0.1)
        add(layer + "self_attn.o_proj.weight", hidden, heads * head_dim, scale=0.1)
        add(layer + "post_attention_layernorm.weight", hidden, scale=0)
        add(layer + "mlp.gate_proj.weight", ffn, hidden, scale=0.1)
        add(layer + "mlp.up_proj.weight", ffn, hidden, scale=0.1)
        add(layer + "mlp.down_proj.weight", hidden, ffn, scale=0.1)
    add("model.norm.weight", hidden, scale=0)
    add("lm_head.weight", vocab, hidden, scale=0.1)
    header = json.dumps(tensors).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + data)
    (folder / "config.json").write_text(json.dumps({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden, "intermediate_size": ffn,
        "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv_heads, "head_dim": head_dim,
        "vocab_size": vocab, "max_position_embeddings": 1024, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "tie_word_embeddings": False, "torch_dtype": "bfloat16", "bos_token_id": 1, "eos_token_id": 2}))
    return folder


@pytest.fixture(scope="module")
def tensor_core_model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"))


def make_jobs(vocab):
    """Greedy and sampled, short prompts and one across the split of 256 keys, penalties, log-probabilities, two choices."""
    source = random.Random(SEED)

    def prompt(length):
        return [source.randrange(3, vocab) for _ in range(length)]

    return [{"prompt": prompt(270), "max_tokens": 5, "temperature": 0},
            {"prompt": prompt(3), "max_tokens": 12, "temperature": 0, "logprobs": 3},
            {"prompt": prompt(17), "max_tokens": 10, "temperature": 0.9, "seed": 5, "top_p": 0.9, "top_k": 40},
            {"prompt": prompt(31), "max_tokens": 8, "temperature": 0.8, "seed": 6, "repetition_penalty": 1.2,
             "frequency_penalty": 0.3, "presence_penalty": 0.2},
            {"prompt": prompt(9), "max_tokens": 8, "temperature": 1.1, "seed": 7, "min_p": 0.02, "n": 2,
             "logit_bias": {"17": 3}}]


@pytest.fixture(scope="module")
def reference(tensor_core_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference")
    results, text, done = generate(tensor_core_model, make_jobs(384), folder, *EMULATOR, "--max-num-seqs", 1)
    assert done.returncode == 0, done.stderr[-2000:]
    return results, text


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda v: "x".join(map(str, v)))
def test_tensor_cores_give_the_same_bits_in_every_layout(tensor_core_model, reference, tmp_path, layout):
    tp, pp = layout
    _, text, _ = generate(tensor_core_model, make_jobs(384), tmp_path, *EMULATOR, "--tp", tp, "--pp", pp, ranks=tp * pp)
    assert text == reference[1]


@pytest.mark.parametrize("axes", [
    ("--max-num-seqs", "16"), ("--max-num-batched-tokens", "7"), ("--no-enable-prefix-caching",),
    ("--num-kv-blocks", "22", "--max-model-len", "288", "--max-num-batched-tokens", "64"),
    ("--no-cuda-graphs", "--max-num-seqs", "16"),
    ("--enforce-eager", "--num-kv-blocks", "22", "--max-model-len", "288", "--max-num-batched-tokens", "64")],
    ids=["together", "chunks", "no-cache", "preemption", "no-graphs", "no-graphs-preemption"])
def test_tensor_cores_give_the_same_bits_in_every_batch(tensor_core_model, reference, tmp_path, axes):
    assert generate(tensor_core_model, make_jobs(384), tmp_path, *EMULATOR, *axes)[1] == reference[1]


def test_tensor_cores_agree_with_the_cpu(tensor_core_model, reference, tmp_path):
    on_cpu, _, _ = generate(tensor_core_model, make_jobs(384), tmp_path, "--device", "cpu")
    for got, want in zip(reference[0], on_cpu, strict=True):
        if got["index"] > 1:
            continue  # a draw may fall on the other side of a boundary
        assert got["token_ids"] == want["token_ids"]
        assert got["logprobs"] == pytest.approx(want["logprobs"], abs=BF16_TOLERANCE)


@pytest.mark.parametrize("name", ["models/stories260K", "goldens/models/qwen3-headdim"])
@pytest.mark.parametrize("layout", [(1, 1), (2, 2)], ids=lambda v: "x".join(map(str, v)))
def test_simt_kernels_give_the_bits_of_the_cpu(name, layout, tmp_path):
    model, (tp, pp) = shared(name), layout
    flags = ("--dtype", "f32", "--max-model-len", 320)
    jobs = make_jobs(256)
    _, on_cpu, _ = generate(model, jobs, tmp_path, *flags, "--device", "cpu")
    _, emulated, _ = generate(model, jobs, tmp_path, *flags, *EMULATOR, "--tp", tp, "--pp", pp,
                              ranks=tp * pp if tp * pp > 1 else 0)
    assert emulated == on_cpu


def test_a_server_runs_on_emulated_ranks(tensor_core_model, tmp_path):
    job = make_jobs(384)[1]
    with serving(tensor_core_model, *EMULATOR, "--tp", 2, "--pp", 2, "--max-model-len", 288, tmp_path=tmp_path) as server:
        done = subprocess.run([CHORALE, "submit", "--url", server.url, "--jobs", "-", "--json"], input=json.dumps(job) + "\n",
                              capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert server.drain() == 0
    assert "/emulator/" in json.loads(run("plan", "--model", tensor_core_model, "--json", *EMULATOR).stdout)["numerics_class"]


def with_library(name):
    """The environment in which a rank finds the build's stand-in for cuBLASLt that is called so."""
    path = CHORALE.parent / f"fake_libraries/libfake_{name}.so"
    if not path.exists():
        pytest.skip(f"no {path}: build the tests")
    return {"CHORALE_CUBLASLT_PATH": str(path)}


def test_a_library_multiplies_where_asked(tensor_core_model, tmp_path):
    """The stand-in keeps one order for every shape; a real library's class names tp because it does not promise that."""
    texts = []
    for tp in (1, 2):
        flags = (*EMULATOR, "--gemm", "cublaslt", "--tp", tp)
        plan = run("plan", "--model", tensor_core_model, "--json", *flags, env=with_library("right"))
        assert f"gemm=cublaslt-13.1.0/emulator/tp={tp}/" in json.loads(plan.stdout)["numerics_class"]
        results, text, done = generate(tensor_core_model, make_jobs(384), tmp_path, *flags, ranks=tp if tp > 1 else 0,
                                       env=with_library("right"))
        assert done.returncode == 0, done.stderr[-2000:]
        texts.append(text)
    assert texts[0] == texts[1]


@pytest.mark.parametrize("name,word", [("rows", "row 0 of 1 x"), ("missing", "it has no cublasLtMatmul")])
def test_a_library_that_breaks_the_contract_is_refused(tensor_core_model, tmp_path, name, word):
    jobs = tmp_path / "jobs.jsonl"
    jobs.write_text(json.dumps(make_jobs(384)[1]) + "\n")
    done = run("generate", "--model", tensor_core_model, "--jobs", jobs, *EMULATOR, "--gemm", "cublaslt", env=with_library(name))
    assert done.returncode != 0 and word in done.stderr and "--gemm own" in done.stderr, done.stderr


@pytest.mark.parametrize("tp", [1, 2])
def test_a_fast_answer_is_near_the_one_answer(tensor_core_model, tmp_path, tp):
    """The stand-in for cuBLASLt splits k where it may: other bits than one answer's, the same tokens within a tolerance."""
    jobs, flags, ranks = make_jobs(384)[:2], (*EMULATOR, "--tp", tp), tp if tp > 1 else 0
    one, one_text, _ = generate(tensor_core_model, jobs, tmp_path, *flags, ranks=ranks)
    fast, fast_text, done = generate(tensor_core_model, jobs, tmp_path, *flags, "--answer", "fast", ranks=ranks, env=with_library("right"))
    assert done.returncode == 0, done.stderr[-2000:]
    assert fast_text != one_text
    for got, want in zip(fast, one, strict=True):
        assert got["token_ids"] == want["token_ids"]
        assert got["logprobs"] == pytest.approx(want["logprobs"], abs=BF16_TOLERANCE)


@pytest.mark.parametrize("device,library,word", [("cpu", "right", "the ranks compute on the CPU"), ("emulator", "missing", "it has no cublasLtMatmul")])
def test_a_fast_answer_is_refused_where_nothing_makes_it_fast(tensor_core_model, tmp_path, device, library, word):
    jobs = tmp_path / "jobs.jsonl"
    jobs.write_text(json.dumps(make_jobs(384)[1]) + "\n")
    done = run("generate", "--model", tensor_core_model, "--jobs", jobs, "--device", device, "--answer", "fast", env=with_library(library))
    assert done.returncode != 0 and word in done.stderr and "--answer one" in done.stderr, done.stderr


def test_float16_gives_one_answer_near_the_cpu_s(tensor_core_model, tmp_path):
    """f16 has three more bits than bf16: nearer to float32 on the CPU."""
    jobs = make_jobs(384)
    flags = ("--dtype", "float16")
    alone, text, done = generate(tensor_core_model, jobs, tmp_path, *EMULATOR, *flags, "--max-num-seqs", 1)
    assert done.returncode == 0, done.stderr[-2000:]
    for tp, pp, chunk in ((2, 2, 512), (3, 1, 7)):
        assert generate(tensor_core_model, jobs, tmp_path, *EMULATOR, *flags, "--tp", tp, "--pp", pp,
                        "--max-num-batched-tokens", chunk, ranks=tp * pp)[1] == text
    on_cpu, _, _ = generate(tensor_core_model, jobs[:2], tmp_path, "--device", "cpu", "--dtype", "f32")
    for got, want in zip(alone[:2], on_cpu, strict=True):
        assert got["token_ids"] == want["token_ids"]
        assert got["logprobs"] == pytest.approx(want["logprobs"], abs=BF16_TOLERANCE / 4)


def test_float16_is_refused_on_a_cpu(tensor_core_model, tmp_path):
    jobs = tmp_path / "jobs.jsonl"
    jobs.write_text(json.dumps(make_jobs(384)[1]) + "\n")
    done = run("generate", "--model", tensor_core_model, "--jobs", jobs, "--device", "cpu", "--dtype", "float16")
    assert done.returncode != 0 and "use --dtype bf16" in done.stderr, done.stderr


def test_an_unknown_device_is_refused(tensor_core_model, tmp_path):
    jobs = tmp_path / "jobs.jsonl"
    jobs.write_text(json.dumps(make_jobs(384)[1]) + "\n")
    done = run("generate", "--model", tensor_core_model, "--jobs", jobs, "--device", "gpu")
    assert done.returncode == 2 and "cpu, cuda, emulator" in done.stderr
