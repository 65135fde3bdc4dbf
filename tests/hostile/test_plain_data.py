"""Texts from strangers become plain values or a message, and never anything else."""

import json
import math
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharedlabel.files.plain import DEPTH, VALUES, read_file, read_json, read_yaml

BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdefg", "bcdefgh", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: !!python/object/apply:os.system [touch ran]", "the tag 'tag:yaml.org,2002:python/object/apply:os.system'"),
        ("a: !!python/name:os.system", "the tag .*; write plain values, without tags"),
        ("a: !!str 5", "the tag .*str"),
        ("!mine {a: 1}", "the tag '!mine' in line 1"),
        ("a: 1\nb: 2\na: 3", "the key 'a' stands twice, again in line 3; leave one out"),
        ("a: {b: 1, b: 1}", "the key 'b' stands twice"),
        ("a: &x [*x]", r"the alias \*x in line 1 of nothing before it"),
        ("? [1]\n: 2", "a list or mapping as a key in line 1"),
        ("a: &k b\n*k : 2", "an alias as a key in line 2; write it out"),
        ("a: 1\n---\nb: 2", "a second document in line 2"),
        (BOMB, f"more than {VALUES} values, reached in line"),
        ("[" * 100_000, f"nested deeper than {DEPTH} levels"),
        ("- " * 100_000, f"nested deeper than {DEPTH} levels"),
        ("a: " + "9" * 5000, "a whole number of 5000 digits; 100 are read"),
        ("a: [1", "line 1, column 4"),
        ("\0", "special characters are not allowed"),
        ('a: "\\ud800"', "half a letter in .*ud800"),
    ],
    ids=lambda text: text[:20],
)
def test_what_yaml_may_not_say(text, message):
    with pytest.raises(ValueError, match=message):
        read_yaml(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "a": 2}', "the key 'a' stands twice in one mapping"),
        ("[" * 100_000, f"nested deeper than {DEPTH} levels"),
        ("[" * (DEPTH + 1) + "]" * (DEPTH + 1), f"nested deeper than {DEPTH} levels"),
        ('{"a":' * 200 + "1" + "}" * 200, f"nested deeper than {DEPTH} levels"),
        ('{"a": NaN}', "NaN, which is no number of JSON"),
        ("[-Infinity]", "-Infinity, which is no number"),
        ("9" * 5000, "a whole number of 5000 digits"),
        ("{", "Expecting property name"),
        ('{"a": ["\\ud800"]}', "half a letter in .*ud800"),
        ('{"\\udc00": 1}', "half a letter in .*udc00"),
        (b"\xff", "utf-8"),
    ],
    ids=lambda text: str(text[:20]),
)
def test_what_json_may_not_say(text, message):
    with pytest.raises(ValueError, match=message):
        read_json(text)


def test_yaml_scalars_are_those_of_its_version_1_2():
    text = "[1e-3, -2.5E+2, .5, 7, -7, 0x10, 0o17, true, False, ~, null, '', no, on, 1_000, 12:30, 2026-01-01, '5']"
    wanted = [1e-3, -250.0, 0.5, 7, -7, 16, 15, True, False, None, None, "", "no", "on", "1_000", "12:30"]
    assert read_yaml(text) == [*wanted, "2026-01-01", "5"]
    assert read_yaml("[.inf, -.INF]") == [math.inf, -math.inf]
    assert math.isnan(read_yaml(".nan"))
    assert read_yaml("") is read_yaml("# nothing\n") is None


def test_keys_are_text_as_it_is_written():
    assert read_yaml("1: a\non: b\n0.5: c\n") == {"1": "a", "on": "b", "0.5": "c"}


def test_an_alias_stands_for_the_value_of_its_anchor():
    assert read_yaml("a: &x {b: [1, 2]}\nc: *x\nd: [&y 5, *y]") == {"a": {"b": [1, 2]}, "c": {"b": [1, 2]}, "d": [5, 5]}


def test_the_deepest_allowed_nesting_is_read():
    text = "[" * DEPTH + "]" * DEPTH
    assert read_json(text) == read_yaml(text)


VALUES_OF_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@given(VALUES_OF_JSON)
def test_what_is_written_is_read_back(value):
    assert read_json(json.dumps(value)) == value
    assert read_yaml(json.dumps(value)) == value  # JSON is a part of YAML 1.2


@pytest.mark.parametrize("text", ["0x" + "f" * 4000, "0o" + "7" * 4000])
def test_numbers_of_other_bases_are_bounded_too(text):
    with pytest.raises(ValueError, match="a whole number of 4000 digits; 100 are read"):
        read_yaml(text)


def test_only_plain_files_of_bounded_length_are_read(tmp_path):
    (tmp_path / "a").write_text("12345")
    assert read_file(tmp_path / "a", 5) == b"12345"
    os.mkfifo(tmp_path / "pipe")
    for path, message in ((tmp_path / "a", "more than 4 bytes"), (tmp_path / "pipe", "pipe"), (tmp_path, "folder")):
        with pytest.raises(OSError, match=message):
            read_file(path, 4)
    with pytest.raises(OSError, match="device"):
        read_file(Path("/dev/zero"))
