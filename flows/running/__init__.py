"""What every run needs: settings, connections, retries, deadlines, and what an operator sees of it."""
