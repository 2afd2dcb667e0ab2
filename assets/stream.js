"use strict";
/* Keeps a page's answers coming. The page takes the answers to all its events from one stream, which
   the server ends as soon as no event is pending. An event that joins at that moment is told that it
   has joined while the page still holds the ended stream for open: no other is opened, and the event
   never ends or counts as a lost connection. Only here both sides are seen, below Gradio's client, so
   two rules hold: a stream that ends while an event waits is opened again unseen, and no event is
   told that it has joined while the end of a stream is on its way to the page.
   A page that is left cuts its requests itself. Gradio's client would take that for a lost connection
   and write errors: what is cut from then on is not answered at all. */
(() => {
  const globalFetch = globalThis.fetch.bind(globalThis);
  let leaving = false; // this listener comes before the client's, which cuts its stream
  addEventListener("beforeunload", () => { leaving = true; });
  addEventListener("pageshow", () => { leaving = false; });
  const unlessLeft = (error) => (leaving ? new Promise(() => {}) : Promise.reject(error));
  const fetch = (...request) => globalFetch(...request).catch(unlessLeft);
  const joins = new Set(); // requests to join that are under way
  const waiting = new Set(); // ids of events that joined and are not completed
  const early = new Set(); // ids of events completed before their join was answered
  let ended = Promise.resolve(); // fulfilled once the page knows that its last stream has ended

  async function join(request) {
    const counted = request.then(count);
    joins.add(counted);
    try {
      await counted;
    } finally {
      joins.delete(counted);
    }
    await ended;
    return request;
  }

  async function count(answer) {
    const { event_id: id } = answer.ok ? await answer.clone().json() : {};
    if (id && !early.delete(id)) waiting.add(id);
  }

  const CLOSE = 'data: {"msg":"close_stream","event_id":null}\n\n';
  const HEADERS = { "Content-Type": "text/event-stream" };

  async function listen(request) {
    leaving = false; // a page that listens has stayed
    if (!joins.size && !waiting.size) return new Response(CLOSE, { headers: HEADERS });
    const first = await fetch(request);
    if (!first.ok) return first;
    return new Response(
      new ReadableStream({
        start(page) {
          relay(request, first, page).catch(unlessLeft)
            .then(() => page.close()).catch((error) => page.error(error));
        },
      }),
      { headers: HEADERS },
    );
  }

  /* Hands on what the server says until no event waits; the end itself comes last. */
  async function relay(request, answer, page) {
    const encoder = new TextEncoder();
    while (await copied(answer, (block) => page.enqueue(encoder.encode(block)))) {
      await Promise.allSettled([...joins]);
      if (!waiting.size) break;
      answer = await fetch(request);
      if (!answer.ok) break;
    }
    if (waiting.size) throw new TypeError("The stream ended while an event was waiting.");
    const { signal } = request; // the page aborts it when it has read of the end
    if (!signal.aborted) ended = new Promise((done) => signal.addEventListener("abort", done, { once: true }));
    page.enqueue(encoder.encode(CLOSE));
  }

  /* Copies an answer block by block; true where the server said that it closes the stream. */
  async function copied(answer, write) {
    const reader = answer.body.getReader(), decoder = new TextDecoder();
    let rest = "", closed = false;
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return closed;
      const blocks = (rest + decoder.decode(value, { stream: true })).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const { msg, event_id: id } = told(block);
        if (msg === "close_stream") closed = true;
        else write(`${block}\n\n`);
        if (msg === "process_completed" && !waiting.delete(id) && joins.size) early.add(id);
      }
    }
  }

  /* What a block says, where it says that something ended. */
  function told(block) {
    const ends = block.includes('"process_completed"') || block.includes('"close_stream"');
    return ends ? JSON.parse(block.replace(/^data: /, "")) : {};
  }

  globalThis.fetch = (resource, options) => {
    const { pathname } = new URL(resource.url ?? resource, document.baseURI);
    if (pathname.endsWith("/queue/join")) return join(fetch(resource, options));
    if (pathname.endsWith("/queue/data")) return listen(new Request(resource, options));
    return fetch(resource, options);
  };
})();
