"""Whether the indexes and counters of a prefix say just what its jobs say."""

from __future__ import annotations

from collections import Counter
from typing import Any

from redis import Redis

from tests.servers.prefixes import Prefix

FINAL = ("succeeded", "dead", "cancelled")


def wrongs(prefix: Prefix) -> list[str]:
    """What does not fit, in words; [] if all does."""
    with Redis.from_url(prefix.server, decode_responses=True) as redis:
        return [wrong for queue in _queues(redis, prefix) for wrong in _of(redis, f"{{{prefix.name}:{queue}}}:")]


def _queues(redis: Any, prefix: Prefix) -> list[str]:
    return sorted(redis.smembers(f"{{{prefix.name}}}:queues"))


def _of(redis: Any, base: str) -> list[str]:
    jobs = {key.removeprefix(f"{base}job:"): redis.hgetall(key) for key in redis.scan_iter(f"{base}job:*", count=1000)}
    by_state = {state: {job_id for job_id, job in jobs.items() if job["state"] == state} for state in _states(jobs)}
    seen = set(jobs) - by_state.get("deleted", set())
    running = by_state.get("running", set())
    held = {
        key.removeprefix(f"{base}held:"): set(redis.hgetall(key))
        for key in redis.scan_iter(f"{base}held:*", count=1000)
    }
    found = {
        "jobs": (set(redis.zrange(f"{base}jobs", 0, -1)), seen),
        "ready": (set(redis.zrange(f"{base}ready", 0, -1)), by_state.get("queued", set())),
        "due": (set(redis.zrange(f"{base}due", 0, -1)), by_state.get("scheduled", set())),
        "dead": (set(redis.zrange(f"{base}dead", 0, -1)), by_state.get("dead", set())),
        "cancelled": (set(redis.zrange(f"{base}cancelled", 0, -1)), by_state.get("cancelled", set())),
        "ends": (
            dict(redis.zrange(f"{base}ends", 0, -1, withscores=True)),
            {job_id: ends for job_id, job in jobs.items() if (ends := _ends_at(job)) is not None},
        ),
        "held": (
            {(worker, job_id) for worker, ids in held.items() for job_id in ids},
            {(jobs[job_id]["worker"], job_id) for job_id in running},
        ),
        "holders": (
            {worker: int(count) for worker, count in redis.hgetall(f"{base}holders").items()},
            Counter(jobs[job_id]["worker"] for job_id in running),
        ),
        "running": (int(redis.hget(f"{base}meta", "running") or 0), len(running)),
    }
    wrongs = [f"{base}{name} is {there}, by the jobs {due}" for name, (there, due) in found.items() if there != due]
    unfinished = set(redis.zrange(f"{base}final", 0, -1)) - {
        job_id for job_id, job in jobs.items() if job["state"] in (*FINAL, "deleted")
    }
    wrongs += [f"{base}final has {job_id}, which is not" for job_id in sorted(unfinished)]
    for key, holder in redis.hgetall(f"{base}unique").items():
        if jobs.get(holder, {}).get("key") != key:
            wrongs.append(f"{base}unique: {key} is held by {holder}, which has it not")
    odd = ("key", "priority", "alone", "cancel", "reason", "loss", "noted", "expires", "deadline")
    wrongs += [
        f"{base}job:{job_id} has {field} and is not odd"
        for job_id in sorted(seen)
        for field in odd
        if jobs[job_id].get(field) and "odd" not in jobs[job_id] and (field != "alone" or "fence" not in jobs[job_id])
    ]
    return wrongs


def _ends_at(job: dict[str, str]) -> float | None:
    """When the time of a job that is scheduled or queued is over."""
    if job["state"] not in ("scheduled", "queued"):
        return None
    times = [job.get("deadline"), None if job.get("started") else job.get("expires")]
    return min((float(time) for time in times if time), default=None)


def _states(jobs: dict[str, dict[str, str]]) -> set[str]:
    return {job["state"] for job in jobs.values()}
