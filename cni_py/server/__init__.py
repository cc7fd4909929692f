"""The warm server: calls are served by processes that have everything loaded (`cni-py serve`)."""
