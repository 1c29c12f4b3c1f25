"""Where things are: each can be set in the environment."""

import os
from pathlib import Path

OUT = Path(os.environ.get("SHOP_OUT", Path(__file__).with_name("out"))).absolute()
# The orders: a store's URL, of SQLite or PostgreSQL. The jobs are beside them, where one transaction covers both, or
# elsewhere, such as in Redis: then an outbox in this database leads to them.
DATABASE = os.environ.get("SHOP_DATABASE", f"sqlite:///{OUT}/shop.db")
JOBS = os.environ.get("SHOP_JOBS", DATABASE)
INVOICES = OUT / "invoices"
SMTP_HOST, _, _port = os.environ.get("SHOP_SMTP", "127.0.0.1:1025").rpartition(":")
SMTP_PORT = int(_port)
MAIL_API = os.environ.get("SHOP_MAIL_API", "http://127.0.0.1:8025")
MAIL_PLACES = int(os.environ.get("SHOP_MAIL_PLACES", "1000"))  # unfinished mails; beyond that the shop says 503
WORKER = OUT / "worker.pid"  # whom the page's "kill a worker" goes to; nobody if there is no such file
WEBHOOK = os.environ.get("SHOP_WEBHOOK", "http://127.0.0.1:8026/invoices")
REPORTS = os.environ.get("SHOP_REPORTS", "http://127.0.0.1:8026/reports")  # where the team reads the nightly report
NIGHT = os.environ.get("SHOP_NIGHT", "0 2 * * *")  # when it is made; on the demo's day night falls more often
