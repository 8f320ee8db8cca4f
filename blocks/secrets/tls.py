"""The certificate authorities that we trust when we connect to hosts of customers."""

import os
import ssl
from functools import lru_cache

import certifi


@lru_cache(maxsize=1)
def load_ssl_context() -> ssl.SSLContext:
    """Return a context with the machine's authorities, or those of SSL_CERT_FILE or SSL_CERT_DIR.

    It serves all outbound connections, and is made once, as reading them takes a while. A machine
    without any authorities gets those of certifi.
    """
    context = ssl.create_default_context()
    folder: str | None = ssl.get_default_verify_paths().capath
    has_folder = folder is not None and any(os.scandir(folder))
    if not has_folder and not context.cert_store_stats()["x509_ca"]:
        context.load_verify_locations(certifi.where())
    return context
