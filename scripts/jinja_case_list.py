"""The templates of tests/goldens/jinja_cases.json: strings, or (template, variables[, messages])."""

NOW = [2026, 3, 7, 9, 5, 2]
DEFAULT_MESSAGES = [
    {"role": "system", "content": " Be brief. "},
    {"role": "user", "content": "Hi <b>"},
    {"role": "assistant", "content": "Hello", "tool_calls": [
        {"type": "function", "function": {"name": "f", "arguments": {"x": 1, "y": [1.5, None, True], "é": "ü\"\n"}}}]},
    {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}]},
]


def printed(*expressions):
    return ["{{ " + expression + " }}" for expression in expressions]


CASES = []

# Whitespace control, comments, raw.
CASES += [
    "a\n{% if true %}\n  b\n{% endif %}\nc\n",
    "a\n\n",
    "a\r\nb\rc\n\n",
    "  {% if true %}x{% endif %}  \n  {{ 1 }}  \n",
    "  {%+ if true %}x{% endif +%}\n y",
    "a \n {%- if true -%} \n b \n {%- endif -%} \n c",
    "a {{- ' b ' -}} c",
    "a {{+ 1 }} {{-5}} {{ -5 }}",
    "{# comment #}x{#- y -#} z {# a\n b #}\n q",
    "x\n   {# c #}\n y",
    "x\n   {# c +#}\n y",
    "  {% raw %} {{ x }} {% y %} {% endraw %} z",
    "a {%- raw -%}  {{ x }}  {%- endraw -%} b",
    "a\n  {% raw %}\n b\n  {% endraw %}\nc",
    "{% raw %}{% raw %}{% endraw %}",
    "{{ '{{' }} {{ '%}' }} {{ \"}}\" }}",
    "{{ {'a': {'b': 1}}}}",
    "{{ {'a': {'b': [1, (2, 3)]}}['a']['b'][1] }}",
    "{% if true %}\n\n\nx{% endif %}",
    "{% for i in [1, 2] %}\n\t {{ i }}\n{% endfor %}",
    "{% set x = 1 %}\n{% set y = 2 -%}\n   {{ x }}{{ y }}",
    "a{{ 1 }}\n{{ 2 -}}\n\n b",
    "x{# unbalanced } #}y { z }} %} #}",
    "{{ 1 }}{",
    "\u00a0{%- if true -%}\u2003x\u3000{%- endif %}",
    "{% if true %} a {% endif %}\n  b",
    "   {%- set a = 1 %}   {%- set b = 2 +%}   {{ a }}",
]

# Literals, repr, printing.
CASES += printed(
    "1, 2", "()", "(1,)", "[1, 2.0, 'a', \"it's\", 'say \"x\"', none, true]", "{'a': 1, 2: [3], (1, 2): None}",
    "1_000", "0x1F + 0b11 + 0o17", "1.5e3", "1e16", "1e15", "123456789012345680.0", "0.1 + 0.2", "1e-5", "0.0001",
    "1e100", "-0.0", "100.0", "2.5e-7", "1/3", "'a' 'b'", "'\\n\\t\\\\\\x41\\u00e9\\q'", "['\\n\\t\\\\\\x41\\u00e9\\x07']",
    "True, False, None, true, false, none", "[undefined_thing]", "'é' ~ 'ñ'", "['é', '\\u200b', '\\U0001F600', '\\xa0']",
    "'\\101\\0601'", "1.0 // 1", "[1.0, 1e22, 1.5]", "range(3)", "range(1, 10, 3)", "range(5)[1:3]", "range(5)|list",
    "{}.items()", "{'a': 1}.items()", "{'a': 1}.keys()", "{'a': 1}.values()", "x", "messages[0]", "'\\\n'", "\"\\'\"",
    "['\"', \"'\", '\"\\'']", "1if true else 2", "0", "00", "9223372036854775807", "-9223372036854775807",
)

# Arithmetic.
CASES += printed(
    "7 // 2", "-7 // 2", "7 // -2", "-7 % 3", "7 % -3", "7.5 // 2", "-7.5 % 2", "7 / 2", "6 / 2", "2 ** 10", "2 ** -1",
    "2 ** 0.5", "2 ** 3 ** 2", "-2 ** 2", "1 + 2 * 3 - 4 / 2", "(1 + 2) * 3", "true + true", "1 + true", "'a' * 3",
    "3 * 'ab'", "[1] * 2", "[1] + [2]", "(1,) + (2,)", "'a' + 'b'", "1 ~ 'a' ~ none ~ 1.0 ~ [1]", "+5", "- 5", "--5",
    "'%s and %d' % ('x', 5)", "'%05.1f|%-5s|%5s|%+d' % (3.14159, 'a', 'b', 7)", "'%(a)s' % {'a': 1}", "'%x %X %o %%' % (255, 255, 8)",
    "'%r' % 'a'", "'%e %g' % (12345.678, 0.00001)", "5 % 3 * 2", "10 - 2 - 3", "2 * 3 ~ 4", "1 + 2 ~ 3", "1e308 * 10",
    "1 + 'a'", "'a' + 1", "1 / 0", "1 // 0", "1 % 0", "none + 1", "[] + ()", "'a' - 'b'", "-'a'", "0 ** -1", "1.0 / 0",
    "'%d' % 'x'", "'%s %s' % 'x'", "'%s' % ('a', 'b')", "'a' * -1", "1.5 + 1", "7 // 2.0", "(-1) ** 2",
)

