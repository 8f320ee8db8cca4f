"""The environment is read strictly, and no secret in it is shown."""

import re
from pathlib import Path

import msgspec
import pytest
from rich.pretty import pretty_repr

from blocks.domain.errors import UndecryptableCredentials
from blocks.secrets.vault import Vault
from blocks.settings import _FIXED_NAMES, Settings, SettingsError

KEY, OLD_KEY, OLDER_KEY = "ab" * 32, "cd" * 32, "ef" * 32
PASSWORD = "hunter2hunter2"
NEEDED = {
    "REFINERY_DATABASE_URL": f"postgresql://me:{PASSWORD}@db/refinery",
    "ASG_ENCRYPTION_KEY": KEY,
}


def read(**environment: str) -> Settings:
    return Settings.from_environment(NEEDED | environment)


def refusal(environment: dict[str, str]) -> str:
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment(environment)
    return caught.value.message


def test_two_names_are_enough() -> None:
    settings = read()
    assert settings == Settings(
        database_url=NEEDED["REFINERY_DATABASE_URL"], encryption_key=NEEDED["ASG_ENCRYPTION_KEY"]
    )
    assert 0 < settings.chunk_bytes_min <= settings.chunk_bytes_max <= 32 * 1024 * 1024


def test_every_setting_can_be_set() -> None:
    settings = read(
        ASG_ENCRYPTION_KEY_PREVIOUS=OLD_KEY,
        PREFECT_API_URL="http://prefect:4200/api",
        PREFECT_API_AUTH_STRING="user:pw",
        PREFECT_UI_URL="https://prefect.example.com",
        REFINERY_EGRESS_ALLOW="10.0.0.0/8",
        REFINERY_GCS_ENDPOINT_URL="http://gcs",
        REFINERY_CHUNK_BYTES_MIN="1",
        REFINERY_CHUNK_BYTES_MAX="2",
        REFINERY_CHUNKS_IN_FLIGHT="3",
        REFINERY_CHUNKS_PER_WAVE_MAX="4",
        REFINERY_PART_BYTES_MAX="5",
        REFINERY_LEASE_S="7",
        REFINERY_REQUEST_BYTES_MAX="8",
        REFINERY_DATABASE_CONNECTIONS_MAX="9",
    )
    expected = {
        "database_url": NEEDED["REFINERY_DATABASE_URL"],
        "encryption_key": KEY,
        "encryption_key_previous": OLD_KEY,
        "prefect_api_url": "http://prefect:4200/api",
        "prefect_api_auth_string": "user:pw",
        "prefect_ui_url": "https://prefect.example.com",
        "egress_allow": "10.0.0.0/8",
        "gcs_endpoint_url": "http://gcs",
        "chunk_bytes_min": 1,
        "chunk_bytes_max": 2,
        "chunks_in_flight": 3,
        "chunks_per_wave_max": 4,
        "part_bytes_max": 5,
        "lease_s": 7,
        "request_bytes_max": 8,
        "database_connections_max": 9,
    }
    found = {name: getattr(settings, name) for name in expected}
    assert found == expected


def test_the_page_of_settings_has_all_of_them_and_no_others() -> None:
    page = (Path(__file__).parents[2] / "docs/settings.md").read_text()
    found = re.findall(r"^\| `([A-Z_]+)` \|", page, re.MULTILINE)
    fields = Settings.__struct_fields__
    assert sorted(found) == sorted(_FIXED_NAMES.get(f, f"REFINERY_{f.upper()}") for f in fields)


def test_it_reads_the_environment_of_the_process_by_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in NEEDED.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("REFINERY_LEASE_S", "17")
    assert Settings.from_environment().lease_s == 17


NUMBERS = [field.name for field in msgspec.structs.fields(Settings) if type(field.default) is int]


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_that_postgresql_could_not_use_are_refused(name: str) -> None:
    variable = f"REFINERY_{name.upper()}"
    for value in ("3" * 17, "9" * 20):
        assert "must be a whole number from" in refusal(NEEDED | {variable: value})


