"""Backups: taken, restored to see that they count, kept, encrypted, brought back."""
