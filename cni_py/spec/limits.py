"""How much of what others write a call reads. The server's limits are in `server.settings`.

All are far above what is of use: they keep one caller, or a delegate that went wrong, from taking
the machine's memory.
"""

from __future__ import annotations

# A configuration with its prevResult; GC's list has some 120 bytes an attachment.
MOST_INPUT_BYTES = 16 * 1024 * 1024

# A delegate's standard output, and an answer of the DHCP daemon. More on standard error is dropped.
MOST_DELEGATE_BYTES = 4 * 1024 * 1024

# A listing of iptables: some 150 bytes a rule, and there are hosts with 100,000.
MOST_LISTING_BYTES = 256 * 1024 * 1024
