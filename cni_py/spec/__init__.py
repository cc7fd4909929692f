"""The CNI protocol as pure functions on values: no clock, no file, no socket."""
