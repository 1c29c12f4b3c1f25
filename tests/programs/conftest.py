"""What the programs run on: the stores, workers and ledger of tests/flows."""

from tests.flows.conftest import ledger, serve, shared, url, using

__all__ = ["ledger", "serve", "shared", "url", "using"]
