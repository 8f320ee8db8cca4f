"""`python -m deployments` is `refinery`."""

from deployments.cli import main

main()
