"""Provide what every run needs: settings, connections, retries, deadlines, and its view in the UI."""
