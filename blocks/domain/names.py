"""Names of people, customers and keys: what a list can show."""

NAME_CHARACTERS_MAX = 200


def check_name(name: str) -> None:
    """Pass if a list can show `name`.

    Raises:
        ValueError: it has too many characters, none that is seen, or one that cannot be printed.
    """
    if not name.strip() or not name.isprintable() or len(name) > NAME_CHARACTERS_MAX:
        raise ValueError(
            f"A name has 1 to {NAME_CHARACTERS_MAX} characters that can be printed, not only spaces."
        )
