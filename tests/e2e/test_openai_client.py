"""The openai Python package against a tp=2 x pp=2 server: chat and completions, streaming and not, many streams, disconnects."""
import concurrent.futures
import json
import re
import socket
import time
import urllib.parse
import urllib.request

import openai
import pytest
from conftest import run, serving


@pytest.fixture(scope="module")
def server(smollm2, tmp_path_factory):
    with serving(smollm2, "--tp", 2, "--pp", 2, "--served-model-name", "smol", ranks=4,
                 tmp_path=tmp_path_factory.mktemp("server")) as running:
        yield running
        assert running.drain() == 0, running.log.read_text()[-3000:]


@pytest.fixture(scope="module")
def client(server):
    return openai.OpenAI(base_url=server.url + "/v1", api_key="none", timeout=120, max_retries=0)


def metric(server, name):
    text = urllib.request.urlopen(server.url + "/metrics", timeout=10).read().decode()
    values = re.findall(rf"^{re.escape(name)}(?:\{{[^}}]*\}})? (\S+)$", text, re.MULTILINE)
    assert values, f"no series {name} in:\n{text}"
    return sum(map(float, values))


def eventually(condition, what, timeout=30):
    """Polls a server from outside, as a monitor does."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, f"{what} did not become true within {timeout} s"


QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


def test_models(client):
    model = client.models.list().data[0]
    assert model.id == "smol"
    assert model.max_model_len > 0 and model.root


def test_chat(client):
    answer = client.chat.completions.create(model="smol", messages=QUESTION, temperature=0, max_tokens=24)
    assert "Paris" in answer.choices[0].message.content
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_streamed_chat_is_the_whole_chat_in_pieces(client):
    ask = dict(model="smol", messages=QUESTION, temperature=0, max_tokens=24, logprobs=True, top_logprobs=3)
    whole = client.chat.completions.create(**ask)
    pieces, tokens, usage, finish = [], [], None, None
    for chunk in client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            pieces.append(choice.delta.content or "")
            tokens += choice.logprobs.content if choice.logprobs and choice.logprobs.content else []
            finish = choice.finish_reason or finish
    assert "".join(pieces) == whole.choices[0].message.content
    assert [t.logprob for t in tokens] == [t.logprob for t in whole.choices[0].logprobs.content]
    assert all(len(t.top_logprobs) == 3 for t in tokens)
    assert finish == whole.choices[0].finish_reason
    assert usage == whole.usage or usage.completion_tokens == whole.usage.completion_tokens


def test_completions_n_echo_logprobs(client):
    answer = client.completions.create(model="smol", prompt=["One, two,", "The sea is"], max_tokens=8, n=2, seed=7, echo=True,
                                       logprobs=2, temperature=0.8)
    assert [c.index for c in answer.choices] == [0, 1, 2, 3]
    for choice in answer.choices:
        assert choice.text.startswith(("One, two,", "The sea is"))
        assert choice.logprobs.token_logprobs[0] is None
        assert len(choice.logprobs.tokens) == len(choice.logprobs.token_logprobs)
    again = client.completions.create(model="smol", prompt="One, two,", max_tokens=8, n=2, seed=7, echo=True, logprobs=2,
                                      temperature=0.8)
    assert [c.text for c in again.choices] == [c.text for c in answer.choices[:2]]


def test_stop_string_is_not_in_the_text(client):
    answer = client.completions.create(model="smol", prompt="1, 2, 3, 4, 5, 6,", max_tokens=40, temperature=0, stop=["9"])
    assert "9" not in answer.choices[0].text and answer.choices[0].finish_reason == "stop"


def test_vllm_extras(client):
    answer = client.completions.create(
        model="smol", prompt="Hello", max_tokens=6, temperature=1, seed=1,
        extra_body={"top_k": 5, "min_p": 0.01, "repetition_penalty": 1.1, "ignore_eos": True, "min_tokens": 6})
    assert answer.usage.completion_tokens == 6


def test_errors_have_their_types(client):
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="other", messages=QUESTION)
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="smol", messages=QUESTION, temperature=-1)
    assert refused.value.param == "temperature"
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="smol", messages=QUESTION, tools=[
            {"type": "function", "function": {"name": "f", "parameters": {}}}])
    assert refused.value.param == "tools"


def test_64_concurrent_streams_finish_with_the_same_answers(client):
    def stream(i):
        text = ""
        for chunk in client.completions.create(model="smol", prompt=f"Number {i % 16} is", max_tokens=12, temperature=0.7, seed=i % 16,
                                               stream=True):
            text += chunk.choices[0].text
        return text

    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        texts = list(pool.map(stream, range(64)))
    for i in range(64):
        assert texts[i] == texts[i % 16] != ""


def send(server, job):
    """A socket on which a completion request was sent."""
    host = urllib.parse.urlparse(server.url)
    body = json.dumps(job)
    peer = socket.create_connection((host.hostname, host.port), timeout=30)
    peer.sendall(f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
                 f"{body}".encode())
    return peer


def test_a_client_that_disconnects_frees_its_blocks(server, client):
    peer = send(server, {"model": "smol", "prompt": "Count: 1, 2,", "max_tokens": 4000, "ignore_eos": True, "stream": True})
    received = b""
    while b"data:" not in received:
        received += peer.recv(4096)
    assert metric(server, "vllm:num_requests_running") >= 1
    peer.close()
    eventually(lambda: metric(server, "vllm:num_requests_running") == 0, "no running requests")
    assert metric(server, "vllm:kv_cache_usage_perc") == 0


def test_a_client_that_leaves_before_its_whole_answer_frees_its_blocks(server):
    peer = send(server, {"model": "smol", "prompt": "Count: 1, 2,", "max_tokens": 4000, "ignore_eos": True})
    eventually(lambda: metric(server, "vllm:num_requests_running") >= 1, "a running request")
    peer.close()
    eventually(lambda: metric(server, "vllm:num_requests_running") == 0, "no running requests")


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_says_no_more_gets_its_whole_answer(server, stream):
    peer = send(server, {"model": "smol", "prompt": "Count: 1, 2,", "max_tokens": 20, "ignore_eos": True, "stream": stream})
    peer.shutdown(socket.SHUT_WR)
    answer = b"".join(iter(lambda: peer.recv(65536), b"")).decode()
    assert answer.startswith("HTTP/1.1 200 OK\r\n"), answer[:200]
    if stream:
        assert answer.count('"finish_reason":"length"') == 1 and "data: [DONE]" in answer
    else:
        assert json.loads(answer[answer.index("\r\n\r\n"):])["usage"]["completion_tokens"] == 20


def test_submit_streams_and_prints_json(server, tmp_path):
    done = run("submit", "--url", server.url, "--chat", "What is the capital of France?", "--max-tokens", 16, "--temperature", 0)
    assert done.returncode == 0 and "Paris" in done.stdout, done.stderr
    assert "tokens/s" in done.stderr
    jobs = tmp_path / "jobs.jsonl"
    jobs.write_text('{"prompt": "One, two,", "max_tokens": 4, "temperature": 0}\n' * 3)
    done = run("submit", "--url", server.url, "--jobs", jobs, "--json")
    assert done.returncode == 0 and len([json.loads(line) for line in done.stdout.splitlines()]) == 3


def test_health_version_tokenize(server):
    def call(path, body=None):
        request = urllib.request.Request(server.url + path, data=None if body is None else json.dumps(body).encode(),
                                         headers={"Content-Type": "application/json"})
        return urllib.request.urlopen(request, timeout=10).read()

    call("/health")
    assert "version" in json.loads(call("/version"))
    ids = json.loads(call("/tokenize", {"model": "smol", "prompt": "Hello there"}))
    assert ids["count"] == len(ids["tokens"])
    assert json.loads(call("/detokenize", {"model": "smol", "tokens": ids["tokens"]}))["prompt"] == "Hello there"
