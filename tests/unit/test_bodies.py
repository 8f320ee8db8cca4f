"""Request bodies are read strictly, and everything that is wrong with one is said at once."""

import json
import re
from http import HTTPStatus
from typing import Any

import msgspec
import pytest

from api.http.bodies import parse
from api.http.errors import ApiError
from blocks.bodies.consensus import ConsensusBody
from blocks.bodies.fields import Body
from blocks.bodies.jobs import JobBody
from blocks.domain.model import Compression, ResultFormat, TaskType
from blocks.domain.object_urls import StoreType
from blocks.secrets.credentials import GcsCredentials, S3Credentials, decode_credentials
from blocks.store.jobs import DeliveryTarget

SECRETS = ("hunter2-secret", "hunter2-token")
S3_CREDENTIALS = {"access_key_id": "AKIA", "secret_access_key": SECRETS[0], "region": "eu-west-1"}
GCS_CREDENTIALS = {
    "service_account_json": '{"type": "service_account", "client_email": "a@b", "private_key": "hunter2-secret"}'
}
NO_ACCOUNT = (
    "This must be a service account's key file: a JSON object of strings, with the type service_account, "
    "a client_email and a private_key."
)
DELIVERY = {"type": "s3", "bucket": "results"}
JOB: dict[str, Any] = {
    "manifest_url": "s3://bucket/manifest.jsonl",
    "label_spec": {"question": "Cat?", "options": ["yes", "no"]},
}
GCS_JOB = JOB | {"manifest_url": "gs://bucket/manifest.jsonl"}
NUL = "The character U+0000 cannot be stored."
UNKNOWN = "This field is not known."
REQUIRED = "This field is required."


def read(**fields: Any) -> JobBody:
    return parse(json.dumps(JOB | fields).encode(), JobBody)


def error_of(body: bytes, model: type[Body] = JobBody) -> ApiError:
    with pytest.raises(ApiError) as caught:
        parse(body, model)
    assert caught.value.status == HTTPStatus.BAD_REQUEST
    return caught.value


def faults_of(job: Any) -> dict[str, str]:
    """Message by field; every field once."""
    error = error_of(json.dumps(job).encode())
    assert error.body.code == "invalid_request"
    found = {fault.field: fault.message for fault in error.body.details}
    assert len(found) == len(error.body.details), error.body.details
    first = error.body.details[0]
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    assert error.body.error == f"{first.field}: {first.message}{more}"
    return found


def faults(**fields: Any) -> dict[str, str]:
    return faults_of(JOB | fields)


def test_the_required_fields_are_enough_and_the_others_have_the_defaults_of_the_contract() -> None:
    job = read()
    assert msgspec.structs.asdict(job) | {"label_spec": None} == {
        "manifest_url": "s3://bucket/manifest.jsonl",
        "label_spec": None,
        "consensus_threshold": 3,
        "consensus": ConsensusBody(),
        "gold_share": 0.1,
        "min_accuracy": None,
        "min_gold_seen": 10,
        "include_labels": False,
        "review_no_consensus": False,
        "review_confidence_below": None,
        "review_share": None,
        "review_flagged": False,
        "review_deadline": 168.0,
        "task_type": TaskType.IMAGE_CLASSIFICATION,
        "callback_url": None,
        "credentials": None,
        "delivery": None,
        "metadata": None,
        "priority": 5,
        "stop_early": False,
        "skips_max": 3,
        "failure_threshold_percent": 100.0,
        "show_metadata": True,
        "instructions": None,
        "sign_urls": False,
    }