# Comparison, logic, membership.
CASES += printed(
    "1 < 2 < 3", "1 < 3 < 2", "1 == 1.0", "1 == true", "'a' == 'a'", "'a' < 'b'", "[1, 2] < [1, 3]", "(1,) == [1]",
    "{'a': 1, 'b': 2} == {'b': 2, 'a': 1}", "none == none", "nope == nope2", "nope == none", "1 != 2", "not 1 == 2",
    "1 and 0 or 'x'", "'' or 'd'", "0 and 1", "not not 3", "1 in [1, 2]", "'a' in 'cat'", "'a' not in 'cat'", "'k' in {'k': 1}",
    "1 in {1: 2}", "3 in range(5)", "'x' in nope", "not 'x' in 'y'", "1 < 'a'", "none < 1", "1 in 5", "1 in 'abc'", "'' in 'abc'",
    "'a' in {'a': 1}.keys()", "('a', 1) in {'a': 1}.items()", "1 if true else 2", "1 if false", "1 if false else 2 if false else 3",
    "(1 if true) ~ 'x'", "nope is defined and nope.x", "nope or 'dflt'", "true and none", "2 > 1 >= 1 <= 1 != 0", "'Z' < 'a'",
    "1 == 1 == 1", "nope < 1", "[1] == [1.0]", "0.1 + 0.2 == 0.3", "'a' <= 'a'", "1 in (1, 2)",
)

# Access and slices.
CASES += printed(
    "messages[0].role", "messages[0]['role']", "messages[-1].role", "messages[9]", "messages[9].role", "messages.x", "messages.x.y",
    "messages[0].nope", "messages[0].nope.x", "messages[0]['nope'] is undefined", "none.x", "none[0]", "none.x.y", "nope.x", "nope['x']",
    "nope()", "messages[0].nope()", "messages[1:]|length", "messages[:-1]|length", "messages[::-1]|map(attribute='role')|list",
    "messages[1:3]|map(attribute='role')|join(',')", "'hello'[1:3]", "'hello'[::-1]", "'hello'[-3:]", "'hello'[10:]", "'hello'[1]",
    "'hello'[9]", "'hello'[4:1:-2]", "'héllo😀'[1:6]", "'héllo😀'[-1]", "'héllo😀'[::-1]", "[1,2,3][5:1]", "(1,2,3)[1:]", "[1,2,3].1",
    "{'a': {'b': 2}}.a.b", "{'items': 1}.items()|list", "{'items': 1}['items']", "{1: 'x'}[1]", "{'a': 1}.get('a')",
    "{'a': 1}.get('b')", "{'a': 1}.get('b', 7)", "{'a': 1}['b']", "'abc'.nope", "(1).nope", "nope[1:]",
    "[1,2,3][none:2]", "[1,2,3][::0]", "5[0]", "[1, 2]['a']", "{(1, 2): 3}[1, 2]", "range(10)[-1]", "range(10)[2:8:2]|list", "'a.b'.split('.')[0]",
    "'abc'['upper']()", "[3,1,2][-2:][0]", "{'a': 1}[['x']]", "'x'.__class__", "'x'.__class__.y", "messages[0].__class__.x", "{'_a': 1}._a",
)

# Tests.
CASES += printed(
    "nope is defined", "nope is not defined", "x is undefined", "none is none", "1 is number", "1.5 is float", "1 is integer", "true is integer",
    "true is number", "true is boolean", "1 is boolean", "'a' is string", "[] is sequence", "'a' is sequence", "{} is sequence", "{} is mapping", "[] is mapping",
    "[] is iterable", "1 is iterable", "'a' is iterable", "none is iterable", "nope is iterable", "nope is sequence", "3 is odd", "4 is even", "9 is divisibleby 3",
    "9 is divisibleby(4)", "1 is eq 1", "1 is equalto(2)", "1 is ne 2", "1 is lt 2", "1 is gt 2", "1 is ge 1", "1 is le 0", "1 is greaterthan 0", "'a' is in ['a']",
    "'a' is not in ['b']", "'abc' is lower", "'ABC' is upper", "'1' is upper", "range is callable", "'a' is callable", "true is true", "1 is true", "false is false",
    "'trim' is filter", "'nofilter' is filter", "'odd' is test", "1 is sameas 1", "none is sameas none", "1 is odd and 2 is even", "1 is odd if true", "not 1 is even",
    "nope is none", "messages|map('upper') is sequence", "messages is iterable and messages is not string", "1 is odd == true", "'x' is odd", "(1 is lt) ", "1 is number is string", "range(3) is sequence",
    "{'a':1}.items() is iterable", "{'a':1}.items() is sequence", "'a'|safe is escaped",
)

