"""What code says, whatever its layout and the Python that reads it."""

from __future__ import annotations

import ast
import hashlib
import textwrap

import pytest

from sharedlabel.code import syntax

# One of everything whose tree differs, or could, between versions of Python.
SAMPLE = '''
from __future__ import annotations
import a.b as c

@c.deco(1)
class K(c.Base, metaclass=M):
    """Docstring."""
    x: int = -1
    def f(self, p, /, q=u"u", *r, s: "T" = None, **t) -> list[int]:
        return {**t, 1: {2, 3.5, 1e400, 4j, b"b", ...}}

async def g[placeholder](z): ...

def h(x, w):
    text = "a" f"{x!r:>{w}} and {w=}" "z" f"" f"{{}}" f"{x:}"
    with open(x) as y, y: pass
    try:
        [i for i in x if (j := i)]
    except* ValueError as e:
        raise c.Error(f"wrong {x}") from e
    else:
        assert x, "text"
    match x:
        case {"k": [1, *rest], **more} | K(x=None) as whole if w:
            lambda v, *u: (yield v)
        case _:
            global G
            del y[::2], y[...]
    while not x: x //= 2
    else: return (*x, w) if x is not w else await_
'''.replace("[placeholder]", "")


SAID = "c7300e75bbe948a9c054faf6651fd262b7dcc8046e396c984c273ecc0d5c6080"


def said(source: str) -> list[str]:
    """Return what each statement of a module says."""
    return [syntax.text(syntax.plain(statement)) for statement in ast.parse(textwrap.dedent(source)).body]


def test_every_python_reads_the_same():
    """The digest is the same under Python 3.11 to 3.13: keys of stored results hold such digests."""
    readings = [
        said(SAMPLE),
        sorted(set(syntax.references(ast.parse(SAMPLE)))),
        sorted(syntax.imports(ast.parse(SAMPLE))),
    ]
    assert hashlib.sha256(repr(readings).encode()).hexdigest() == SAID


SAME = {
    "comment": ("def f(x): return -x", "def f(x):  # why\n    return -x"),
    "layout": ("y = f(1, [2])", "y = f(\n    1,\n    [\n        2,\n    ],\n)"),
    "docstring": ("def f(x): return -x", 'def f(x):\n    """Negate."""\n    return -x'),
    "docstring alone": ("class E(Exception): pass", 'class E(Exception):\n    """An error."""'),
    "attribute docstring": ("class K:\n    x = 1", 'class K:\n    x = 1\n    """Of x."""'),
    "quotes": ("x = 'a'", 'x = "a"'),
    "digits": ("x = 1000", "x = 1_000"),
    "imports": ("def f():\n    return g", "def f():\n    import os\n    return g"),
    "error message": ("def f(x): raise E(f'got {x}')", "def f(x): raise E(f'expected y, got {x}' 'z')"),
    "assertion message": ("assert x, 'a'", "assert x, 'b'"),
    "assertion message with values": ("assert x, f'got {x}'", "assert x, 'got ' + f'{-x}'"),
    "error message of two texts": ("def f(x): raise E('a' + 'b')", "def f(x): raise E(f'a' + f'{x}')"),
    "f-string in pieces": ("x = f'{y} and z'", "x = f'{y} ' 'and z'"),
    "f-string of many pieces": ("x = f'a{y}bcd{z}'", "x = f'a' f'{y}' f'b' 'c' f'd{z}'"),
    "f-string of texts alone": ("x = f'ab'", "x = f'a' f'b'"),
    "type checking": ("def f(x):\n    if a:\n        import b\n    return x", "def f(x): return x"),
}
DIFFERENT = {
    "sign": ("def f(x): return -x", "def f(x): return x"),
    "operator": ("y = a + b", "y = a - b"),
    "order": ("y = a - b", "y = b - a"),
    "type of a number": ("x = 1", "x = 1.0"),
    "truth": ("x = 1", "x = True"),
    "text": ("x = 'a'", "x = 'b'"),
    "bytes": ("x = 'a'", "x = b'a'"),
    "None in a mapping": ("x = {**a}", "x = {None: a}"),
    "None and nothing": ("def f(): return None", "def f(): return"),
    "default": ("def f(x=1): return x", "def f(x=2): return x"),
    "decorator": ("def f(): g()", "@d\ndef f(): g()"),
    "depth": ("for x in y:\n    f(x)\ng(x)", "for x in y:\n    f(x)\n    g(x)"),
    "kind of error": ("def f(x): raise E('a')", "def f(x): raise D('a')"),
    "value in an error": ("def f(x): raise E(x, 'a')", "def f(x): raise E(-x, 'a')"),
    "value in a text": ("x = f'{y}'", "x = f'{-y}'"),
    "format": ("x = f'{y:.1f}'", "x = f'{y:.2f}'"),
    "text around a value": ("x = f'a{y}b'", "x = f'b{y}a'"),
    "text of pieces": ("x = f'{y}a' 'b'", "x = f'{y}a' 'c'"),
    "value in an assertion": ("assert x, y", "assert x, z"),
    "value beside a text": ("def f(x): raise E('a' + x)", "def f(x): raise E('a' + y)"),
    "value before a text": ("def f(x): raise E(x + 'a')", "def f(x): raise E(y + 'a')"),
}


