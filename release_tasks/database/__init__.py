"""PostgreSQL: SQL text, catalogs, what a database holds, and a server of our own."""
