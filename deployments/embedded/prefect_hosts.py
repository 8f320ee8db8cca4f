"""Name the hosts and the path of the embedded Prefect server, without importing Prefect."""

from deployments.embedded.ports import LOOPBACK

# A foreign page whose own name is made to mean 127.0.0.1 would count as the server's own page (DNS
# rebinding); the browser still sends that name as `Host`.
HOSTS = [LOOPBACK, "localhost"]

# A link to this path signs the browser in, by the part after `#`.
SIGN_IN_PATH = "/sign-in"
