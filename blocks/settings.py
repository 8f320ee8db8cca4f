"""The one reader of the environment."""

import difflib
import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self

import msgspec

from blocks.domain.errors import RefineryError
from blocks.domain.origins import ANY, parse_origins
from blocks.domain.wrong_values import explain, must_be, shorten
from blocks.logs import LogFormat
from blocks.secrets.vault import Vault

_FIXED_NAMES = {
    "encryption_key": "ASG_ENCRYPTION_KEY",
    "encryption_key_previous": "ASG_ENCRYPTION_KEY_PREVIOUS",
    "prefect_api_url": "PREFECT_API_URL",
    "prefect_api_auth_string": "PREFECT_API_AUTH_STRING",
    "prefect_ui_url": "PREFECT_UI_URL",
}
# Names of the command line: the client or `refinery up` reads them, and not the service.
_CLIENT_NAMES = {
    "REFINERY_API_URL",
    "REFINERY_API_KEY",
    "REFINERY_ANNOTATOR_KEY",
    "REFINERY_PROFILE",
    "REFINERY_DATA_DIR",
}


# OpenTelemetry's own default is ten seconds, and a batch is sent every five.
_COLLECTOR_S = 2.0

# PostgreSQL counts and measures time with these: what is larger would be refused there, again and again.
_INT_MAX = 2**31 - 1
_BYTES_MAX = 2**53
_Count = Annotated[int, msgspec.Meta(ge=1, le=_INT_MAX)]
_Seconds = Annotated[int, msgspec.Meta(ge=1, le=_INT_MAX)]
_Bytes = Annotated[int, msgspec.Meta(ge=1, le=_BYTES_MAX)]
_Limit = Annotated[int, msgspec.Meta(ge=0, le=_INT_MAX)]  # 0: none
_BytesLimit = Annotated[int, msgspec.Meta(ge=0, le=_BYTES_MAX)]  # 0: none
_Days = Annotated[int, msgspec.Meta(ge=0, le=99_999)]  # 0: for ever


class ChunkRunner(StrEnum):
    """What runs the chunks of one manifest side by side."""

    THREADS = "threads"
    PROCESSES = "processes"
    DASK = "dask"


class AnnotatorNames(StrEnum):
    """Whose names customers see beside annotators' ids."""

    GRANTED = "granted"
    ALL = "all"