# Filters.
CASES += printed(
    "'  a b '|trim", "'xxaxx'|trim('x')", "'abc'|upper", "'ABC'|lower", "'hello world-foo (bar)'|title", "'hELLO wORLD'|capitalize", "'abc'|length", "[1,2]|count", "{'a':1}|length", "5|length", "none|length", "nope|length",
    "[1,2,3]|join", "[1,2,3]|join(', ')", "messages|join('|', attribute='role')", "['a', none, 1.0]|join('-')", "'abc'|join('.')", "nope|default('d')", "''|default('d')", "''|default('d', true)", "none|d('x')", "none|d('x', boolean=true)", "nope.x|default('d')", "messages[0].nope|default('d')",
    "[1,2,3]|first", "[]|first", "[1,2,3]|last", "[]|last", "'abc'|first", "'abc'|last", "{'a':1,'b':2}|last", "'abc'|list", "{'a':1}|list", "messages|map(attribute='role')|list", "['a','b']|map('upper')|list", "['a']|map('replace', 'a', 'b')|list", "[{'a':1},{}]|map(attribute='a', default=0)|list", "[{'a':{'b':5}}]|map(attribute='a.b')|list", "[[1,2],[3,4]]|map(attribute=1)|list", "[[1,2],[3,4]]|map('first')|join(',')",
    "[1,2,3,4]|select('odd')|list", "[1,2,3,4]|reject('odd')|list", "[0,1,'',2]|select|list", "messages|selectattr('role','equalto','user')|list|length", "messages|selectattr('role','eq','user')|map(attribute='content')|first", "messages|rejectattr('role','in',['user','system'])|map(attribute='role')|list", "messages|selectattr('tool_calls')|list|length", "messages|selectattr('tool_calls','defined')|list|length", "[1,2,3]|select('gt', 1)|list", "[1,2,3]|select('>', 1)|sum",
    "'aaa'|replace('a','b',2)", "'abc'|replace('','-')", "123|replace(2,'x')", "1|string", "[1]|string|length", "'12'|int", "' 12 '|int", "'x'|int", "'x'|int(5)", "'3.7'|int", "3.9|int", "'0x1A'|int(0,16)", "'1A'|int(base=16)", "none|int", "'1.5'|float", "'x'|float", "'x'|float(1.0)", "true|int", "'1e3'|int", "'1e3'|float", "-3|abs", "2.5|round", "3.5|round", "2.567|round(2)", "2.5|round(0,'ceil')", "2.512|round(1,'floor')", "42|round", "1234|round(-2)", "-2.5|round", "'1_0'|int", "nope|int",
    "[3,1,2]|sort", "[3,1,2]|sort(reverse=true)", "['b','A','c']|sort", "['b','A','c']|sort(case_sensitive=true)", "messages|sort(attribute='role')|map(attribute='role')|list", "[{'a':2,'b':1},{'a':1,'b':2},{'a':1,'b':1}]|sort(attribute='a,b')", "[1,'a']|sort", "[1,2,3]|reverse|list", "'abc'|reverse", "[1,2,2,1]|unique|list", "['a','A','b']|unique|list", "[1,2,3]|sum", "[{'v':1},{'v':2}]|sum(attribute='v')", "[1.5,2]|sum(start=10)", "['a']|sum", "[3,1]|min", "[3,1]|max", "[]|max", "['a','B']|max", "[{'a':1},{'a':5}]|max(attribute='a')",
    "{'b':1,'a':2}|items|list", "{'b':1,'a':2}|dictsort", "{'b':1,'a':2}|dictsort(by='value')", "{'b':1,'A':2}|dictsort(true)", "{'b':1,'a':2}|dictsort(reverse=true)", "nope|items|list", "5|items|list", "[1,2,3,4,5]|batch(2)|list", "[1,2,3]|batch(2,'x')|list", "[1,2,3,4,5]|slice(2)|list", "[1,2,3,4,5]|slice(3,'x')|list", "'a\nb\n\nc'|indent", "'a\nb'|indent(2, true)", "'a\n\nb'|indent(width='>>', blank=true)", "'a'|indent(first=true)", "''|indent",
    "'<a href=\"x\">&\\''|escape", "'<a>'|e ~ '<b>'", "('<a>'|safe) + '<b>'", "'<a>'|safe ~ '<b>'", "('<a>'|safe).upper() + '&'", "['<'|safe]", "'a b  c-d e_f'|wordcount", "'hello world foo bar'|truncate(11)", "'hello world foo bar'|truncate(11, true)", "'hello world foo bar'|truncate(9, false, '..', 0)", "'abc'|center(9) ~ '|'", "'%s-%s'|format('a', 2)", "'%(a)s'|format(a=1)", "messages|groupby('role')|map(attribute='grouper')|list", "[{'a':1,'b':2},{'a':1,'b':3},{'a':2,'b':1}]|groupby('a')", "'a b/c?é'|urlencode",
    "messages[0]|tojson", "messages[2].tool_calls|tojson", "messages[2].tool_calls|tojson(indent=2)", "messages[2].tool_calls[0].function|tojson(ensure_ascii=true)", "{'b':1,'a':[]}|tojson(sort_keys=true)", "[1,2]|tojson(separators=(',',':'))", "{'a':{},'b':[]}|tojson(indent=4)", "'<>&\\'\"\\x7f\\x01\\u2028'|tojson", "1.0|tojson", "none|tojson", "{1: 2, true: 3, none: 4, 1.5: 5}|tojson", "nope|tojson", "(1,2)|tojson", "[1]|map('string')|tojson", "{(1,2): 3}|tojson", "'😀'|tojson(true)", "[]|tojson(indent=2)", "{'a':1}|tojson(indent='\t')",
    "'x'|attr('upper')", "{'a':1}|attr('a')", "[1]|nofilter", "1 is notest", "'a'|upper()|lower", "'a'|trim|upper ~ 'b'", "-1|abs", "(-1)|abs", "'a,b'.split(',')|last|upper", "[1,2]|map('nofilter')|list", "'x'|upper(1)", "'x'|default(foo=1)", "[3]|join(d='x')", "none|upper", "none|trim", "5|trim", "true|lower", "[1,[2]]|string", "1|tojson|length", "[1,2,3]|map('string')|join('+')", "['ab','c']|map('length')|sum", "'aXbX'|replace('X', '')", "[none, 1]|select('none')|list", "'x'|list|tojson",
)

