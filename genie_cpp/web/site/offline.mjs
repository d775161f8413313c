// Keeps the page's files, so that it plays without a network. What the server has is newer, and comes first. It also adds
// the headers without which a page may not share memory with its workers: from the second visit on, a world has threads.

const KEPT = "genie-page-1";

addEventListener("install", () => skipWaiting());
addEventListener("activate", (event) => event.waitUntil(clients.claim()));
addEventListener("fetch", (event) => {
  if (event.request.method !== "GET" || new URL(event.request.url).origin !== location.origin) return;
  event.respondWith(
    fetch(event.request)
      .then((answer) => {
        const copy = answer.clone(), keep = async () => (await caches.open(KEPT)).put(event.request, copy);
        if (answer.ok) event.waitUntil(keep().catch(() => {})); // a full disk is no reason not to play
        return isolated(answer);
      })
      .catch(async () => isolated((await caches.match(event.request)) ?? Response.error())),
  );
});

function isolated(answer) {
  if (answer.type === "error" || answer.status === 0) return answer;
  const headers = new Headers(answer.headers), { status, statusText } = answer;
  headers.set("Cross-Origin-Opener-Policy", "same-origin");
  headers.set("Cross-Origin-Embedder-Policy", "require-corp");
  return new Response([101, 204, 205, 304].includes(status) ? null : answer.body, { status, statusText, headers });
}
