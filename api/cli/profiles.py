"""Profiles: which API, and with which key, by a name. Kept in a file of mode 600."""

import os
import re
import tomllib
from pathlib import Path

import msgspec
import tomlkit

from api.cli.exits import UsageError
from blocks.settings import ClientSettings

_FILE = "profiles.toml"
DEFAULT = "default"


class Profile(msgspec.Struct, frozen=True):
    """One API, as one customer."""

    api_url: str
    api_key: str


def load(folder: Path) -> dict[str, Profile]:
    """Return the profiles in `folder`, none if there is no file.

    Raises:
        UsageError: the file is not as it should be.
    """
    path = folder / _FILE
    try:
        return msgspec.convert(tomllib.loads(path.read_bytes().decode()), dict[str, Profile])
    except FileNotFoundError:
        return {}
    except msgspec.ValidationError as error:
        message = "Each profile must have an api_url and an api_key, which are texts"
        raise UsageError(f"{path}: {message}.") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: This is not UTF-8, from byte {error.start + 1} on.") from error
    except (ValueError, RecursionError) as error:  # tomllib names the line
        raise UsageError(f"{path}: {error}") from error


def save(folder: Path, profiles: dict[str, Profile]) -> None:
    """Replace the file, in one step; nobody else may read it.

    Raises:
        UsageError: a name is not UTF-8, as from a terminal of another encoding.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    text = tomlkit.dumps({name: msgspec.structs.asdict(each) for name, each in profiles.items()})
    try:
        content = text.encode()
    except UnicodeEncodeError:
        raise UsageError("The name of a profile has to be text in UTF-8.") from None
    new = folder / f"{_FILE}.{os.getpid()}"
    new.touch(mode=0o600)
    new.write_bytes(content)
    new.replace(folder / _FILE)


def chosen(settings: ClientSettings, name: str | None) -> Profile:
    """Return the environment's URL and key, or the profile's where it has none.

    A profile whose `name` is given comes before the environment.

    Raises:
        UsageError: there is no such profile, or no URL or key anywhere.
    """
    known = load(settings.config_folder)
    wanted = name or settings.profile
    if wanted and wanted not in known:
        raise UsageError(
            f"There is no profile {wanted!r}; `refinery profiles set {wanted}` makes one."
        )
    profile = known.get(wanted or DEFAULT, Profile("", ""))
    if name:
        return profile
    api_url = settings.api_url or profile.api_url
    api_key = settings.api_key or profile.api_key
    for what, value in (("REFINERY_API_URL", api_url), ("REFINERY_API_KEY", api_key)):
        if not value:
            raise UsageError(f"Set {what}, or make a profile with `refinery profiles set`.")
    return Profile(api_url, api_key)


def check(profile: Profile) -> None:
    """Pass if requests can be made with a profile.

    Raises:
        UsageError: its URL or its key cannot be one.
    """
    if not re.match(r"https?://[\w.\[]", profile.api_url):
        raise UsageError(
            f"{profile.api_url!r} is not the URL of an API, such as http://127.0.0.1:8000."
        )
    if not (profile.api_key.isascii() and profile.api_key.isprintable()):
        raise UsageError("The key of the API holds characters that no key has.")
