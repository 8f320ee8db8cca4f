"""Run Refinery on several machines, which are network namespaces of this one: `make grown`.

The services are those of `deployments/compose.yaml`, each on a machine of its own, run from the wheel
with the commands and variables of that file. Their throughput is measured, and what becomes of their
jobs when machines die, links are cut and processes are drained.
"""