def test_every_fault_is_told_at_once_with_the_path_of_its_field() -> None:
    job = {
        "manifest_url": "http://bucket/key",
        "label_spec": {"question": " ", "options": ["a", "a"], "color": 1},
        "consensus_threshold": "3",
        "task_type": "video",
        "callback_url": "http://example.com",
        "credentials": [],
        "delivery": {
            "type": "ftp",
            "bucket": "b",
            "prefix": "a/../b",
            "compression": "zip",
            "x": 1,
        },
        "metadata": {"a": 1},
        "priority": 10,
        "stop_early": 0,
        "failure_threshold_percent": 100.5,
        "consensus_treshold": 3,
    }
    found = faults_of(job)
    assert set(found) == {
        "manifest_url",
        "label_spec.question",
        "label_spec.options",
        "label_spec.color",
        "consensus_threshold",
        "task_type",
        "callback_url",
        "credentials",
        "delivery.type",
        "delivery.bucket",
        "delivery.prefix",
        "delivery.compression",
        "delivery.x",
        "metadata",
        "priority",
        "stop_early",
        "failure_threshold_percent",
        "consensus_treshold",
    }
    assert found["label_spec.question"] == "The question must not be empty."
    assert found["label_spec.options"] == "The options must be distinct."
    assert all(message.endswith((".", "?")) for message in found.values())


def test_what_is_missing_is_told_at_every_level() -> None:
    assert faults_of({}) == {"manifest_url": REQUIRED, "label_spec": REQUIRED}
    assert faults_of({"label_spec": {}, "delivery": {}, "manifest_url": "s3://bucket/key"}) == {
        "label_spec.question": REQUIRED,
        "label_spec.options": REQUIRED,
        "delivery.type": REQUIRED,
        "delivery.bucket": REQUIRED,
    }


@pytest.mark.parametrize(
    "fields, path, hint",
    [
        ({"manifest_uri": 1}, "manifest_uri", " Did you mean manifest_url?"),
        ({"metadate": {}}, "metadate", " Did you mean metadata?"),
        ({"zzz": 1}, "zzz", ""),
        ({"": 1}, "", ""),
        ({"Priority": 1}, "Priority", " Did you mean priority?"),
        (
            {"label_spec": JOB["label_spec"] | {"option": []}},
            "label_spec.option",
            " Did you mean options?",
        ),
        ({"delivery": DELIVERY | {"bukcet": "x"}}, "delivery.bukcet", " Did you mean bucket?"),
    ],
)
def test_an_unknown_field_is_refused_with_a_suggestion(
    fields: dict[str, Any], path: str, hint: str
) -> None:
    assert faults(**fields) == {path: UNKNOWN + hint}


@pytest.mark.parametrize(
    "field, value",
    [
        ("manifest_url", 5),
        ("manifest_url", None),
        ("manifest_url", ["s3://bucket/key"]),
        ("manifest_url", "s3://bucket/" + "a" * 4096),
        ("label_spec", None),
        ("label_spec", "cat?"),
        ("label_spec", []),
        ("consensus_threshold", "3"),
        ("consensus_threshold", 3.0),
        ("consensus_threshold", 3.5),
        ("consensus_threshold", True),
        ("consensus_threshold", None),
        ("consensus_threshold", 0),
        ("consensus_threshold", 11),
        ("consensus_threshold", 10**40),
        ("task_type", "IMAGE_CLASSIFICATION"),
        ("task_type", 1),
        ("task_type", None),
        ("callback_url", ""),
        ("callback_url", "http://example.com/"),
        ("callback_url", "https://"),
        ("callback_url", "https:///x"),
        ("callback_url", " https://example.com/"),
        ("callback_url", 5),
        ("metadata", []),
        ("metadata", "x"),
        ("metadata", {"a": {"b": "c"}}),
        ("metadata", {"a": None}),
        ("metadata", {"a": 1}),
        ("metadata", {str(n): "x" for n in range(101)}),
        ("priority", -1),
        ("priority", 10),
        ("priority", True),
        ("priority", "5"),
        ("stop_early", 1),
        ("stop_early", "true"),
        ("stop_early", None),
        ("failure_threshold_percent", -0.1),
        ("failure_threshold_percent", 100.1),
        ("failure_threshold_percent", "50"),
        ("failure_threshold_percent", True),
        ("failure_threshold_percent", None),
        ("instructions", ""),
        ("instructions", " \n\t"),
        ("instructions", 5),
        ("instructions", ["x"]),
        ("instructions", "x" * 65_537),
        ("instructions", "é" * 32_769),
        ("delivery", "s3"),
        ("delivery", []),
        ("credentials", "s3"),
        ("credentials", []),
        ("credentials", 5),
    ],
)
def test_a_value_of_another_type_or_range_is_refused(field: str, value: Any) -> None:
    assert set(faults(**{field: value})) == {field}


