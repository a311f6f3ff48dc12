"""The evidence pack of a release: built, signed, stamped, kept, and verified."""
