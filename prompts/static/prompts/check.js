// The buttons that ask whether a model answers, and say it in a sentence.

const token = () => document.querySelector("[name=csrfmiddlewaretoken]")?.value ?? "";

function duration(ms) {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

function sentence({ ok, latency_ms: ms, text, error, code }) {
  const said = (text ?? "").trim();
  if (ok) return `It answered in ${duration(ms)}${said ? `: “${said.length > 80 ? `${said.slice(0, 80)}…` : said}”` : "."}`;
  return `It did not answer (${code.replaceAll("_", " ")}, after ${duration(ms)}): ${error}`;
}

async function ask({ dataset }) {
  const headers = { "X-CSRFToken": token(), "X-AutoForge-Project": dataset.project };
  const response = await fetch(dataset.check, { method: "POST", headers });
  const answer = await response.json();
  return response.ok ? { isGood: answer.ok, text: sentence(answer) } : { isGood: false, text: answer.detail };
}

async function check(place, button, status) {
  button.disabled = true;
  status.textContent = "asking …";
  const { isGood, text } = await ask(place).catch(() => ({ isGood: false, text: "The server could not be asked." }));
  status.textContent = `${isGood ? "✓" : "✕"} ${text}`;
  status.className = isGood ? "answer answer-good" : "answer answer-bad";
  button.disabled = false;
}

for (const place of document.querySelectorAll(".check[data-check]")) {
  const button = place.querySelector("button");
  button.hidden = false;
  button.addEventListener("click", () => check(place, button, place.querySelector("[role=status]")));
}
