"""Across hosts: what the nodes of a cluster agree on, and the ways their containers take."""
