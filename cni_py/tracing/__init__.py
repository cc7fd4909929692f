"""Following a packet through the rules that would meet it."""
