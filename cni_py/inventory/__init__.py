"""What cni-py and CNI made on this host, read from the kernel, labels and others' files.

`reading.read()` gives an `Inventory` (`model`); nothing is changed by it, and what is damaged is
told and passed over.
"""
