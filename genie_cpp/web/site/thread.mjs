// A thread of the core: runs the C code that waits for work, in the memory that genie.mjs shares with it.

addEventListener("message", async ({ data: { module, memory, run, stack, tls } }) => {
  const { exports: c } = await WebAssembly.instantiate(module, { env: { memory } });
  c.__stack_pointer.value = stack;
  c.__wasm_init_tls(tls);
  postMessage("ready");
  c.genie_wasm_run(run); // does not return before the page is left
});
