"""Choose the members of a line's metadata that annotators see."""

from collections.abc import Sequence

import msgspec

_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])


def list_shown_members(show: bool | Sequence[str]) -> list[str] | None:
    """Return the members that a job's `show_metadata` lets annotators see; None for all of them."""
    if show is True:
        return None
    return sorted(set(show)) if show else []


def show_members(metadata: str | None, keys: Sequence[str] | None) -> str | None:
    """Return the members of `metadata` that `keys` name, in its order and each value byte for byte.

    None for `keys` returns all of it, as it stands. Return None where nothing is left; metadata whose
    members cannot be told apart is hidden as a whole. Of a repeated key the last value counts.
    """
    if metadata is None or keys is None:
        return metadata
    try:
        members = _MEMBERS.decode(metadata)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return None
    shown = [
        f"{msgspec.json.encode(key).decode()}:{bytes(value).decode()}"
        for key, value in members.items()
        if key in keys
    ]
    return f"{{{','.join(shown)}}}" if shown else None
