"""jobmill: background jobs for Python, on memory, SQLite, Redis or PostgreSQL."""
