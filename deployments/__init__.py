"""How Refinery runs: names of deployments, and the whole stack on one machine."""
