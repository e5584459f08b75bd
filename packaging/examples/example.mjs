// db-node from JavaScript, with fetch: set, get, change by compare-and-swap, watch.
//
//     node packaging/examples/example.mjs
//
// DB_NODE_URL names the node (http://localhost:9001 if not given), DB_NODE_TOKEN its token.

const url = process.env.DB_NODE_URL ?? "http://localhost:9001";
const token = process.env.DB_NODE_TOKEN;

/** The answer to a request; a status of 400 or more that is not in `expected` is an error. */
async function ask(method, path, { body, headers = {}, expected = [] } = {}) {
  if (token) headers = { ...headers, Authorization: `Bearer ${token}` };
  const answer = await fetch(url + path, { method, body, headers });
  if (!answer.ok && !expected.includes(answer.status)) {
    throw new Error(`${method} ${path}: ${answer.status} ${await answer.text()}`);
  }
  return answer;
}

const pathOf = (key) => `/kv/${encodeURIComponent(key)}`;

/** Adds to a number that others may change meanwhile, and returns the sum. */
async function add(key, amount) {
  for (;;) {
    const now = await ask("GET", pathOf(key), { expected: [404] });
    const value = now.ok ? Number(await now.text()) : 0;
    if (!now.ok) await now.text();
    const headers = now.ok ? { "If-Match": now.headers.get("ETag") } : { "If-None-Match": "*" };
    const body = String(value + amount);
    const written = await ask("PUT", pathOf(key), { body, headers, expected: [412] });
    await written.text();
    if (written.ok) return value + amount; // 412: changed since it was read, so read it again
  }
}

/** Yields the changes under a prefix, and goes on where it was after each answer. */
async function* watch(prefix, since) {
  for (;;) {
    const query = new URLSearchParams({ prefix, timeout: 20, ...(since && { since }) });
    const answer = await (await ask("GET", `/watch?${query}`)).json();
    yield* answer.events;
    since = answer.position;
  }
}

await ask("PUT", pathOf("js/greeting"), { body: "hello" });
console.log("greeting:", await (await ask("GET", pathOf("js/greeting"))).text());

const { position } = await (await ask("GET", "/watch?timeout=0")).json();

await ask("DELETE", "/delete?key=js/counter");
await Promise.all(Array.from({ length: 8 }, () => add("js/counter", 1)));
console.log("counter after 8 tasks:", await (await ask("GET", pathOf("js/counter"))).text());

for await (const event of watch("js/counter", position)) {
  console.log("watched:", event.op, event.key, event.value ?? "");
  if (event.value === "8") break;
}
