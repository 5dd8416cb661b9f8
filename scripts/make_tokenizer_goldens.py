#!/usr/bin/env python3
"""Writes tests/goldens/tokenizer_cases.json: small tokenizers of many kinds, and what the Hugging Face `tokenizers` library answers.

Run: python3 -m venv /tmp/venv && /tmp/venv/bin/pip install tokenizers==0.23.3 && /tmp/venv/bin/python scripts/make_tokenizer_goldens.py
Each case: name, tokenizer (a tokenizer.json), texts [{text, ids, special_ids, plain_ids, decoded, decoded_skipped}]: ids with special
tokens of the text recognised, special_ids also with the post-processor, plain_ids with special tokens left as text.
"""

import json
import pathlib

import tokenizers
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

TRAINING = """The quick brown fox jumps over the lazy dog. It's 2024, isn't it? They'll say "we've 1,234.50 euros" \u2014 no!
Der schnelle braune Fuchs springt \u00fcber den faulen Hund; \u00e9t\u00e9, na\u00efve caf\u00e9, \u00c5ngstr\u00f6m, \u0130stanbul.
\u0421\u044a\u0435\u0448\u044c \u0436\u0435 \u0435\u0449\u0451 \u044d\u0442\u0438\u0445 \u043c\u044f\u0433\u043a\u0438\u0445 \u0431\u0443\u043b\u043e\u043a. \u6211\u80fd\u541e\u4e0b\u73bb\u7483\u800c\u4e0d\u4f24\u8eab\u4f53\u3002\n\n    indented = code(x[0], "y")\n
the there then them this that these those and hand land sand ing ring king sing string thing
""" * 3