@pytest.mark.parametrize(
    "name, suggestion",
    [
        ("REFINERY_LEASES", "REFINERY_LEASE_S"),
        ("REFINERY_CHUNK_BYTE_MAX", "REFINERY_CHUNK_BYTES_MAX"),
        ("REFINERY_DATABASE", "REFINERY_DATABASE_URL"),
        ("REFINERY_EGRES_ALLOW", "REFINERY_EGRESS_ALLOW"),
        ("REFINERY_API_URI", "REFINERY_API_URL"),
    ],
)
def test_an_unknown_name_is_refused_with_a_suggestion(name: str, suggestion: str) -> None:
    message = refusal(NEEDED | {name: "secret-value"})
    assert message == f"{name} is not a setting of Refinery. Did you mean {suggestion}?"


def test_an_unknown_name_that_is_like_no_other_is_refused_without() -> None:
    name = "REFINERY_" + "X" * 30
    assert refusal(NEEDED | {name: ""}) == f"{name} is not a setting of Refinery."


def test_names_of_others_and_of_the_command_line_are_left_alone() -> None:
    found = read(REFINERY_API_URL="http://api", REFINERY_API_KEY="sk_1", PATH="/bin", REFINERYX="1")
    assert found == read()


@pytest.mark.parametrize("name", list(NEEDED))
@pytest.mark.parametrize("how", ["missing", "empty"])
def test_a_name_that_is_needed_must_be_set(name: str, how: str) -> None:
    rest = {other: value for other, value in NEEDED.items() if other != name}
    message = refusal(rest if how == "missing" else rest | {name: ""})
    assert message == f"{name} is not set; see docs/settings.md."


def test_an_empty_value_is_as_good_as_none() -> None:
    assert read(REFINERY_LEASE_S="", ASG_ENCRYPTION_KEY_PREVIOUS="") == read()


BAD_KEYS = [
    "a",
    "zz" * 32,
    "ab" * 31,
    "ab" * 33,
    "ab" * 31 + "a",
    "0x" + "ab" * 31,
    "ä" * 64,
    KEY + "," + KEY,
]


@pytest.mark.parametrize("key", BAD_KEYS)
def test_a_bad_key_is_refused_with_the_way_to_a_good_one(key: str) -> None:
    message = refusal(NEEDED | {"ASG_ENCRYPTION_KEY": key})
    assert "64 hexadecimal digits" in message
    assert "openssl rand -hex 32" in message
    assert len(key) < 10 or key not in message


@pytest.mark.parametrize("previous", ["a", f"{OLD_KEY},zz", f"{OLD_KEY};{OLDER_KEY}"])
def test_a_bad_previous_key_is_refused_as_well(previous: str) -> None:
    message = refusal(NEEDED | {"ASG_ENCRYPTION_KEY_PREVIOUS": previous})
    assert "64 hexadecimal digits" in message
    assert OLD_KEY not in message


@pytest.mark.parametrize("value", ["abc", "1.5", "-", " 5", "5 s", "0x10", "٣", "true"])
def test_a_number_must_be_one(value: str) -> None:
    assert "REFINERY_LEASE_S" in refusal(NEEDED | {"REFINERY_LEASE_S": value})


@pytest.mark.parametrize(
    "name, value, sentence",
    [
        ("LEASE_S", "soon", "This must be a whole number from 1 to 2,147,483,647, not 'soon'."),
        (
            "REQUESTS_PER_MINUTE_MAX",
            "-1",
            "This must be a whole number from 0 to 2,147,483,647, not '-1'.",
        ),
        ("CHUNK_RUNNER", "ray", "This must be one of threads, processes, dask, not 'ray'."),
    ],
)
def test_a_bad_value_is_refused_with_what_it_may_be(name: str, value: str, sentence: str) -> None:
    message = refusal(NEEDED | {f"REFINERY_{name}": value})
    assert message == f"REFINERY_{name} holds a bad value. {sentence}"


@pytest.mark.parametrize(
    "value, origins",
    [
        ("", []),
        (" , ", []),
        ("*", ["*"]),
        ("https://a.example.com", ["https://a.example.com"]),
        ("http://localhost:5173, https://B.example.com:443,", ["http://localhost:5173", "https://b.example.com"]),
        ("https://exämple.com,http://[::1]:8080", ["https://xn--exmple-cua.com", "http://[::1]:8080"]),
        ("https://a.example.com,https://A.example.com", ["https://a.example.com"]),
    ],
)  # fmt: skip
def test_origins_are_as_browsers_write_them(value: str, origins: list[str]) -> None:
    assert read(REFINERY_CORS_ORIGINS=value).allowed_origins() == origins


