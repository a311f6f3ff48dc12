"""Hosts, a module for each kind: what is in place there, and what has the traffic. Today there is `local` alone."""
