"""The DHCP client: messages and leases as values, and the daemon that keeps the leases."""
