// What a user of Langfuse's JavaScript SDK does: prints what was seen. Address and keys come from the environment.
import { LangfuseClient } from "@langfuse/client";
import { LangfuseSpanProcessor } from "@langfuse/otel";
import { NodeTracerProvider } from "@opentelemetry/sdk-trace-node";

const name = process.argv[2];
const processor = new LangfuseSpanProcessor();
new NodeTracerProvider({ spanProcessors: [processor] }).register();
const langfuse = new LangfuseClient();

const TEXT = "As a {{level}} critic, rate {{ movie }}. Keep {% this %}.";
const MOVIE = `${name}/movie critic`;
const first = await langfuse.prompt.create({
  name: MOVIE, prompt: TEXT, labels: ["production"], tags: ["films"], config: { temperature: 0 },
});
const second = await langfuse.prompt.create({ name: MOVIE, prompt: TEXT + " Be short.", labels: ["staging"] });
// Behind the client's back: what it has cached stays as it is.
const moveProduction = async (version) => {
  const { LANGFUSE_BASE_URL, LANGFUSE_PUBLIC_KEY, LANGFUSE_SECRET_KEY } = process.env;
  const pair = Buffer.from(`${LANGFUSE_PUBLIC_KEY}:${LANGFUSE_SECRET_KEY}`).toString("base64");
  const path = `/api/public/v2/prompts/${encodeURIComponent(MOVIE)}/versions/${version}`;
  const answer = await fetch(LANGFUSE_BASE_URL + path, {
    method: "PATCH",
    headers: { Authorization: `Basic ${pair}`, "Content-Type": "application/json" },
    body: JSON.stringify({ newLabels: ["production"] }),
  });
  if (!answer.ok) throw new Error(`${answer.status}: ${await answer.text()}`);
};
const prompt = await langfuse.prompt.get(MOVIE);
const seen = {
  prompt: {
    created: [first.version, second.version],
    text: prompt.prompt,
    compiled: prompt.compile({ level: "harsh", movie: "Dune" }),
    labels: prompt.labels,
    config: prompt.config,
    staging: (await langfuse.prompt.get(MOVIE, { label: "staging" })).version,
  },
};
await moveProduction(2);
seen.cached = (await langfuse.prompt.get(MOVIE)).version;
await moveProduction(1);
await langfuse.prompt.update({ name: MOVIE, version: 2, newLabels: ["production"] });
seen.moved = (await langfuse.prompt.get(MOVIE, { cacheTtlSeconds: 0 })).version;
const fallback = await langfuse.prompt.get("nobody", { fallback: "Say {{x}}", maxRetries: 0 });
seen.fallback = fallback.compile({ x: "hi" });
await langfuse.prompt.create({
  name: `${name}/chat`,
  type: "chat",
  prompt: [
    { role: "system", content: "You are {{who}}." },
    { type: "placeholder", name: "history" },
    { role: "user", content: "{{question}}" },
  ],
  labels: ["production"],
});
const chat = await langfuse.prompt.get(`${name}/chat`, { type: "chat" });
seen.chat = chat.compile({ who: "Ann", question: "Why?" }, { history: [{ role: "user", content: "Hi" }] });

await langfuse.api.datasets.create({ name });
for (const [id, country, capital] of [["1", "France", "Paris"], ["2", "Peru", "Lima"], ["2", "Chile", "Santiago"]]) {
  await langfuse.api.datasetItems.create({
    datasetName: name, id: `${name}-${id}`, input: { country }, expectedOutput: capital,
  });
}
const dataset = await langfuse.dataset.get(name);
seen.items = dataset.items.map((item) => [item.input.country, item.expectedOutput]);
const isRight = async ({ output, expectedOutput }) => ({ name: "is_right", value: Number(output === expectedOutput) });
const run = async (runName, task) => {
  const done = await dataset.runExperiment({
    name, runName, description: "Of the world", metadata: { team: "films" }, task, evaluators: [isRight],
  });
  return done.itemResults.length;
};
seen.results = [
  await run("always Paris", async () => "Paris"),
  await run("knows all", async (item) => item.expectedOutput),
];
await processor.forceFlush();
await langfuse.shutdown();
console.log(JSON.stringify(seen));