class SettingsError(RefineryError):
    """The environment lacks something that the service needs to start."""

    code = "settings"


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything that an operator can set, by environment variable: `REFINERY_<NAME>`.

    Five have names of their own: `ASG_ENCRYPTION_KEY`, `ASG_ENCRYPTION_KEY_PREVIOUS`,
    `PREFECT_API_URL`, `PREFECT_API_AUTH_STRING`, `PREFECT_UI_URL`.
    """

    database_url: str
    """PostgreSQL, as a libpq URL."""
    encryption_key: str
    """64 hexadecimal digits: the AES-256 key that seals customers' credentials."""
    encryption_key_previous: str = ""
    """Keys that the current one replaced, separated by commas."""
    prefect_api_url: str = "http://127.0.0.1:4200/api"
    prefect_api_auth_string: str = ""
    prefect_ui_url: str = ""
    """Where operators' browsers find Prefect; empty: at the API's address, without `/api`."""

    egress_allow: str = ""
    """Hosts and networks (CIDR) that may be private, for all ports or with one, separated by commas."""
    gcs_endpoint_url: str = ""
    """Another address of the GCS API, such as an emulator's."""

    chunk_bytes_min: _Bytes = 1024 * 1024
    chunk_bytes_max: _Bytes = 4 * 1024 * 1024
    chunks_in_flight: _Count = msgspec.field(default_factory=lambda: (os.cpu_count() or 1) + 1)
    """How many chunks of a job are read, validated and committed at once; by default one more than there
    are cores, since there is always one that waits for a server."""
    chunks_per_wave_max: _Count = 1000
    """How many chunks one Prefect `map` is given, in groups; larger manifests go in waves."""
    chunk_runner: ChunkRunner = ChunkRunner.THREADS
    """Threads or processes of the flow's machine, or a Dask cluster."""
    dask_address: str = ""
    """The scheduler of the Dask cluster, such as `tcp://scheduler:8786`."""
    manifest_bytes_max: _Bytes = 1024**4
    """The largest manifest that is read, as it is stored."""
    decompressed_bytes_max: _Bytes = 1024**4
    """The most that a compressed manifest may come to."""
    part_bytes_max: _Bytes = 256 * 1024 * 1024
    """The size at which a delivery starts its next object."""

    runs_max: _Count = 16
    """How many runs of Prefect are asked for at once."""
    runs_per_customer_max: _Count = 4
    """How many of those are one customer's."""
    pending_s_max: _Seconds = 300
    """How long a worker may take to begin a run that it has taken, in a pool of another type than
    `refinery`: pulling an image, or a new machine, takes minutes."""
    run_s_max: _Seconds = 6 * 60 * 60
    """How long one run of a job or a delivery may take before another goes on in its place."""
    wait_s_max: _Seconds = 24 * 60 * 60
    """How many seconds a job is tried whose store or delivery fails for reasons that time may mend."""
    public_url: str = ""
    """Where customers reach the API: what links in Prefect's UI begin with."""

    cors_origins: str = ""
    """Origins of web pages that may ask the API from a browser, separated by commas, or `*`."""
    picture_origins: str = ""
    """Origins of customers' pictures that the pages may show, separated by commas; by default any."""

    annotator_names: AnnotatorNames = AnnotatorNames.GRANTED
    """Whose names customers see: of annotators that the operator has granted them, or of all."""

    log_format: LogFormat = LogFormat.TEXT
    """How the API writes its log: lines for people, or JSON."""

    credentials_keep_s: _Seconds = 7 * 24 * 3600
    """How long a customer's credentials are kept after the job's end or its delivery's refusal."""
    keep_days: _Days = 0
    """How many days jobs are kept after their end; 0: for ever."""
    archive_after_s: Annotated[int, msgspec.Meta(ge=300, le=_INT_MAX)] = 3600
    """How long after its end a job's labels move to the archive; labels that are just being counted have
    to be committed by then."""
    lease_s: _Seconds = 600
    """How long a claimed task stays with its annotator where the claim does not say."""
    request_bytes_max: _Bytes = 4 * 1024 * 1024
    database_connections_max: _Count = 16

    session_s: _Seconds = 12 * 3600
    """How long a browser stays signed in."""
    sign_in_link_s: _Seconds = 24 * 3600
    """How long a sign-in link is good that nobody has used."""

    request_head_s: _Seconds = 15
    """How long a client may take to send the headers of a request."""
    request_body_s: _Seconds = 120
    """How long it may take from there to the end of the body."""
    unread_answer_s: _Seconds = 30
    """How long a client may take nothing of an answer before it is cut off."""
    drain_s: _Limit = 0
    """How long an API process goes on working after SIGTERM, not ready, so that a balancer notices."""
    requests_per_minute_max: _Limit = 12_000
    """How many requests a minute one key may make to one API process."""
    body_bytes_per_minute_max: _BytesLimit = 512 * 1024 * 1024
    """How many bytes a minute the bodies of one customer or annotator may have at one API process."""
    wrong_keys_per_minute_max: _Limit = 120
    """How many wrong keys a minute one address may try at one API process."""

    jobs_per_customer_max: _Limit = 10_000
    """How many jobs of one customer may be under way."""
    open_tasks_per_customer_max: _Limit = 100_000_000
    """How many tasks of one customer may wait for labels."""
    webhooks_per_customer_max: _Limit = 100
    keys_per_owner_max: _Limit = 100
    """How many keys one customer or annotator may have, by the API."""
    stored_bytes_per_customer_max: _BytesLimit = 10 * 1024**4
    """How many bytes the manifests and inline tasks of one customer may have."""

    def __post_init__(self) -> None:
        for key in self._keys():
            _check_key(key)
        if self.chunk_bytes_min > self.chunk_bytes_max:
            raise SettingsError("REFINERY_CHUNK_BYTES_MIN is more than REFINERY_CHUNK_BYTES_MAX.")
        if self.chunk_runner is ChunkRunner.DASK and not self.dask_address:
            raise SettingsError("REFINERY_CHUNK_RUNNER=dask needs REFINERY_DASK_ADDRESS.")
        for name, read in (
            ("REFINERY_CORS_ORIGINS", self.allowed_origins),
            ("REFINERY_PICTURE_ORIGINS", self.allowed_picture_origins),
        ):
            try:
                read()
            except ValueError as error:
                raise SettingsError(f"{name}: {error}") from error

    def __repr__(self) -> str:
        return "Settings(…)"  # never a secret in a log or a traceback

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []

    def _keys(self) -> list[str]:
        previous = [key.strip() for key in self.encryption_key_previous.split(",")]
        return [self.encryption_key, *filter(None, previous)]

    def prefect_ui(self) -> str:
        """Return where browsers find Prefect, without a slash at its end."""
        url = self.prefect_ui_url or self.prefect_api_url.rstrip("/").removesuffix("/api")
        return url.rstrip("/")

    def vault(self) -> Vault:
        """Return a vault with the current key and those that it replaced."""
        return Vault([bytes.fromhex(key) for key in self._keys()])

    def allowed_origins(self) -> list[str]:
        """Return the origins whose pages may ask the API, as browsers write them."""
        return parse_origins(self.cors_origins)

    def allowed_picture_origins(self) -> list[str]:
        """Return the origins whose pictures the pages may show; none stands for all."""
        found = parse_origins(self.picture_origins)
        return [] if found == [ANY] else found

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Return the settings in `environment`, by default the process's own.

        Raises:
            SettingsError: a needed name is missing, a value is of the wrong kind, or a
                `REFINERY_*` name is not one of ours.
        """
        environment = os.environ if environment is None else environment
        names = {_FIXED_NAMES.get(f, f"REFINERY_{f.upper()}"): f for f in cls.__struct_fields__}
        _refuse_unknown(environment, names.keys() | _CLIENT_NAMES)
        values: dict[str, Any] = {f: environment[n] for n, f in names.items() if environment.get(n)}
        for name, field in names.items():
            if field in cls.__struct_fields__[:2] and field not in values:
                raise SettingsError(f"{name} is not set; see docs/settings.md.")
        try:
            return msgspec.convert(values, cls, strict=False)
        except msgspec.ValidationError as error:
            wrong = explain(error, cls).place.removeprefix(".")
            (expected,) = (f.type for f in msgspec.structs.fields(cls) if f.name == wrong)
            (name,) = (n for n, f in names.items() if f == wrong)
            sentence = must_be(expected, repr(shorten(values[wrong])))
            raise SettingsError(f"{name} holds a bad value. {sentence}") from error


class ClientSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of the `refinery` command as a client of the API."""

    api_url: str | None
    api_key: str | None
    annotator_key: str | None
    profile: str | None
    config_folder: Path

    def __repr__(self) -> str:
        return "ClientSettings(…)"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Return the settings in `environment`, by default the process's own; none is needed."""
        environment = os.environ if environment is None else environment
        folder = environment.get("XDG_CONFIG_HOME") or Path("~/.config").expanduser()
        return cls(
            api_url=environment.get("REFINERY_API_URL") or None,
            api_key=environment.get("REFINERY_API_KEY") or None,
            annotator_key=environment.get("REFINERY_ANNOTATOR_KEY") or None,
            profile=environment.get("REFINERY_PROFILE") or None,
            config_folder=Path(folder) / "refinery",
        )


class TracingSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Whether and as what a process sends traces; OpenTelemetry reads its other variables by itself.

    https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
    """

    is_on: bool
    service_name: str
    """Empty: the process has a name of its own."""
    timeout_s: float | None
    """How long a collector may take to answer; None where OpenTelemetry's own variable says so."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Return the settings in `environment`, by default the process's own; none is needed."""
        environment = os.environ if environment is None else environment
        otlp = "OTEL_EXPORTER_OTLP"
        has_timeout = f"{otlp}_TIMEOUT" in environment or f"{otlp}_TRACES_TIMEOUT" in environment
        return cls(
            is_on=bool(
                environment.get(f"{otlp}_ENDPOINT") or environment.get(f"{otlp}_TRACES_ENDPOINT")
            )
            and environment.get("OTEL_SDK_DISABLED", "").lower() != "true"
            and environment.get("OTEL_TRACES_EXPORTER") != "none",
            service_name=environment.get("OTEL_SERVICE_NAME", ""),
            timeout_s=None if has_timeout else _COLLECTOR_S,
        )


def _check_key(key: str) -> None:
    try:
        valid = len(bytes.fromhex(key)) == 32  # noqa: PLR2004 - AES-256
    except ValueError:
        valid = False
    if not valid:
        raise SettingsError(
            "ASG_ENCRYPTION_KEY, and each key in ASG_ENCRYPTION_KEY_PREVIOUS, must be 64 hexadecimal "
            "digits (32 bytes); `openssl rand -hex 32` makes one."
        )


def _refuse_unknown(environment: Mapping[str, str], known: set[str]) -> None:
    for name in sorted(environment):
        if name.startswith("REFINERY_") and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise SettingsError(f"{name} is not a setting of Refinery.{hint}")
