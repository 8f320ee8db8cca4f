"""The published reference: `/schema`, generated from the code, shown by Swagger UI.

Swagger UI comes out of a wheel and not from a CDN, so the page works where the service is cut off
from the internet, and nobody else learns who reads it.
"""

from base64 import b64encode
from hashlib import sha256
from importlib import resources
from typing import Any

from litestar import Request
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, OpenAPIRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme, Tag
from litestar.static_files import create_static_files_router

from api.http.document import Answers, DocumentConfig, Requests

_ASSETS_PATH = "/schema/assets"
_SCHEMA_PATH = "/schema/openapi.json"

# `persistAuthorization` stays off, so that a key is gone with the page. `validatorUrl` is off, because
# it would send the address of the schema to somebody else.
_SCRIPT = (
    f'SwaggerUIBundle({{url: "{_SCHEMA_PATH}", dom_id: "#ui", deepLinking: true, '
    "validatorUrl: null});"
)
PAGE_POLICY = "; ".join(
    [
        "default-src 'none'",
        f"script-src 'self' 'sha256-{b64encode(sha256(_SCRIPT.encode()).digest()).decode()}'",
        "style-src 'self' 'unsafe-inline'",  # Swagger UI sets styles on its elements
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
"""The Content-Security-Policy of the page: its own files, its one script, and the API."""

_PAGE = """<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <title>{title}</title>
  <link rel="stylesheet" href="{assets}/swagger-ui.css">
  <link rel="icon" href="{assets}/favicon-32x32.png">
</head>
<body>
  <div id="ui"></div>
  <script src="{assets}/swagger-ui-bundle.js"></script>
  <script>{script}</script>
</body>
</html>
"""


class SwaggerPage(OpenAPIRenderPlugin):
    """Swagger UI at `/schema`, with its files served from here."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        del request
        title = openapi_schema["info"]["title"]
        return _PAGE.format(title=title, assets=_ASSETS_PATH, script=_SCRIPT).encode()


def config(requests: Requests, answers: Answers) -> OpenAPIConfig:
    """Return Litestar's configuration of the document, with these examples."""
    return DocumentConfig(
        title="Refinery Jobs",
        version="1",
        description=(
            "Batch labelling: a manifest in a bucket in, consensus labels in a bucket out. "
            "Every `/v1` route wants `Authorization: Bearer <key>`: a customer's `sk_…` key for jobs "
            "and tasks, an annotator's `ak_…` key for annotation, an operator's `op_…` key to look at "
            "all customers' jobs. The service's own pages are signed in by a cookie, see Sessions."
        ),
        path="/schema",
        use_handler_docstrings=True,
        render_plugins=[SwaggerPage(path="/"), JsonRenderPlugin(path="/openapi.json")],
        components=Components(
            security_schemes={
                "apiKey": SecurityScheme(type="http", scheme="bearer"),
                "session": SecurityScheme(
                    type="apiKey", name="refinery_session", security_scheme_in="cookie"
                ),
            }
        ),
        security=[{"apiKey": []}, {"session": []}],
        tags=[
            Tag("Jobs", "For customers."),
            Tag("Tasks", "For customers: one by one instead of by a manifest."),
            Tag(
                "Webhooks",
                "For customers, to be told. Signed the Standard Webhooks way, and by `X-ASG-Signature`.",
            ),
            Tag("Annotation", "For annotators, people and models alike."),
            Tag("Keys", "For customers and operators: who may come in, and with what."),
            Tag("Sessions", "For the service's own pages: a browser is signed in by a cookie."),
            Tag("Operations", "For operators; health and metrics need no key."),
        ],
        requests=requests,
        answers=answers,
    )


HANDLERS = [
    create_static_files_router(
        _ASSETS_PATH,
        # Only the files of this wheel are used, not its code for FastAPI.
        directories=[str(resources.files("fastapi_swagger") / "resources")],
        include_in_schema=False,
    )
]
