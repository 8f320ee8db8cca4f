"""The `refinery` command: a customer's side speaks HTTP, an operator's side the database.

Each module with commands has an `add_commands`, which adds them to the command that it is given; none of
them is added by an import. `deployments.cli` puts the whole together, since the stack of one machine is
not for the API to know.
"""