@pytest.mark.parametrize(
    "value",
    [
        "a.example.com", "https://a.example.com/", "https://a.example.com/app", "ftp://a.example.com", "null",
        "https://u:p@a.example.com", "https://*.example.com", "https://a.example.com?x", "https://", "//a.example.com",
        "https://a.example.com:99999", "https://a.example.com https://b.example.com", "*.example.com",
    ],
)  # fmt: skip
def test_what_is_no_origin_is_refused_with_what_one_is(value: str) -> None:
    message = refusal(NEEDED | {"REFINERY_CORS_ORIGINS": f"https://good.example.com,{value}"})
    assert message.startswith(
        f"REFINERY_CORS_ORIGINS: {value!r} is not an origin. Give http or https"
    )


def test_every_origin_leaves_none_to_be_named() -> None:
    for name in ("REFINERY_CORS_ORIGINS", "REFINERY_PICTURE_ORIGINS"):
        message = refusal(NEEDED | {name: "*,https://a.example.com"})
        assert message == f"{name}: * stands for every origin; leave the others out."


COUNTS = [
    "CHUNK_BYTES_MIN",
    "CHUNK_BYTES_MAX",
    "CHUNKS_IN_FLIGHT",
    "CHUNKS_PER_WAVE_MAX",
    "PART_BYTES_MAX",
    "LEASE_S",
    "REQUEST_BYTES_MAX",
    "DATABASE_CONNECTIONS_MAX",
]


@pytest.mark.parametrize("value", ["0", "-1"])
@pytest.mark.parametrize("name", COUNTS)
def test_no_bound_can_be_nothing(name: str, value: str) -> None:
    refusal(NEEDED | {f"REFINERY_{name}": value})


def test_neither_repr_nor_str_nor_format_shows_a_secret() -> None:
    settings = read(ASG_ENCRYPTION_KEY_PREVIOUS=OLD_KEY, PREFECT_API_AUTH_STRING="user:letmein99")
    shown = f"{settings} {settings!r} {[settings]} {settings!s:>9}"
    assert not any(secret in shown for secret in (KEY, OLD_KEY, PASSWORD, "letmein99"))


def test_nor_does_a_traceback_of_rich() -> None:
    shown = pretty_repr(read(ASG_ENCRYPTION_KEY_PREVIOUS=OLD_KEY))
    assert not any(secret in shown for secret in (KEY, OLD_KEY, PASSWORD))


@pytest.mark.parametrize(
    "wrong",
    [{"REFINERY_LEASE_S": "x"}, {"REFINERY_LEASES": "x"}, {"ASG_ENCRYPTION_KEY": "ab" * 30}],
)
def test_no_refusal_shows_a_secret(wrong: dict[str, str]) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment(NEEDED | wrong)
    shown = f"{caught.value!r} {caught.value.__cause__!r}"
    assert not any(secret in shown for secret in ("ab" * 30, PASSWORD))


def test_the_vault_seals_with_the_current_key_and_opens_with_all_of_them() -> None:
    vault = read(ASG_ENCRYPTION_KEY_PREVIOUS=f" {OLD_KEY} ,, {OLDER_KEY}").vault()
    for key in (KEY, OLD_KEY, OLDER_KEY):
        envelope = Vault([bytes.fromhex(key)]).seal(b"x", bound_to="row")
        assert vault.open(envelope, bound_to="row") == b"x"
        assert vault.is_current(envelope) == (key == KEY)
    with pytest.raises(UndecryptableCredentials):
        vault.open(Vault([bytes(32)]).seal(b"x", bound_to="row"), bound_to="row")


@pytest.mark.parametrize(
    "api_url, ui_url, shown",
    [
        ("http://prefect:4200/api", "", "http://prefect:4200"),
        ("https://ops.example.com/prefect/api/", "", "https://ops.example.com/prefect"),
        ("http://prefect:4200/api", "http://localhost:4200/", "http://localhost:4200"),
    ],
)
def test_links_lead_to_where_browsers_find_prefect(api_url: str, ui_url: str, shown: str) -> None:
    settings = read(PREFECT_API_URL=api_url, PREFECT_UI_URL=ui_url)
    assert settings.prefect_ui() == shown
