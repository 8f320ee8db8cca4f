"""The process's environment, and the files of its user, have no say in a customer's clients."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from botocore.configprovider import BOTOCORE_DEFAUT_SESSION_VARIABLES

from blocks.buckets.s3_session import new_session
from tests.support.outbound import EXPECTED, Listener, hosts_asked, s3_credentials

TRAP = "{trap}"
FOLDER = "{folder}"
VARIABLES = {
    "files": {
        "AWS_PROFILE": "prod-eu",
        "AWS_CONFIG_FILE": f"{FOLDER}/.aws/config",
        "AWS_SHARED_CREDENTIALS_FILE": f"{FOLDER}/.aws/credentials",
        "AWS_DATA_PATH": FOLDER,
        "BOTO_CONFIG": f"{FOLDER}/.aws/config",
    },
    "profile": {
        "AWS_DEFAULT_PROFILE": "prod-eu",
    },
    "endpoints": {
        "AWS_ENDPOINT_URL": TRAP,
        "AWS_ENDPOINT_URL_S3": TRAP,
    },
    "authorities": {
        "AWS_CA_BUNDLE": "/nowhere.pem",
        "REQUESTS_CA_BUNDLE": "/nowhere.pem",
    },
    "regions": {
        "AWS_DEFAULT_REGION": "us-gov-west-1",
        "AWS_REGION": "us-gov-west-1",
        "AWS_USE_FIPS_ENDPOINT": "true",
        "AWS_USE_DUALSTACK_ENDPOINT": "true",
    },
    "values that are none": {
        "AWS_S3_US_EAST_1_REGIONAL_ENDPOINT": "rubbish",
        "AWS_S3_USE_ARN_REGION": "rubbish",
        "AWS_MAX_ATTEMPTS": "rubbish",
        "AWS_RETRY_MODE": "rubbish",
        "AWS_DEFAULTS_MODE": "rubbish",
        "AWS_REQUEST_CHECKSUM_CALCULATION": "rubbish",
        "AWS_RESPONSE_CHECKSUM_VALIDATION": "rubbish",
        "AWS_ACCOUNT_ID_ENDPOINT_MODE": "rubbish",
        "AWS_AUTH_SCHEME_PREFERENCE": "rubbish",
        "AWS_SIGV4A_SIGNING_REGION_SET": "rubbish",
    },
    "credentials": {
        "AWS_EC2_METADATA_SERVICE_ENDPOINT": TRAP,
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": TRAP,
        "AWS_ACCESS_KEY_ID": "OPERATORS",
        "AWS_SECRET_ACCESS_KEY": "operators",
        "AWS_SESSION_TOKEN": "operators",
    },
    "proxies": {
        "HTTP_PROXY": TRAP,
        "HTTPS_PROXY": TRAP,
        "ALL_PROXY": TRAP,
        "http_proxy": TRAP,
        "https_proxy": TRAP,
        "all_proxy": TRAP,
        "NETRC": f"{FOLDER}/.netrc",
    },
    "google": {
        "STORAGE_EMULATOR_HOST": TRAP,
        "GOOGLE_CLOUD_UNIVERSE_DOMAIN": "evil.example",
        "GOOGLE_APPLICATION_CREDENTIALS": f"{FOLDER}/nothing.json",
        "GOOGLE_CLOUD_PROJECT": "operators",
        "GOOGLE_API_USE_CLIENT_CERTIFICATE": "true",
        "GOOGLE_API_USE_MTLS_ENDPOINT": "always",
        "GOOGLE_API_CERTIFICATE_CONFIG": f"{FOLDER}/nothing.json",
        "GCE_METADATA_HOST": "{host}",
        "CLOUDSDK_CONFIG": FOLDER,
    },
}
# What is read when the libraries are loaded.
EARLY = {
    "GCSFS_DEFAULT_PROJECT": "operators",
    "AWS_NEW_RETRIES_2026": "true",
    "FSSPEC_S3_ENDPOINT_URL": TRAP,
    "FSSPEC_S3_KEY": "OPERATORS",
    "FSSPEC_S3": '{{"endpoint_url": "{trap}", "cache_regions": true, "profile": "prod-eu"}}',
    "FSSPEC_S3A": '{{"endpoint_url": "{trap}", "requester_pays": true}}',
    "FSSPEC_GCS": '{{"requester_pays": "operators", "default_location": "EU"}}',
    "FSSPEC_GS_PROJECT": "operators",
    "FSSPEC_CONFIG_DIR": f"{FOLDER}/.config/fsspec",
}
AWS_CONFIG = """\
[default]
region = us-gov-west-1
endpoint_url = {trap}
ca_bundle = /nowhere.pem
s3 =
  addressing_style = path
  use_accelerate_endpoint = true
"""


@pytest.fixture
def trap() -> Iterator[Listener]:
    with Listener() as listener:
        yield listener


@pytest.fixture
def store() -> Iterator[Listener]:
    with Listener() as listener:
        yield listener


@pytest.fixture
def home(trap: Listener, tmp_path: Path) -> Path:
    (tmp_path / ".aws/models/s3/2006-03-01").mkdir(parents=True)
    (tmp_path / ".aws/models/s3/2006-03-01/service-2.json").write_text("{}")
    (tmp_path / ".aws/config").write_text(AWS_CONFIG.format(trap=trap.url))
    (tmp_path / ".aws/credentials").write_text("[default]\naws_access_key_id = OPERATORS\n")
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login OPERATORS password x\n")
    (tmp_path / ".config/fsspec").mkdir(parents=True)
    kinds = {name: {"endpoint_url": trap.url} for name in ("s3", "s3a", "gs", "gcs")}
    (tmp_path / ".config/fsspec/conf.json").write_text(json.dumps(kinds))
    return tmp_path


def filled(value: str, trap: Listener, home: Path) -> str:
    return value.format(trap=trap.url, folder=home, host=trap.url.removeprefix("http://"))


def check_asked_as_the_customer(store: Listener) -> None:
    assert store.requests
    for _, path, headers in store.requests:
        assert path.startswith("/mani")
        assert "Credential=CUSTOMERS/" in headers["authorization"]
        assert "/eu-central-1/s3/" in headers["authorization"]
        assert headers["x-amz-security-token"] == "token"


@pytest.mark.parametrize("variables", VARIABLES.values(), ids=VARIABLES.keys())
def test_no_variable_changes_where_clients_turn_to(
    variables: dict[str, str],
    trap: Listener,
    store: Listener,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, filled(value, trap, home))
    assert hosts_asked(store.url) == EXPECTED
    check_asked_as_the_customer(store)
    assert not trap.requests


def test_nor_do_all_of_them_and_the_files_of_the_user(
    trap: Listener, store: Listener, home: Path
) -> None:
    everything = {"HOME": str(home)} | {
        name: filled(value, trap, home)
        for variables in (*VARIABLES.values(), EARLY)
        for name, value in variables.items()
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.outbound", store.url],
        env=os.environ | everything,
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    assert json.loads(done.stdout) == EXPECTED
    check_asked_as_the_customer(store)
    assert not trap.requests


def test_a_session_has_botocores_own_value_for_each_of_its_variables(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for _, names, _, _ in BOTOCORE_DEFAUT_SESSION_VARIABLES.values():
        for name in [names] if isinstance(names, str) else names or ():
            monkeypatch.setenv(name, "rubbish")
    session = new_session(s3_credentials())
    for name, (_, _, default, convert) in BOTOCORE_DEFAUT_SESSION_VARIABLES.items():
        expected = convert(default) if convert and default is not None else default
        assert session.get_config_variable(name) == expected, name
    assert session.get_scoped_config() == {}
