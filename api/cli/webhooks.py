"""`refinery webhooks …` and `refinery profiles …`, for customers."""

from typing import Annotated, Any

from cyclopts import App, Parameter

from api.cli import profiles as store
from api.cli.admin import app
from api.cli.client import COMMON, AtLeastOne, Common, path
from api.cli.exits import CommandFailed, Exit
from api.cli.output import notes, print_json, print_table
from blocks.settings import ClientSettings

webhooks = app.command(App(name="webhooks", help="Be told of jobs and tasks, for customers."))
profiles = app.command(App(name="profiles", help="Which API, and with which key, by a name."))


@webhooks.command
def add(
    callback_url: str,
    *,
    event: Annotated[
        tuple[str, ...], Parameter(help="Once for each; all where none is given.")
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


@webhooks.command(name="list")
def index(
    *,
    all: Annotated[  # noqa: A002 - its name
        bool, Parameter(negative=(), help="Those too that jobs and tasks name.")
    ] = False,
    common: Common = COMMON,
) -> None:
    """Endpoints, the oldest first."""
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


@webhooks.command
def remove(webhook_id: str, *, common: Common = COMMON) -> None:
    """Send an endpoint nothing more."""
    with common.client() as client:
        client.request("DELETE", path("webhooks", webhook_id))
    notes.print("removed")


@webhooks.command
def deliveries(webhook_id: str, *, limit: AtLeastOne = 20, common: Common = COMMON) -> None:
    """What was sent to an endpoint, newest first, and what it answered."""
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


@webhooks.command
def replay(delivery_id: str, *, common: Common = COMMON) -> None:
    """Send it again."""
    with common.client() as client:
        answer = client.post(path("webhooks", "deliveries", delivery_id, "replay"))
    print_json(answer) if common.as_json else notes.print("it is sent again")


@webhooks.command
def rotate(webhook_id: str, *, common: Common = COMMON) -> None:
    """Make a new secret, and print it; the one before signs as well for a day."""
    _rotate(path("webhooks", webhook_id, "rotate"), common)


@webhooks.command(name="default-secret")
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


@profiles.command(name="set")
def set_profile(name: str = store.DEFAULT, *, api_url: str | None = None) -> None:
    """Keep an API's URL and a key, which is asked for and not shown, under a name.

    Parameters
    ----------
    name
        The one called `default` is taken where no other is asked for.
    """
    settings = ClientSettings.from_environment()
    url = api_url or settings.api_url
    if not url:
        raise CommandFailed("Say which API: --api-url URL.", Exit.USAGE)
    key = settings.api_key or notes.input("API key: ", password=notes.is_terminal)
    known = store.load(settings.config_folder)
    store.save(settings.config_folder, known | {name: store.Profile(url, key.strip())})
    notes.print(f"kept as {name}")


@profiles.command(name="list")
def list_profiles(
    *, as_json: Annotated[bool, Parameter(name="--json", negative=())] = False
) -> None:
    """The profiles, without their keys."""
    known = store.load(ClientSettings.from_environment().config_folder)
    if as_json:
        print_json({name: {"api_url": each.api_url} for name, each in known.items()})
    else:
        print_table(("profile", "api_url"), ((name, each.api_url) for name, each in known.items()))


@profiles.command(name="remove")
def remove_profile(name: str) -> None:
    """Forget a profile."""
    folder = ClientSettings.from_environment().config_folder
    known = store.load(folder)
    if name not in known:
        raise CommandFailed(f"There is no profile {name!r}.", Exit.NOT_FOUND)
    del known[name]
    store.save(folder, known)
