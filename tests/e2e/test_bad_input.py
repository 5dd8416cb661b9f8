"""Bad checkpoints, tokenizers, layouts and options: each gets one clear error line, the right exit code, and no crash."""
import json
import shutil
import struct

import pytest
from conftest import run, shared


@pytest.fixture
def folder(tmp_path):
    """A writable copy of a small, good checkpoint."""
    source = shared("models/stories260K")
    target = tmp_path / "model"
    target.mkdir()
    for path in source.iterdir():
        shutil.copyfile(path, target / path.name)
    return target


def config(folder, **changes):
    path = folder / "config.json"
    data = json.loads(path.read_text())
    for key, value in changes.items():
        if value is None:
            data.pop(key, None)
        else:
            data[key] = value
    path.write_text(json.dumps(data))


def weights(folder, edit):
    """Applies `edit(header, data) -> (header, data)` to model.safetensors."""
    path = folder / "model.safetensors"
    raw = path.read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    header, data = edit(json.loads(raw[8:8 + size]), raw[8 + size:])
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def first(header):
    return next(k for k in header if k != "__metadata__")


def drop(header, data):
    """Takes one tensor out, header and bytes."""
    begin, end = header.pop("model.layers.2.mlp.up_proj.weight")["data_offsets"]
    for entry in (v for k, v in header.items() if k != "__metadata__" and v["data_offsets"][0] >= end):
        entry["data_offsets"] = [offset - (end - begin) for offset in entry["data_offsets"]]
    return header, data[:begin] + data[end:]


def change(**fields):
    def edit(header, data):
        header[first(header)].update(fields)
        return header, data
    return edit


def tokenizer(folder, text):
    (folder / "tokenizer.json").write_text(text)


