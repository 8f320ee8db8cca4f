"""The form of a stream has what a job has, with the rules of the API, and says what each field is for."""

from typing import Any

import msgspec
import pytest
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools import ValidationError, validate
from prefect_aws import AwsCredentials
from pydantic import BaseModel, SecretStr
from pydantic import ValidationError as FormError

from blocks.bodies.jobs import JobBody
from blocks.prefect.blocks import ManifestSource, ResultsDelivery
from flows.finding.stream_form import (
    Find,
    InvalidParameters,
    JobOptions,
    LabelSpec,
    OptionDetail,
    job_of,
)
from flows.submit_manifests import submit_manifests

SCHEMA: dict[str, Any] = parameter_schema(submit_manifests).model_dump()
FORMS: list[type[BaseModel]] = [LabelSpec, OptionDetail, JobOptions, Find]
# What a deployment says elsewhere.
ELSEWHERE = {"manifest_url", "label_spec", "credentials", "delivery"}


def test_every_field_of_the_form_has_a_description() -> None:
    for name, field in SCHEMA["properties"].items():
        group = SCHEMA["definitions"].get(field.get("$ref", "").rpartition("/")[2], {})
        assert field.get("description") or group.get("description"), name
    for form in FORMS:
        for name, inner in form.model_fields.items():
            assert inner.description, f"{form.__name__}.{name}"


def test_the_options_are_the_fields_of_a_job_with_their_bounds() -> None:
    _, components = msgspec.json.schema_components([JobBody])
    body = components["JobBody"]["properties"]
    options = JobOptions.model_json_schema()["properties"]
    assert options.keys() == body.keys() - ELSEWHERE
    for name, field in options.items():
        for rule in ("default", "minimum", "maximum"):
            assert field.get(rule) == body[name].get(rule), (name, rule)


@pytest.mark.parametrize(
    "parameters, words",
    [
        ({"find": {"min_age": 3}}, "'min_age' is not one of ['catch_up', "),
        ({"options": {"consensus_treshold": 2}}, "'consensus_treshold' is not one of ['consensus_threshold', "),
        ({"label_spec": {"question": "?", "option": []}}, "'option' is not one of ['question', 'options', 'option_details']"),
    ],
)  # fmt: skip
def test_prefect_refuses_an_unknown_name_when_a_deployment_is_made(
    parameters: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        validate(parameters, SCHEMA, raise_on_error=True, ignore_required=True)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    "form, given, words",
    [
        (LabelSpec, {"question": "?", "option": ["a", "b"]}, "'option' is not known. Did you mean options?"),
        (JobOptions, {"consensus_treshold": 2}, "is not known. Did you mean consensus_threshold?"),
        (Find, {"min_age": 3}, "'min_age' is not known. Did you mean min_age_s?"),
        (Find, {"catchup": True}, "'catchup' is not known. Did you mean catch_up?"),
        (Find, {"colour": "red"}, "'colour' is not known. There are catch_up, manifests_max,"),
        (Find, {"suffixes": []}, "at least 1 item"),
        (Find, {"suffixes": [""]}, "at least 1 character"),
    ],
)  # fmt: skip
def test_an_unknown_name_is_refused_with_the_nearest(
    form: type[BaseModel], given: dict[str, Any], words: str
) -> None:
    with pytest.raises(FormError) as refused:
        form.model_validate(given)
    assert words in str(refused.value)


def job(label_spec: dict[str, Any], options: dict[str, Any], delivery: dict[str, Any]) -> Any:
    source = ManifestSource(bucket_url="s3://bucket")
    target = ResultsDelivery(**{"url": "s3://bucket/out"} | delivery).target()
    spec = LabelSpec.model_validate({"question": "?", "options": ["a", "b"]} | label_spec)
    return job_of("cust_1", source, spec, JobOptions.model_validate(options), target)


@pytest.mark.parametrize(
    "label_spec, options, delivery, words",
    [
        ({"options": ["a", "a"]}, {}, {}, "label_spec.options: The options must be distinct."),
        ({"options": ["a"]}, {}, {}, "label_spec.options: This must be an array of 2 to 100 strings."),
        ({"option_details": [{"option": "c"}]}, {}, {}, "label_spec.option_details[0].option: This is none of the options."),
        ({"question": " "}, {}, {}, "label_spec.question: The question must not be empty."),
        ({}, {"callback_url": "not a url"}, {}, "options.callback_url: This must be an https URL"),
        ({}, {"callback_url": "http://10.0.0.1/x"}, {}, "options.callback_url: This must be an https URL"),
        ({}, {"callback_url": "https://a:b@example.com"}, {}, "options.callback_url: This must be a URL without a user"),
        ({}, {}, {"acl": "everybody"}, "delivery.acl: This must be one of "),
        ({}, {}, {"url": "s3://bucket/a//b"}, "delivery.prefix: The prefix must not have empty parts"),
        ({}, {}, {"url": "gs://bucket/b"}, "delivery.type: The manifest lies in s3"),
    ],
)  # fmt: skip
def test_a_job_is_refused_by_the_rules_of_the_api(
    label_spec: dict[str, Any], options: dict[str, Any], delivery: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidParameters) as refused:
        job(label_spec, options, delivery)
    assert words in refused.value.message


def test_urls_are_signed_with_a_block_that_has_a_key_and_the_job_keeps_none_yet() -> None:
    options = JobOptions(sign_urls=True)
    spec = LabelSpec(question="?", options=["a", "b"])
    with pytest.raises(InvalidParameters, match=r"^options.sign_urls: .* it has none"):
        job_of("cust_1", ManifestSource(bucket_url="s3://bucket"), spec, options, None)
    key = AwsCredentials(
        aws_access_key_id="id", aws_secret_access_key=SecretStr("secret"), region_name="eu-west-1"
    )
    source = ManifestSource(bucket_url="s3://bucket", aws_credentials=key)
    new = job_of("cust_1", source, spec, options, None)
    assert (new.sign_urls, new.credentials) == (True, None)


def test_every_fault_of_a_job_is_told_at_once() -> None:
    with pytest.raises(InvalidParameters) as refused:
        job({"options": ["a", "a"]}, {"callback_url": "x"}, {"acl": "x"})
    assert refused.value.message.count(": This") == 2
    assert "distinct" in refused.value.message