# Methods.
CASES += printed(
    "' a '.strip()", "'xay'.strip('xy')", "'  a '.lstrip()", "'  a '.rstrip() ~ '|'", "'a,b,c'.split(',')", "'a,b,c'.split(',', 1)", "' a  b '.split()", "' a  b  c '.split(none, 1)", "'a b c'.split(maxsplit=1)", "'a,b,c'.rsplit(',', 1)", "' a b c '.rsplit(none, 1)", "'a'.split('')", "''.split()", "''.split(',')", "'a\nb\r\nc'.splitlines()", "'a\nb\n'.splitlines(true)", "'abc'.startswith('a')", "'abc'.startswith(('x','a'))", "'abc'.endswith('bc')", "'abc'.endswith(['c'])", "'abc'.startswith('b', 1)", "'aXbX'.replace('X','-')", "'aXbX'.replace('X','-',1)",
    "'ab'.upper()", "'straße'.upper()", "'İI'.lower()", "'they\\'re bill\\'s'.title()", "'ÉCOLE'.capitalize()", "'ΑΣ'.lower()", "'aBc'.swapcase()", "'ß'.capitalize()", "'abcabc'.find('c')", "'abc'.find('x')", "'abcabc'.rfind('c')", "'abcabc'.find('c', 3)", "'héllo'.find('l')", "'abc'.index('x')", "'aaa'.count('a')", "'aaa'.count('aa')", "'abc'.count('')", "'-'.join(['a','b'])", "'-'.join([1])", "'-'.join('ab')", "'12'.isdigit()", "'²'.isdigit()", "'²'.isdecimal()", "'½'.isnumeric()", "'ab'.isalpha()", "'a1'.isalnum()", "' '.isspace()", "''.isspace()", "'Ab'.istitle()", "'a'.islower()", "'A1'.isupper()", "'7'.zfill(3)", "'-7'.zfill(4)", "'a'.center(4) ~ '|'", "'ab'.center(5,'*')", "'a'.ljust(3,'.')", "'a'.rjust(3)", "'a=b=c'.partition('=')", "'a=b=c'.rpartition('=')", "'a'.partition('=')", "'prefix-x'.removeprefix('prefix-')", "'a.py'.removesuffix('.py')", "'ß'.casefold()",
    "'{} {}'.format(1, 'a')", "'{0}{1}{0}'.format('a','b')", "'{a.role}'.format(a=messages[0])", "'{a[role]}'.format(a=messages[0])", "'{:>5}|{:<5}|{:^5}'.format('a','b','c')", "'{:05d} {:.2f} {:,}'.format(42, 3.14159, 1234567)", "'{!r}'.format('a')", "'{{}}'.format()", "'{:x} {:#x} {:b}'.format(255, 255, 5)", "'{:+} {:%}'.format(5, 0.25)", "'{:e}'.format(12345.678)", "'{}'.format()", "'{x}'.format(y=1)", "'{:*^9}'.format('mid')", "'{:.3}'.format('abcdef')", "'{:g} {}'.format(0.5, 1.0)", "'{:{w}}|'.format('a', w=4)", "'{:d}'.format('x')",
    "{'a':1}.items()|list", "{'a':1}.keys()|list", "{'a':1}.values()|list", "{'a':1}.pop('a')", "{'a':1}.update({'b':2})", "{'a':1}.setdefault('b', 1)", "[1].append(2)", "[1].pop()", "[2,1].sort()", "[1,2,1].count(1)", "[1,2].index(2)", "[1].index(5)", "(1,2).index(2)", "[1].insert(0, 1)", "{'a':1}.copy()", "[1].copy()", "(1.0).is_integer()", "[1].extend([2])", "'x'.nope()", "{'pop': 1}['pop']", "dict(a=1, b=2)", "dict([('a', 1)])", "dict({'a': 1}, b=2)", "dict(a=1).a",
)

# Set, namespace, scoping.
CASES += [
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}", "{% set (a, b) = [1, 2] %}{{ b }}", "{% set a, b = 1 %}{{ a }}", "{% set a, b = 1, 2, 3 %}", "{% set a, b = [1] %}",
    "{% set x = 1, %}{{ x }}", "{% set x %}hello {{ 1 + 1 }}{% endset %}[{{ x }}]", "{% set x | upper %}abc{% endset %}{{ x }}", "{% set x | replace('a','b') | upper %}abc{% endset %}{{ x }}",
    "{% set ns = namespace(a=1) %}{% set ns.a = ns.a + 1 %}{% set ns.b = 'x' %}{{ ns.a }}{{ ns.b }}{{ ns }}", "{% set ns = namespace() %}{{ ns.x }}|{{ ns.x is defined }}", "{% set ns = namespace({'a': 1}, b=2) %}{{ ns.a + ns.b }}", "{% set ns = namespace(_a=1) %}", "{% set ns = namespace() %}{% set ns._a = 1 %}", "{% set d = {} %}{% set d.a = 1 %}", "{% set nope.a = 1 %}",
    "{% set x = 1 %}{% for i in [1] %}{% set x = 2 %}{{ x }}{% endfor %}{{ x }}", "{% for i in [1,2] %}{{ x is defined }}{% set x = i %}{{ x }} {% endfor %}", "{% if true %}{% set x = 5 %}{% endif %}{{ x }}", "{% set x = 1 %}{% if false %}{% set x = 5 %}{% endif %}{{ x }}", "{% set ns = namespace(n=0) %}{% for i in range(5) %}{% if i % 2 %}{% set ns.n = ns.n + i %}{% endif %}{% endfor %}{{ ns.n }}", "{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}{{ a is defined }}", "{% set a = 5 %}{% with a = 1, b = a %}{{ a }}{{ b }}{% endwith %}{{ a }}", "{% with %}{% set q = 1 %}{{ q }}{% endwith %}{{ q is defined }}",
    "{% set ns = namespace(x=[]) %}{% for m in messages %}{% set ns.x = ns.x + [m.role] %}{% endfor %}{{ ns.x }}", "{% set ns = namespace(a=namespace(b=1)) %}{{ ns.a.b }}", "{% set x %}{% set y = 3 %}{{ y }}{% endset %}{{ x }}{{ y is defined }}", "{% set messages = messages[1:] %}{{ messages[0].role }}", "{% set bos_token = 'B' %}{{ bos_token }}", "{% set x = namespace(a=1) %}{% set x.a, y = 3, 4 %}{{ x.a }}{{ y }}", "{% set a = b = 1 %}", "{% set a['x'] = 1 %}", "{% set 1 = 2 %}", "{% set true = 2 %}",
    "{% filter upper %}abc {{ 'd' }}{% endfilter %}", "{% filter replace('a', 'b')|upper %}abc{% endfilter %}", "{% set c = cycler('a','b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.current }}{% set _ = c.reset() %}{{ c.current }}", "{% set j = joiner('|') %}{% for i in [1,2,3] %}{{ j() }}{{ i }}{% endfor %}", "{% generation %}x{% set y = 1 %}{{ y }}{% endgeneration %}{{ y is defined }}", "{% block a %}x{% endblock %}{% block b %}y{% endblock b %}", "{% autoescape false %}<{{ '<' }}{% endautoescape %}", "{% print 1, 'a' %}",
]

