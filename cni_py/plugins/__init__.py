"""Interface and chained plugins, one module each."""
