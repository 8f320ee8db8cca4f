"""How the embedded Prefect server is addressed; read without importing Prefect."""

from deployments.embedded.ports import LOOPBACK

# A page elsewhere whose own name is made to mean 127.0.0.1 would count as the server's own page
# (DNS rebinding); the browser still sends that name as `Host`.
HOSTS = [LOOPBACK, "localhost"]

# What follows `#` in a link to it signs the browser in.
SIGN_IN_PATH = "/sign-in"