@pytest.mark.parametrize(
    "field, value",
    [
        ("consensus_threshold", 1),
        ("consensus_threshold", 10),
        ("callback_url", None),
        ("callback_url", "https://example.com:8443/hook?x=1"),
        ("credentials", None),
        ("delivery", None),
        ("metadata", None),
        ("metadata", {}),
        ("metadata", {str(n): "ä" for n in range(100)}),
        ("priority", 0),
        ("priority", 9),
        ("stop_early", True),
        ("failure_threshold_percent", 0),
        ("failure_threshold_percent", 0.5),
        ("failure_threshold_percent", 100),
        ("instructions", None),
        ("instructions", "é" * 32_768),
    ],
)
def test_a_value_within_the_bounds_is_taken(field: str, value: Any) -> None:
    assert getattr(read(**{field: value}), field) == value


@pytest.mark.parametrize(
    "url",
    ["https://?", "https://a b/", "https://[::1", "https://a:99999/", "https://a:b/", "https://@/"],
)
def test_a_callback_url_has_a_host(url: str) -> None:
    assert set(faults(callback_url=url)) == {"callback_url"}


@pytest.mark.parametrize(
    "spec, path",
    [
        ({"question": ""}, "question"),
        ({"question": " \t\n\u3000"}, "question"),
        ({"question": "x" * 10_001}, "question"),
        ({"question": 5}, "question"),
        ({"options": []}, "options"),
        ({"options": ["a"]}, "options"),
        ({"options": [str(n) for n in range(101)]}, "options"),
        ({"options": ["a", "a"]}, "options"),
        ({"options": ["a", ""]}, "options"),
        ({"options": ["a", " "]}, "options"),
        ({"options": ["a", 1]}, "options[1]"),
        ({"options": ["a", None]}, "options[1]"),
        ({"options": ["a", "x" * 1001]}, "options[1]"),
        ({"options": "ab"}, "options"),
        ({"options": {"a": "b"}}, "options"),
    ],
)
def test_the_label_spec_has_a_question_and_distinct_options(
    spec: dict[str, Any], path: str
) -> None:
    assert set(faults(label_spec=JOB["label_spec"] | spec)) == {f"label_spec.{path}"}


@pytest.mark.parametrize(
    "fields, path, message",
    [
        (
            {"task_type": "image-classification"},
            "task_type",
            f"This must be one of {', '.join(TaskType)}, not 'image-classification'.",
        ),
        (
            {"delivery": DELIVERY | {"type": "azure"}},
            "delivery.type",
            "This must be one of s3, gcs, not 'azure'.",
        ),
        (
            {"delivery": DELIVERY | {"compression": "zip"}},
            "delivery.compression",
            "This must be one of gzip, none, zstd, not 'zip'.",
        ),
    ],
)
def test_a_wrong_enum_is_answered_with_the_right_ones(
    fields: dict[str, Any], path: str, message: str
) -> None:
    (found,) = faults(**fields).items()
    assert found[0] == path
    assert words(found[1]) == words(message)


def words(message: str) -> list[str]:
    """The words of a message, however the right values are ordered in it."""
    return sorted(re.findall(r"[\w'-]+", message))


def test_the_hints_of_a_whole_body_are_bounded() -> None:
    body = {"items": [{"url": "a", "utl": "b"}] * 50, "labels": []}
    found = error_of(json.dumps(body).encode(), Batch).body.details
    assert sum("Did you mean" in fault.message for fault in found) <= 5


def test_options_may_differ_in_case_or_spaces_and_be_a_hundred() -> None:
    options = ["a", "A", " a", "é", "e\u0301", *map(str, range(95))]
    job = read(label_spec={"question": "q", "options": options})
    assert job.label_spec.options == options


class Item(Body, frozen=True, kw_only=True):
    url: str
    size: int = 1


