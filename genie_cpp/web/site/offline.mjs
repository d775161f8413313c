// Keeps the page's files, so that it plays without a network. What the server has is newer, and comes first.

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
        return answer;
      })
      .catch(async () => (await caches.match(event.request)) ?? Response.error()),
  );
});
