"""Other programs: run within a deadline, held on a leash, ended as a group."""
