"use strict";
/* The editor of a value over depth (ui/explore/gradients.py): points at even distances over the
   layers, moved by mouse, touch or arrow keys. The server is told when a point comes to rest. */
(() => {
  const SVG = "http://www.w3.org/2000/svg", HIGH = 132, LEFT = 40, RIGHT = 12, TOP = 10, FOOT = 22;
  const MOST = 16;

  const make = (tag, attributes, text = "") => {
    const node = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.textContent = text;
    return node;
  };
  const plain = (value) => String(Number(value.toPrecision(4)));
  const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);

  function mount(element, props, watch, trigger) {
    const select = element.querySelector("select"), picture = element.querySelector("svg");
    const words = element.querySelector("[role=status]");
    let facts = null, knob = null, knots = [], chosen = null, resting = 0;

    const wide = () => Math.max(picture.clientWidth, 160);
    const across = (at) => LEFT + (knots.length < 2 ? 0.5 : at / (knots.length - 1)) * (wide() - LEFT - RIGHT);
    const down = (value) => TOP + (1 - (value - knob.low) / (knob.high - knob.low)) * (HIGH - TOP - FOOT);
    const layerOf = (at) => Math.round((at / Math.max(knots.length - 1, 1)) * (facts.layers - 1));
    const fitted = (value) =>
      Math.min(knob.high, Math.max(knob.low, Number((Math.round(value / knob.step) * knob.step).toFixed(6))));

    function named(at) {
      return knots.length < 2 ? `${knob.label}, all layers` : `${knob.label}, layer ${layerOf(at)}`;
    }

    function read() {
      const text = props.value;
      if (!text) return;
      const now = JSON.parse(text);
      if (!now.knobs) return; // what was drawn here
      facts = now;
      const options = facts.knobs.map(({ label }, index) => new Option(label, String(index)));
      const at = Math.max(0, facts.knobs.findIndex(({ id }) => same(id, chosen)));
      select.replaceChildren(...options);
      select.value = String(at);
      take(at);
    }

    function take(at) {
      knob = facts.knobs[at];
      element.querySelector(".gradient").hidden = !knob;
      if (!knob) return;
      chosen = knob.id;
      knots = [...knob.knots];
      draw();
    }

    function draw() {
      const focused = [...picture.querySelectorAll("[role=slider]")].indexOf(document.activeElement);
      const line = knots.length < 2
        ? [[LEFT, down(knots[0])], [wide() - RIGHT, down(knots[0])]]
        : knots.map((value, at) => [across(at), down(value)]);
      const foot = HIGH - FOOT + 16;
      picture.setAttribute("viewBox", `0 0 ${wide()} ${HIGH}`);
      picture.replaceChildren(
        make("line", { x1: LEFT, x2: wide() - RIGHT, y1: HIGH - FOOT, y2: HIGH - FOOT, class: "axis" }),
        make("text", { x: LEFT - 6, y: down(knob.high) + 4, "text-anchor": "end" }, plain(knob.high)),
        make("text", { x: LEFT - 6, y: down(knob.low) + 4, "text-anchor": "end" }, plain(knob.low)),
        make("text", { x: LEFT, y: foot }, "layer 0"),
        make("text", { x: wide() - RIGHT, y: foot, "text-anchor": "end" }, `layer ${facts.layers - 1}`),
        make("polyline", { points: line.map((point) => point.join()).join(" "), class: "line" }),
        ...knots.map((value, at) => make("circle", {
          cx: across(at), cy: down(value), r: 8, tabindex: 0, role: "slider", "aria-label": named(at),
          "aria-valuemin": knob.low, "aria-valuemax": knob.high, "aria-valuenow": plain(value),
        })));
      if (focused >= 0) picture.querySelectorAll("[role=slider]")[Math.min(focused, knots.length - 1)].focus();
      const ends = `Embeddings take ${plain(knots[0])}, as the first layer; so do the final norm and the head.`;
      words.textContent = (knob.mixed ? "It varies by module or model as well; what you draw replaces that. " : "") +
        (knots.length < 2 ? `${plain(knots[0])} everywhere.` : `${knots.map(plain).join(", ")} from the first layer to the last. ${ends}`);
    }

    function tell() {
      clearTimeout(resting);
      resting = setTimeout(() => {
        props.value = JSON.stringify({ id: knob.id, knots });
        trigger("input");
      }, 150);
    }

    function put(at, value) {
      if (fitted(value) === knots[at]) return;
      knots[at] = fitted(value);
      draw();
      tell();
    }

    picture.addEventListener("keydown", (event) => {
      const at = [...picture.querySelectorAll("[role=slider]")].indexOf(event.target);
      const steps = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 10, PageDown: -10 }[event.key];
      const end = { Home: knob.low, End: knob.high }[event.key];
      if (at < 0 || (steps === undefined && end === undefined)) return;
      event.preventDefault();
      put(at, end ?? knots[at] + steps * knob.step);
    });
    picture.addEventListener("pointerdown", (event) => {
      const at = [...picture.querySelectorAll("[role=slider]")].indexOf(event.target);
      if (at < 0) return;
      event.preventDefault();
      event.target.focus();
      picture.setPointerCapture(event.pointerId);
      const move = ({ clientY }) => {
        const share = (clientY - picture.getBoundingClientRect().top - TOP) / (HIGH - TOP - FOOT);
        put(at, knob.high - share * (knob.high - knob.low));
      };
      picture.addEventListener("pointermove", move);
      const leave = () => picture.removeEventListener("pointermove", move);
      picture.addEventListener("pointerup", leave, { once: true });
      picture.addEventListener("pointercancel", leave, { once: true });
    });
    element.addEventListener("click", ({ target }) => {
      const act = target.closest?.("button")?.dataset.act, count = knots.length;
      if (!act) return;
      const at = (share) => {
        const place = share * (count - 1), low = Math.floor(place), high = Math.min(low + 1, count - 1);
        return knots[low] + (knots[high] - knots[low]) * (place - low);
      };
      const next = { fewer: Math.max(1, count - 1), more: Math.min(MOST, facts.layers, count + 1), flat: 1 }[act];
      if (next === count) return;
      const middle = knots.reduce((total, value) => total + value, 0) / count;
      knots = next === 1 ? [fitted(middle)] : Array.from({ length: next }, (_, index) => fitted(at(index / (next - 1))));
      draw();
      tell();
    });
    select.addEventListener("change", () => take(Number(select.value)));
    new ResizeObserver(() => knob && draw()).observe(picture);
    watch("value", read);
    read();
  }

  globalThis.amalgamGradient = { mount };
})();
