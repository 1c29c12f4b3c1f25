"""Inside an app: its link to the store, its tasks, and what producers, handles, operators and workers do with them."""
