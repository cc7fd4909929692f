"""What the hosts of a cluster agree on, and what each makes of it."""