# Loops.
CASES += [
    "{% for i in [1,2,3] %}{{ loop.index }}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.revindex }}{{ loop.revindex0 }} {% endfor %}", "{% for i in [] %}x{% else %}empty{% endfor %}", "{% for i in [1,2,3,4] if i % 2 %}{{ i }}{{ loop.index }}/{{ loop.length }} {% endfor %}", "{% for i in [1] if i > 5 %}x{% else %}none{% endfor %}",
    "{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}={{ v }};{% endfor %}", "{% for k in {'a': 1, 'b': 2} %}{{ k }}{% endfor %}", "{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}", "{% for a, b in [1] %}{% endfor %}", "{% for c in 'héy' %}{{ c }}.{% endfor %}", "{% for i in 5 %}{% endfor %}", "{% for i in none %}{% endfor %}", "{% for i in nope %}x{% else %}e{% endfor %}", "{% for i in nope.x %}{% endfor %}",
    "{% for i in range(3) %}{{ loop.previtem }}{{ loop.nextitem }}|{% endfor %}", "{% for i in range(3) %}{{ loop.previtem is defined }}{{ loop.nextitem is defined }} {% endfor %}", "{% for i in range(5) %}{{ loop.cycle('a','b') }}{% endfor %}", "{% for i in [1,1,2,2] %}{{ loop.changed(i) }} {% endfor %}", "{% for i in range(5) %}{% if i == 3 %}{% break %}{% endif %}{% if i == 1 %}{% continue %}{% endif %}{{ i }}{% endfor %}", "{% for i in range(3) %}{% for j in range(3) %}{% if j == 1 %}{% break %}{% endif %}{{ i }}{{ j }} {% endfor %}{{ loop.index }}{% endfor %}", "{% for i in [1,2] %}{% set outer = loop %}{% for j in [1,2] %}{{ outer.index }}{{ loop.index }} {% endfor %}{% endfor %}",
    "{% for n in tree recursive %}{{ n.v }}{{ loop.depth }}{% if n.c %}({{ loop(n.c) }}){% endif %}{% endfor %}", "{% for m in messages|selectattr('role','equalto','user') %}{{ loop.index }}{{ loop.last }}{{ loop.length }}{% endfor %}", "{% set u = messages|selectattr('role','equalto','user') %}{% for m in u %}a{% endfor %}{% for m in u %}b{% endfor %}", "{% set u = messages|map(attribute='role') %}{{ u|list }}{{ u|list }}", "{{ (messages|map(attribute='role'))|length }}", "{{ (messages|map(attribute='role'))[0] }}", "{% for i in range(3)|reverse %}{{ i }}{% endfor %}", "{% for i in range(10, 0, -3) %}{{ i }} {% endfor %}", "{% for i in range(200000) %}{% endfor %}", "{{ range(0) }}{{ range() }}", "{{ range(1, 2, 0) }}",
    "{% for i in [1,2,3] %}{{ i }}{{ ',' if not loop.last }}{% endfor %}", "{% for loop in [1] %}{% endfor %}", "{% break %}", "{% for i in [1] %}{% macro m() %}{% break %}{% endmacro %}{% endfor %}", "{% for i in [3,1] %}{% for i in [9] %}{{ i }}{% endfor %}{{ i }}{% endfor %}{{ i is defined }}", "{% for i in [1,2] %}{{ loop }}{% endfor %}", "{{ loop }}", "{% for a in [[1,2],[3]] %}{% for b in a %}{{ loop.length }}{% endfor %}{% endfor %}", "{% for g, items in [{'a':1},{'a':2},{'a':1}]|groupby('a') %}{{ g }}{{ items|length }} {% endfor %}", "{% for g in [{'a':'X'},{'a':'x'}]|groupby('a') %}{{ g.grouper }}{{ g.list|length }}{% endfor %}", "{% for i in [1,2,3] if i != 2 recursive %}{{ i }}{% endfor %}", "{% for i in [1, 2, 3] -%}\n  {{ i }}\n{%- endfor %}", "{% for x in [1,2] %}{% set y = x %}{% else %}z{% endfor %}{{ y is defined }}", "{% for i in [0,1] %}{% if loop.first %}F{% elif i == 1 %}E{% else %}X{% endif %}{% endfor %}",
]
CASES = [(c, {"tree": [{"v": 1, "c": [{"v": 2}, {"v": 3, "c": [{"v": 4}]}]}, {"v": 5}]}) if isinstance(c, str) and "in tree" in c else c for c in CASES]

