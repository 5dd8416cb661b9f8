"""The command line: help, version, exit codes, and the formats that scripts of others read."""
import json

import pytest
from conftest import run, shared

COMMANDS = ["serve", "worker", "generate", "submit", "tokenize", "plan", "inspect", "bench", "doctor"]


def test_help_and_version():
    top = run("--help")
    assert top.returncode == 0 and all(command in top.stdout for command in COMMANDS)
    version = run("--version")
    assert version.returncode == 0 and version.stdout.startswith("chorale ")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command):
    done = run(command, "--help")
    assert done.returncode == 0 and "chorale " + command in done.stdout and "example" in done.stdout.lower()


@pytest.mark.parametrize("arguments", [[], ["sing"], ["plan"], ["plan", "--model"], ["plan", "--no-such-flag", "1"],
                                       ["generate", "--model", "x", "--jobs"], ["tokenize", "--bogus"],
                                       ["plan", "--model", "x", "stray"], ["generate", "--model", "x", "--jobs", "y", "stray"]])
def test_usage_errors_exit_2(arguments):
    done = run(*arguments)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.strip()


def test_a_missing_model_is_named():
    for command in (["plan"], ["inspect"], ["generate", "--jobs", "/dev/null"]):
        done = run(*command, "--model", "/nonexistent/model")
        assert done.returncode in (1, 2) and "/nonexistent/model" in done.stderr


def test_plan_json():
    done = run("plan", "--model", shared("models/stories260K"), "--tp", 3, "--pp", 2, "--json")
    plan = json.loads(done.stdout)
    assert [r["rank"] for r in plan["ranks"]] == list(range(6))
    assert {"rank", "stage", "tp", "heads", "kv_heads", "layers", "weight_bytes", "read_bytes"} <= plan["ranks"][0].keys()
    assert plan["num_kv_blocks"] > 0 and "La=8" in plan["numerics_class"]
    assert {r["stage"] for r in plan["ranks"]} == {0, 1} and {r["tp"] for r in plan["ranks"]} == {0, 1, 2}


def test_plan_says_whether_the_kv_cache_is_capped_at_the_need():
    def plan(*flags):
        command = ("plan", "--model", shared("models/stories260K"), "--max-num-seqs", 2, "--max-model-len", 256, *flags)
        return json.loads(run(*command, "--json").stdout), run(*command).stdout
    facts, text = plan("--kv-cache-memory-bytes", "2G")
    assert facts["num_kv_blocks"] == 2 * 16 < facts["affordable_kv_blocks"] and facts["kv_capped_at_need"] is True
    assert "capped at what 2 sequences" in text and str(facts["affordable_kv_blocks"]) in text
    facts, text = plan("--kv-cache-memory-bytes", "1000K")
    assert facts["num_kv_blocks"] == facts["affordable_kv_blocks"] < 32 and facts["kv_capped_at_need"] is False
    assert "capped" not in text


@pytest.mark.parametrize("flags,says", [
    (["--kv-cache-memory-bytes", 100], "no length fits, or raise --kv-cache-memory-bytes to 1310720 bytes"),
    (["--kv-cache-memory-bytes", 100000], "--max-model-len 32 fits, or raise --kv-cache-memory-bytes to 1310720 bytes"),
    (["--num-kv-blocks", 2], "--max-model-len 32 fits, or raise --num-kv-blocks to 32"),
    (["--num-kv-blocks", 100000000], "MiB too little")])
def test_a_plan_that_cannot_fit_exits_1_and_says_what_would(flags, says):
    done = run("plan", "--model", shared("models/stories260K"), *flags)
    assert done.returncode == 1 and says in done.stderr and done.stdout == "", done.stderr


@pytest.mark.parametrize("seed,same", [("-3", 2**64 - 3), ("-9223372036854775808", 2**63), ("18446744073709551615", -1)])
def test_seeds_are_any_64_bit_integer_as_in_the_http_api(tmp_path, seed, same):
    model, flags = shared("models/stories260K"), ("--prompt", "Once", "--temperature", 1, "--max-tokens", 8, "--json")
    by_flag = run("generate", "--model", model, *flags, "--seed", seed)
    jobs = tmp_path / "jobs.jsonl"
    jobs.write_text(json.dumps({"prompt": "Once", "temperature": 1, "max_tokens": 8, "seed": same}) + "\n")
    by_body = run("generate", "--model", model, "--jobs", jobs, "--json")
    assert by_flag.returncode == 0 and by_flag.stdout == by_body.stdout, by_flag.stderr
    assert run("plan", "--model", model, "--seed", seed).returncode == 0


