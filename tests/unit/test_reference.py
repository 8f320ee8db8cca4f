"""The product against the reference: on values that hypothesis makes, and on lines that were damaged."""

import json
import random
import re
from collections import Counter
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support import reference, validation
from tests.support.reference import BOM, Bad, Good, UndecidedError, judge, judge_line

# A tenth of a second each; for longer runs by hand, set it to some thousands.
REFERENCE_FUZZ_ROUNDS = 80
LINES_A_ROUND = 300

URL = "https://img.example.com/a.jpg"


def agree(data: bytes, chunk_bytes: int | None = None) -> None:
    """Both come to the same; of a disagreement the lines are shown, not the whole manifest."""
    found, wanted = validation.outcome(data, chunk_bytes), judge(data)
    lines = data.split(b"\n")
    both: list[set[Good | Bad]] = [{*each.good, *each.bad} for each in (found, wanted)]
    different = sorted(both[0] ^ both[1], key=lambda line: line.line)
    assert different == [], [lines[each.line - 1] for each in different]
    assert found == wanted


def decided(line: bytes) -> bool:
    """Whether the reference has an opinion of the line, wherever it stands."""
    try:
        judge(line)
    except UndecidedError:
        return False
    return True


TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
# Numbers as they are spelt, also those that no float and no int of a machine holds.
NUMBERS = st.from_regex(
    r"-?(0|[1-9][0-9]{0,40})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,5})?", fullmatch=True
)
SPACE = st.text(" \t\r", max_size=2)


@st.composite
def spelt_strings(draw: st.DrawFn) -> str:
    """A string in JSON, each character raw or in one of its escapes."""
    spelt = ""
    for letter in draw(TEXT):
        units = letter.encode("utf-16-be").hex()
        escaped = "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))
        choices = [escaped, escaped.upper().replace("\\U", "\\u"), json.dumps(letter)[1:-1]]
        if letter >= " " and letter not in '"\\':
            choices.append(letter)
        spelt += draw(st.sampled_from(choices))
    return f'"{spelt}"'


def _joined(opening: str, parts: list[str], closing: str, space: list[str]) -> str:
    return opening + ",".join(f"{space[0]}{part}{space[1]}" for part in parts) + closing


