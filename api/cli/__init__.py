"""The `refinery` command: a customer's side speaks HTTP, an operator's side the database."""
