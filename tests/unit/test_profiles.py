"""Whatever a profile is called, it and the others can be read again."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.cli import profiles
from api.cli.exits import CommandFailed
from api.cli.profiles import Profile

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
PROFILES = st.dictionaries(TEXT, st.builds(Profile, TEXT, TEXT), max_size=4)


@given(PROFILES)
def test_what_is_kept_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, kept: dict[str, Profile]
) -> None:
    folder = tmp_path_factory.mktemp("profiles")
    profiles.save(folder, kept)
    assert profiles.load(folder) == kept


@pytest.mark.parametrize("name", ["😀", 'a"b', "a.b", "a]b", "line\nbreak", "", "\x7f", "é\\"])
def test_names_that_toml_has_to_quote(name: str, tmp_path: Path) -> None:
    kept = {name: Profile("http://127.0.0.1:8000", "sk_x"), "other": Profile("", "")}
    profiles.save(tmp_path, kept)
    assert profiles.load(tmp_path) == kept
    assert (tmp_path / "profiles.toml").stat().st_mode & 0o777 == 0o600


def test_a_name_that_is_no_text_is_refused_and_the_others_stay(tmp_path: Path) -> None:
    kept = {"mine": Profile("http://127.0.0.1:8000", "sk_x")}
    profiles.save(tmp_path, kept)
    with pytest.raises(CommandFailed, match="UTF-8"):
        profiles.save(tmp_path, kept | {"\udcff": Profile("", "")})
    assert profiles.load(tmp_path) == kept
