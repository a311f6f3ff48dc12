"""Deployment: code brought to hosts and made live there, and the settings of environments."""
