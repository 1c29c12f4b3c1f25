"""A shop with a web application, as its owner wrote it: orders are paid, and invoices are sent by jobs."""
