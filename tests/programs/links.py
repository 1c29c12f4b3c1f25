"""Says how long the pages of a list are, eight at a time; a page that is not there for a moment is asked for again."""

import sys
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

from holdfast import Permanent, Pool, Retry


def length(url: str) -> int:
    try:
        with urlopen(url, timeout=30) as page:
            return len(page.read())
    except HTTPError as error:
        if error.code < 500:
            raise Permanent(f"{error.code} {error.reason}") from error
        raise


def main(urls: list[str]) -> None:
    with Pool(8, max_size=50, timeout=60, retry=Retry(max_attempts=4, base_delay=0.01)) as pool:
        try:
            for done in pool.each(length, urls):
                error = done.exception()
                print(*done.args, f"{type(error).__name__}: {error}" if error else done.result(), flush=True)
        except KeyboardInterrupt:
            print(f"left {pool.stats().cancelled} pages of those at hand", flush=True)
            raise
        counted = pool.stats()
    print(f"{counted.succeeded} are there, {counted.failed} are not; asked again {counted.retried} times")


if __name__ == "__main__":
    main(Path(sys.argv[1]).read_text().split())
