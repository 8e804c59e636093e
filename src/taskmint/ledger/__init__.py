"""The durable, hash-chained record of what happened to every task; the only importer of sqlite3."""