@pytest.mark.parametrize("seed", ["x", "1.5", "", "18446744073709551616", "-9223372036854775809"])
def test_what_is_no_64_bit_integer_is_no_seed(seed):
    done = run("plan", "--model", shared("models/stories260K"), f"--seed={seed}")
    assert done.returncode == 2 and "--seed" in done.stderr and "64-bit integer" in done.stderr


def test_submit_prints_no_speed_when_every_job_failed(tmp_path):
    jobs = tmp_path / "jobs.jsonl"
    jobs.write_text('{"prompt": "a"}\n\n{"prompt": "b"}\n')
    done = run("submit", "--url", "http://127.0.0.1:9", "--jobs", jobs)  # nobody listens there
    assert done.returncode == 1 and "0 of 2 jobs succeeded (2 failed)" in done.stderr and "tokens" not in done.stderr
    done = run("submit", "--url", "http://127.0.0.1:9", "--prompt", "a")
    assert done.returncode == 1 and "tokens" not in done.stderr and "job 0" in done.stderr


def test_each_rank_copies_its_own_slices_only():
    """Slices of the ranks add up to the model, but for KV heads that several ranks share and small replicated vectors."""
    model = shared("models/stories260K")
    one = json.loads(run("plan", "--model", model, "--json").stdout)["ranks"][0]["weight_bytes"]
    four = [r["weight_bytes"] for r in json.loads(run("plan", "--model", model, "--tp", 2, "--pp", 2, "--json").stdout)["ranks"]]
    assert max(four) < 0.6 * one and one <= sum(four) < 1.1 * one


def test_inspect_json():
    facts = json.loads(run("inspect", "--model", shared("goldens/gguf/qwen3-q4_k.gguf"), "--json").stdout)
    assert facts["format"].lower() == "gguf" and facts["num_tensors"] == len(facts["tensors"])
    assert "Q4_K" in facts["dtypes"]


def test_doctor_json():
    done = run("doctor", "--json", "--port", 0)
    findings = json.loads(done.stdout)
    assert {"mpi", "cpu", "memory", "/dev/shm", "gpu"} <= {f["subject"] for f in findings}
    assert all(f["verdict"] != "fail" for f in findings if f["subject"] == "gpu")  # a host without one is fit
    assert all(f["verdict"] in ("ok", "warn", "fail") for f in findings)
    assert done.returncode == (1 if any(f["verdict"] == "fail" for f in findings) else 0)


def test_doctor_names_libraries_with_or_without_a_gpu():
    findings = json.loads(run("doctor", "--json", "--port", 0, env={"CHORALE_NCCL_PATH": "/nonexistent/libnccl.so.2"}).stdout)
    verdicts = {f["subject"]: (f["verdict"], f["fact"]) for f in findings}
    assert "cuBLASLt" in verdicts
    verdict, fact = verdicts["NCCL"]
    assert verdict == "warn" and "/nonexistent/libnccl.so.2: cannot open" in fact and "CHORALE_NCCL_PATH" in fact, fact


def test_doctor_asks_hosts_but_not_this_one(tmp_path):
    hosts = tmp_path / "hosts"
    hosts.write_text("# a comment\nlocalhost slots=4\nno-such-host.invalid slots=2\n")
    done = run("doctor", "--json", "--port", 0, "--hostfile", hosts)
    findings = {finding["subject"]: finding for finding in json.loads(done.stdout)}
    assert done.returncode == 1 and findings["host localhost"]["verdict"] == "ok"
    missing = findings["host no-such-host.invalid"]
    assert missing["verdict"] == "fail" and "ssh" in missing["fact"] and missing["advice"]
    hosts.write_text("# nobody\n")
    assert "names no host" in run("doctor", "--port", 0, "--hostfile", hosts).stdout


