// What the dashboard shows: every tile and chart with what it reads from a span of time.

import * as write from "./format.js";

const LATENCIES = "http.latency_buckets.";
const OK_CALLS = "models.calls.ok";

const hourly = (perSecond) => (perSecond === null ? null : perSecond * 3600);
const quantile = (share) => (span) => span.quantile(LATENCIES, share);
const responses = (...kinds) => (span) => span.perSecond(span.rises("http.responses.", kinds));
const rate = (name) => (span) => span.rate(name);
const level = (name) => (span) => span.level(name);
const calls = (span) => span.rises("models.calls.");
const failedCalls = (span) => span.perSecond(calls(span) === null ? null : calls(span) - (span.rise(OK_CALLS) ?? 0));
const cells = (state) => (span) => span.perSecond(span.rises("runs.results.", [state]));
const answered = (span) => span.share("models.cache.hit", "models.cache.miss");

function failing(span) {
  const all = span.rises("http.responses.");
  return all ? span.rises("http.responses.", ["5"]) / all : null;
}

/** The figures on top. */
export const TILES = {
  requests: { write: write.perSecond, of: rate("http.requests") },
  p95: { write: write.milliseconds, of: quantile(0.95) },
  errors: { write: write.percent, of: failing },
  calls: { write: write.perSecond, of: (span) => span.perSecond(calls(span)) },
  cost: { write: write.aboutDollarsPerHour, of: (span) => hourly(span.rate("models.cost_usd")) },
  hits: { write: write.percent, of: answered },
  efficiency: { write: write.percent, of: level("runs.parallel_efficiency") },
  memory: { write: write.bytes, of: level("processes.resident_bytes") },
};

/** The charts; `caches` are the names of the caches. Each line has a colour and a dash of its own. */
export function panels(caches) {
  return [
    {
      id: "latency",
      write: write.milliseconds,
      lines: [
        { name: "P50", of: quantile(0.5) },
        { name: "P95", of: quantile(0.95) },
        { name: "P99", of: quantile(0.99) },
      ],
    },
    {
      id: "requests",
      write: write.perSecond,
      lines: [
        { name: "all", of: rate("http.requests") },
        { name: "answered 2xx, 3xx", of: responses("2", "3") },
        { name: "refused 4xx", of: responses("4") },
      ],
    },
    {
      id: "errors",
      write: write.perSecond,
      lines: [
        { name: "server errors 5xx", of: responses("5") },
        { name: "timeouts", of: rate("http.timeouts") },
        { name: "over their limit", of: rate("http.rate_limited") },
      ],
    },
    {
      id: "calls",
      write: write.perSecond,
      lines: [
        { name: "answered", of: (span) => span.perSecond(span.rises("models.calls.", ["ok"])) },
        { name: "failed", of: failedCalls },
      ],
      notes: [{ name: "tokens", write: write.perSecond, of: (span) => span.perSecond(span.rises("models.tokens.")) }],
    },
    {
      id: "cost",
      write: write.dollarsPerHour,
      lines: [
        { name: "spent", of: (span) => hourly(span.rate("models.cost_usd")) },
        { name: "saved by the cache", of: (span) => hourly(span.rate("models.saved_usd")) },
      ],
    },
    {
      id: "hits",
      write: write.percent,
      most: 1,
      lines: [
        { name: "answers", of: answered },
        ...caches.map((name) => ({
          name: name.replaceAll("_", " "),
          of: (span) => span.share(`caches.${name}.hits`, `caches.${name}.misses`),
        })),
      ],
    },
    {
      id: "cells",
      write: write.perSecond,
      lines: [
        { name: "passed", of: cells("passed") },
        { name: "failed", of: cells("failed") },
        { name: "errors", of: cells("error") },
      ],
    },
    { id: "efficiency", write: write.percent, most: 1, lines: [{ name: "of the runs that ended", of: level("runs.parallel_efficiency") }] },
    {
      id: "pool",
      write: write.count,
      lines: [
        { name: "in use", of: level("pool.in_use") },
        { name: "idle", of: level("pool.idle") },
        { name: "beyond its size", of: level("pool.overflow") },
      ],
      notes: [{ name: "wait", write: write.milliseconds, of: (span) => span.quantile("pool.wait_buckets.", 0.95) }],
    },
    {
      id: "redis",
      write: write.bytes,
      steps: write.BINARY_STEPS,
      lines: [{ name: "memory", of: level("redis.used_memory_bytes") }],
      notes: [
        { name: "clients", write: write.count, of: level("redis.clients") },
        { name: "tasks", write: write.count, of: level("redis.queued_tasks") },
        { name: "hits", write: write.percent, of: (span) => span.share("redis.hits", "redis.misses") },
      ],
    },
    {
      id: "websockets",
      write: write.count,
      lines: [{ name: "connections", of: level("websockets.connections") }],
      notes: [
        { name: "room for", write: write.count, of: level("websockets.capacity") },
        { name: "waiting frames", write: write.count, of: level("websockets.outbox") },
      ],
    },
    {
      id: "messages",
      write: write.perSecond,
      lines: [
        { name: "sent", of: rate("websockets.sent") },
        { name: "dropped", of: rate("websockets.dropped") },
      ],
    },
    {
      id: "cpu",
      write: write.percent,
      lines: [{ name: "of one core", of: rate("processes.cpu_seconds") }],
      notes: [
        { name: "machine", write: write.percent, of: level("processes.machine_cpu_ratio") },
        { name: "loop late by", write: write.milliseconds, of: (span) => span.quantile("processes.loop_lag_buckets.", 0.99) },
      ],
    },
    {
      id: "memory",
      write: write.bytes,
      steps: write.BINARY_STEPS,
      lines: [
        { name: "all", of: level("processes.resident_bytes") },
        { name: "largest process", of: level("processes.by_process.largest") },
        { name: "its limit", of: level("processes.limit_bytes") },
      ],
    },
  ];
}

export const DISTRIBUTION = { id: "distribution", prefix: LATENCIES };
