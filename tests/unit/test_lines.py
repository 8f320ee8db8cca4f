"""What a manifest line comes to: a task, or the one code that says why not."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.domain.data_urls import is_data_url
from blocks.domain.model import LINE_BYTES_MAX, BadLine, GoodLine, LineCode
from blocks.lines.exact_path import validate

URL = "https://img.example.com/a.jpg"
HEAD = b'{"data_url": "https://img.example.com/a.jpg"'
LONE = b"\\ud83d"  # an escaped half of a surrogate pair
PAIR = b"\\ud83d\\ude00"


def outcome(raw: bytes) -> GoodLine | BadLine | None:
    return validate(raw, byte_offset=7, line=3)


def bad(raw: bytes) -> BadLine:
    found = outcome(raw)
    assert isinstance(found, BadLine), found
    return found


def good(raw: bytes) -> GoodLine:
    found = outcome(raw)
    assert isinstance(found, GoodLine), found
    return found


def of_length(size: int, *, head: bytes = HEAD + b', "metadata": {"x": "') -> bytes:
    """A good line of exactly `size` bytes."""
    tail = b'"}}'
    return head + b"a" * (size - len(head) - len(tail)) + tail


MALFORMED = [
    b"x",
    b"{",
    b"}",
    b"[",
    b'"',
    b"-",
    b"+1",
    b"01",
    b"-01",
    b"1.",
    b".5",
    b"1e",
    b"1e+",
    b"0x10",
    b"1_000",
    b"NaN",
    b"Infinity",
    b"-Infinity",
    b"nul",
    b"True",
    b"truefalse",
    b"'a'",
    b"// note",
    b"{}{}",
    b"{} {}",
    b"[] []",
    b"1 2",
    b"{},",
    b"[1,]",
    b"[,1]",
    b"[1 2]",
    b"[1:2]",
    b"[}",
    b"{]",
    b"[{]}",
    b"{,}",
    b"{1: 2}",
    b"{null: 2}",
    b'{"a"}',
    b'{"a",}',
    b'{"a":}',
    b'{"a" 1}',
    b'{"a":: 1}',
    b'{"a": 1,}',
    b'{"a": 1,, "b": 2}',
    b'{"a": 1 "b": 2}',
    b"{a: 1}",
    b"{'a': 1}",
    HEAD,
    HEAD + b",}",
    HEAD[:-1],
    HEAD + b'} {"data_url": "https://b.example.com/"}',
    HEAD + b'}{"data_url": "https://b.example.com/"}',
    HEAD + b"} x",
    HEAD + b"}]",
    HEAD + b', "metadata": {"x": NaN}}',
    HEAD + b', "metadata": {"x": -Infinity}}',
    HEAD + b', "metadata": {"x": 007}}',
    HEAD + b', "metadata": {"x": +1}}',
    HEAD + b', "metadata": {"x": 1.}}',
    HEAD + b', "metadata": {"x": undefined}}',
    HEAD + b', "metadata": {"x": 1,}}',
    HEAD + b', "metadata": {"x": [1,]}}',
    HEAD + b', "metadata": {"x": 1}',
    HEAD + b', "metadata": {"x": "\t"}}',
    HEAD + b', "metadata": {"x": "\x00"}}',
    HEAD + b', "metadata": {"x": "\x1f"}}',
    HEAD + b', "metadata": {"x": "a\rb"}}',
    HEAD + b', "metadata": {"x": "\\x"}}',
    HEAD + b', "metadata": {"x": "\\u12"}}',
    HEAD + b', "metadata": {"x": "\\u12g4"}}',
    HEAD + b', "metadata": {"x": "\\U0001f600"}}',
    HEAD + b', "metadata": {"x": "\\"}}',
    HEAD + b', "metadata": {"x": "' + LONE + b'"}}',
    HEAD + b', "metadata": {"x": "\\udc00\\ud800"}}',
    HEAD + b', "metadata": {"x": ["' + LONE + b'x"]}}',
    HEAD + b', "metadata": {"' + LONE + b'": 1}}',
    HEAD + b', "' + LONE + b'": 1}',
    b'{"data_url": "https://img.example.com/' + LONE + b'"}',
    HEAD + b"}\x00",
    b"\x00" + HEAD + b"}",
    b"\x00",
    b"{\x00}",
    HEAD + b"}\x0c",
    b"\x0b",
    b"\x0c",
    b"\xc2\xa0",  # a no-break space is not blank
    b"\xe3\x80\x80" + HEAD + b"}",
    b"\xef\xbb\xbf" + HEAD + b"}",  # the one at the start of the manifest is cut before
    HEAD + b', \xef\xbb\xbf"metadata": {}}',
    b"\xe2\x80\xa8",
    b'\xe2\x80\x9cdata_url\xe2\x80\x9d: "x"',
    HEAD.replace(b"{", b"{\x85".decode("latin-1").encode()) + b"}",
]
NOT_AN_OBJECT = [
    b"[]",
    b"[[]]",
    b"[" + HEAD + b"}]",
    b'[{"a": 1, "a": 2}]',
    b'["a", {"b": [1, -0.5e-7, true, null]}]',
    b'""',
    b'"https://img.example.com/a.jpg"',
    b'"' + PAIR + b'"',
    b"0",
    b"-0",
    b"-0.0E+00",
    b"1e400",
    b"1234567890123456789012345678901234567890",
    b"true",
    b"false",
    b" null ",
]
MISSING = [
    b"{}",
    b"{ }",
    b'{"metadata": {"data_url": "https://img.example.com/a.jpg"}}',
    b'{"metadata": [1]}',
    b'{"x": 1}',
    b'{"": 1}',
    b'{"DATA_URL": "https://img.example.com/a.jpg"}',
    b'{"data-url": "https://img.example.com/a.jpg"}',
]
UNKNOWN = [
    HEAD + b', "label": "cat"}',
    HEAD + b', "Metadata": {}}',
    HEAD + b', "metadata ": {}}',
    HEAD + b', "meta\\u0000data": {}}',
    HEAD + b', "data_url\\u0000": "https://b.example.com/"}',
    b'{"data_url": 5, "x": 1}',
    HEAD + b', "' + b"k" * 100_000 + b'": 1}',
    HEAD + b', "\xf0\x9f\xa6\x8a": 1}',
]
DUPLICATE = [
    HEAD + b', "data_url": "https://img.example.com/a.jpg"}',
    HEAD + b', "data\\u005furl": "https://b.example.com/"}',
    HEAD
    + b', "\\u0064\\u0061\\u0074\\u0061\\u005F\\u0075\\u0072\\u006C": "https://b.example.com/"}',
    HEAD + b', "metadata": {}, "metadata": {}}',
    HEAD + b', "metadata": {}, "met\\u0061data": {}}',
    b'{"x": 1, "x": 2}',
    b'{"/": 1, "\\/": 2}',
    b'{"' + PAIR + b'": 1, "\xf0\x9f\x98\x80": 2}',
    b'{"": 1, "": 2}',
    b'{"x": 1, "y": 2, "x": 3}',
]
INVALID_UTF8 = [
    b"\xff",
    b"\x80",
    HEAD[:-1] + b'\xff"}',
    HEAD + b', "metadata": {"\xfe": 1}}',
    HEAD + b', "k\xc3": 1}',
    HEAD + b", \xc0\xaf}",  # an overlong slash
    HEAD + b"}\xe2\x82",  # cut short
    HEAD + b', "metadata": {"x": "\xed\xa0\x80"}}',  # an encoded surrogate
    HEAD + b', "metadata": {"x": "\xf4\x90\x80\x80"}}',  # beyond U+10FFFF
    HEAD + b', "metadata": {"x": "caf\xe9"}}',  # Latin-1
    b"\xff\xfe" + '{"data_url"'.encode("utf-16-le"),
]
INVALID_METADATA = [
    HEAD + b', "metadata": ' + value + b"}"
    for value in (
        b"null",
        b"true",
        b"false",
        b"0",
        b"-1.5",
        b"1e400",
        b'""',
        b'"{}"',
        b"[]",
        b'[{"a": 1}]',
    )
]
INVALID_URL_VALUES = [
    b'{"data_url": ' + value + b"}"
    for value in (b"null", b"true", b"17", b"{}", b"[]", b'["https://img.example.com/"]', b'""')
]


@pytest.mark.parametrize("raw", MALFORMED)
def test_what_is_not_json_is_malformed(raw: bytes) -> None:
    assert bad(raw).code is LineCode.MALFORMED_JSON


@pytest.mark.parametrize("raw", NOT_AN_OBJECT)
def test_json_of_another_type_is_not_an_object(raw: bytes) -> None:
    assert bad(raw).code is LineCode.NOT_AN_OBJECT


@pytest.mark.parametrize("raw", MISSING)
def test_an_object_without_data_url_is_missing_it(raw: bytes) -> None:
    assert bad(raw).code is LineCode.MISSING_DATA_URL


@pytest.mark.parametrize("raw", [pytest.param(raw, id=str(n)) for n, raw in enumerate(UNKNOWN)])
def test_a_field_of_another_name_is_unknown(raw: bytes) -> None:
    found = bad(raw)
    assert found.code is LineCode.UNKNOWN_FIELD
    assert len(found.message) < 900


@pytest.mark.parametrize("raw", DUPLICATE)
def test_a_key_that_stands_there_twice_is_a_duplicate_however_it_is_spelt(raw: bytes) -> None:
    assert bad(raw).code is LineCode.DUPLICATE_KEY


@pytest.mark.parametrize("raw", INVALID_UTF8)
def test_bytes_that_are_not_utf_8_are_found_in_key_value_and_between(raw: bytes) -> None:
    assert bad(raw).code is LineCode.INVALID_UTF8


@pytest.mark.parametrize("raw", INVALID_METADATA)
def test_metadata_that_is_not_an_object_is_invalid(raw: bytes) -> None:
    assert bad(raw).code is LineCode.INVALID_METADATA


@pytest.mark.parametrize("raw", INVALID_URL_VALUES)
def test_a_data_url_that_is_not_a_url_in_a_string_is_invalid(raw: bytes) -> None:
    assert bad(raw).code is LineCode.INVALID_DATA_URL


@pytest.mark.parametrize(
    "raw, message",
    [
        (
            b'{"a": 1 "b": 2}',
            "The line is not valid JSON: expected ',' or the closing bracket in column 9.",
        ),
        (b'{"a": 1,}', "The line is not valid JSON: expected a key in double quotes in column 9."),
        (b"[", "The line is not valid JSON: expected a value or ']' in column 2."),
        (b"{} {}", "The line is not valid JSON: expected nothing more in column 4."),
        (b'{"a"  1}', "The line is not valid JSON: expected ':' in column 7."),
        (b'  {"\xc3\xa4": tru}', "The line is not valid JSON: expected a value in column 9."),
        (b'"' + LONE + b'"', "The line is not valid JSON: half of a surrogate pair stands alone."),
        (HEAD[:-1] + b"\xff", "Byte 44 of the line is not valid UTF-8."),
        (
            HEAD + b', "caf\xc3\xa9": 1}',
            r'The field "caf\u00e9" is not known; put fields of your own into metadata.',
        ),
        (b'{"a\\u0000": 1, "a\\u0000": 1}', r'The key "a\u0000" stands there twice.'),
        (b"{}", "The field data_url is missing."),
        (b"7", "The line is JSON, but not an object."),
    ],
)
def test_the_message_says_what_is_wrong_and_where(raw: bytes, message: str) -> None:
    assert bad(raw).message == message


@pytest.mark.parametrize(
    "raw, code",
    [
        (b'{"x": "\xff', LineCode.INVALID_UTF8),
        (b'{"x": 1, "x": 2, "metadata": 5', LineCode.MALFORMED_JSON),
        (b'{"y": 1, "x": 1, "x": 2, "metadata": 5}', LineCode.DUPLICATE_KEY),
        (b'{"x": 1, "metadata": 5}', LineCode.MISSING_DATA_URL),
        (b'{"x": 1, "data_url": 5, "metadata": 5}', LineCode.UNKNOWN_FIELD),
        (b'{"metadata": 5}', LineCode.MISSING_DATA_URL),
        (b'{"data_url": 5, "metadata": 5}', LineCode.INVALID_DATA_URL),
    ],
)
def test_of_several_faults_the_most_basic_counts(raw: bytes, code: LineCode) -> None:
    assert bad(raw).code is code


def test_of_several_unknown_fields_the_first_is_named_whatever_the_hash_seed() -> None:
    for turn in range(20):
        fields = ", ".join(f'"k{turn}.{n}": 1' for n in range(50))
        line = HEAD + f", {fields}}}".encode()
        assert bad(line).message.startswith(f'The field "k{turn}.0"')


@pytest.mark.parametrize(
    "line, name",
    [
        ({"image_url": URL}, "image_url"),
        ({"id": 1, "url": URL}, "url"),
        ({"image": URL, "label": "cat"}, "image"),
        ({"source-ref": URL}, "source-ref"),
        ({"source": "It is raining."}, "source"),
        ({"text": "It is raining."}, "text"),
        ({"dataUrl": URL, "metadata": {}}, "dataUrl"),
        ({"DATA-URL": URL}, "DATA-URL"),
        ({"data": {"image": URL}}, "data.image"),
        ({"id": 1, "data": {"n": 1, "text": "x"}, "predictions": []}, "data.text"),
        ({"metadata": {"data_url": URL}}, "metadata.data_url"),
    ],
)
def test_a_line_without_data_url_is_told_which_field_was_meant(line: Any, name: str) -> None:
    found = bad(json.dumps(line).encode())
    assert found.code is LineCode.MISSING_DATA_URL
    assert found.message == f"data_url is missing; the line has {name}. Did you mean that?"


@pytest.mark.parametrize("line", [{"x": URL}, {"data": URL}, {"data": {"x": URL}}, {"": 1}])
def test_a_field_that_nobody_uses_for_it_is_named_all_the_same(line: Any) -> None:
    found = bad(json.dumps(line).encode())
    (name,) = line
    assert found.message == f"data_url is missing; the line has {json.dumps(name)}."


@pytest.mark.parametrize(
    "url, at, code",
    [
        ("https://img.example.com/a b.jpg", 26, "0020"),
        (" https://img.example.com/a.jpg", 1, "0020"),
        ("HTTP://img.example.com/\u3000", 24, "3000"),
        ("https://img.example.com/?a=\u202f", 28, "202F"),
    ],
)
def test_white_space_in_a_url_is_named(url: str, at: int, code: str) -> None:
    found = bad(json.dumps({"data_url": url}).encode())
    assert found.code is LineCode.INVALID_DATA_URL
    assert found.message.startswith(f"data_url has white space (U+{code}) as its character {at};")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\r",
        b" ",
        b"\t",
        b"  \t ",
        b" \r",
        b"\r\r",
        pytest.param(b" " * 5000 + b"\r", id="long"),
    ],
)
def test_a_blank_line_comes_to_nothing(raw: bytes) -> None:
    assert outcome(raw) is None


METADATA = [
    "{}",
    "{ }",
    '{\t"a" :\r1  }',
    '{"b":1,"a":2}',
    '{"a": 1.10, "b": 1e5, "c": -0, "d": 1E+05, "e": 0.0}',
    '{"n": 1234567890123456789012345678901234567890}',
    '{"n": 1e400, "m": -1e-400}',
    '{"dup": 1, "dup": 2, "d\\u0075p": 3}',
    '{"data_url": 5, "metadata": null}',
    '{"a": "caf\\u00e9 café \\ud83d\\ude00 😀 \\/ \\" \\\\ \\u0000"}',
    '{"a": "\\\\ud83d"}',
    '{"a": "\u2028\u2029\u007f\ufeff"}',
    '{"a": "\\u005c\\u0022}"}',
    '{"": {"": [[], {}, "]", "}", null, true, false]}}',
]


@pytest.mark.parametrize("metadata", METADATA)
@pytest.mark.parametrize(
    "form",
    ['{{"data_url":"{0}","metadata":{1}}}', ' {{ "metadata" :\t{1}\t,\r"data_url" : "{0}" }} \r\r'],
)
def test_metadata_is_kept_byte_for_byte(form: str, metadata: str) -> None:
    assert outcome(form.format(URL, metadata).encode()) == GoodLine(7, 3, URL, metadata)


def test_a_line_without_metadata_has_none() -> None:
    assert outcome(HEAD + b"}") == GoodLine(7, 3, URL, None)


def test_one_carriage_return_before_the_line_feed_is_no_part_of_a_bad_line() -> None:
    assert bad(b"x\r").raw == b"x"
    assert bad(b"x\r\r").raw == b"x\r"


def test_escapes_in_keys_and_urls_are_resolved() -> None:
    raw = b'{"data\\u005furl": "https:\\/\\/img.example.com\\/\\u00e9' + PAIR + b'.jpg"}'
    assert good(raw).data_url == "https://img.example.com/é😀.jpg"


@pytest.mark.parametrize("opening, closing", [(b"[", b"]"), (b'{"a":', b"}")])
def test_nesting_of_10_000_levels_is_read_and_kept(opening: bytes, closing: bytes) -> None:
    deep = opening * 10_000 + b"1" + closing * 10_000
    raw = HEAD + b', "metadata": {"x": ' + deep + b"}}"
    assert good(raw).metadata == (b'{"x": ' + deep + b"}").decode()
    assert bad(raw[:-3] + b"}}").code is LineCode.MALFORMED_JSON


@pytest.mark.parametrize("end", [b"", b"\r"])
@pytest.mark.parametrize("size", [LINE_BYTES_MAX - 1, LINE_BYTES_MAX])
def test_a_line_of_up_to_1_mib_is_a_task(size: int, end: bytes) -> None:
    raw = of_length(size)
    assert len(raw) == size
    assert len(good(raw + end).metadata or "") > size - 100


@pytest.mark.parametrize("end", [b"", b"\r"])
def test_a_line_of_one_byte_more_is_too_long_and_only_its_first_kib_is_kept(end: bytes) -> None:
    raw = of_length(LINE_BYTES_MAX + 1)
    found = bad(raw + end)
    assert (found.code, found.raw) == (LineCode.LINE_TOO_LONG, raw[:1024])


def test_a_bad_line_that_is_not_too_long_is_kept_whole() -> None:
    raw = of_length(LINE_BYTES_MAX)[:-1]
    assert bad(raw) == BadLine(7, 3, LineCode.MALFORMED_JSON, bad(raw).message, raw)


def test_a_line_of_too_many_spaces_is_too_long_wherever_it_was_cut() -> None:
    assert bad(b" " * (LINE_BYTES_MAX + 2)).code is LineCode.LINE_TOO_LONG


GOOD_URLS = [
    "http://a/",
    "https://a",
    "HTTPS://A.EXAMPLE/",
    "https://img.example.com",
    "https://img.example.com?x=1#y",
    "https://img.example.com/a/../b//c?d=e&f#g",
    "https://img.example.com:443/",
    "https://img.example.com:65535/a",
    "https://img.example.com:/a",
    "https://user@img.example.com/",
    "https://user:pa%20ss@img.example.com/",
    "https://127.0.0.1/",
    "https://[::1]/a",
    "https://[2001:db8::1]:8443/a",
    "https://bücher.example/ä/ö?ü",
    "https://例え.テスト/",
    "https://xn--bcher-kva.example/",
    "https://a_b.example/",
    "https://img.example.com/%zz",
    "https://img.example.com/a'b(c)[d]{e}|^`\\",
    "s3://bucket/key",
    "s3://bucket",
    "s3://my.bucket-1_x/a/b c".replace(" ", "+"),
    "S3://Bucket/Key",
    "gs://bucket/key?#%",
    "gs://abc/",
    "gs://" + "b" * 222 + "/k",
    "s3://bucket/schlüssel/😀",
]
BAD_URLS = [
    "",
    " ",
    "a",
    "img.example.com/a.jpg",
    "/a.jpg",
    "//img.example.com/a.jpg",
    "https",
    "https:",
    "https:/",
    "https://",
    "https:///a",
    "https:img.example.com",
    "https:/img.example.com",
    "https:\\\\img.example.com",
    "https://\\a",
    "https://?x",
    "https://#x",
    "https://:80/",
    "https://@/",
    "https://user@/a",
    "https://user:pw@:80/",
    "ftp://img.example.com/a",
    "file:///etc/passwd",
    "data:image/png;base64,AAAA",
    "javascript:alert(1)",
    "azure://bucket/key",
    "s3a://bucket/key",
    "httpss://img.example.com/",
    "xhttps://img.example.com/",
    " https://img.example.com/",
    "https://img.example.com/ ",
    "https://img.example.com/a b",
    "https://img.example.com/a\tb",
    "https://img.example.com/a\nb",
    "https://img.example.com/\x00",
    "https://img.example.com/\x7f",
    "https://img.exam ple.com/",
    "https://img.exam\u00a0ple.com/",
    "https://img.example.com:65536/",
    "https://img.example.com:-1/",
    "https://img.example.com:a/",
    "https://a.1/",
    "https://1.2.3.4.5/",
    "https://256.1.1.1/",
    "https://[::1/",
    "https://::1/",
    "https://[::g]/",
    "https://[1.2.3.4]/",
    "https://a|b/",
    "https://a<b/",
    "https://a%/",
    "https://a%00b/",
    "https://a%20b/",
    "https://xn--a/",
    "https://\u00ad/",
    "s3:/bucket/key",
    "s3:bucket/key",
    "s3://",
    "s3:///key",
    "s3://b/key",
    "s3://ab/key",
    "s3://-bucket/key",
    "s3://bucket-/key",
    "s3://bu cket/key",
    "s3://bu$cket/key",
    "s3://bücket/key",
    "s3://bucket:80/key",
    "s3://key:secret@bucket/key",
    "s3://bucket?x",
    "s3://bucket/a\rb",
    "gs://" + "b" * 223 + "/k",
]


@pytest.mark.parametrize("url", GOOD_URLS)
def test_an_absolute_url_with_a_valid_host_is_a_data_url(url: str) -> None:
    assert is_data_url(url)


@pytest.mark.parametrize("url", BAD_URLS)
def test_any_other_text_is_not(url: str) -> None:
    assert not is_data_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "\u017f3://bucket/x",
        "g\u017f://bucket/x",
        "s3://buc\u212aet/x",
        "s3://b\u0130cket/x",
        "s3://b\u0131cket/x",
    ],
)
def test_a_letter_that_merely_folds_to_an_ascii_one_is_not_valid(url: str) -> None:
    assert not is_data_url(url)


@pytest.mark.parametrize("start", ["https://img.example.com/", "s3://bucket/"])
@pytest.mark.parametrize("filler", ["a", "é", "😀"])
def test_a_url_may_have_2_048_characters_and_no_more(start: str, filler: str) -> None:
    longest = start + filler * (2048 - len(start))
    assert is_data_url(longest)
    assert not is_data_url(longest + filler)


@given(st.binary(max_size=60))
def test_any_bytes_come_to_a_task_a_bad_line_or_nothing(raw: bytes) -> None:
    found = outcome(raw)
    if found is None:
        assert not raw.strip(b" \t\r")
    elif isinstance(found, BadLine):
        assert (found.byte_offset, found.line) == (7, 3)
        assert found.raw == raw.removesuffix(b"\r")
        assert found.message.endswith((".", "?"))


TEXT = st.text(st.characters(codec="utf-8"))
KEYS = TEXT.filter(lambda key: key not in {"data_url", "metadata"})


@given(KEYS)
def test_any_other_key_is_unknown(key: str) -> None:
    raw = json.dumps({"data_url": URL, key: 1}, ensure_ascii=len(key) % 2 == 0).encode()
    assert bad(raw).code is LineCode.UNKNOWN_FIELD


@pytest.mark.parametrize(
    "unit",
    [
        b'"',
        b"\\",
        b'\\"',
        b"[",
        b"{",
        b'{"a":',
        b"[1,",
        b'"",',
        b"\\u0041",
        b" ",
        b"\r",
        b"-",
        b"1",
        b"1.",
        b"1e",
        b"{}",
        b":",
        b",",
        b"\x00",
        b"\xc3\xa9",
    ],
)
@pytest.mark.parametrize("frame", [b"%s", HEAD + b', "metadata": {"x": %s}}', HEAD[:-1] + b'%s"}'])
def test_the_time_grows_with_the_length_of_a_line_and_no_faster(frame: bytes, unit: bytes) -> None:
    def seconds(size: int) -> float:
        raw = frame % (unit * (size // len(unit)))
        start = time.process_time()  # whatever else the machine does
        outcome(raw)
        return time.process_time() - start

    # Quadratic, it would be 64 times; a hundredth of a second is for what is too short to measure.
    assert seconds(128 * 1024) < 24 * seconds(16 * 1024) + 0.1
