"""Accounts of Google: a customer's, which knows no environment, and the machine's own."""

import json
from typing import Any

import google.auth
import google.auth.transport.requests
import google.auth.transport.urllib3
import urllib3
from google.auth.exceptions import GoogleAuthError, RefreshError, TransportError
from google.oauth2.service_account import Credentials as ServiceAccount

from blocks.domain.errors import InvalidCredentials, Transient
from blocks.secrets.credentials import GcsCredentials, check_service_account
from blocks.secrets.machine_identity import MachineIdentity, NoIdentity
from blocks.secrets.tls import load_ssl_context

_SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
_TOKEN_URI = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address
_TIMEOUT = urllib3.Timeout(connect=10, read=20)


# These have no types.
_Request: Any = google.auth.transport.urllib3.Request


class CustomerAccount(ServiceAccount):
    """A service account that asks only Google, directly, whatever proxies the environment names.

    `token_uri` is the customer's text; without this class we would send requests wherever it says.
    """

    def refresh(self, request: object) -> None:
        """Get a token; gcsfs calls this again before it runs out."""
        del request  # it would look at the environment
        with urllib3.PoolManager(
            ssl_context=load_ssl_context(), timeout=_TIMEOUT, retries=False
        ) as http:
            super().refresh(_Request(http))  # type: ignore[no-untyped-call]


def open_account(credentials: GcsCredentials | MachineIdentity) -> Any:
    """Return an account that Google has just given a token; gcsfs gets further ones.

    Raises:
        InvalidCredentials: it is none, or Google does not accept it.
        Transient: Google's token server cannot be reached, or has no answer now.
        NoIdentity: the machine has no identity of Google's, or none now.
    """
    if isinstance(credentials, MachineIdentity):
        return _open_machines()
    try:
        check_service_account(credentials.service_account_json)
        info = json.loads(credentials.service_account_json) | {"token_uri": _TOKEN_URI}
        make: Any = CustomerAccount.from_service_account_info
        account: CustomerAccount = make(info, scopes=[_SCOPE])
        account.refresh(None)
    except TransportError as error:
        raise Transient("Google's token server cannot be reached.") from error
    except RefreshError as error:
        if error.retryable:
            raise Transient("Google's token server has no answer now.") from error
        raise InvalidCredentials("Google does not accept the service account.") from None
    except Exception:  # noqa: BLE001 - google-auth and cryptography raise what they like for a bad key
        raise InvalidCredentials("Google does not accept the service account.") from None
    return account


def _open_machines() -> Any:
    """Return the application default credentials: a file's, a federation's, or the metadata server's."""
    try:
        account: Any = google.auth.default(scopes=[_SCOPE])[0]
        account.refresh(google.auth.transport.requests.Request())
    except GoogleAuthError as error:
        raise NoIdentity(
            "The operator's block holds no service account, and this machine has no identity of "
            f"Google's ({type(error).__name__})."
        ) from None
    return account
