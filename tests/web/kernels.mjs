// Runs single kernels of a WebAssembly core: kernels.mjs CORE.wasm JOB.json -> the results, as arrays of float32 (of
// float64: maths) in base64. A job: {"calls": [["matmul", type, rows, columns, w, x, m], ["attention", Q, K, H, D, few, q, k, v],
// ["maths", function, x]]}
import fs from "node:fs";

const [core, job] = process.argv.slice(2);
const { exports: c } = await WebAssembly.instantiate(await WebAssembly.compile(fs.readFileSync(core)), {});
const put = (text) => {
  const bytes = Buffer.from(text, "base64"), at = c.malloc(bytes.length + 64);
  new Uint8Array(c.memory.buffer).set(bytes, at);
  return [at, bytes.length];
};
const place = c.malloc(4);
if (c.genie_pool_create(1, place)) throw new Error("no pool");
const pool = new DataView(c.memory.buffer).getUint32(place, true);
const results = [];
for (const [what, ...given] of JSON.parse(fs.readFileSync(job)).calls) {
  let count, out, status, size = 4;
  if (what === "matmul") {
    const [type, rows, columns, w, x, m] = given, [w_, bytes] = put(w), [x_] = put(x);
    out = c.malloc(4 * (count = rows * m));
    status = c.genie_matmul(0, pool, type, rows, columns, w_, bytes, x_, m, 1, out);
  } else if (what === "maths") {
    const [name, x] = given, [x_, bytes] = put(x);
    out = c.malloc((size = 8) * (count = bytes / 8));
    status = c.genie_maths(name, x_, count, out);
  } else {
    const [Q, K, H, D, few, q, k, v] = given, [q_] = put(q), [k_] = put(k), [v_] = put(v);
    out = c.malloc(4 * (count = Q * H * D));
    status = c.genie_attention(0, Q, K, H, D, q_, k_, v_, 0, 0, few, 0, 1, out);
  }
  if (status) throw new Error(`${what} gives ${status}`);
  results.push(Buffer.from(c.memory.buffer, out, size * count).toString("base64"));
}
console.log(JSON.stringify(results));