CHECKPOINTS = {
    "config missing": (lambda f: (f / "config.json").unlink(), "config.json"),
    "config not JSON": (lambda f: (f / "config.json").write_text("{"), "config.json"),
    "config a list": (lambda f: (f / "config.json").write_text("[]"), "config.json"),
    "model_type unknown": (lambda f: config(f, model_type="mamba", architectures=["MambaForCausalLM"]), "mamba"),
    "model_type missing": (lambda f: config(f, model_type=None, architectures=None), "model_type"),
    "hidden_size missing": (lambda f: config(f, hidden_size=None), "hidden_size"),
    "hidden_size a string": (lambda f: config(f, hidden_size="64"), "hidden_size"),
    "hidden_size negative": (lambda f: config(f, hidden_size=-64), "hidden_size"),
    "hidden_size huge": (lambda f: config(f, hidden_size=1 << 60), "hidden_size"),
    "hidden_size other": (lambda f: config(f, hidden_size=96), "96"),
    "heads not a multiple": (lambda f: config(f, num_key_value_heads=3), "3"),
    "no layers": (lambda f: config(f, num_hidden_layers=0), "layers"),
    "more layers than stored": (lambda f: config(f, num_hidden_layers=6), "model.layers.5"),
    "unknown activation": (lambda f: config(f, hidden_act="swish9"), "swish9"),
    "unknown rope": (lambda f: config(f, rope_scaling={"rope_type": "spiral", "factor": 2}), "spiral"),
    "rope factor zero": (lambda f: config(f, rope_scaling={"rope_type": "linear", "factor": 0}), "factor"),
    "weights missing": (lambda f: (f / "model.safetensors").unlink(), "model.safetensors"),
    "weights empty": (lambda f: (f / "model.safetensors").write_bytes(b""), "model.safetensors"),
    "weights cut": (lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-1000]), "model.safetensors"),
    "header length lies": (lambda f: (f / "model.safetensors").write_bytes(struct.pack("<Q", 1 << 62) + b"{}"), "header"),
    "header not JSON": (lambda f: weights(f, lambda h, d: (b"{\"a\":", d)), "model.safetensors"),
    "header nested": (lambda f: weights(f, lambda h, d: (b"[" * 100000, d)), "model.safetensors"),
    "tensor missing": (lambda f: weights(f, drop), "model.layers.2.mlp.up_proj.weight"),
    "dtype unknown": (lambda f: weights(f, change(dtype="F7")), "F7"),
    "offsets past the end": (lambda f: weights(f, change(data_offsets=[0, 1 << 40])), "offset"),
    "offsets reversed": (lambda f: weights(f, change(data_offsets=[800, 4])), "offset"),
    "offsets overflow": (lambda f: weights(f, change(data_offsets=[0, (1 << 64) - 1])), "offset"),
    "shape does not fit": (lambda f: weights(f, change(shape=[7, 7])), "7"),
    "shape overflows": (lambda f: weights(f, change(shape=[1 << 40, 1 << 40])), "shape"),
    "shape negative": (lambda f: weights(f, change(shape=[-1, 64])), "shape"),
    "index names a missing file": (
        lambda f: ((f / "model.safetensors").unlink(),
                   (f / "model.safetensors.index.json").write_text('{"weight_map": {"a": "absent.safetensors"}}')), "absent.safetensors"),
    "index leaves the folder": (
        lambda f: ((f / "model.safetensors").unlink(),
                   (f / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../x.safetensors"}}')), "../x.safetensors"),
    "tokenizer not JSON": (lambda f: tokenizer(f, "{"), "tokenizer.json"),
    "tokenizer without model": (lambda f: tokenizer(f, "{}"), "model"),
    "tokenizer kind unknown": (lambda f: tokenizer(f, '{"model": {"type": "Magic", "vocab": {}}}'), "Magic"),
    "tokenizer merges unknown tokens": (
        lambda f: tokenizer(f, '{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]}}'), "merge"),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_checkpoint(name, folder, tmp_path):
    damage, mention = CHECKPOINTS[name]
    damage(folder)
    jobs = tmp_path / "jobs.jsonl"
    jobs.write_text('{"prompt": "Once", "max_tokens": 2}\n')
    done = run("generate", "--model", folder, "--jobs", jobs, "--json", timeout=60)
    assert done.returncode in (1, 2), done.stderr
    errors = [line for line in done.stderr.splitlines() if "error" in line.lower()]
    assert len(errors) == 1 and mention in errors[0], done.stderr
    assert done.stdout == ""


LAYOUTS = {
    "tp over the leaves": (["--tp", 7], "6"),  # 172 columns make six MLP leaves
    "pp over the layers": (["--pp", 6], "5"),
    "tp zero": (["--tp", 0], "tensor-parallel-size 0"),
    "tp a word": (["--tp", "two"], "two"),
    "stages do not add up": (["--pp", 2, "--stages", "2,2"], "5"),
    "stages of another count": (["--pp", 2, "--stages", "5"], "2"),
    "shares of another count": (["--tp", 2, "--shares", "1,1,1"], "3"),
    "shares not positive": (["--tp", 2, "--shares", "1,0"], "0"),
    "dtype unknown": (["--dtype", "f8"], "f8"),
    "too few blocks": (["--num-kv-blocks", 2, "--max-model-len", 512], "32"),
    "longer than the model": (["--max-model-len", 100000], "512"),
    "blocks negative": (["--num-kv-blocks", -1], "num-kv-blocks"),
    "option unknown": (["--tensor-paralel", 2], "tensor-paralel"),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout(name):
    flags, mention = LAYOUTS[name]
    done = run("plan", "--model", shared("models/stories260K"), *flags, timeout=60)
    assert done.returncode in (1, 2), done.stdout
    assert mention in done.stderr and done.stderr.count("\n") <= 3, done.stderr


def test_a_text_prompt_without_a_tokenizer_names_the_missing_file(tmp_path):
    jobs = tmp_path / "jobs.jsonl"
    jobs.write_text('{"prompt": "Hello", "max_tokens": 2}\n{"prompt": [5], "max_tokens": 2, "temperature": 0}\n')
    done = run("generate", "--model", shared("goldens/models/llama2-mha"), "--jobs", jobs, "--json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 1
    assert "tokenizer.json" in lines[0]["error"] and lines[0]["index"] == 0
    assert lines[1]["text"] == "" and len(lines[1]["token_ids"]) == 2


def test_a_wrong_world_size_is_refused():
    done = run("generate", "--model", shared("models/stories260K"), "--jobs", "/dev/null", "--tp", 2, ranks=3, timeout=60)
    assert done.returncode != 0 and "3" in done.stderr and "2" in done.stderr
