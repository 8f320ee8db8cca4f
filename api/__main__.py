"""The API as a process: `python -m api --host 0.0.0.0 --port 8000`, with every option of uvicorn."""

import sys

import uvicorn

# Without this protocol half-sent requests would keep their connections for ever.
ARGUMENTS = ("--factory", "api.app:from_environment", "--http", "api.http.server:TimedProtocol")

if __name__ == "__main__":
    uvicorn.main([*ARGUMENTS, *sys.argv[1:]], prog_name="python -m api")