# Macros and call blocks.
CASES += [
    "{% macro m(a, b=2) %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }} {{ m(1, 3) }} {{ m(b=5, a=4) }}", "{% macro m(a) %}[{{ a }}]{% endmacro %}{{ m() }}", "{% macro m(a) %}{{ a.x }}{% endmacro %}{{ m() }}", "{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}", "{% macro m(a) %}{% endmacro %}{{ m(b=1) }}", "{% macro m() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, x=3) }}", "{% macro m(a, b=a) %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }}", "{% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(3) }}", "{% macro w() %}<{{ caller() }}>{% endmacro %}{% call w() %}in{% endcall %}",
    "{% macro w(xs) %}{% for x in xs %}{{ caller(x) }};{% endfor %}{% endmacro %}{% call(v) w([1,2]) %}v{{ v }}{% endcall %}", "{% macro w() %}x{% endmacro %}{% call w() %}in{% endcall %}", "{% macro w() %}{{ caller() }}{% endmacro %}{{ w() }}", "{% set g = 1 %}{% macro m() %}{{ g }}{% set g = 2 %}{{ g }}{% endmacro %}{{ m() }}{{ g }}", "{% macro m() %}{{ z }}{% endmacro %}{% set z = 7 %}{{ m() }}", "{{ m }}{% macro m() %}{% endmacro %}", "{% macro m(a, b) %}{% endmacro %}{{ m.name }}{{ m.arguments }}{{ m.catch_kwargs }}", "{% macro m(a=1, b) %}{% endmacro %}", "{% macro m(x) -%}\n  {{ x }}\n{%- endmacro -%}\n{{ m('q') ~ m('r') }}", "{% macro m(d) %}{% for k, v in d|dictsort %}{{ k }}:{% if v is mapping %}{{ '{' ~ m(v) ~ '}' }}{% else %}{{ v }}{% endif %},{% endfor %}{% endmacro %}{{ m({'b': {'c': 1}, 'a': 2}) }}",
    "{% for i in [1,2] %}{% macro m() %}{{ i }}{% endmacro %}{{ m() }}{% endfor %}", "{% macro a() %}A{% endmacro %}{% macro b() %}{{ a() }}B{% endmacro %}{{ b()|lower }}", "{{ range(*[1, 3])|list }}{{ dict(**{'a': 1}) }}", "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(*[5]) }}{{ m(**{'a': 6}) }}", "{% call 5 %}{% endcall %}", "{% macro m(a, a) %}{% endmacro %}", "{% macro m() %}{% endmacro %}[{{ m() }}]{{ m() is string }}", "{% macro m(content, do_trim=false) %}{{ content|trim if do_trim else content }}{% endmacro %}{{ m(' x ', true) }}|{{ m(' x ', do_trim=false) }}",
]

# Errors, globals.
CASES += [
    "{{ raise_exception('Roles must alternate') }}", "{{ raise_exception('a' ~ 1) }}", "{% if true %}{{ raise_exception(none) }}{% endif %}", "{{ strftime_now('%d %b %Y') }}", "{{ strftime_now('%Y-%m-%d %H:%M:%S %A %B %j %%') }}", "{{ strftime_now is defined }}", "{% if tools is none and documents is none %}n{% endif %}", "{{ tools is defined }}{{ custom_tools is defined }}", "{{ bos_token ~ eos_token }}", "{{ add_generation_prompt }}",
    "{{ 1 +", "{{ 1 }", "{% if true %}", "{% if true %}{% endfor %}", "{% for x in [1] %}{% endif %}{% endfor %}", "{% nope %}", "{% endif %}", "{{ 1 1 }}", "{{ }}", "{% %}", "{{ 'abc }}", "{# abc", "{% raw %} abc", "{{ (1 }}", "{{ [1, 2 }}", "{{ a.  }}", "{{ a[ }}", "{{ 1 | }}", "{{ x is }}", "{% set %}", "{% set x %}", "{% set x = %}", "{% for %}", "{% for x %}", "{% for x in %}", "{% macro %}", "{{ $ }}", "{{ a ? b }}", "{{ 'a' if }}", "\n\n{{ 1 + }}\n", "{% if %}{% endif %}", "{% elif x %}", "{% else %}", "{{ f(a=1, 2) }}", "{{ f(**a, *b) }}", "{{ a b }}", "{{ 1..2 }}", "{{ not }}", "{% include 'x' %}", "{% import 'x' as y %}", "{% extends 'x' %}", "{{ {'a' 1} }}", "{{ ) }}", "{% if 1 %}{% else %}{% elif %}{% endif %}", "{% block %}{% endblock %}", "{{ 5 is divisibleby 0 }}", "{% if x|nofilter %}a{% endif %}", "{% if false %}{{ x|nofilter }}{% endif %}ok", "{{ (x|nofilter) if false else 1 }}", "{{ self }}" if False else "{{ 1 }}", "{% call(x) %}{% endcall %}", "{{ 1 is nope.test }}", "{{ '\\x4' }}", "{{ '\\u12' }}", "{% do x %}", "{% trans %}x{% endtrans %}", "{% continue %}",
]

# The constructs of well-known families' templates, in our own words.
_TOOLS = [{"type": "function", "function": {"name": "get_weather", "description": "Weather <now>", "parameters": {
    "type": "object", "properties": {"city": {"type": "string", "enum": ["Köln", "Rome"], "description": "Where\nto look"}, "days": {"type": ["integer", "null"], "default": 3}, "opts": {"type": "array", "items": {"type": "number"}}}, "required": ["city"]}}}]
