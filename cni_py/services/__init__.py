"""Services and the instances that serve them: what a registry has, and what it is kept in."""
