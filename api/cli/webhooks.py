"""`refinery webhooks …` and `refinery profiles …`, for customers."""

from typing import Annotated, Any

from cyclopts import App, Parameter

from api.cli import profiles as store
from api.cli.admin import AsJson
from api.cli.client import COMMON, Common, path
from api.cli.exits import CommandFailed, Exit, UsageError
from api.cli.fields import ranged
from api.cli.output import note, notes, print_json, print_table
from blocks.settings import ClientSettings
from blocks.store.webhooks import Event

_WebhookId = Annotated[str, Parameter(help="The id of the endpoint, as `add` and `list` print it.")]


def add(
    callback_url: Annotated[str, Parameter(help="Where to send what happens: an https URL.")],
    *,
    event: Annotated[
        tuple[str, ...],
        Parameter(
            help="What to be told of, once for each; all where none is given.",
            choices=[each.value for each in Event],
        ),
    ] = (),
    common: Common = COMMON,
) -> None:
    """Register an endpoint, and print its id and its secret, which is not shown again."""
    body: dict[str, Any] = {"callback_url": callback_url}
    with common.client() as client:
        made = client.post(path("webhooks"), body | ({"events": list(event)} if event else {}))
    if common.as_json:
        print_json(made)
    else:
        print(f"webhook  {made['webhook_id']}\nsecret   {made['secret']}")


def index(
    *,
    all: Annotated[  # noqa: A002 - its name
        bool,
        Parameter(
            negative=(), help="Also those that jobs and tasks name, and deleted ones with a log."
        ),
    ] = False,
    common: Common = COMMON,
) -> None:
    """List endpoints, the oldest first."""
    found: list[dict[str, Any]] = []
    cursor, more = None, True
    with common.client() as client:
        while more:
            page = client.get(path("webhooks"), all=str(all).lower(), limit=100, cursor=cursor)
            found += page["webhooks"]
            cursor = page["next_cursor"]
            more = cursor is not None
    if common.as_json:
        print_json({"webhooks": found})
        return
    print_table(
        ("webhook", "callback_url", "events", "switched off"),
        (
            (w["webhook_id"], w["callback_url"], " ".join(w["events"]), w["disabled_at"])
            for w in found
        ),
    )


def remove(webhook_id: _WebhookId, *, common: Common = COMMON) -> None:
    """Send an endpoint nothing more."""
    with common.client() as client:
        client.request("DELETE", path("webhooks", webhook_id))
    note("removed")


def deliveries(
    webhook_id: _WebhookId,
    *,
    limit: Annotated[int, ranged("How many at most, from 1 to 100.", 1, 100)] = 20,
    common: Common = COMMON,
) -> None:
    """List what was sent to an endpoint, newest first, and what it answered."""
    with common.client() as client:
        page = client.get(path("webhooks", webhook_id, "deliveries"), limit=limit)
    if common.as_json:
        print_json(page)
        return
    print_table(
        ("delivery", "event", "status", "attempts", "last answer", "next attempt"),
        (
            (
                each["delivery_id"], each["event"], each["status"], len(each["attempts"]),
                _last(each["attempts"]), each["next_attempt_at"],
            )
            for each in page["deliveries"]
        ),
    )  # fmt: skip


def replay(
    delivery_id: Annotated[str, Parameter(help="The id of a message, as `deliveries` prints it.")],
    *,
    common: Common = COMMON,
) -> None:
    """Send a message again."""
    with common.client() as client:
        answer = client.post(path("webhooks", "deliveries", delivery_id, "replay"))
    print_json(answer) if common.as_json else note("it is sent again")


def rotate(webhook_id: _WebhookId, *, common: Common = COMMON) -> None:
    """Make a new secret, and print it; the one before signs as well for a day."""
    _rotate(path("webhooks", webhook_id, "rotate"), common)


def default_secret(*, common: Common = COMMON) -> None:
    """Make a new secret for callback URLs that are not registered, and print it."""
    _rotate(path("webhooks", "default-secret", "rotate"), common)


def _rotate(where: str, common: Common) -> None:
    with common.client() as client:
        answer = client.post(where)
    print_json(answer) if common.as_json else print(answer["secret"])


def _last(attempts: list[dict[str, Any]]) -> str:
    if not attempts:
        return ""
    return str(attempts[-1]["status_code"] or attempts[-1]["error"])


def set_profile(
    name: str = store.DEFAULT,
    *,
    api_url: Annotated[
        str | None, Parameter(help="The URL of the API. Default: that of the environment.")
    ] = None,
) -> None:
    """Keep an API's URL and a key, which is asked for and not shown, under a name.

    Parameters
    ----------
    name
        The one called `default` is taken where no other is asked for.
    """
    settings = ClientSettings.from_environment()
    url = api_url or settings.api_url
    if not url:
        raise UsageError("Say which API: --api-url URL.")
    key = settings.api_key or _ask_key()
    known = store.load(settings.config_folder)
    store.save(settings.config_folder, known | {name: store.Profile(url, key.strip())})
    note(f"kept as {name}")


def list_profiles(*, as_json: AsJson = False) -> None:
    """List the profiles, without their keys."""
    known = store.load(ClientSettings.from_environment().config_folder)
    if as_json:
        print_json({name: {"api_url": each.api_url} for name, each in known.items()})
    else:
        print_table(("profile", "api_url"), ((name, each.api_url) for name, each in known.items()))


def remove_profile(name: Annotated[str, Parameter(help="The name of the profile.")]) -> None:
    """Forget a profile."""
    folder = ClientSettings.from_environment().config_folder
    known = store.load(folder)
    if name not in known:
        raise CommandFailed(f"There is no profile {name!r}.", Exit.NOT_FOUND)
    del known[name]
    store.save(folder, known)


def add_commands(app: App) -> None:
    """Add `webhooks …` and `profiles …` to the command."""
    webhooks = app.command(App(name="webhooks", help="Be told of jobs and tasks, for customers."))
    webhooks.command(index, name="list")
    for command in (add, remove, deliveries, replay, rotate, default_secret):
        webhooks.command(command)
    profiles = app.command(App(name="profiles", help="Which API, and with which key, by a name."))
    profiles.command(set_profile, name="set")
    profiles.command(list_profiles, name="list")
    profiles.command(remove_profile, name="remove")


def _ask_key() -> str:
    try:
        return notes().input("API key: ", password=notes().is_terminal)
    except EOFError as error:
        raise UsageError("No key was typed, and REFINERY_API_KEY is not set.") from error
