"""Times llama.cpp as its own llama-bench does, through the low-level API of llama-cpp-python: prints one JSON object.

usage: llama_peer.py --model FILE.gguf --threads N -p 512 -n 128 -b 1,8 -r 2
pp: one prompt of p tokens in one call; tg: n calls of one token a stream. Nothing is sampled; token ids are random.
"""
import argparse
import json
import random
import time

import llama_cpp as lc


class Llama:
    def __init__(self, path, threads, max_tokens, max_streams):
        lc.llama_backend_init()
        model_params = lc.llama_model_default_params()
        model_params.n_gpu_layers = 0
        self.model = lc.llama_model_load_from_file(path.encode(), model_params)
        if not self.model:
            raise SystemExit(f"error: llama.cpp cannot load {path}")
        params = lc.llama_context_default_params()
        params.n_ctx = (max_tokens + 32) * max_streams
        params.n_batch = max(512, max_tokens)
        params.n_ubatch = 512
        params.n_seq_max = max_streams
        params.n_threads = params.n_threads_batch = threads
        self.context = lc.llama_init_from_model(self.model, params)
        if not self.context:
            raise SystemExit("error: llama.cpp cannot make a context")
        self.memory = lc.llama_get_memory(self.context)
        self.vocab_size = lc.llama_vocab_n_tokens(lc.llama_model_get_vocab(self.model))
        self.random = random.Random(0)

    def decode(self, batch, rows):
        """rows: (position, stream, wants logits)"""
        batch.n_tokens = len(rows)
        for i, (position, stream, logits) in enumerate(rows):
            batch.token[i] = self.random.randrange(self.vocab_size)
            batch.pos[i] = position
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = stream
            batch.logits[i] = logits
        status = lc.llama_decode(self.context, batch)
        if status != 0:
            raise SystemExit(f"error: llama_decode returned {status}")
        lc.llama_synchronize(self.context)

    def timed(self, steps):
        """tok/s of a list of batches from an empty cache."""
        lc.llama_memory_clear(self.memory, True)
        batch = lc.llama_batch_init(max(len(rows) for rows in steps), 0, 1)
        start = time.perf_counter()
        for rows in steps:
            self.decode(batch, rows)
        seconds = time.perf_counter() - start
        lc.llama_batch_free(batch)
        return sum(len(rows) for rows in steps) / seconds


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("-p", type=int, default=512)
    parser.add_argument("-n", type=int, default=128)
    parser.add_argument("-b", default="1")
    parser.add_argument("-r", type=int, default=2)
    arguments = parser.parse_args()
    streams = [int(b) for b in arguments.b.split(",")]
    llama = Llama(arguments.model, arguments.threads, max(arguments.p, arguments.n), max(streams))
    tests = {f"pp{arguments.p}": [[(i, 0, i == arguments.p - 1) for i in range(arguments.p)]]}
    for b in streams:
        name = f"tg{arguments.n}" + (f"x{b}" if b > 1 else "")
        tests[name] = [[(i, stream, True) for stream in range(b)] for i in range(arguments.n)]
    results = {}
    for name, steps in tests.items():
        llama.timed(steps[:8])  # warm-up
        results[name] = [llama.timed(steps) for _ in range(arguments.r)]
    print(json.dumps(results))


if __name__ == "__main__":
    main()
