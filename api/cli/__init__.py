"""The `refinery` command, as far as it needs nothing but the API and the database."""