@pytest.mark.parametrize("file,says", [
    ("tokenizers/bert-uncased-tokenizer.json", ["WordPiece", "supported are BPE"]),
    ("tokenizers/llamacpp-golden/ggml-vocab-bert-bge.gguf", ["'bert'", "supported are gpt2"]),
    ("tokenizers/gpt2-vocab.json", ["tokenizer.json", "model: expected an object"]),
    ("tokenizers/gpt2-merges.txt", ["tokenizer.json"]),
    ("tokenizers/seqio-t5style-1000.model", ["tokenizer.json", "SentencePiece"]),
    ("tokenizers/whisper-multilingual.tiktoken", ["tokenizer.json", "tiktoken"])])
def test_tokenize_refuses_by_name_and_says_what_is_read(file, says):
    done = run("tokenize", "--model", shared(file), stdin='"Hello"\n')
    assert done.returncode == 1 and done.stdout == "" and done.stderr.count("\n") == 1
    assert all(word in done.stderr for word in says) and "exception" not in done.stderr, done.stderr


def test_tokenize():
    done = run("tokenize", "--model", shared("goldens/tokenizers/gpt2.tokenizer.json"), stdin='"Hello world"\n"a\\nb"\n')
    assert [json.loads(line) for line in done.stdout.splitlines()][0] == [15496, 995]


def test_tokenize_chat(tmp_path):
    template = tmp_path / "t.jinja"
    template.write_text("{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}")
    line = json.dumps({"messages": [{"role": "user", "content": "é"}], "add_generation_prompt": True, "variables": {"bos_token": "<b>"}})
    done = run("tokenize", "--model", shared("models/stories260K"), "--chat", "--template", template, stdin=line + "\n{\"x\": 1}\n")
    answers = [json.loads(text) for text in done.stdout.splitlines()]
    assert answers[0] == "<b>[user] é\n" and "error" in answers[1]


