"""Enqueues in the caller's own transaction, on the caller's own `sqlite3.Connection` to the store's file."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from typing import Any

from holdfast.clock import Instant
from holdfast.errors import ConfigError, HoldfastError, StoreAway
from holdfast.job import Draft
from holdfast.store import Receipt
