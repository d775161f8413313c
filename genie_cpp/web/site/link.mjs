// Play as text for a link: start, seed, sampler and actions. Whoever opens it sees the same frames made.

export function packed({ start, seed, sampler, actions }) {
  const runs = [];
  for (const action of actions) {
    if (runs.at(-1)?.[0] === action) runs.at(-1)[1]++;
    else runs.push([action, 1]);
  }
  const words = runs.map(([action, times]) => (times > 1 ? `${action}*${times}` : `${action}`)).join(",");
  const fields = { start, seed, steps: sampler.steps, temperature: sampler.temperature, actions: words };
  return new URLSearchParams(fields).toString();
}

// The same back; null if the text is not a link's. `choices`: how many actions there are.
export function unpacked(text, starts, choices) {
  const given = new URLSearchParams(text);
  if (!given.has("start")) return null;
  const number = (name, least, most) => {
    const value = Number(given.get(name));
    if (!(value >= least && value <= most)) throw new Error(`the link's ${name} is not in ${least}…${most}`);
    return value;
  };
  if (!/^\d{1,20}$/.test(given.get("seed") ?? "")) throw new Error("the link's seed is not a number");
  const actions = [];
  for (const word of (given.get("actions") ?? "").split(",").filter(Boolean)) {
    const [, action, times = "1"] = /^(\d{1,5})(?:\*(\d{1,5}))?$/.exec(word) ?? [];
    if (action === undefined || Number(action) >= choices) throw new Error(`the link asks for an action ${word.slice(0, 20)}`);
    for (let i = 0; i < Number(times); i++) actions.push(Number(action));
    if (actions.length > 5000) throw new Error("the link has more than 5000 actions");
  }
  const sampler = { steps: Math.round(number("steps", 1, 1024)), temperature: number("temperature", 0, 10) };
  return { start: Math.round(number("start", 0, Math.max(starts - 1, 0))), seed: given.get("seed"), sampler, actions };
}
