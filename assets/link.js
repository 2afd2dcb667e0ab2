"use strict";
/* The recipe in the address bar: a link brings back everything, Back goes to the settings before.

   The address holds the recipe after "#r=", packed; it never leaves the browser. What a step of the
   history was stands in the history itself. */
(() => {
  const KEY = "#r=", MOST = 100_000; // characters of a recipe

  async function through(bytes, transform) {
    const reader = new Blob([bytes]).stream().pipeThrough(transform).getReader(), parts = [];
    let size = 0;
    for (let step = await reader.read(); !step.done && size <= 4 * MOST; step = await reader.read()) {
      parts.push(step.value);
      size += step.value.length;
    }
    reader.cancel().catch(() => {});
    return new Uint8Array(await new Blob(parts).arrayBuffer());
  }

  async function packed(text) {
    const bytes = await through(new TextEncoder().encode(text), new CompressionStream("deflate-raw"));
    return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
  }

  /* The recipe of an address; "" where it holds none. What cannot be read is answered as it is, so
     that the server can say so. */
  async function read(hash = location.hash) {
    if (!hash.startsWith(KEY)) return "";
    const text = hash.slice(KEY.length);
    try {
      const bytes = Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (sign) => sign.charCodeAt(0));
      return new TextDecoder("utf-8", { fatal: true }).decode(await through(bytes, new DecompressionStream("deflate-raw")));
    } catch {
      return `# unreadable link: ${text.slice(0, 20)}`;
    }
  }

  function mount(_element, props, watch, trigger) {
    let last = props.value, touched = false;
    const touch = () => { touched = true; };
    for (const event of ["pointerdown", "keydown"]) addEventListener(event, touch, { once: true, capture: true });
    history.replaceState({ recipe: last }, "");

    watch("value", async () => {
      const text = props.value;
      if (!text || text === last || text.startsWith("#") || text.length > MOST) return;
      last = text;
      const address = `${location.pathname}${location.search}${KEY}${await packed(text)}`;
      if (last !== text) return; // another one came meanwhile
      if (history.state?.recipe === text) history.replaceState({ recipe: text }, "", address);
      else history[touched ? "pushState" : "replaceState"]({ recipe: text }, "", address);
    });
    addEventListener("popstate", async ({ state }) => {
      const text = state?.recipe ?? (await read());
      if (!text || text === last) return;
      last = text;
      props.value = text;
      trigger("input");
    });
  }

  globalThis.amalgamLink = { mount, read };
})();
