"""The HTTP API and the command line.

`app` puts it together; `routes` answer, `background` goes on by itself, `http` is what stands between a
socket and a route, `cli` is the `refinery` command. Imports `blocks`, never `flows`.
"""
