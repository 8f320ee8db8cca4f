"""What both the API and the flows stand on; imports neither."""
