"""The rooms behind tasks.py: one subject a module. Start reading at tasks.py."""