def test_generate_formats(tmp_path):
    jobs = tmp_path / "jobs.jsonl"
    jobs.write_text("\n".join([
        '{"prompt": "Once upon", "max_tokens": 5, "temperature": 0}',
        '{"prompt": ["One", "Two"], "max_tokens": 3, "n": 2, "seed": 3}',
        '{"prompt": "x", "max_tokens": -1}',
        "not json"]) + "\n")
    done = run("generate", "--model", shared("models/stories260K"), "--jobs", jobs, "--json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 1
    assert [line["index"] for line in lines] == [0, 1, 1, 1, 1, 2, 3]
    good = lines[0]
    assert set(good) == {"index", "choice", "prompt_token_ids", "token_ids", "logprobs", "text", "finish_reason"}
    assert len(good["token_ids"]) == len(good["logprobs"]) == 5 and good["finish_reason"] == "length"
    assert "max_tokens" in lines[5]["error"] and set(lines[5]) == {"index", "error"}
    assert "error" in lines[6]


def test_a_job_without_tokens_ends_by_length(tmp_path):
    jobs = tmp_path / "jobs.jsonl"
    jobs.write_text('{"prompt": [1, 403], "max_tokens": 0, "echo": true}\n')
    line = json.loads(run("generate", "--model", shared("models/stories260K"), "--jobs", jobs, "--json").stdout)
    assert line["token_ids"] == [] and line["finish_reason"] == "length"


def test_one_rank_speaks_for_all(tmp_path):
    done = run("generate", "--help", ranks=3)
    assert done.returncode == 0 and done.stdout.count("Usage") == 1
    done = run("generate", "--model", shared("models/stories260K"), "--jobs", "/dev/null", "--no-such-flag", ranks=3)
    assert done.returncode == 2 and done.stderr.count("no-such-flag") == 1


LLAMA_70B = {"model_type": "llama", "torch_dtype": "bfloat16", "hidden_act": "silu", "hidden_size": 8192, "intermediate_size": 28672,
             "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8, "vocab_size": 128256,
             "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "tie_word_embeddings": False}
FIXED_FIELDS = {"ranks", "num_kv_blocks", "affordable_kv_blocks", "kv_capped_at_need", "numerics_class", "tp", "pp", "max_model_len",
                "max_num_seqs", "max_num_batched_tokens", "threads"}


@pytest.fixture
def config_of_70b(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_70B))
    return tmp_path


def test_plan_recommends_tp_inside_nodes_and_pp_between_them_from_a_config_alone(config_of_70b):
    flags = ("plan", "--model", config_of_70b, "--gpu", "H100-SXM", "--nodes", 2, "--gpus-per-node", 4, "--network", 200, "--max-model-len", 8192)
    plan = json.loads(run(*flags, "--json").stdout)
    assert FIXED_FIELDS <= plan.keys() and plan["weights_read"] is False
    assert (plan["recommendation"]["tp"], plan["recommendation"]["pp"]) == (4, 2) == (plan["tp"], plan["pp"])
    assert len(plan["ranks"]) == 8 and plan["ranks"][0]["read_bytes"] is None and "/sm_90/" in plan["numerics_class"]
    by_layout = {(line["tp"], line["pp"]): line for line in plan["layouts"]}
    assert by_layout[1, 1]["fits"] == "none" and by_layout[1, 1]["missing_bytes"] > 60 << 30
    assert by_layout[8, 1]["bottleneck"] == "all-reduces between nodes"
    assert by_layout[8, 1]["tokens_per_s"] < by_layout[4, 2]["tokens_per_s"]
    assert 0.9 * 2**30 * 70 * 2 < 4 * 2 * by_layout[4, 2]["weight_bytes"] < 1.1 * 2**30 * 70 * 2
    text = run(*flags).stdout
    assert "recommended (*): --tp 4 --pp 2" in text and "not measurements" in text and "weights  not read" in text
    named = json.loads(run(*flags, "--tp", 8, "--json").stdout)  # a layout that is named stays; the advice does too
    assert (named["tp"], named["pp"]) == (8, 1) and named["recommendation"]["tp"] == 4


def test_plan_says_by_how_much_a_model_fits_nowhere(config_of_70b):
    done = run("plan", "--model", config_of_70b, "--gpu", "RTX-4090", "--gpus-per-node", 2, "--max-model-len", 8192)
    assert done.returncode == 1 and done.stdout == "" and "GiB too little" in done.stderr
    assert "what would fit: 4 nodes of 2 rank(s)" in done.stderr, done.stderr


def test_plan_recommends_for_cpu_nodes_by_given_and_measured_figures():
    flags = ("plan", "--model", shared("models/stories260K"), "--recommend", "--nodes", 2, "--ranks-per-node", 2, "--json")
    given = json.loads(run(*flags, "--memory-bandwidth", 50, "--matrix-rate", 1, "--memory-bytes", "16G").stdout)
    assert FIXED_FIELDS <= given.keys() and given["weights_read"] is True and given["figures"]["source"] == "figures given"
    assert {(line["tp"], line["pp"]) for line in given["layouts"]} >= {(1, 1), (2, 1), (1, 2), (2, 2), (4, 1), (1, 4)}
    measured = json.loads(run(*flags).stdout)["figures"]
    assert "measured" in measured["source"] and measured["memory_gb_per_s"] > 1 and measured["bf16_tflops"] > 0.001


@pytest.mark.parametrize("flags,says", [
    (["--gpu", "L4", "--answer", "fast"], "known on the machine only"),
    (["--nodes", 2], "--nodes describes machines"), (["--gpu", "H1000"], "known are A100-40"),
    (["--gpu", "L4", "--device", "cpu"], "contradict"), (["--gpu", "L4", "--max-model-len", 100000], "the model has 512 positions"),
    (["--gpu", "L4", "--nodes", 1000, "--gpus-per-node", 1000], "1 to 1024 ranks")])
def test_plan_refuses_machines_that_are_none(flags, says):
    done = run("plan", "--model", shared("models/stories260K"), *flags)
    assert done.returncode == 2 and says in done.stderr and done.stdout == "", done.stderr


def test_a_config_alone_is_no_model_for_other_commands(config_of_70b):
    for command in (["plan"], ["generate", "--prompt", "a"], ["inspect"]):
        done = run(*command, "--model", config_of_70b)
        assert done.returncode == 1 and "model.safetensors" in done.stderr