def _objects(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    member = st.tuples(spelt_strings(), SPACE, SPACE, values).map(
        lambda m: f"{m[0]}{m[1]}:{m[2]}{m[3]}"
    )
    spaces = st.tuples(SPACE, SPACE).map(list)
    return st.builds(_joined, st.just("{"), st.lists(member, max_size=4), st.just("}"), spaces)


def _containers(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    spaces = st.tuples(SPACE, SPACE).map(list)
    arrays = st.builds(_joined, st.just("["), st.lists(values, max_size=4), st.just("]"), spaces)
    return arrays | _objects(values)


SCALARS = spelt_strings() | NUMBERS | st.sampled_from(["true", "false", "null"])
VALUES = st.recursive(SCALARS, _containers, max_leaves=12)
OBJECTS = _objects(VALUES)

FORMS = [
    '{{"data_url": "{url}", "metadata": {metadata}}}',
    '{{"data_url":"{url}","metadata":{metadata}}}',
    ' {{\t"data_url" :\r"{url}" ,  "metadata"\t: {metadata} }}\t',
    '{{"metadata": {metadata}, "data_url": "{url}"}}',
    '{{"m\\u0065tadata":{metadata},"data_url":"{url}"}}',
]


@settings(max_examples=120)
@given(OBJECTS, st.sampled_from(FORMS))
def test_metadata_of_any_shape_and_spelling_comes_out_byte_for_byte(
    metadata: str, form: str
) -> None:
    data = form.format(url=URL, metadata=metadata).encode()
    assert validation.outcome(data).good == [Good(0, 1, URL, metadata)]
    agree(data)


@settings(max_examples=120)
@given(VALUES, st.sampled_from(FORMS))
def test_any_value_as_metadata_is_judged_alike(value: str, form: str) -> None:
    agree(form.format(url=URL, metadata=value).encode())


@settings(max_examples=120)
@given(VALUES)
def test_any_value_as_a_line_or_a_url_is_judged_alike(value: str) -> None:
    data = value.encode() + b"\n" + b'{"data_url": ' + value.encode() + b"}"
    if decided(data):
        agree(data)


@settings(max_examples=300)
@given(st.lists(st.binary(max_size=40) | st.sampled_from([b"", b"\r", b" ", BOM, b"{}", b"\n"])))
def test_any_bytes_are_judged_alike(parts: list[bytes]) -> None:
    agree(b"\n".join(parts))


def test_the_reference_agrees_with_the_json_module_about_what_is_json() -> None:
    dice = random.Random(7)
    for _ in range(3000):
        text = damaged(dice, [good_line(dice) for _ in range(2)]).decode(errors="replace")
        assert _is_json(text) == _json_takes(text), text


def _is_json(text: str) -> bool:
    try:
        reference.parse(text)
    except reference.NotJsonError:
        return False
    return True


def _json_takes(text: str) -> bool:
    def refuse(constant: str) -> Any:
        raise ValueError(constant)

    def spelt(value: Any) -> None:
        json.dumps(value, ensure_ascii=False).encode()  # a surrogate cannot be encoded

    try:
        spelt(
            json.loads(
                text, object_pairs_hook=list, parse_constant=refuse, parse_int=str, parse_float=str
            )
        )
    except ValueError:
        return False
    return True


HOST_PARTS = [
    *"aZ019.-_x:@[]%/\\?#<>^|\"'!$&()*+,;=~`{}f",
    *["..", "%41", "%2e", "%00", "%e9", "0x", "0X1f", "010", "255", "256", "65535", "65536"],
    *["4294967295", "4294967296", "1.2.3.4", "[::1]", "::", "fe80::1", "example.com", "user:pw@"],
    *["xn", ":80", ":0", "bücher.example", "例え.テスト", "xn--bcher-kva.example", "a。b"],
]
STARTS = ["http://", "https://", "HTTPS://", "s3://", "gs://", "S3://", "http:/", "https:", ""]


@settings(max_examples=700)
@given(
    st.sampled_from(STARTS),
    st.lists(st.sampled_from(HOST_PARTS), max_size=6).map("".join),
    st.sampled_from(["", "/", "/a.jpg", "?a", "#a", "/é", "\\a", " ", "\t", "/\u2028"]),
)
@example("https://", "a%ff", "/")
@example("https://", "1.2.3.4..", "/")
def test_urls_are_judged_alike(start: str, host: str, end: str) -> None:
    data = json.dumps({"data_url": start + host + end}, ensure_ascii=False).encode()
    if decided(data):
        agree(data)


@pytest.mark.parametrize("host", ["ü", "a.例", "xn--fa-hia.example", "a.XN--P1AI", "%C3%BC"])
def test_the_reference_does_not_guess_at_hosts_that_take_tables_of_unicode(host: str) -> None:
    with pytest.raises(UndecidedError, match="HOSTS_JUDGED_BY_HAND"):
        judge_line(f'{{"data_url": "https://{host}/"}}'.encode())


@pytest.mark.parametrize("host, valid", reference.HOSTS_JUDGED_BY_HAND.items())
def test_hosts_that_were_judged_by_hand_are_judged_alike(host: str, valid: bool) -> None:
    line = f'{{"data_url": "https://{host}/"}}'.encode()
    assert isinstance(validation.exact(line), Good if valid else Bad)
    agree(line)


# The first is that of every other line.
URLS = [
    "https://img.example.com/a.jpg",
    "http://a/",
    "https://a_b.example:8443/x?y=z#f",
    "HTTPS://A.EXAMPLE",
    "s3://bucket/key",
    "s3://abc",
    "gs://my.bucket-1/a//b",
    "https://127.0.0.1/",
    "http://[::1]:80/a",
    "http://a.1/",
    "s3://a_/k",
    "a/b",
    "https://user:pw@a.example/",
    "https://a.example/é/😀",
    "https://bücher.example/",
    "ftp://a/b",
    r"https://a.example/a\b",
    "https://a.example/{}",
    'https://a.example/"data_url"',
    "http://xn.a/",
    "https://a.example:65536/",
    "https://a.example:99999",
    "https://a.example:08080/a",
    "",
    "s3://bucket/a b",
    "s3://" + "b" * 64 + "/k",
]
CODES_OF_SHORT_LINES = {
    *["invalid_utf8", "malformed_json", "not_an_object", "duplicate_key", "unknown_field"],
    *["missing_data_url", "invalid_data_url", "invalid_metadata"],
}
# What means something to a reader of JSON, of UTF-8, of lines, or of this manifest.
TOKENS = [
    *[bytes([byte]) for byte in b'{}[]:,"\\ \t\r\n0123456789-+.eEutfn/@%#?xX_\x00\x1f\x7f\x0b\x0c'],
    *rb'\u0041 \ud83d \ude00 \ud83d\ude00 \u005f \u0064 \/ \\ \" "} }} https:// s3: {} [] ""'.split(),
    *b"\xff \x80 \xc3 \xed\xa0\x80 \xc0\x80 \xf4\x90\x80\x80 \xe2\x80\xa8 \xc2\x85 \xc2\xa0".split(
        b" "
    ),
    *[BOM, "é".encode(), "😀".encode(), b"\r\n", b"\r\r", b"\n\r"],
    *rb'null true false NaN Infinity 1e400 -0 01 "data_url" "metadata" "\u0064ata_url"'.split(),
    *[b'"metadata": {', b', "metadata": {}', b', "x": 1', b'"a": 1', b', "data_url": "s3://abc"'],
]
SPACINGS = [(", ", ": "), (",", ":"), (", ", ":"), (" , ", " : "), (",\t", "\r:"), (",  ", ":  ")]


SCALARS_OF_METADATA = [
    *[None, True, False, 0, -0.0, 1.5, 1e300, -17, 10**40],
    *["", "a", "}", '"', "\\", "é", "😀", "\u2028", "\u0085", "a\tb", "\x00", "\x7f"],
    *["data_url", '"metadata": {'],
]
KEYS_OF_METADATA = ["a", "b", "", "é", "data_url", "metadata", "}", '"', "\\", "😀", "a b", "\n"]


def some_json(dice: random.Random, depth: int) -> Any:
    if depth == 0 or dice.random() < 0.3:
        return dice.choice(SCALARS_OF_METADATA)
    size = dice.choice([0, 1, 1, 2, 3])
    if dice.random() < 0.5:
        return [some_json(dice, depth - 1) for _ in range(size)]
    return some_object(dice, depth - 1, size)


def some_object(dice: random.Random, depth: int, size: int) -> dict[str, Any]:
    return {dice.choice(KEYS_OF_METADATA): some_json(dice, depth) for _ in range(size)}


def good_line(dice: random.Random) -> bytes:
    """A line of any of the shapes that customers write; one in twenty has a field that is wrong."""
    url = URLS[0] if dice.random() < 0.5 else dice.choice(URLS)
    fields: dict[str, Any] = {"data_url": url}
    if dice.random() < 0.8:
        fields["metadata"] = some_object(
            dice, dice.choice([0, 0, 1, 1, 2, 3, 4, 5]), dice.randrange(4)
        )
    if dice.random() < 0.05:
        fields[dice.choice(["metadata", "data_url", "x"])] = some_json(dice, 1)
    if dice.random() < 0.15:
        fields = dict(reversed(fields.items()))
    spacing = SPACINGS[0] if dice.random() < 0.5 else dice.choice(SPACINGS)
    return json.dumps(fields, ensure_ascii=dice.random() < 0.5, separators=spacing).encode()


def damaged(dice: random.Random, lines: list[bytes]) -> bytes:
    """One of the lines with some damage; now and then with none."""
    line = dice.choice(lines)
    for _ in range(dice.choice([0, 0, 0, 1, 1, 1, 1, 2, 3, 8])):
        line = _damage(dice, line, lines)
    return line


def _damage(dice: random.Random, line: bytes, others: list[bytes]) -> bytes:
    start, end = sorted(dice.randrange(len(line) + 1) for _ in range(2))
    near = min(len(line), start + dice.randrange(1, 4))
    other = dice.choice(others)
    match dice.randrange(12):
        case 0:
            flipped = bytes(byte ^ 1 << dice.randrange(8) for byte in line[start : start + 1])
            found = line[:start] + flipped + line[start + 1 :]
        case 1:
            found = line[:start] + bytes([dice.randrange(256)]) + line[start + 1 :]
        case 2:
            found = line[:start] + line[near:]
        case 3 | 4:
            found = line[:start] + dice.choice(TOKENS) + line[start:]
        case 5:
            found = line[:start] + dice.choice(TOKENS) + line[near:]
        case 6:
            found = line[:start] + other[dice.randrange(len(other) + 1) :]
        case 7:
            found = line[:end] + line[start:]
        case 8:
            found = line[:end] if dice.random() < 0.5 else line[start:]
        case _:
            found = _damage_tokens(dice, line)
    return found


_JSON_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^{}\[\]:,"\s]+|\s+|.', re.DOTALL)
_OTHER_TOKENS = [
    *rb'null tru [] {} [,] {,} {"a":1} "" "metadata" "data_url" 01 - 1. .5 1e 1e+ +1 1E+2'.split(),
    *rb'-0.0 1e400 NaN 0x1 "\ud83d\u0041" "\udc00" "\ud800\udc00" "\uD7FF" "\v" "\u12"'.split(),
    *rb"""'a' "\"" "\\" "\\\" """.split(),
    *[b'"a" ', b'"\x1f"', b'"\x7f"', b"\x0c", b"\xc2\xa0"],
]
_FRAMES = [b"[%s]", b'{"metadata": %s}', b'{"data_url": %s}', b'{"a": %s}', b'"%s"']
_SPACES = [b" ", b"\t", b"\r", b"  "]


def _damage_tokens(dice: random.Random, line: bytes) -> bytes:
    """Damage that keeps to whole tokens, so that the line often stays JSON."""
    tokens: list[bytes] = _JSON_TOKEN.findall(line) or [b""]
    at = dice.randrange(len(tokens))
    match dice.randrange(8):
        case 0:
            tokens[at] = dice.choice(tokens)
        case 1 | 6 | 7:
            tokens[at] = dice.choice(_OTHER_TOKENS)
        case 2:
            tokens[at] = dice.choice(_SPACES) + tokens[at]
        case 3:  # the letters of a token, if it is a string, spelt by their numbers
            letter = dice.choice([rb"(?<=.)[a-z_](?=.)", rb"(?<=.)u(?=.)", rb"(?<=.)[_t](?=.)"])
            tokens[at] = re.sub(letter, lambda found: b"\\u%04x" % ord(found[0]), tokens[at])
        case 4:  # the members again, perhaps in another spelling
            members = line.strip()[1:-1]
            again = members.replace(b"data", dice.choice([b"data", b"d\\u0061ta", b"\\u0064ata"]))
            return b"{" + members + b"," + again + b"}"
        case _:
            return dice.choice(_FRAMES) % line
    return b"".join(tokens)


def fuzz(seed: int) -> Counter[str]:
    """One round; how many lines came to what, "made" and "kept" those that were and were compared."""
    dice = random.Random(seed)
    lines = [good_line(dice) for _ in range(40)]
    made = [damaged(dice, lines) for _ in range(LINES_A_ROUND)]
    kept = [line + dice.choice([b"", b"", b"", b"\r"]) for line in made if decided(line)]
    data = dice.choice([b"", b"", BOM]) + b"\n".join(kept)
    agree(data)
    agree(data, dice.randrange(200, 20_000))
    found = judge(data)
    return Counter({"made": len(made), "kept": len(kept), "good": len(found.good)}) + Counter(
        bad.code for bad in found.bad
    )


@pytest.mark.parametrize("part", range(4))
def test_damaged_manifests_are_judged_alike(part: int) -> None:
    total = Counter[str]()
    for seed in range(part, REFERENCE_FUZZ_ROUNDS, 4):
        total += fuzz(seed)
    # So that this cannot become a test of malformed lines alone.
    assert total["kept"] > 0.97 * total["made"]
    assert total["good"] > 0.2 * total["made"]
    assert total.keys() == CODES_OF_SHORT_LINES | {"made", "kept", "good"}
