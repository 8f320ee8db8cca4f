"""Profiles: which API, and with which key, by a name. Kept in a file of mode 600."""

import os
import re
import tomllib
from pathlib import Path

import msgspec
import tomlkit

from api.cli.exits import CommandFailed, Exit
from blocks.settings import ClientSettings

_FILE = "profiles.toml"
DEFAULT = "default"


class Profile(msgspec.Struct, frozen=True):
    """One API, as one customer."""

    api_url: str
    api_key: str


def load(folder: Path) -> dict[str, Profile]:
    """The profiles in `folder`, none if there is no file.

    Raises:
        CommandFailed: the file is not as it should be.
    """
    path = folder / _FILE
    try:
        return msgspec.convert(tomllib.loads(path.read_bytes().decode()), dict[str, Profile])
    except FileNotFoundError:
        return {}
    except (ValueError, msgspec.ValidationError) as error:
        raise CommandFailed(f"{path}: {error}", Exit.USAGE) from error


def save(folder: Path, profiles: dict[str, Profile]) -> None:
    """Replace the file, in one step; nobody else may read it.

    Raises:
        CommandFailed: a name is no text, as what a terminal of another encoding has sent.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    text = tomlkit.dumps({name: msgspec.structs.asdict(each) for name, each in profiles.items()})
    try:
        content = text.encode()
    except UnicodeEncodeError:
        raise CommandFailed("The name of a profile has to be text in UTF-8.", Exit.USAGE) from None
    new = folder / f"{_FILE}.{os.getpid()}"
    new.touch(mode=0o600)
    new.write_bytes(content)
    new.replace(folder / _FILE)


def chosen(settings: ClientSettings, name: str | None) -> Profile:
    """The environment's words, and the profile's where it has none.

    Raises:
        CommandFailed: there is no such profile, or nowhere a URL and a key.
    """
    known = load(settings.config_folder)
    wanted = name or settings.profile
    if wanted and wanted not in known:
        raise CommandFailed(
            f"There is no profile {wanted!r}; `refinery profiles set {wanted}` makes one.",
            Exit.USAGE,
        )
    profile = known.get(wanted or DEFAULT, Profile("", ""))
    if name:  # what is said on the command line comes first
        return profile
    api_url = settings.api_url or profile.api_url
    api_key = settings.api_key or profile.api_key
    for what, value in (("REFINERY_API_URL", api_url), ("REFINERY_API_KEY", api_key)):
        if not value:
            raise CommandFailed(
                f"Set {what}, or make a profile with `refinery profiles set`.", Exit.USAGE
            )
    return Profile(api_url, api_key)


def check(profile: Profile) -> None:
    """Pass if requests can be made of it.

    Raises:
        CommandFailed: what is wrong with it.
    """
    if not re.match(r"https?://[\w.\[]", profile.api_url):
        raise CommandFailed(
            f"{profile.api_url!r} is not the URL of an API, such as http://127.0.0.1:8000.",
            Exit.USAGE,
        )
    if not (profile.api_key.isascii() and profile.api_key.isprintable()):
        raise CommandFailed("The key of the API holds characters that no key has.", Exit.USAGE)