class Batch(Body, frozen=True, kw_only=True):
    items: list[Item]
    labels: list[str]


def test_faults_within_a_list_are_told_by_their_index() -> None:
    body = {
        "items": [
            {"url": "a"},
            {"url": 5, "size": "x"},
            {"size": 2, "utl": "a"},
            7,
            {"url": "b", "size": True},
        ],
        "labels": ["a", 5],
    }
    found = {(f.field, f.message) for f in error_of(json.dumps(body).encode(), Batch).body.details}
    assert found == {
        ("items[1].url", "This must be a string, not a number."),
        ("items[1].size", "This must be a whole number, not a string."),
        ("items[2].url", REQUIRED),
        ("items[2].utl", f"{UNKNOWN} Did you mean url?"),
        ("items[3]", "This must be an object with url, not a number."),
        ("items[4].size", "This must be a whole number, not a boolean."),
        ("labels[1]", "This must be a string, not a number."),
    }


@pytest.mark.parametrize(
    "fields, paths",
    [
        ({"metadata": {"a": "b\x00"}}, ["metadata.a"]),
        ({"metadata": {"a\x00b": "c"}}, ["metadata.a\\u0000b"]),
        (
            {"label_spec": {"question": "\x00?", "options": ["a", "b\x00", "\x00"]}},
            ["label_spec.question", "label_spec.options[1]", "label_spec.options[2]"],
        ),
        ({"manifest_url": "s3://bucket/a\x00"}, ["manifest_url"]),
        (
            {"credentials": S3_CREDENTIALS | {"secret_access_key": "a\x00"}},
            ["credentials.secret_access_key"],
        ),
        ({"delivery": DELIVERY | {"prefix": "\x00"}}, ["delivery.prefix"]),
        ({"callback_url": "https://a/\x00"}, ["callback_url"]),
    ],
)
def test_u_0000_is_refused_wherever_it_stands(fields: dict[str, Any], paths: list[str]) -> None:
    assert faults(**fields) == dict.fromkeys(paths, NUL)


def test_what_only_looks_like_u_0000_is_taken() -> None:
    assert read(metadata={"a": "\\u0000", "b": "\x01"}).metadata == {"a": "\\u0000", "b": "\x01"}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"{}}",
        b"{'a': 1}",
        b'{"a": NaN}',
        b'{"a": 01}',
        b'{"a": 1,}',
        b'{"a": 1e400}',
        b'{"a": "\xff"}',
        b'{"a": "\\ud800"}',
        b'{"a": "\t"}',
        b"\xef\xbb\xbf{}",
        pytest.param(b"[" * 100_000, id="opened"),
        pytest.param(b"[" * 5000 + b"]" * 5000, id="deep"),
        pytest.param(b'{"a":' * 5000 + b"1" + b"}" * 5000, id="deep object"),
    ],
)
def test_what_is_not_json_is_told_as_that(body: bytes) -> None:
    error = error_of(body)
    assert error.body.code == "invalid_json"
    assert error.body.error.startswith("The body is not valid JSON: ")
    assert error.body.details == ()


@pytest.mark.parametrize("body", [b"[]", b"null", b"5", b'"x"', b"true"])
def test_json_that_is_no_object_is_a_fault_of_the_body(body: bytes) -> None:
    assert [fault.field for fault in error_of(body).body.details] == ["body"]


def test_no_depth_of_a_body_crashes_it() -> None:
    for depth in range(800, 1000):
        error_of(b'{"metadata":' + b"[" * depth + b'"\\u0000"' + b"]" * depth + b"}")


@pytest.mark.parametrize("kind", [[], {}, [1], {"a": "s3"}])
def test_a_delivery_type_of_any_kind_is_told(kind: Any) -> None:
    assert set(faults(delivery=DELIVERY | {"type": kind})) == {"delivery.type"}


def test_the_answer_to_a_body_of_faults_only_is_bounded() -> None:
    error = error_of(json.dumps({"metadata": ["\x00"] * 10_000}).encode())
    assert len(msgspec.json.encode(error.body)) < 100_000


# Credentials and delivery.


