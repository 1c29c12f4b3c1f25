"""What the programs run on: the stores, workers and ledger of tests/flows."""

from tests.flows.conftest import frozen, ledger, serve, shared, url, using

__all__ = ["frozen", "ledger", "serve", "shared", "url", "using"]
