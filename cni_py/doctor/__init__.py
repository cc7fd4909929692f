"""`cni-py doctor`: what of this host keeps the plugins from working, or from working well."""