def test_a_whole_file_says_what_it_imports_and_in_which_order():
    def whole(source: str) -> str:
        return syntax.text(syntax.plain(ast.parse(source)))

    assert whole("import a\nf()") == whole('"""Words."""\nimport a  # why\nf()')
    assert len({*map(whole, ("import a\nf()", "f()\nimport a", "f()", "import b\nf()", "from a import f\nf()"))}) == 5


def test_pieces_of_an_f_string_that_another_python_cuts_are_joined():
    def of(*pieces: str | ast.expr) -> str:
        values = [ast.Constant(piece) if isinstance(piece, str) else piece for piece in pieces]
        return syntax.text(syntax.plain(ast.Expr(ast.JoinedStr(values))))

    value = ast.FormattedValue(ast.Name("x", ast.Load()), -1)
    assert (
        of("a", value, "b", "cd", "", "e", value) == of("a", value, "bcde", value) == of("a", value, "bc", "de", value)
    )
    assert len({of("ab", value), of("a", "c", value), of("b", "a", value), of(value, "ab"), of("a", value, "b")}) == 5


@pytest.mark.parametrize("name", SAME)
def test_layout_says_nothing(name):
    one, other = SAME[name]
    assert said(one) == said(other)


@pytest.mark.parametrize("name", DIFFERENT)
def test_what_is_computed_is_said(name):
    one, other = DIFFERENT[name]
    assert said(one) != said(other)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def f(x): return x.y + g(h.i.j)", {"g", "h.i.j"}),
        ("def f(x=a): return x", {"a"}),
        ("@a\ndef f(x: b) -> c: return x", {"a", "b", "c"}),
        ("def f():\n    a = 1\n    return a", set()),
        ("def f():\n    global a\n    a = 1\n    return a", {"a"}),
        ("def f():\n    def a(): return b\n    return a", {"b"}),
        ("def f():\n    import a\n    return a.b", {"a.b"}),
        ("x = lambda a, *b: a + b + c", {"c"}),
        ("x = [a for a in a if a]", {"a"}),
        ("x = {k: v for k, v in y for w in k.z}", {"y"}),
        ("def f():\n    [(a := b) for b in c]\n    return a", {"c"}),
        ("def f():\n    try: pass\n    except E as e: return e", {"E"}),
        ("def f(x):\n    match x:\n        case K(y=a) | [*b]: return a, b", {"K"}),
        ("class K(B):\n    x = y\n    def f(self): return x", {"B", "x", "y"}),
        ("a.b = c", {"a.b", "c"}),
        ("f().g.h(x)", {"f", "x"}),
        ("x = [a for a in b for c in a for d in e if d]", {"b", "e"}),
        ("x = {a: c for a in a}", {"a", "c"}),
        ("def f(x):\n    match x:\n        case {**rest}: return rest", set()),
        ("def f():\n    try: from a import b\n    except E: b = None\n    return b", {"E", "b"}),
    ],
)
def test_references_are_the_names_from_outside(source, expected):
    assert {".".join(chain) for chain in syntax.references(ast.parse(source))} == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import a.b, c as d", ["a.b", "c"]),
        ("from a.b import c, d as e", ["a.b", "a.b.c", "a.b.d"]),
        ("from . import a", [".", ".a"]),
        ("from ..a import b", ["..a", "..a.b"]),
        ("def f():\n    try: import a\n    except E: from b import c", ["a", "b", "b.c"]),
        ("importlib.import_module('a.b'); import_module('.c', 'd')", ["a.b", ".c"]),
        ("importlib.import_module(a); f('b'); g.f('c'); h.import_module(1)", []),
    ],
)
def test_modules_are_what_an_import_may_bring_in(source, expected):
    assert list(syntax.modules(ast.parse(source))) == expected
