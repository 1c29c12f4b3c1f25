"""The invoice shop: a small web application whose invoices are mailed by background jobs."""
