"""What differs between databases, and nothing else: one package a database, behind one interface (``database.Database``)."""
