"""Every form of an object's address, and a sentence for whatever is none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.domain.object_urls import (
    InvalidObjectUrl,
    ObjectUrl,
    StoreType,
    is_bucket_name,
    parse_object_url,
)

S3, GCS = StoreType.S3, StoreType.GCS
FORMS = {
    "s3://bucket/{}": S3,
    "gs://bucket/{}": GCS,
    "https://bucket.s3.amazonaws.com/{}": S3,
    "https://bucket.s3.eu-central-1.amazonaws.com/{}": S3,
    "https://s3.amazonaws.com/bucket/{}": S3,
    "https://s3.eu-central-1.amazonaws.com/bucket/{}": S3,
    "https://storage.googleapis.com/bucket/{}": GCS,
}
HTTPS = [form for form in FORMS if form.startswith("https")]
NATIVE = [form for form in FORMS if not form.startswith("https")]


def refusal(url: str) -> str:
    with pytest.raises(InvalidObjectUrl) as caught:
        parse_object_url(url)
    assert caught.value.message.endswith(".")
    assert caught.value.code == "invalid_manifest_url"
    return caught.value.message


@pytest.mark.parametrize(
    "key", ["key", "a/b/c.jsonl", "a//b", "k.jsonl.gz", ".", "a=b&c;d,e:f@g!$'()~"]
)
@pytest.mark.parametrize("form", list(FORMS))
def test_every_form_of_the_contract_names_the_object(form: str, key: str) -> None:
    assert parse_object_url(form.format(key)) == ObjectUrl(FORMS[form], "bucket", key)


@pytest.mark.parametrize(
    "key",
    [
        "a b",
        "a+b",
        "100%",
        "100%25",
        "a%20b",
        "a%2Fb",
        "a#b",
        "a?b",
        "a?versionId=1",
        "ä/😀",
        "%C3%A4",
        " a ",
        "a\\b",
        '"',
        "/a",
    ],
)
@pytest.mark.parametrize("form", NATIVE)
def test_s3_and_gs_urls_have_the_plain_name(form: str, key: str) -> None:
    assert parse_object_url(form.format(key)).key == key


@pytest.mark.parametrize(
    "written, key",
    [
        ("a%20b", "a b"),
        ("a b", "a b"),
        ("a%2Bb", "a+b"),
        ("a%2Ab*", "a*b*"),
        ("100%25", "100%"),
        ("100%2525", "100%25"),
        ("100%", "100%"),
        ("a%23b", "a#b"),
        ("a%3Fb", "a?b"),
        ("a%2Fb", "a/b"),
        ("%C3%A4/%F0%9F%98%80", "ä/😀"),
        ("ä/😀", "ä/😀"),
        ("a%2520b", "a%20b"),
    ],
)
@pytest.mark.parametrize("form", HTTPS)
def test_https_urls_are_percent_encoded_once(form: str, written: str, key: str) -> None:
    assert parse_object_url(form.format(written)).key == key


@pytest.mark.parametrize("form", HTTPS)
def test_a_plus_sign_is_a_space_where_the_store_reads_it_so(form: str) -> None:
    key = parse_object_url(form.format("a+b/c++d")).key
    assert key == ("a+b/c++d" if FORMS[form] is GCS else "a b/c  d")


@pytest.mark.parametrize("form", list(FORMS))
def test_an_asterisk_is_a_character_of_a_key(form: str) -> None:
    assert parse_object_url(form.format("in/we*ird.jsonl")).key == "in/we*ird.jsonl"


@given(st.text(st.characters(codec="utf-8"), min_size=1))
def test_any_name_of_an_object_can_be_given_as_it_is(key: str) -> None:
    if key.endswith("/"):
        refusal(f"s3://bucket/{key}")
    else:
        assert parse_object_url(f"s3://bucket/{key}") == ObjectUrl(S3, "bucket", key)


@pytest.mark.parametrize(
    "url, expected",
    [
        ("S3://Bucket/Key", ObjectUrl(S3, "Bucket", "Key")),
        ("GS://bucket/Key", ObjectUrl(GCS, "bucket", "Key")),
        ("HTTPS://Bucket.S3.AmazonAWS.com/Key", ObjectUrl(S3, "bucket", "Key")),
        ("https://Storage.GoogleAPIs.com/Bucket/Key", ObjectUrl(GCS, "Bucket", "Key")),
        ("https://my.dotted.bucket.s3.amazonaws.com/k", ObjectUrl(S3, "my.dotted.bucket", "k")),
        ("https://s3.s3.eu-west-1.amazonaws.com/k", None),  # two letters are no bucket
        ("s3://my_bucket-1.x/k", ObjectUrl(S3, "my_bucket-1.x", "k")),
    ],
)
def test_scheme_and_host_are_in_any_case(url: str, expected: ObjectUrl | None) -> None:
    if expected is None:
        refusal(url)
    else:
        assert parse_object_url(url) == expected


@pytest.mark.parametrize(
    "url, part",
    [
        ("", "scheme is not supported"),
        ("bucket/key", "scheme is not supported"),
        ("s3:bucket/key", "scheme is not supported"),
        ("s3:/bucket/key", "scheme is not supported"),
        ("//bucket/key", "scheme is not supported"),
        ("://bucket/key", "scheme is not supported"),
        (" s3://bucket/key", "scheme is not supported"),
        ("http://bucket.s3.amazonaws.com/key", "scheme is not supported"),
        ("ftp://bucket/key", "scheme is not supported"),
        ("file:///etc/passwd", "scheme is not supported"),
        ("s3a://bucket/key", "scheme is not supported"),
        ("s3://", "is not a bucket name"),
        ("s3:///key", "is not a bucket name"),
        ("s3://ab/key", "is not a bucket name"),
        ("s3://-bucket/key", "is not a bucket name"),
        ("s3://bucket-/key", "is not a bucket name"),
        ("s3://buck et/key", "is not a bucket name"),
        ("s3://bücket/key", "is not a bucket name"),
        ("s3://bucket:80/key", "is not a bucket name"),
        ("s3://bucket?/key", "is not a bucket name"),
        ("https://s3.amazonaws.com/", "is not a bucket name"),
        ("https://storage.googleapis.com/", "is not a bucket name"),
        ("https://storage.googleapis.com//key", "is not a bucket name"),
        ("s3://bucket", "names no object"),
        ("s3://bucket/", "names no object"),
        ("gs://bucket/folder/", "names no object"),
        ("https://bucket.s3.amazonaws.com", "names no object"),
        ("https://bucket.s3.amazonaws.com/", "names no object"),
        ("https://s3.amazonaws.com/bucket", "names no object"),
        ("https://s3.amazonaws.com/bucket/", "names no object"),
        ("https://storage.googleapis.com/bucket/a/", "names no object"),
        ("https://bucket.s3.amazonaws.com/key?X-Amz-Signature=1", "presigned"),
        ("https://bucket.s3.amazonaws.com/key?versionId=1", "presigned"),
        ("https://storage.googleapis.com/bucket/key#1", "presigned"),
        ("https://example.com/bucket/key", "neither S3 nor GCS"),
        ("https://amazonaws.com/bucket/key", "neither S3 nor GCS"),
        ("https://bucket.s3.amazonaws.com.evil.example/key", "neither S3 nor GCS"),
        ("https://s3.amazonaws.com.evil.example/bucket/key", "neither S3 nor GCS"),
        ("https://bucket.s3.amazonaws.com@evil.example/key", "user or password"),
        ("https://evilstorage.googleapis.com/bucket/key", "neither S3 nor GCS"),
        ("https://bucket.storage.googleapis.com/key", "neither S3 nor GCS"),
        ("https://storage.cloud.google.com/bucket/key", "neither S3 nor GCS"),
        ("https://bucket.s3-eu-west-1.amazonaws.com/key", "neither S3 nor GCS"),
        ("https://bucket.s3.amazonaws.com:8443/key", "neither S3 nor GCS"),
        ("https://bucket.s3.amazonaws.cn/key", "neither S3 nor GCS"),
        ("https://xs3.amazonaws.com/bucket/key", "neither S3 nor GCS"),
        ("https:///bucket/key", "neither S3 nor GCS"),
        ("https://[::1/key", "malformed"),
    ],
)
def test_whatever_is_none_of_them_is_refused_with_a_reason(url: str, part: str) -> None:
    assert part in refusal(url)


@pytest.mark.parametrize(
    "url", ["s3://AKIA:hunter2@bucket/key", "https://AKIA:hunter2@bucket.s3.amazonaws.com/key"]
)
def test_a_secret_in_the_url_is_not_repeated(url: str) -> None:
    assert "hunter2" not in refusal(url)


@pytest.mark.parametrize("written", ["a\tb", "a\nb", "a\r\nb", "%FF", "a%C3"])
def test_no_other_object_than_the_one_that_was_named_is_read(written: str) -> None:
    url = f"https://bucket.s3.amazonaws.com/{written}"
    try:
        key = parse_object_url(url).key
    except InvalidObjectUrl:
        return
    assert key == written


@pytest.mark.parametrize(
    "name, valid",
    [
        ("abc", True),
        ("a.b-c_d", True),
        ("ABC", True),
        ("0ab9", True),
        ("a" * 222, True),
        ("a" * 223, False),
        ("ab", False),
        ("", False),
        (".ab", False),
        ("ab.", False),
        ("_ab", False),
        ("a/b", False),
        ("a b", False),
        ("aéb", False),
        ("abc\n", False),
        ("a\u212ab", False),
    ],
)
def test_a_bucket_name_is_what_s3_or_gcs_could_have(name: str, valid: bool) -> None:
    assert is_bucket_name(name) is valid


@pytest.mark.parametrize("url", ["s3://bucket/a/b c", "gs://bucket/?#%20"])
def test_an_object_is_written_as_the_url_that_names_it(url: str) -> None:
    assert str(parse_object_url(url)) == url


def test_each_store_is_known_by_its_scheme_alone() -> None:
    assert {store: StoreType.of_scheme(store.scheme) for store in StoreType} == {S3: S3, GCS: GCS}
    assert [StoreType.of_scheme(each) for each in ("gcs", "https", "S3", "")] == [None] * 4