def test_credentials_of_either_store_are_taken() -> None:
    optional = {"session_token": SECRETS[1], "endpoint_url": "https://minio.example.com:9000"}
    job = read(credentials=S3_CREDENTIALS | optional).to_job("cust_1")
    assert decode_credentials(StoreType.S3, job.credentials) == S3Credentials(
        **S3_CREDENTIALS, **optional
    )
    job = parse(json.dumps(GCS_JOB | {"credentials": GCS_CREDENTIALS}).encode(), JobBody).to_job(
        "c"
    )
    assert decode_credentials(StoreType.GCS, job.credentials) == GcsCredentials(**GCS_CREDENTIALS)
    assert read().to_job("cust_1").credentials is None


@pytest.mark.parametrize(
    "job, credentials, expected",
    [
        (JOB, {}, dict.fromkeys(["access_key_id", "secret_access_key", "region"], REQUIRED)),
        (GCS_JOB, {}, {"service_account_json": REQUIRED}),
        (JOB, {"access_key_id": "AKIA", "region": "x"}, {"secret_access_key": REQUIRED}),
        (
            JOB,
            GCS_CREDENTIALS,
            dict.fromkeys(["access_key_id", "secret_access_key", "region"], REQUIRED)
            | {"service_account_json": UNKNOWN},
        ),
        (
            GCS_JOB,
            S3_CREDENTIALS,
            dict.fromkeys(S3_CREDENTIALS, UNKNOWN) | {"service_account_json": REQUIRED},
        ),
        (JOB, S3_CREDENTIALS | GCS_CREDENTIALS, {"service_account_json": UNKNOWN}),
        (
            JOB,
            S3_CREDENTIALS | {"region": ""},
            {"region": "This must be a string of 1 to 4,096 characters."},
        ),
        (
            JOB,
            S3_CREDENTIALS | {"endpoint_url": "minio:9000"},
            {"endpoint_url": "This must be an http or https URL with a valid host."},
        ),
        (
            JOB,
            S3_CREDENTIALS | {"secret_access_key": SECRETS[0] * 500},
            {"secret_access_key": "This must be a string of 1 to 4,096 characters."},
        ),
        (
            GCS_JOB,
            {"service_account_json": ""},
            {"service_account_json": "This must be a string of 2 to 16,384 characters."},
        ),
        (GCS_JOB, {"service_account_json": "[" * 9000}, {"service_account_json": NO_ACCOUNT}),
        (
            GCS_JOB,
            {"service_account_json": '{"private_key": 1}'},
            {"service_account_json": NO_ACCOUNT},
        ),
    ],
)
def test_credentials_are_those_of_the_store_that_the_manifest_lies_in(
    job: dict[str, Any], credentials: dict[str, Any], expected: dict[str, str]
) -> None:
    found = faults_of(job | {"credentials": credentials})
    assert found == {f"credentials.{field}": message for field, message in expected.items()}


@pytest.mark.parametrize("wrong", [{"regoin": "x"}, {"region": 5}, {"session_token": []}])
def test_a_fault_in_the_credentials_is_told_once(wrong: dict[str, Any]) -> None:
    assert len(faults(credentials=S3_CREDENTIALS | wrong)) == 1


@pytest.mark.parametrize("url", ["http://x:99999", "https://[::1", "http://a:b/", "http://@"])
def test_an_endpoint_url_has_a_host(url: str) -> None:
    found = faults(credentials=S3_CREDENTIALS | {"endpoint_url": url})
    assert set(found) == {"credentials.endpoint_url"}


def test_a_delivery_is_taken_with_its_defaults_and_without_slashes_around_its_prefix() -> None:
    assert read(delivery=DELIVERY).to_job("c").delivery == DeliveryTarget(
        StoreType.S3, "results", "", Compression.NONE, ResultFormat.JSONL, None, None
    )
    full = DELIVERY | {
        "prefix": "//a/b c/",
        "compression": "zstd",
        "format": "parquet",
        "kms_key_id": "k",
        "acl": "bucket-owner-full-control",
    }
    assert read(delivery=full).to_job("c").delivery == DeliveryTarget(
        StoreType.S3,
        "results",
        "a/b c",
        Compression.ZSTD,
        ResultFormat.PARQUET,
        "k",
        "bucket-owner-full-control",
    )
    assert read().to_job("c").delivery is None


