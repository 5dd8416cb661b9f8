#!/usr/bin/env python3
"""Writes tests/goldens/jinja_cases.json: what Python's jinja2, set up as transformers sets it up, makes of many small templates.

Run it in a virtual environment with jinja2 3.1.6: python scripts/make_jinja_goldens.py
"""
import datetime
import json
import pathlib
import sys

import jinja2
import jinja2.ext
import jinja2.sandbox

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from jinja_case_list import CASES, DEFAULT_MESSAGES, NOW  # noqa: E402


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_text"), [], [], body).set_lineno(line)

    def _text(self, caller):
        return caller()


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


class Namespace(jinja2.utils.Namespace):
    def __init__(*args, **kwargs):
        self, args = args[0], args[1:]
        values = dict(*args, **kwargs)
        for name in values:
            Namespace._check(name)
        jinja2.utils.Namespace.__init__(self, values)

    def __setitem__(self, name, value):
        Namespace._check(name)
        jinja2.utils.Namespace.__setitem__(self, name, value)

    @staticmethod
    def _check(name):
        if isinstance(name, str) and name.startswith("_"):
            raise jinja2.exceptions.SecurityError("underscore-prefixed attribute")


def make_environment():
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda text: datetime.datetime(*NOW).strftime(text)
    environment.globals["dict"] = lambda *args, **kwargs: dict(*args, **kwargs)
    environment.globals["namespace"] = Namespace
    return environment


def outcome(environment, template, messages, variables, add_generation_prompt):
    try:
        compiled = environment.from_string(template)
    except jinja2.exceptions.TemplateSyntaxError as error:
        return {"compile_error": error.message, "line": error.lineno}
    except SyntaxError as error:  # from Python's own compiler: break outside a loop
        return {"compile_error": str(error.msg), "line": 0}
    try:
        text = compiled.render(messages=messages, tools=None, documents=None,
                               add_generation_prompt=add_generation_prompt, **variables)
        text.encode("utf-8")
        return {"text": text}
    except jinja2.exceptions.UndefinedError as error:
        return {"undefined": str(error)}
    except jinja2.exceptions.TemplateError as error:
        return {"raised": str(error)} if type(error) is jinja2.exceptions.TemplateError else {"error": str(error)}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


def main():
    environment = make_environment()
    cases = []
    for case in CASES:
        template, variables, messages = (case, {}, None) if isinstance(case, str) else (case + ({}, None))[:3] \
            if len(case) == 1 else (case[0], case[1], case[2] if len(case) > 2 else None)
        entry = {"template": template}
        if variables:
            entry["variables"] = variables
        if messages is not None:
            entry["messages"] = messages
        result = outcome(environment, template, DEFAULT_MESSAGES if messages is None else messages,
                         {"bos_token": "<s>", "eos_token": "</s>", **variables}, True)
        if "0x7" in result.get("text", ""):
            print(f"left out, an address is printed: {template}")
            continue
        cases.append({**entry, **result})
    out = pathlib.Path(__file__).parent.parent / "tests/goldens/jinja_cases.json"
    document = {"source": f"jinja2 {jinja2.__version__}, python {sys.version.split()[0]}, scripts/make_jinja_goldens.py",
                "now": NOW, "messages": DEFAULT_MESSAGES, "cases": cases}
    lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
    head = json.dumps({key: value for key, value in document.items() if key != "cases"}, ensure_ascii=False)
    out.write_text(head[:-1] + ', "cases": [\n' + lines + "\n]}\n", encoding="utf-8")
    kinds = {}
    for case in cases:
        kind = next(k for k in ("text", "raised", "undefined", "error", "compile_error") if k in case)
        kinds[kind] = kinds.get(kind, 0) + 1
    print(len(cases), "cases", kinds, out.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
