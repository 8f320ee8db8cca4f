"""The HTTP API: records jobs, hands out tasks, takes labels, streams results."""