_CHAT = [{"role": "system", "content": "Sys"}, {"role": "user", "content": "U1"}, {"role": "assistant", "content": "<think>\nhm\n</think>\n\nA1"}, {"role": "user", "content": "<tool_response>x</tool_response>"}, {"role": "assistant", "content": "", "tool_calls": [{"id": "call12345", "function": {"name": "get_weather", "arguments": {"city": "Köln"}}}]}, {"role": "tool", "tool_call_id": "call12345", "name": "get_weather", "content": "{\"t\": 1}"}, {"role": "user", "content": "U2"}]
_FAMILIES = [
    # Roles in turn, as Mistral and Gemma check them.
    "{%- if messages[0]['role'] == 'system' %}{%- set sys = messages[0]['content'] %}{%- set rest = messages[1:] %}{%- else %}{%- set rest = messages %}{%- endif %}{%- for m in rest %}{%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{%- endif %}{{- m.role ~ ' ' }}{%- endfor %}",
    "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}",
    # The last query that is no tool answer, counted from the end, and thinking cut away, as Qwen3 and SmolLM3 do.
    "{%- set ns = namespace(multi=true, last=messages|length - 1) %}\n{%- for m in messages[::-1] %}\n    {%- set index = (messages|length - 1) - loop.index0 %}\n    {%- if ns.multi and m.role == \"user\" and m.content is string and not(m.content.startswith('<tool_response>') and m.content.endswith('</tool_response>')) %}\n        {%- set ns.multi = false %}\n        {%- set ns.last = index %}\n    {%- endif %}\n{%- endfor %}\n{{ ns.last }}{{ ns.multi }}\n{%- for m in messages if m.role == 'assistant' %}\n    {%- set content = m.content %}\n    {%- set reasoning = '' %}\n    {%- if m.reasoning_content is string %}\n        {%- set reasoning = m.reasoning_content %}\n    {%- elif '</think>' in content %}\n        {%- set reasoning = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}\n        {%- set content = content.split('</think>')[-1].lstrip('\\n') %}\n    {%- endif %}\n    [{{ reasoning }}|{{ content }}|{{ loop.index0 > ns.last }}]\n{%- endfor %}",
    # DeepSeek's flags on a namespace.
    "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{% set ns = namespace(is_first=false, is_tool=false, is_output_first=true, system_prompt='') %}{%- for message in messages %}{%- if message['role'] == 'system' %}{% set ns.system_prompt = message['content'] %}{%- endif %}{%- endfor %}{{bos_token}}{{ns.system_prompt}}{%- for message in messages %}{%- if message['role'] == 'user' %}{%- set ns.is_tool = false -%}{{'<|User|>' + message['content']}}{%- endif %}{%- if message['role'] == 'assistant' and message['content'] %}{% set content = message['content'] %}{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}{{'<|Assistant|>' + content + eos_token}}{%- endif %}{%- if message['role'] == 'tool' %}{%- set ns.is_tool = true -%}{%- if ns.is_output_first %}{{'<outs><out>' + message['content'] + '</out>'}}{%- set ns.is_output_first = false %}{%- else %}{{'\n<out>' + message['content'] + '</out>'}}{%- endif %}{%- endif %}{%- endfor -%}{% if ns.is_tool %}{{'</outs>'}}{% endif %}{% if add_generation_prompt and not ns.is_tool %}{{'<|Assistant|>'}}{% endif %}",
    # A JSON schema as TypeScript by a macro that calls itself, as gpt-oss does.
    "{%- macro ts(spec, required, level=0) -%}\n    {%- if spec.type == 'array' -%}\n        {%- if spec['items'] -%}\n            {{- ts(spec['items'], required) + '[]' -}}\n        {%- else -%}any[]{%- endif -%}\n    {%- elif spec.type is defined and spec.type is iterable and spec.type is not string and spec.type is not mapping and spec.type[0] is defined -%}\n        {{- spec.type | join(' | ') -}}\n    {%- elif spec.type == 'string' -%}\n        {%- if spec.enum -%}{{- '\"' + spec.enum|join('\" | \"') + '\"' -}}{%- else -%}string{%- endif -%}\n    {%- elif spec.type in ['number', 'integer'] -%}number\n    {%- elif spec.type == 'object' -%}\n        {{- '{\\n' }}\n        {%- for name, prop in spec.properties.items() -%}\n            {{- name -}}{%- if name not in (spec.required or []) -%}{{- '?' -}}{%- endif -%}{{- ': ' -}}{{ ts(prop, spec.required or []) }}\n            {%- if prop.default is defined %}{{ ', // default: ' + prop.default|string }}{%- endif -%}\n            {%- if not loop.last %}{{- ',\\n' -}}{%- endif -%}\n        {%- endfor -%}\n        {{- '\\n}' }}\n    {%- else -%}any{%- endif -%}\n{%- endmacro -%}\n{%- for tool in the_tools -%}{%- set tool = tool.function -%}type {{ tool.name }} = (_: {{ ts(tool.parameters, tool.parameters.required) }}) => any;\n{% endfor %}",
    # Llama's tool printing and dates.
    "{{- bos_token }}\n{%- if not date_string is defined %}\n    {%- set date_string = strftime_now(\"%d %b %Y\") %}\n{%- endif %}\n{{- \"Today Date: \" + date_string + \"\\n\\n\" }}\n{%- for t in the_tools %}\n    {{- t | tojson(indent=4) }}\n    {{- \"\\n\\n\" }}\n{%- endfor %}\n{%- for message in messages %}\n    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}\n        {{- '<|' + message['role'] + '|>\\n\\n'+ message['content'] | trim + '<|eot|>' }}\n    {%- elif 'tool_calls' in message %}\n        {%- if not message.tool_calls|length == 1 %}\n            {{- raise_exception(\"single tool-calls only\") }}\n        {%- endif %}\n        {%- set call = message.tool_calls[0].function %}\n        {{- '{\"name\": \"' + call.name + '\", \"parameters\": ' }}{{- call.arguments | tojson }}{{- \"}\" }}\n    {%- endif %}\n{%- endfor %}",
    # Nemo's tool call ids and lists by hand.
    "{%- for message in messages %}{%- if message.tool_calls is defined and message.tool_calls is not none %}{{- '[TOOL_CALLS] [' }}{%- for tool_call in message.tool_calls %}{%- set out = tool_call.function|tojson %}{{- out[:-1] }}{%- if not tool_call.id is defined or tool_call.id|length != 9 %}{{- raise_exception('Tool call IDs should be alphanumeric strings with length 9!') }}{%- endif %}{{- ', \"id\": \"' + tool_call.id + '\"}' }}{%- if not loop.last %}{{- ', ' }}{%- else %}{{- ']' + eos_token }}{%- endif %}{%- endfor %}{%- elif message.role == 'tool' %}{%- if message.content is defined and message.content.content is defined %}{%- set content = message.content.content %}{%- else %}{%- set content = message.content %}{%- endif %}{{- '[TOOL_RESULTS] {\"content\": ' + content|string + '}' }}{%- endif %}{%- endfor %}",
    # Phi: role switch on one line. Granite, Command-R: defaults and documents.
    "{% for message in messages %}{% if message['role'] == 'system' and 'tools' in message and message['tools'] is not none %}{{ '<|' + message['role'] + '|>' + message['tools'] }}{% else %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}",
    "{%- set documents = docs | default([], true) %}{%- if documents %}{%- for d in documents %}{{- 'Document ' + (loop.index0)|string + '\\n' + d['text'] + ('\\n' if not loop.last else '') }}{%- endfor %}{%- else %}none{%- endif %}{%- set loop_messages = messages %}{% if false == true %}{{ 'x' }}{% endif %}{% if loop_messages[0]['role'] == 'system' and system_message is not defined %}{%- set system_message = loop_messages[0]['content'] %}{% endif %}{{ system_message|default('You are', true) }}",
    # Content that is text or parts, as vision and Gemma 3 templates take it.
    "{%- for message in messages -%}{%- if message['content'] is string -%}{{ message['content'] | trim }}{%- elif message['content'] is iterable -%}{%- for item in message['content'] -%}{%- if item['type'] == 'image' -%}{{ '<image>' }}{%- elif item['type'] == 'text' -%}{{ item['text'] | trim }}{%- endif -%}{%- endfor -%}{%- else -%}{{ raise_exception('Invalid content type') }}{%- endif -%}|{%- endfor -%}",
    # SmolLM3's flags in the system text, and generation blocks.
    "{%- set ns = namespace(mode='/think') -%}{%- if messages[0].role == 'system' -%}{%- set text = messages[0].content -%}{%- if '/no_think' in text -%}{%- set ns.mode = '/no_think' -%}{%- endif -%}{%- set custom = text.replace('/no_think', '').replace('/think', '').rstrip() -%}{%- endif -%}{{- 'Reasoning Mode: ' + ns.mode + '\\n' -}}{%- if custom -%}{{- custom + '\\n' -}}{%- endif -%}{%- for message in messages -%}{%- set content = message.content if message.content is string else '' -%}{%- if message.role == 'assistant' -%}{% generation %}{{- content.lstrip('\\n') + eos_token -}}{% endgeneration %}{%- else -%}{{- content -}}{%- endif -%}{%- endfor -%}",
    "{%- macro render_item_list(items, tag='required') -%}{%- if items is defined and items is iterable and items | length > 0 -%}<{{ tag }}>{%- for item in items -%}{{ '`' ~ item ~ '`' }}{{ ', ' if not loop.last }}{%- endfor -%}</{{ tag }}>{%- endif -%}{%- endmacro -%}{%- for tool in the_tools %}{%- set tool = tool.function if tool.function is defined else tool %}\n<function>{{ tool.name }}{%- for k in tool.parameters.properties|list %}{%- set f = tool.parameters.properties[k] %}<p>{{ k }}:{{ f.type | string }}:{{ (f.description if f.description is defined else '') | trim | replace('\\n', ' ') }}{% for key in f.keys() | reject('in', ['type', 'description']) %}{{ key }}={{ f[key] | tojson if f[key] is mapping or f[key] is sequence and f[key] is not string else f[key] | string }} {% endfor %}</p>{%- endfor %}{{ render_item_list(tool.parameters.required) }}</function>{%- endfor %}",
]
CASES += [(template, {"the_tools": _TOOLS}, _CHAT) for template in _FAMILIES]
CASES += [(_FAMILIES[i], {}, [{"role": "user", "content": "Q"}]) for i in (0, 1, 2, 3, 7, 8, 9, 10)]
CASES += [(_FAMILIES[9], {}, [{"role": "user", "content": [{"type": "text", "text": " a "}, {"type": "image"}]}, {"role": "user", "content": 5}])]
CASES += [("{{ messages[0].thinking }}|{{ x }}", {"x": "it's \\ \n"}, [{"role": "u", "thinking": "t", "reasoning_content": "t"}])]