TEXTS = [
    "", " ", "a", "  Hello   world  ", "The quick brown fox, isn't it?", "It'S we'LL I\u2019m 'til", "12345 x1y22 \u00b2\u00bd\u0664",
    "\u00e9t\u00e9 caf\u00e9 e\u0301te\u0301 \ufb01ne \u00c5", "\u6211\u80fd\u541e\u4e0b\u73bb\u7483 \ud55c\uad6d\uc5b4 \u0e44\u0e17\u0e22", "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 ok",
    "tabs\tand\r\nnewlines\n\n\n  end \n", "<s>special</s> <s> a<x>b the<x> them", "<0x41> \u2581mark\u2581 \u00a0nbsp\u3000ideographic",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!!!!!!!!!!!!", "(a|b)|c \\ / # $ % ^ & * ~ `",
]

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
CL100K = (r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s")
LLAMA_NORMALIZER = {"type": "Sequence", "normalizers": [
    {"type": "Prepend", "prepend": "\u2581"}, {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]}
LLAMA_DECODER = {"type": "Sequence", "decoders": [
    {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
    {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}


def split(pattern, behavior="Isolated", invert=False):
    kind = "Regex" if len(pattern) > 1 else "String"
    return {"type": "Split", "pattern": {kind: pattern}, "behavior": behavior, "invert": invert}


def sequence(*steps):
    return {"type": "Sequence", "pretokenizers": list(steps)}


def no_regex(**changes):
    return {**BYTE_LEVEL, "use_regex": False, **changes}


# name: normalizer, pre-tokenizer, decoder, changes to the BPE model (None: word level), training options
CASES = {
    "gpt2": (None, BYTE_LEVEL, BYTE_LEVEL, {}, {}),
    "gpt2-prefix-space": (None, {**BYTE_LEVEL, "add_prefix_space": True}, BYTE_LEVEL, {}, {}),
    "llama3": (None, sequence(split(LLAMA3), no_regex()), BYTE_LEVEL, {"ignore_merges": True}, {}),
    "cl100k-nfc": ({"type": "NFC"}, sequence(split(CL100K, "Removed", True), no_regex()), BYTE_LEVEL, {}, {}),
    "digits": (None, sequence({"type": "Digits", "individual_digits": True}, BYTE_LEVEL), BYTE_LEVEL, {}, {}),
    "llama2": (LLAMA_NORMALIZER, None, LLAMA_DECODER, {"unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True}, {"bytes": True}),
    "metaspace-first": (None, {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": True},
                        {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": True},
                        {"unk_token": "<unk>"}, {}),
    "merged": ({"type": "Sequence", "normalizers": [{"type": "NFKD"}, {"type": "StripAccents"}, {"type": "Lowercase"}]},
               sequence(split(" ", "MergedWithNext"), split(r"\d", "Contiguous"), split(r"[aeiou]+", "MergedWithPrevious")),
               None, {"unk_token": "<unk>"}, {}),
    "subword-marks": ({"type": "Strip", "strip_left": True, "strip_right": True}, {"type": "Whitespace"},
                      {"type": "BPEDecoder", "suffix": "</w>"}, {"unk_token": "<unk>", "fuse_unk": True},
                      {"continuing_subword_prefix": "##", "end_of_word_suffix": "</w>"}),
    "words": (None, split("|", "Removed"), None, None, {}),
    "bert-words": ({"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True},
                   {"type": "BertPreTokenizer"}, {"type": "WordPiece", "prefix": "##", "cleanup": True}, None, {}),
}


def added(token_id, content, **changes):
    return {"id": token_id, "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
            "special": True, **changes}


def train(normalizer, pre_tokenizer, decoder, model, options):
    shell = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": normalizer,
             "pre_tokenizer": pre_tokenizer, "post_processor": None, "decoder": decoder,
             "model": {"type": "BPE", "vocab": {}, "merges": []}}
    tokenizer = Tokenizer.from_str(json.dumps(shell))
    special = ["<unk>"] + ([f"<0x{byte:02X}>" for byte in range(256)] if options.pop("bytes", False) else [])
    if model is None:
        tokenizer.model = models.WordLevel(unk_token="<unk>")
        trainer = trainers.WordLevelTrainer(vocab_size=150, special_tokens=special)
    else:
        tokenizer.model = models.BPE(**options)
        byte_level = "ByteLevel" in json.dumps(pre_tokenizer)
        trainer = trainers.BpeTrainer(vocab_size=len(special) + 260 + 90 * byte_level, special_tokens=special, show_progress=False,
                                      initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()) if byte_level else [], **options)
    tokenizer.train_from_iterator([TRAINING], trainer)
    result = json.loads(tokenizer.to_str())
    result["model"].update(model or {})
    result["added_tokens"] = [token for token in result["added_tokens"] if token["content"] == "<unk>"]
    first = len(result["model"]["vocab"])
    result["added_tokens"] += [added(first, "<s>"), added(first + 1, "</s>", lstrip=True),
                               added(first + 2, "<x>", special=False, rstrip=True, normalized=True),
                               added(first + 3, "them", special=False, single_word=True)]
    result["post_processor"] = {
        "type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [first], "tokens": ["<s>"]}}}
    return result


def answers(tokenizer, text):
    tokenizer.encode_special_tokens = True
    plain = tokenizer.encode(text, add_special_tokens=False).ids
    tokenizer.encode_special_tokens = False
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    answer = {"text": text, "ids": ids, "special_ids": tokenizer.encode(text).ids, "plain_ids": plain}
    if not any("<x>" in tokenizer.id_to_token(i) for i in ids):  # decoding a normalised token differs between versions
        answer["decoded"] = tokenizer.decode(ids, skip_special_tokens=False)
        answer["decoded_skipped"] = tokenizer.decode(ids, skip_special_tokens=True)
    return answer


def main():
    cases = []
    for name, spec in CASES.items():
        data = train(*spec)
        tokenizer = Tokenizer.from_str(json.dumps(data))
        cases.append({"name": name, "tokenizer": data, "texts": [answers(tokenizer, text) for text in TEXTS]})
    out = pathlib.Path(__file__).resolve().parent.parent / "tests" / "goldens" / "tokenizer_cases.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    source = f"tokenizers {tokenizers.__version__}, scripts/make_tokenizer_goldens.py"
    text = json.dumps({"source": source, "cases": cases}, ensure_ascii=False, separators=(",", ":"))
    out.write_text(text.replace('{"name"', '\n{"name"').replace('{"text"', '\n{"text"') + "\n", encoding="utf-8")
    print(f"{out}: {out.stat().st_size} bytes, {len(cases)} tokenizers")


if __name__ == "__main__":
    main()
