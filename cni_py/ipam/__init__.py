"""IP address management plugins and their delegation."""
