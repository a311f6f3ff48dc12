"""What runs inside pytest: the gate that makes its outcomes verdicts, and a module for each kind of check."""
