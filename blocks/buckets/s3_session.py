"""S3 clients that ignore the process's environment and the files of its user.

A customer's requests go where the customer says, signed with the customer's keys. By default botocore
looks for anything missing in `AWS_*` variables, in `~/.aws` and at the machine's metadata service.
"""

from functools import lru_cache
from typing import Any

import botocore.loaders
from aiobotocore.httpsession import AIOHTTPSession
from aiobotocore.session import AioSession
from aiohttp import ClientTimeout
from botocore.configprovider import (
    BOTOCORE_DEFAUT_SESSION_VARIABLES,
    ChainProvider,
    ConfigValueStore,
    ConstantProvider,
)
from botocore.exceptions import BotoCoreError
from botocore.handlers import add_expect_header

from blocks.buckets.answers import BoundedResponse, time_limits
from blocks.secrets.credentials import S3Credentials
from blocks.secrets.egress import make_redirect_guard
from blocks.secrets.machine_identity import MachineIdentity, NoIdentity
from blocks.secrets.tls import load_ssl_context

_NO_IDENTITY = "The operator's block holds no key, and this machine has no identity of Amazon's"


@lru_cache(maxsize=1)
def _loader() -> botocore.loaders.Loader:
    """Return a loader of the models that come with botocore, which keeps what it has read.

    They are some megabytes of JSON, a tenth of a second. Those in `~/.aws/models` are left out.
    """
    loader = botocore.loaders.Loader
    return loader([loader.BUILTIN_DATA_PATH], include_default_search_paths=False)


class CustomerSession(AioSession):  # type: ignore[misc]
    """A session with botocore's defaults and nothing else: no variables, files or metadata."""

    full_config: Any = {"profiles": {}}  # noqa: RUF012 - a property in the base class

    def _register_config_store(self) -> None:
        defaults = {
            name: ChainProvider([ConstantProvider(default)], conversion_func=convert)
            for name, (_, _, default, convert) in BOTOCORE_DEFAUT_SESSION_VARIABLES.items()
            if default is not None
        }
        self._components.register_component("config_store", ConfigValueStore(defaults))

    def _register_data_loader(self) -> None:
        self._components.register_component("data_loader", _loader())

    def _add_configured_endpoint_provider(self, *_: Any, **__: Any) -> None:
        """Add none: endpoints come from botocore's rules, or from the customer."""

    async def get_credentials(self) -> Any:
        """Return none: a client is given its credentials, or is anonymous."""

    def get_auth_token(self, **_: Any) -> None:
        """Return none."""


class MachineSession(CustomerSession):
    """A session for an operator's block without a key: its credentials are the machine's own.

    botocore finds them as everywhere, and fetches new ones before they expire. Nothing else is read
    from there.
    """

    def __init__(self, identity: MachineIdentity) -> None:
        super().__init__()
        self._machine = AioSession(profile=identity.profile)

    async def get_credentials(self) -> Any:
        """Return credentials that are refreshed when they are used.

        Raises:
            NoIdentity: there are none.
        """
        try:
            found = await self._machine.get_credentials()
        except BotoCoreError as error:
            raise NoIdentity(f"{_NO_IDENTITY} ({type(error).__name__}).") from None
        if found is None:
            raise NoIdentity(f"{_NO_IDENTITY}.")
        return found


class CustomerHttp(AIOHTTPSession):  # type: ignore[misc]
    """HTTP as for webhooks: the same authorities are trusted, and no redirect is followed.

    Answers are bounded in bytes and in time.
    """

    _timeout: ClientTimeout

    def __init__(self, *args: Any, request_s: float, **values: Any) -> None:
        super().__init__(*args, **values)
        limits = self._timeout
        self._timeout = time_limits(limits.sock_connect, limits.sock_read, request_s)

    def _build_verify_context(self) -> Any:
        return load_ssl_context()

    async def _get_session(self, proxy_url: str | None) -> Any:
        session = await super()._get_session(proxy_url)
        if not session.trace_configs:
            session.trace_configs.append(make_redirect_guard())
            session._response_class = BoundedResponse  # noqa: SLF001 - it is made in there
        return session


def new_session(credentials: S3Credentials | MachineIdentity | None) -> CustomerSession:
    """Return a session whose clients share the models that earlier ones have read.

    A client is given keys itself; the machine's identity comes from its session.

    If a store tells it to, botocore repeats a request in another region of Amazon. That is left to
    anonymous requests: their customers cannot name the region, and nothing in them is secret.
    """
    if isinstance(credentials, MachineIdentity):
        session: CustomerSession = MachineSession(credentials)
    else:
        session = CustomerSession()
    # With this a body waits for "100 Continue", for ever where a store or a proxy does not know that.
    session.unregister("before-call.s3", add_expect_header)
    if credentials is not None:
        session.register("before-call.s3", _stay_in_region)
    return session


def _stay_in_region(context: dict[str, Any], **_: Any) -> None:
    # botocore redirects a request once.
    context.setdefault("s3_redirect", {})["redirected"] = True


def load() -> None:
    """Read the models that every client needs, without making a client."""
    for kind in ("service-2", "endpoint-rule-set-1"):
        _loader().load_service_model("s3", kind)
    for name in ("endpoints", "partitions", "sdk-default-configuration", "_retry"):
        _loader().load_data(name)