@pytest.mark.parametrize(
    "job, delivery, paths",
    [
        (JOB, {"type": "gcs"}, ["type"]),
        (GCS_JOB, {}, ["type"]),
        (GCS_JOB, {"type": "gcs", "acl": "private"}, ["acl"]),
        (GCS_JOB, {"type": "gcs", "acl": "private", "kms_key_id": "k"}, ["acl", "kms_key_id"]),
        (GCS_JOB, {"acl": "private", "kms_key_id": "k"}, ["acl", "kms_key_id", "type"]),
        (JOB, {"type": "S3"}, ["type"]),
        (JOB, {"type": None}, ["type"]),
        (JOB, {"bucket": "a/b"}, ["bucket"]),
        (JOB, {"bucket": ""}, ["bucket"]),
        (JOB, {"prefix": "a//b"}, ["prefix"]),
        (JOB, {"prefix": "../a"}, ["prefix"]),
        (JOB, {"prefix": "a/."}, ["prefix"]),
        (JOB, {"prefix": "a" * 513}, ["prefix"]),
        (JOB, {"compression": "GZIP"}, ["compression"]),
        (JOB, {"compression": None}, ["compression"]),
        (JOB, {"format": "csv"}, ["format"]),
        (JOB, {"kms_key_id": ""}, ["kms_key_id"]),
        (JOB, {"acl": "everybody"}, ["acl"]),
    ],
)
def test_a_delivery_has_to_fit_the_store_and_the_rules(
    job: dict[str, Any], delivery: dict[str, Any], paths: list[str]
) -> None:
    found = faults_of(job | {"delivery": DELIVERY | delivery})
    assert set(found) == {f"delivery.{path}" for path in paths}


def test_no_message_repeats_a_secret() -> None:
    bodies = [
        JOB | {"credentials": GCS_CREDENTIALS | S3_CREDENTIALS},
        GCS_JOB | {"credentials": S3_CREDENTIALS | {"session_token": SECRETS[1]}},
        JOB | {"credentials": [SECRETS[0]]},
        JOB | {"credentials": SECRETS[0]},
        JOB | {"credentials": S3_CREDENTIALS | {"endpoint_url": SECRETS[0]}},
        JOB | {"credentials": S3_CREDENTIALS | {"endpoint_url": f"ftp://{SECRETS[0]}@host/"}},
        JOB | {"credentials": S3_CREDENTIALS | {"secret_access_key": SECRETS[0] + "\x00"}},
        JOB | {"credentials": S3_CREDENTIALS | {"secret_access_key": [SECRETS[0]]}},
        JOB | {"credentials": S3_CREDENTIALS, "label_spec": None},
    ]
    raw = [json.dumps(body).encode() for body in bodies]
    raw.append(json.dumps(JOB | {"credentials": S3_CREDENTIALS}).encode()[:-1])
    raw.append(
        json.dumps(JOB | {"credentials": S3_CREDENTIALS}).encode().replace(b"2-s", b"2-\xff")
    )
    for body in raw:
        shown = msgspec.json.encode(error_of(body).body).decode()
        assert "hunter2" not in shown


def test_nor_does_the_repr_of_a_job() -> None:
    job = read(credentials=S3_CREDENTIALS | {"session_token": SECRETS[1]})
    credentials = decode_credentials(StoreType.S3, job.to_job("cust_1").credentials)
    assert not any(secret in f"{job!r} {credentials!r}" for secret in SECRETS)


def test_metadata_is_kept_as_json_text() -> None:
    metadata = read(metadata={"b": 'ä"\n', "a": ""}).to_job("cust_1").metadata
    assert json.loads(metadata or "") == {"b": 'ä"\n', "a": ""}
    assert read().to_job("cust_1").metadata is None


def test_empty_metadata_stays_an_empty_object() -> None:
    assert read(metadata={}).to_job("cust_1").metadata == "{}"
