"""Native replication: the database copies the data, and replstore proves that it has."""
