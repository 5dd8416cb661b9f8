"""Flags of serve, and the commands that talk to a server: keys, names and stop strings as they were typed, what loading took, loads."""
import json
import re
import urllib.error
import urllib.request

import pytest
from conftest import generate, run, serving, shared
from test_bench import KEYS

KEY = "one,two"
LOADED = re.compile(r"rank (\d+) ready .*: (\d+) MiB of weights from (\d+) MiB of the checkpoint in ([\d.]+) s, \d+ MiB of KV cache, (\d+) MiB")


@pytest.fixture(scope="module")
def server(smollm2, tmp_path_factory):
    with serving(smollm2, "--tp", 2, "--pp", 2, "--api-key", KEY, "--served-model-name", "a,b", "--max-model-len", 512, ranks=4,
                 tmp_path=tmp_path_factory.mktemp("serve")) as started:
        yield started


def get(server, path, key=None):
    request = urllib.request.Request(server.url + path, headers={"Authorization": f"Bearer {key}"} if key else {})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_a_comma_belongs_to_a_key_and_to_a_name(server):
    status, models = get(server, "/v1/models", KEY)
    assert status == 200 and [model["id"] for model in models["data"]] == ["a,b"]
    assert get(server, "/v1/models", "one")[0] == 401 and get(server, "/v1/models")[0] == 401


def test_the_log_says_what_loading_took_and_where_it_serves(server, smollm2):
    plan = json.loads(run("plan", "--model", smollm2, "--tp", 2, "--pp", 2, "--max-model-len", 512, "--json").stdout)
    log = server.log.read_text()
    loaded = {int(rank): list(map(float, facts)) for rank, *facts in LOADED.findall(log)}
    assert sorted(loaded) == [0, 1, 2, 3] and f"serving a,b on {server.url}" in log
    for rank in plan["ranks"]:
        weights, read, seconds, resident = loaded[rank["rank"]]
        assert weights == pytest.approx(rank["weight_bytes"] / 2**20, abs=1)
        assert read == pytest.approx(rank["read_bytes"] / 2**20, abs=1)
        assert seconds > 0 and resident > weights


def test_the_log_says_why_the_cpu_computes(smollm2, tmp_path):
    no_gpu, job = {"CUDA_VISIBLE_DEVICES": ""}, [{"prompt": [1, 2], "max_tokens": 1}]
    _, _, done = generate(smollm2, job, tmp_path, "--log-level", "info", env=no_gpu)
    assert len(re.findall(r"comput(?:es|ing) on the CPU: .+; .+", done.stderr)) == 1, done.stderr
    _, _, asked = generate(smollm2, job, tmp_path, "--log-level", "info", "--device", "cpu", env=no_gpu)
    assert "on the CPU: " not in asked.stderr


def test_submit_takes_a_comma_as_a_stop_string_and_prints_every_prompts_answer(server, tmp_path):
    submit = ("submit", "--url", server.url, "--api-key", KEY, "--temperature", 0)
    whole = run(*submit, "--prompt", "One, two, three, four,", "--max-tokens", 12)
    stopped = run(*submit, "--prompt", "One, two, three, four,", "--max-tokens", 12, "--stop", ",")
    assert whole.returncode == stopped.returncode == 0, stopped.stderr
    assert "," in whole.stdout and stopped.stdout.strip() == whole.stdout.split(",")[0].strip()
    jobs = tmp_path / "jobs.jsonl"
    jobs.write_text(json.dumps({"prompt": ["One, two, three, four,", "Monday, Tuesday,"], "max_tokens": 12}) + "\n")
    both = run(*submit, "--jobs", jobs)
    alone = run(*submit, "--prompt", "Monday, Tuesday,", "--max-tokens", 12)
    assert both.returncode == 0 and both.stdout.strip() == (whole.stdout.rstrip("\n") + "\n" + alone.stdout).strip()


def test_bench_serve(server):
    done = run("bench", "serve", "--url", server.url, "--api-key", KEY, "--num-requests", 6, "--concurrency", 3, "--prompt-len", 8,
               "--max-tokens", 4, "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert rows and all(list(row)[: len(KEYS)] == KEYS for row in rows)
    assert all(0 < row["p50"] <= row["p99"] for row in rows)
    assert run("bench", "serve", "--url", server.url, "--api-key", "one", "--num-requests", 1).returncode == 1


@pytest.mark.parametrize("flags,code,says", [
    (["--api-key", ""], 2, "--api-key is empty"), (["--chat-template", "/nonexistent"], 1, "/nonexistent"),
    (["--chat-template", "broken.jinja"], 2, "broken.jinja: ")])
def test_what_cannot_be_served_is_said_before_workers_load(flags, code, says, tmp_path):
    if flags[1] == "broken.jinja":
        flags = [flags[0], tmp_path / "broken.jinja"]
        flags[1].write_text("{% for message in messages %}{{ message }}")
    done = run("serve", "--model", shared("models/stories260K"), "--port", 0, *flags)
    assert done.returncode == code and says in done.stderr and "ready" not in done.stderr, done.stderr
