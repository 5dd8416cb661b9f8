"""A Llama model of random bf16 weights, by the standard library alone: for machines that have python3 and nothing else. One block of
random numbers is repeated, so that gigabytes are written as fast as the disk takes them; scripts/make-random-model makes better ones.
"""
import array
import json
import random

# layers, hidden, heads, kv_heads, head_dim, ffn, vocab, standard deviation of the weights
SHAPES = {
    "tiny": (4, 128, 8, 4, 64, 256, 2048, 0.1),
    "135m": (30, 576, 9, 3, 64, 1536, 49152, 0.02),
    "1.1b": (22, 2048, 32, 4, 64, 5632, 32000, 0.02),
    "8b": (32, 4096, 32, 8, 128, 14336, 128256, 0.02),
}
PERIOD = 1048573  # a prime, so that rows of no matrix are alike
SEED = 20240607


def weight_bytes(shape):
    return 2 * sum(rows * columns for _, rows, columns in tensors_of(shape))


def tensors_of(shape):
    """(name, rows, columns) in file order; norms have one row."""
    layers, hidden, heads, kv_heads, head_dim, ffn, vocab, _ = SHAPES[shape]
    yield "model.embed_tokens.weight", vocab, hidden
    for i in range(layers):
        layer = f"model.layers.{i}."
        yield layer + "input_layernorm.weight", 1, hidden
        yield layer + "self_attn.q_proj.weight", heads * head_dim, hidden
        yield layer + "self_attn.k_proj.weight", kv_heads * head_dim, hidden
        yield layer + "self_attn.v_proj.weight", kv_heads * head_dim, hidden
        yield layer + "self_attn.o_proj.weight", hidden, heads * head_dim
        yield layer + "post_attention_layernorm.weight", 1, hidden
        yield layer + "mlp.gate_proj.weight", ffn, hidden
        yield layer + "mlp.up_proj.weight", ffn, hidden
        yield layer + "mlp.down_proj.weight", hidden, ffn
    yield "model.norm.weight", 1, hidden
    yield "lm_head.weight", vocab, hidden


def bf16(values):
    """The upper halves of float32."""
    whole = array.array("f", values).tobytes()
    bits = bytearray(len(whole) // 2)
    bits[0::2], bits[1::2] = whole[2::4], whole[3::4]
    return bytes(bits)


def write_model(folder, shape, go_on=lambda: None):
    """`go_on` is called between blocks of 2 MiB; what it throws ends the writing."""
    layers, hidden, heads, kv_heads, head_dim, ffn, vocab, scale = SHAPES[shape]
    folder.mkdir(parents=True, exist_ok=True)
    source = random.Random(SEED)
    block = memoryview(bf16(source.gauss(0, scale) for _ in range(PERIOD)))
    header, offset = {"__metadata__": {"format": "pt"}}, 0  # transformers reads no file without it
    for name, rows, columns in tensors_of(shape):
        size = 2 * rows * columns
        header[name] = {"dtype": "BF16", "shape": [columns] if name.endswith("norm.weight") else [rows, columns],
                        "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, rows, columns in tensors_of(shape):
            left, at = 2 * rows * columns, 2 * source.randrange(PERIOD)
            if name.endswith("norm.weight"):
                file.write(bf16([1.0] * columns))
                continue
            while left > 0:
                go_on()
                written = file.write(block[at:at + left])
                left, at = left - written, 0
    (folder / "config.json").write_text(json.dumps({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16", "hidden_act": "silu", "hidden_size": hidden,
        "intermediate_size": ffn, "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv_heads,
        "head_dim": head_dim, "vocab_size": vocab, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2}, indent=1) + "\n")
    return folder
